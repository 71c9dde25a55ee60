"""Jobs of the "clips" queue. The API looks at job.result, so nothing here may raise."""

import json
import os
import traceback
import uuid

import requests
import websocket

COMFY_HOST = os.environ.get("COMFYUI_ADDRESS", "127.0.0.1:8188")
TTS_URL = os.environ.get("TTS_URL", "http://127.0.0.1:8190")


def _speech(text):
    res = requests.post(f"{TTS_URL}/v1/text-to-speech/narrator", json={"text": text})
    if not res.ok:
        raise Exception(f"TTS failed with {res.status_code}: {res.text}")
    return res.content


def _comfy(workflow):
    client_id = str(uuid.uuid4())
    ws = websocket.create_connection(f"ws://{COMFY_HOST}/ws?clientId={client_id}", timeout=60)
    try:
        res = requests.post(f"http://{COMFY_HOST}/prompt", json={"prompt": workflow, "client_id": client_id})
        data = res.json()
        if "error" in data:
            raise Exception(data["error"]["message"])
        prompt_id = data["prompt_id"]
        while True:
            message = ws.recv()
            if not isinstance(message, str):
                continue
            message = json.loads(message)
            if message["type"] == "execution_error" and message["data"]["prompt_id"] == prompt_id:
                raise Exception(message["data"]["exception_message"])
            if message["type"] == "execution_success" and message["data"]["prompt_id"] == prompt_id:
                break
    finally:
        ws.close()
    history = requests.get(f"http://{COMFY_HOST}/history/{prompt_id}").json()[prompt_id]
    return [
        requests.get(f"http://{COMFY_HOST}/view", params=image).content
        for output in history["outputs"].values()
        for image in output.get("images", [])
    ]


def make_clip(job_id, user_id, workflow_name, seed, text, tier="free"):
    try:
        with open(f"{os.environ['WORKFLOW_DIR']}/{workflow_name}.json") as f:
            workflow = json.load(f)
        for node in workflow.values():
            if "color" in node["inputs"]:
                node["inputs"]["color"] = seed
        _speech(text)
        images = _comfy(workflow)
        return {"status": "completed", "job_id": job_id, "images": len(images)}
    except Exception as e:
        traceback.print_exc()
        return {"status": "failed", "job_id": job_id, "error": str(e)}
