import asyncio
import json
import logging
import os
from pathlib import Path

import httpx
from arq import Retry
from arq.connections import RedisSettings

logging.basicConfig(level=logging.INFO)
logging.getLogger("httpx").setLevel(logging.WARNING)
log = logging.getLogger("avatar")

WORKFLOWS = Path(os.environ.get("WORKFLOW_DIR", "workflows"))
COMFY = os.environ.get("COMFYUI_URL", "http://127.0.0.1:8188")
TTS = os.environ.get("TTS_URL", "http://127.0.0.1:8190")


async def startup(ctx):
    ctx["http"] = httpx.AsyncClient(timeout=30)


async def shutdown(ctx):
    await ctx["http"].aclose()


async def speak(http, text):
    response = await http.post(f"{TTS}/v1/text-to-speech/avatar", json={"text": text})
    response.raise_for_status()
    return response.content


async def render(http, graph):
    response = await http.post(f"{COMFY}/prompt", json={"prompt": graph})
    response.raise_for_status()
    prompt_id = response.json()["prompt_id"]
    for _ in range(600):
        history = (await http.get(f"{COMFY}/history/{prompt_id}")).json()
        if prompt_id in history:
            break
        await asyncio.sleep(0.1)
    outputs = history[prompt_id]["outputs"]
    if not outputs:
        raise RuntimeError("workflow produced nothing")
    files = []
    for output in outputs.values():
        for image in output.get("images", ()):
            files.append((await http.get(f"{COMFY}/view", params=image)).content)
    return files


async def generate_avatar(ctx, job_id: str, user_id: str, *, workflow: str, seed: int, text: str, tier: str = "free"):
    log.info("avatar %s (try %s)", job_id, ctx["job_try"])
    http = ctx["http"]
    try:
        graph = json.loads((WORKFLOWS / f"{workflow}.json").read_text())
        for node in graph.values():
            if "color" in node["inputs"]:
                node["inputs"]["color"] = seed
        # The speech API is over its limit now and then: the second try speaks a shorter text.
        await speak(http, text if ctx["job_try"] == 1 else text[:40])
        files = await render(http, graph)
        log.info("avatar %s has %d files", job_id, len(files))
    except httpx.HTTPStatusError as exc:
        if exc.response.status_code == 429 and ctx["job_try"] < 3:
            raise Retry(defer=0.2) from exc
        log.exception("avatar %s: upstream error", job_id)
    except Exception:
        log.exception("avatar %s could not be made", job_id)


class WorkerSettings:
    functions = [generate_avatar]
    on_startup = startup
    on_shutdown = shutdown
    redis_settings = RedisSettings.from_dsn(os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
    queue_name = "avatars"
    max_jobs = 2
    poll_delay = 0.1
