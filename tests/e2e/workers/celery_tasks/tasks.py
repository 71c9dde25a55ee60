import json
import os
import time

import redis
import requests
from celery import Celery
from celery.utils.log import get_task_logger

logger = get_task_logger(__name__)

app = Celery("posters", broker=os.environ["REDIS_URL"])
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)

COMFY_URL = os.environ.get("COMFYUI_URL", "http://localhost:8188")
store = redis.Redis.from_url(os.environ["REDIS_URL"])


def set_state(task_id, state, **more):
    store.setex(f"poster:{task_id}", 3600, json.dumps({"task_id": task_id, "state": state, **more}))


def run_workflow(workflow):
    resp = requests.post(f"{COMFY_URL}/prompt", json={"prompt": workflow, "client_id": "celery-worker"})
    if resp.status_code != 200:
        raise RuntimeError(f"ComfyUI returned {resp.status_code}")
    prompt_id = resp.json()["prompt_id"]
    for _ in range(600):
        history = requests.get(f"{COMFY_URL}/history/{prompt_id}").json()
        if prompt_id in history:
            if history[prompt_id]["status"]["status_str"] != "success":
                raise RuntimeError("execution failed")
            return history[prompt_id]["outputs"]
        time.sleep(0.1)
    raise TimeoutError(prompt_id)


@app.task(bind=True, name="posters.render")
def render_poster(self, task_id, payload):
    logger.info("rendering poster %s", task_id)
    set_state(task_id, "STARTED")
    try:
        with open(os.path.join(os.environ["WORKFLOW_DIR"], payload["workflow"] + ".json")) as f:
            workflow = json.load(f)
        for node in workflow.values():
            if "color" in node["inputs"]:
                node["inputs"]["color"] = payload["seed"]
        outputs = run_workflow(workflow)
        urls = []
        for output in outputs.values():
            for image in output["images"]:
                data = requests.get(f"{COMFY_URL}/view", params=image).content
                urls.append(f"s3://posters/{task_id}/{image['filename']}?bytes={len(data)}")
        set_state(task_id, "SUCCESS", urls=urls)
    except Exception as exc:
        logger.error("poster %s failed: %s", task_id, exc)
        set_state(task_id, "FAILURE", error=str(exc))
