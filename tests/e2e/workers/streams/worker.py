"""Consumes render requests from a Redis stream; results go to another stream."""

import json
import os
import socket
import time
from datetime import UTC, datetime

import redis
import requests
from loguru import logger

STREAM = "render:requests"
RESULTS = "render:results"
GROUP = "render-workers"
CONSUMER = f"{socket.gethostname()}-{os.getpid()}"
COMFY = os.environ.get("COMFYUI_URL", "http://localhost:8188")
TTS = os.environ.get("TTS_URL", "http://localhost:8190")

session = requests.Session()


def load_workflow(name: str, seed: int) -> dict:
    with open(os.path.join(os.environ["WORKFLOW_DIR"], f"{name}.json")) as f:
        graph = json.load(f)
    for node in graph.values():
        if node["class_type"] == "EmptyImage":
            node["inputs"]["color"] = seed
    return graph


def narrate(text: str) -> bytes:
    resp = session.post(f"{TTS}/v1/text-to-speech/narrator", json={"text": text}, timeout=30)
    resp.raise_for_status()
    return resp.content


def run_comfy(graph: dict) -> list[bytes]:
    resp = session.post(f"{COMFY}/prompt", json={"prompt": graph}, timeout=30)
    resp.raise_for_status()
    prompt_id = resp.json()["prompt_id"]
    deadline = time.time() + 60
    while time.time() < deadline:
        history = session.get(f"{COMFY}/history/{prompt_id}", timeout=30).json()
        if history:
            break
        time.sleep(0.15)
    else:
        raise TimeoutError("ComfyUI timed out")
    entry = history[prompt_id]
    if not entry["status"]["completed"]:
        raise RuntimeError("ComfyUI execution failed")
    blobs = []
    for out in entry["outputs"].values():
        for img in out.get("images", []):
            view = session.get(f"{COMFY}/view", params=img, stream=True, timeout=30)
            blobs.append(b"".join(view.iter_content(4096)))
    return blobs


def handle(fields: dict) -> dict:
    payload = json.loads(fields["payload"])
    logger.info("request {} workflow={}", fields["request_id"], payload["workflowName"])
    audio = narrate(payload["script"])
    images = run_comfy(load_workflow(payload["workflowName"], payload["seed"]))
    return {"images": len(images), "audio_bytes": len(audio)}


def main() -> None:
    r = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    try:
        r.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    except redis.ResponseError as e:
        if "BUSYGROUP" not in str(e):
            raise
    logger.info("consumer {} ready", CONSUMER)
    while True:
        batch = r.xreadgroup(GROUP, CONSUMER, {STREAM: ">"}, count=1, block=500)
        for _stream, messages in batch or []:
            for message_id, fields in messages:
                result = {"request_id": fields["request_id"], "finished_at": datetime.now(UTC).isoformat()}
                try:
                    output = handle(fields)
                    result.update(status="done", output=json.dumps(output))
                except Exception as e:
                    logger.exception("request {} failed", fields["request_id"])
                    result.update(status="error", error=f"{type(e).__name__}: {e}")
                finally:
                    r.xack(STREAM, GROUP, message_id)
                r.xadd(RESULTS, result, maxlen=1000)


if __name__ == "__main__":
    main()
