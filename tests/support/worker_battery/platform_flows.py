# ruff: noqa: PLC0415, S501, S106
# A flow imports its library itself: with our hooks in place, and only if it is run. All servers are on loopback.
"""BullMQ, RunPod, SQS and FastAPI."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from contextlib import redirect_stdout
from typing import Any

from tests.support.worker_battery.core import (
    TASK,
    TEXT,
    World,
    asynchronous,
    attempt,
    flow,
)


@asynchronous
async def bullmq_jobs(world: World) -> Any:
    from bullmq import FlowProducer, Queue, Worker

    client = world.async_redis()
    await client.flushdb()
    options = {"connection": world.redis_url}
    queue, done, seen = Queue("videos", options), asyncio.Event(), list[Any]()

    async def process(job: Any, _token: str) -> Any:
        seen.append([job.name, job.data])
        if job.name == "broken":
            done.set()
            raise ValueError("of the host")
        return {"status": "failed"}

    await queue.add("render", TASK, {"jobId": "own-1"})
    seen.append((await client.hget("bull:videos:own-1", "data")).decode())
    bulk = await queue.addBulk([{"name": "render", "data": TASK, "opts": {"jobId": "own-3"}}])
    seen.append([each.id for each in bulk])
    producer = FlowProducer(world.redis_url)
    tree = await producer.add({"name": "render", "queueName": "others", "data": TASK})
    seen.append(sorted(tree))
    await producer.close()
    await queue.add("broken", TASK, {"jobId": "own-2"})
    worker = Worker("videos", process, options)
    await asyncio.wait_for(done.wait(), 5)
    for _ in range(200):
        if await client.hget("bull:videos:own-2", "failedReason"):
            break
        await asyncio.sleep(0.01)
    values = [
        await client.hget("bull:videos:own-1", "returnvalue"),
        await client.hget("bull:videos:own-2", "failedReason"),
    ]
    await worker.close()
    await queue.close()
    await client.aclose()
    return [*seen, *values]


@flow
def runpod_handlers(_: World) -> Any:
    import runpod.serverless
    from runpod.serverless.modules import rp_handler, rp_job

    def handler(job: dict[str, Any]) -> dict[str, Any]:
        return {"error": "told by value", "id": job["input"]["job_id"]}

    async def broken(job: dict[str, Any]) -> None:
        raise ValueError(job["input"]["job_id"])

    def stream(job: dict[str, Any]) -> Any:
        yield job["input"]["job_id"]
        yield 2

    seen: list[Any] = []
    before, main = sys.argv, runpod.serverless.worker.main
    for each in (handler, broken, stream):
        sys.argv = ["worker", "--test_input", json.dumps({"id": "local", "input": TASK})]
        started: list[Any] = []
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                seen.append(attempt(runpod.serverless.start, {"handler": each}))
                # The handler as the SDK's own loop gets it.
                runpod.serverless.worker.main = started.append
                runpod.serverless.start({"handler": each, "own": 1})
        finally:
            sys.argv, runpod.serverless.worker.main = before, main
        [config] = started
        seen += [config["own"], rp_handler.is_generator(config["handler"]), "told by value" in printed.getvalue()]
        job = {"id": "again", "input": TASK}
        with redirect_stdout(printed):
            if each is stream:
                seen.append(asyncio.run(_runpod_stream(rp_job.run_job_generator(config["handler"], job))))
            else:
                result = asyncio.run(rp_job.run_job(config["handler"], job))
                seen.append([sorted(result), "ValueError" in str(result), result.get("output")])
    return seen


async def _runpod_stream(outputs: Any) -> list[Any]:
    return [each async for each in outputs]


@flow
def sqs_messages(_: World) -> Any:
    import boto3
    import moto

    seen: list[Any] = []
    with moto.mock_aws():
        sqs = boto3.client("sqs", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
        url = sqs.create_queue(QueueName="renders")["QueueUrl"]
        # What is not looked at: a context travels in SQS's own place for attributes, and their checksum is told.
        seen.append(set(sqs.send_message(QueueUrl=url, MessageBody=TEXT)) >= {"MD5OfMessageBody", "MessageId"})
        entries = [{"Id": str(n), "MessageBody": f"bare-{n}"} for n in range(2)]
        seen.append(len(sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]))
        for _ in range(4):
            received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1).get("Messages", [])
            for message in received:
                seen.append([message["Body"], message["MD5OfBody"]])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        seen.append(attempt(sqs.receive_message, QueueUrl="http://nowhere.invalid/1/none")[0])
    return seen


@asynchronous
async def background_tasks(_: World) -> Any:
    import httpx
    from fastapi import BackgroundTasks, FastAPI
    from starlette.background import BackgroundTask
    from starlette.responses import JSONResponse

    seen: list[Any] = []
    app = FastAPI()

    def render(job_id: str) -> None:
        seen.append(job_id)

    async def broken(job_id: str) -> None:
        raise ValueError(job_id)

    async def create(background: Any) -> dict[str, str]:
        background.add_task(render, "job-1")
        background.add_task(render, job_id="job-2")
        return {"id": "job-1"}

    create.__annotations__["background"] = BackgroundTasks  # FastAPI finds no names that are local here
    app.post("/jobs")(create)

    @app.post("/broken")
    async def create_broken() -> JSONResponse:
        return JSONResponse({"id": "b"}, background=BackgroundTask(broken, "job-3"))

    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(verify=False, transport=transport, base_url="http://app") as http:
        headers = {"x-correlation-id": "corr-1"}
        for path in ("/jobs", "/broken", "/nowhere"):
            answer = await http.post(path, headers=headers)
            seen += [answer.status_code, answer.text]
    return seen
