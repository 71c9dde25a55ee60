"""Image worker. Pulls JSON jobs from Redis and renders them on ComfyUI."""

import json
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import redis
import websocket  # pip install websocket-client

SERVER = os.getenv("COMFYUI_ADDRESS", "127.0.0.1:8188")
WORKFLOW_DIR = os.getenv("WORKFLOW_DIR", "workflows")
OUTPUT_DIR = os.getenv("OUTPUT_DIR", "output")
QUEUE = "image:jobs"

client_id = str(uuid.uuid4())
r = redis.from_url(os.getenv("REDIS_URL", "redis://localhost:6379/0"), decode_responses=True)


def queue_prompt(prompt):
    data = json.dumps({"prompt": prompt, "client_id": client_id}).encode("utf-8")
    req = urllib.request.Request(f"http://{SERVER}/prompt", data=data)
    return json.loads(urllib.request.urlopen(req).read())


def get_image(filename, subfolder, folder_type):
    url_values = urllib.parse.urlencode({"filename": filename, "subfolder": subfolder, "type": folder_type})
    with urllib.request.urlopen(f"http://{SERVER}/view?{url_values}") as response:
        return response.read()


def get_history(prompt_id):
    with urllib.request.urlopen(f"http://{SERVER}/history/{prompt_id}") as response:
        return json.loads(response.read())


def get_images(ws, prompt):
    prompt_id = queue_prompt(prompt)["prompt_id"]
    while True:
        out = ws.recv()
        if isinstance(out, str):
            message = json.loads(out)
            if message["type"] == "executing":
                data = message["data"]
                if data["node"] is None and data["prompt_id"] == prompt_id:
                    break  # Execution is done
        else:
            continue  # previews are binary data

    images = []
    history = get_history(prompt_id)[prompt_id]
    for node_id in history["outputs"]:
        for image in history["outputs"][node_id].get("images", []):
            images.append(get_image(image["filename"], image["subfolder"], image["type"]))
    return images


def build_workflow(job):
    with open(os.path.join(WORKFLOW_DIR, job["workflow_name"] + ".json")) as f:
        workflow = json.load(f)
    for node in workflow.values():
        if "color" in node["inputs"]:
            node["inputs"]["color"] = job.get("seed") or random.randint(0, 2**32)
    return workflow


def process(job):
    job_id = job["job_id"]
    print(f"[worker] processing {job_id} ({job['workflow_name']})", flush=True)
    r.set(f"image:status:{job_id}", json.dumps({"job_id": job_id, "status": "processing"}), ex=86400)
    try:
        ws = websocket.WebSocket()
        ws.connect(f"ws://{SERVER}/ws?clientId={client_id}")
        try:
            images = get_images(ws, build_workflow(job))
        finally:
            ws.close()
        if not images:
            raise RuntimeError("No images were generated")
        os.makedirs(OUTPUT_DIR, exist_ok=True)
        paths = []
        for i, image in enumerate(images):
            path = os.path.join(OUTPUT_DIR, f"{job_id}_{i}.png")
            with open(path, "wb") as f:
                f.write(image)
            paths.append(path)
        result = {"job_id": job_id, "status": "completed", "images": paths}
    except urllib.error.HTTPError as e:
        print(f"[worker] ComfyUI said {e.code}: {e.read()[:200]}", flush=True)
        result = {"job_id": job_id, "status": "failed", "error": f"HTTP Error {e.code}"}
    except Exception as e:
        print(f"[worker] Error processing job {job_id}: {e}", flush=True)
        result = {"job_id": job_id, "status": "failed", "error": str(e)}
    r.set(f"image:status:{job_id}", json.dumps(result), ex=86400)


def main():
    print(f"[worker] waiting for jobs on {QUEUE}", flush=True)
    while True:
        try:
            item = r.blpop(QUEUE, timeout=1)
        except redis.exceptions.ConnectionError as e:
            print(f"[worker] redis: {e}", flush=True)
            time.sleep(1)
            continue
        if item is None:
            continue
        process(json.loads(item[1]))


if __name__ == "__main__":
    main()
