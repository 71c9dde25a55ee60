"""ComfyUI on RunPod serverless: the whole workflow comes with the job."""

import base64
import json
import os
import urllib.request
import uuid

import requests
import runpod
import websocket

COMFY_HOST = os.environ.get("COMFYUI_ADDRESS", "127.0.0.1:8188")


def validate_input(job_input):
    if job_input is None:
        return None, "Please provide input"
    if isinstance(job_input, str):
        try:
            job_input = json.loads(job_input)
        except json.JSONDecodeError:
            return None, "Invalid JSON format in input"
    workflow = job_input.get("workflow")
    if workflow is None:
        return None, "Missing 'workflow' parameter"
    return {"workflow": workflow}, None


def check_server():
    try:
        return requests.get(f"http://{COMFY_HOST}/", timeout=5).status_code < 500
    except requests.RequestException:
        return False


def queue_workflow(workflow, client_id):
    payload = json.dumps({"prompt": workflow, "client_id": client_id}).encode("utf-8")
    response = requests.post(
        f"http://{COMFY_HOST}/prompt", data=payload, headers={"Content-Type": "application/json"}, timeout=30
    )
    if response.status_code == 400:
        raise ValueError(f"Workflow validation failed: {response.text[:300]}")
    response.raise_for_status()
    return response.json()


def handler(job):
    validated, error = validate_input(job["input"])
    if error:
        return {"error": error}
    if not check_server():
        return {"error": f"ComfyUI server ({COMFY_HOST}) not reachable."}

    client_id = str(uuid.uuid4())
    ws = None
    errors = []
    try:
        ws = websocket.WebSocket()
        ws.connect(f"ws://{COMFY_HOST}/ws?clientId={client_id}", timeout=30)
        prompt_id = queue_workflow(validated["workflow"], client_id)["prompt_id"]
        while True:
            out = ws.recv()
            if not isinstance(out, str):
                continue
            message = json.loads(out)
            data = message.get("data", {})
            if message["type"] == "executing" and data.get("node") is None and data.get("prompt_id") == prompt_id:
                break
            if message["type"] == "execution_error" and data.get("prompt_id") == prompt_id:
                errors.append(f"Workflow execution error: {data.get('node_type')}: {data.get('exception_message')}")
                break

        with urllib.request.urlopen(f"http://{COMFY_HOST}/history/{prompt_id}", timeout=30) as response:
            history = json.loads(response.read())
        images = []
        for output in history.get(prompt_id, {}).get("outputs", {}).values():
            for image in output.get("images", []):
                response = requests.get(f"http://{COMFY_HOST}/view", params=image, timeout=60)
                images.append({"filename": image["filename"], "data": base64.b64encode(response.content).decode()})
    except Exception as e:
        print(f"worker - {type(e).__name__}: {e}")
        return {"error": str(e)}
    finally:
        if ws is not None and ws.connected:
            ws.close()
    if errors:
        return {"error": "Job processing failed", "details": errors}
    return {"images": images}


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler})
