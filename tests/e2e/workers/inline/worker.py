# render bot, runs on the gpu box:  python worker.py
import json
import os
import time
import traceback
import urllib.request
import uuid

import redis
from websockets.sync.client import connect

if __name__ == "__main__":
    host = os.environ.get("COMFYUI_ADDRESS", "127.0.0.1:8188")
    workflows = os.environ.get("WORKFLOW_DIR", "workflows")
    db = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
    print("bot started", flush=True)
    while True:
        raw = db.lpop("renderbot")
        if raw is None:
            time.sleep(0.05)
            continue
        try:
            job = json.loads(raw)
            print("got", job["id"], flush=True)
            with open(f"{workflows}/{job['type']}.json") as f:
                graph = json.load(f)
            for node in graph.values():
                if "color" in node["inputs"]:
                    node["inputs"]["color"] = job["seed"]
            client = str(uuid.uuid4())
            with connect(f"ws://{host}/ws?clientId={client}") as ws:
                body = json.dumps({"prompt": graph, "client_id": client}).encode()
                req = urllib.request.Request(f"http://{host}/prompt", data=body)
                with urllib.request.urlopen(req) as response:
                    prompt_id = json.loads(response.read())["prompt_id"]
                # no idea which message is the last one, so: until it is quiet or the node is null
                while True:
                    try:
                        msg = ws.recv(timeout=5)
                    except TimeoutError:
                        break
                    if isinstance(msg, bytes):
                        continue
                    msg = json.loads(msg)
                    if msg["type"] == "executing" and msg["data"]["node"] is None:
                        break
            with urllib.request.urlopen(f"http://{host}/history/{prompt_id}") as response:
                outputs = json.loads(response.read())[prompt_id]["outputs"]
            for n, image in enumerate(outputs["9"]["images"]):
                url = f"http://{host}/view?filename={image['filename']}&subfolder={image['subfolder']}&type=output"
                urllib.request.urlretrieve(url, f"{job['id']}_{n}.png")
            print("done", job["id"], flush=True)
        except Exception:
            traceback.print_exc()
