"""RunPod's side of a serverless worker: hands out jobs by long poll, takes their results.

    python -m tests.support.worker_runpod --port 8300 jobs.json

The SDK in the worker is the real one; it finds this server through the variables that the platform sets.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from otel_pipeline.demo.loopback import serve_forever

HOLD_S: Final = 0.3
"""How long a poll without a job is held open; the real platform holds it for a minute or more."""


def variables(port: int) -> dict[str, str]:
    """What RunPod sets in a worker's environment."""
    base = f"http://127.0.0.1:{port}/v2/endpoint"
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=NVIDIA+L4",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=NVIDIA+L4",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=NVIDIA+L4",
        "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID",
        "RUNPOD_PING_INTERVAL": "1000",
        "RUNPOD_AI_API_KEY": "loopback",
        "RUNPOD_POD_ID": "pod-1",
        "RUNPOD_ENDPOINT_ID": "endpoint",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
    }


def make_app(jobs: list[dict[str, Any]]) -> web.Application:
    waiting, results = list(jobs), dict[str, Any]()

    async def take(_: web.Request) -> web.Response:
        if waiting:
            return web.json_response(waiting.pop(0))
        await asyncio.sleep(HOLD_S)
        return web.Response(status=204)

    async def take_batch(request: web.Request) -> web.Response:
        count = int(request.query.get("batch_size", 1))
        if waiting:
            taken, waiting[:count] = waiting[:count], []
            return web.json_response(taken)
        await asyncio.sleep(HOLD_S)
        return web.Response(status=204)

    async def nothing(_: web.Request) -> web.Response:
        await asyncio.sleep(HOLD_S)
        return web.Response(status=204)

    async def done(request: web.Request) -> web.Response:
        results[request.match_info["job"]] = json.loads(await request.text())
        return web.json_response({})

    async def ignore(_: web.Request) -> web.Response:
        return web.json_response({})

    async def show(_: web.Request) -> web.Response:
        return web.json_response(results)

    app = web.Application(client_max_size=1 << 24)
    app.router.add_get("/v2/endpoint/job-take/{worker}", take)
    app.router.add_get("/v2/endpoint/job-take-batch/{worker}", take_batch)
    app.router.add_get("/v2/endpoint/job-stop/{worker}", nothing)
    app.router.add_get("/v2/endpoint/ping/{worker}", nothing)
    app.router.add_post("/v2/endpoint/job-done/{worker}/{job}", done)
    app.router.add_post("/v2/endpoint/job-stream/{worker}/{job}", ignore)
    app.router.add_get("/results", show)
    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("jobs")
    arguments = parser.parse_args()
    serve_forever(make_app(json.loads(Path(arguments.jobs).read_text("utf-8"))), arguments.port)


if __name__ == "__main__":
    main()
