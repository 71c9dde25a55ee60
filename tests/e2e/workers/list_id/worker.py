"""Video orchestrator: ids come over a list, everything else is in a hash."""

import copy
import json
import logging
import os
import time
import uuid
from pathlib import Path

import httpx
import redis

logging.basicConfig(level=logging.INFO, format="%(asctime)s [%(levelname)s] %(name)s: %(message)s")
logger = logging.getLogger("orchestrator")

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
COMFYUI_URL = os.environ.get("COMFYUI_URL", "http://localhost:8188")
TTS_URL = os.environ.get("TTS_URL", "http://localhost:8190")
WORKFLOWS = {path.stem: json.loads(path.read_text()) for path in Path(os.environ["WORKFLOW_DIR"]).glob("*.json")}

QUEUE_KEY = "orchestrator:queue"
JOB_KEY = "orchestrator:job:{}"


class JobCancelled(Exception):
    pass


class Orchestrator:
    def __init__(self):
        self.redis = redis.Redis.from_url(REDIS_URL, decode_responses=True)
        self.http = httpx.Client(timeout=30.0)
        self.client_id = uuid.uuid4().hex

    def update(self, job_id, **fields):
        fields["updated_at"] = time.time()
        self.redis.hset(JOB_KEY.format(job_id), mapping=fields)

    def check_cancelled(self, job_id):
        if self.redis.hget(JOB_KEY.format(job_id), "cancel_requested"):
            raise JobCancelled(job_id)

    def speak(self, text, voice):
        response = self.http.post(f"{TTS_URL}/v1/text-to-speech/{voice}", json={"text": text})
        response.raise_for_status()
        return response.content

    def submit(self, workflow):
        response = self.http.post(f"{COMFYUI_URL}/prompt", json={"prompt": workflow, "client_id": self.client_id})
        if response.status_code != 200:
            raise RuntimeError(f"ComfyUI rejected the workflow: {response.text[:200]}")
        return response.json()["prompt_id"]

    def wait(self, job_id, prompt_id, timeout=120):
        started = time.time()
        while time.time() - started < timeout:
            history = self.http.get(f"{COMFYUI_URL}/history/{prompt_id}").json()
            if prompt_id in history:
                entry = history[prompt_id]
                if entry["status"]["status_str"] == "error":
                    raise RuntimeError(
                        f"workflow failed: {entry['status']['messages'][-1][1].get('exception_message')}"
                    )
                return entry["outputs"]
            try:
                self.check_cancelled(job_id)
            except JobCancelled:
                running = self.http.get(f"{COMFYUI_URL}/queue").json()["queue_running"]
                if any(item[1] == prompt_id for item in running):
                    self.http.post(f"{COMFYUI_URL}/interrupt", json={"prompt_id": prompt_id})
                    raise
            time.sleep(0.1)
        raise TimeoutError(f"prompt {prompt_id} timed out")

    def render(self, job_id, name, seed):
        workflow = copy.deepcopy(WORKFLOWS[name])
        for node in workflow.values():
            if "color" in node["inputs"]:
                node["inputs"]["color"] = seed
        outputs = self.wait(job_id, self.submit(workflow))
        files = []
        for node in outputs.values():
            for image in node.get("images", []):
                response = self.http.get(f"{COMFYUI_URL}/view", params=image)
                response.raise_for_status()
                files.append(response.content)
        return files

    def process_job(self, job_id):
        job = self.redis.hgetall(JOB_KEY.format(job_id))
        if not job:
            logger.warning("job %s vanished", job_id)
            return
        logger.info("starting job %s for workflow %s", job_id, job["workflow"])
        try:
            self.update(job_id, status="processing", stage="tts")
            self.speak(job["text"], job.get("voice", "narrator"))
            self.update(job_id, stage="image")
            images = self.render(job_id, job["workflow"], int(job["seed"]))
            self.update(job_id, status="completed", stage="done", images=len(images))
            logger.info("job %s completed", job_id)
        except JobCancelled:
            logger.info("job %s cancelled by user", job_id)
            self.update(job_id, status="cancelled")
        except Exception as exc:
            logger.exception("job %s failed", job_id)
            self.update(job_id, status="failed", error=str(exc))

    def run(self):
        logger.info("listening on %s", QUEUE_KEY)
        while True:
            item = self.redis.brpop(QUEUE_KEY, timeout=1)
            if item:
                self.process_job(item[1])


if __name__ == "__main__":
    logging.getLogger("httpx").setLevel(logging.WARNING)
    Orchestrator().run()
