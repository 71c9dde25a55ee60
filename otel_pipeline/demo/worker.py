"""A video worker as they are met in practice: a Redis list of job ids, a text-to-speech API, ComfyUI, logs.

It knows nothing of OpenTelemetry or of this project; that is what it is here to show. Like most real workers it turns
every failure into a status and goes on with the next job. SIGTERM lets it finish the job at hand.

    opentelemetry-instrument python worker.py
"""

import copy
import json
import logging
import os
import signal
import time
import uuid
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import redis

QUEUE = "video_orchestrator:queue"
JOB_KEY = "video_orchestrator:job:{id}"
STATUS_KEY = "video_orchestrator:status:{id}"
STATUS_TTL_S = 24 * 3600

POP_TIMEOUT_S = 1
POLL_INTERVAL_S = 0.2
PROMPT_TIMEOUT_S = 120
RETRY_REDIS_S = 1

log = logging.getLogger("video_worker")


class ComfyUIError(Exception):
    """ComfyUI refused or failed a workflow."""


class Worker:
    """Takes jobs from the queue, one after the other."""

    def __init__(self, database: "redis.Redis", speech: "SpeechAPI", comfyui: "ComfyUI", output: Path) -> None:
        self.redis = database
        self.speech = speech
        self.comfyui = comfyui
        self.output = output
        self.stopping = False

    def run(self) -> None:
        log.info("waiting for jobs on %s", QUEUE)
        while not self.stopping:
            try:
                popped: Any = self.redis.blpop([QUEUE], timeout=POP_TIMEOUT_S)
                if popped:
                    self.process_job(popped[1])
            except redis.RedisError as error:
                log.warning("Redis: %s", error)
                time.sleep(RETRY_REDIS_S)
        log.info("stopped")

    def stop(self, signum: int, _frame: FrameType | None) -> None:
        log.info("signal %d: stopping after this job", signum)
        self.stopping = True

    def process_job(self, job_id: str) -> None:
        """Makes one video; whatever goes wrong ends up in the job's status."""
        raw: Any = self.redis.get(JOB_KEY.format(id=job_id))
        if raw is None:
            log.warning("job %s has no data", job_id)
            return
        job = json.loads(raw)
        log.info("job %s started, workflow %s", job_id, job["workflow"])
        try:
            folder = self.make_video(job)
        except Exception as error:
            log.exception("job %s failed", job_id)
            reason = f"{type(error).__name__}: {error}"
            if isinstance(error, ComfyUIError) and job["fallback_workflow"]:
                self.try_again(job, reason)
            else:
                self.set_status(job_id, status="failed", error=reason)
        else:
            log.info("job %s completed", job_id)
            self.set_status(job_id, status="completed", result=str(folder))

    def try_again(self, job: dict[str, Any], reason: str) -> None:
        """Puts the job back into the queue, with a workflow that asks for less."""
        job_id = job["id"]
        again = {**job, "workflow": job["fallback_workflow"], "fallback_workflow": ""}
        self.redis.set(JOB_KEY.format(id=job_id), json.dumps(again))
        self.set_status(job_id, status="retrying", error=reason)
        self.redis.rpush(QUEUE, job_id)

    def make_video(self, job: dict[str, Any]) -> Path:
        self.set_status(job["id"], status="processing", stage="tts")
        voice = self.speech.speak(job["voice"], job["text"])
        self.set_status(job["id"], status="processing", stage="image")
        image = self.comfyui.render(job["workflow"], job["seed"])
        self.set_status(job["id"], status="processing", stage="video")
        video = self.comfyui.render("image_to_video", job["seed"])
        self.set_status(job["id"], status="processing", stage="upload")
        return self.upload(job["id"], {"voice.wav": voice, "image.png": image, "video.png": video})

    def upload(self, job_id: str, results: dict[str, bytes]) -> Path:
        folder = self.output / job_id
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in results.items():
            (folder / name).write_bytes(content)
        return folder

    def set_status(self, job_id: str, **fields: str) -> None:
        key = STATUS_KEY.format(id=job_id)
        values: dict[Any, Any] = {**fields, "updated_at": time.time()}
        self.redis.hset(key, mapping=values)
        self.redis.expire(key, STATUS_TTL_S)


class SpeechAPI:
    def __init__(self, url: str, http: httpx.Client) -> None:
        self.url = url
        self.http = http

    def speak(self, voice: str, text: str) -> bytes:
        answer = self.http.post(
            f"{self.url}/v1/text-to-speech/{voice}", json={"text": text, "model_id": "multilingual_v2"}
        )
        answer.raise_for_status()
        log.info("spoke %s characters", answer.headers.get("x-character-count"))
        return answer.content


class ComfyUI:
    def __init__(self, url: str, http: httpx.Client) -> None:
        self.url = url
        self.http = http
        self.client_id = uuid.uuid4().hex
        self.workflows = json.loads(Path(__file__).with_name("workflows.json").read_text())

    def render(self, name: str, seed: int) -> bytes:
        """Runs a workflow and returns its first image."""
        prompt_id = self.submit(self.workflow(name, seed))
        entry = self.wait(prompt_id)
        for output in entry["outputs"].values():
            for image in output.get("images", []):
                answer = self.http.get(f"{self.url}/view", params=image)
                answer.raise_for_status()
                return answer.content
        raise ComfyUIError(f"prompt {prompt_id} made no image")

    def workflow(self, name: str, seed: int) -> dict[str, Any]:
        workflow: dict[str, Any] = copy.deepcopy(self.workflows[name])
        for node in workflow.values():
            if "color" in node["inputs"]:
                node["inputs"]["color"] = seed
        return workflow

    def submit(self, workflow: dict[str, Any]) -> str:
        answer = self.http.post(f"{self.url}/prompt", json={"prompt": workflow, "client_id": self.client_id})
        if answer.status_code == 400:
            body = answer.json()
            details = [error["details"] for node in body["node_errors"].values() for error in node["errors"]]
            raise ComfyUIError(f"{body['error']['message']}: {'; '.join(details) or body['error']['details']}")
        answer.raise_for_status()
        return str(answer.json()["prompt_id"])

    def wait(self, prompt_id: str) -> dict[str, Any]:
        """Polls the history until the prompt is over."""
        deadline = time.monotonic() + PROMPT_TIMEOUT_S
        while time.monotonic() < deadline:
            history = self.http.get(f"{self.url}/history/{prompt_id}").json()
            if prompt_id in history:
                entry: dict[str, Any] = history[prompt_id]
                if entry["status"]["status_str"] == "error":
                    _, problem = entry["status"]["messages"][-1]
                    raise ComfyUIError(f"{problem.get('exception_type')}: {problem.get('exception_message')}")
                return entry
            time.sleep(POLL_INTERVAL_S)
        raise TimeoutError(f"prompt {prompt_id} was not ready after {PROMPT_TIMEOUT_S} s")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with httpx.Client(timeout=30) as http:
        worker = Worker(
            redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"), decode_responses=True),
            SpeechAPI(os.environ.get("TTS_URL", "http://127.0.0.1:8190"), http),
            ComfyUI(os.environ.get("COMFYUI_URL", "http://127.0.0.1:8188"), http),
            Path(os.environ.get("OUTPUT_DIR", "output")),
        )
        signal.signal(signal.SIGTERM, worker.stop)
        worker.run()


if __name__ == "__main__":
    main()
