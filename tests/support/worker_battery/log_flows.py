# ruff: noqa: PLC0415
# A flow imports its library itself: with our hooks in place, and only if it is run. All servers are on loopback.
"""Logs, and our own API."""

from __future__ import annotations

import io
import logging
import traceback
from contextlib import redirect_stderr
from typing import Any

from tests.support.worker_battery.core import (
    TASK,
    TEXT,
    World,
    asynchronous,
    flow,
)
from tests.support.worker_battery.thread_flows import fail


@flow
def logs(world: World) -> Any:
    import loguru

    client = world.redis()
    client.rpush("jobs:queue", TEXT)
    client.lpop("jobs:queue")
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    log = logging.getLogger("battery")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    sink = loguru.logger.add(written, format="{level} {message}", diagnose=False, backtrace=False)
    try:
        log.info("with %s", "arguments")
        log.warning("giving up on it")
        try:
            fail()
        except KeyError:
            log.exception("swallowed")
            loguru.logger.exception("swallowed too")
            with redirect_stderr(written):
                traceback.print_exc()
        loguru.logger.bind(own=1).info("bound {}", 2)
    finally:
        log.removeHandler(handler)
        loguru.logger.remove(sink)
        client.lpop("jobs:queue")
        client.close()
    # Lines of source code are left out: they change while tests are written.
    return [line for line in written.getvalue().splitlines() if not line.startswith(" ")]


@asynchronous
async def own_api(_: World) -> Any:
    from otel_pipeline.worker import job, measure, record_event, record_failover, stage

    @job("render")
    def plain(task: dict[str, Any]) -> int:
        with stage("image", model="flux") as image:
            image.set("images", 2)
        record_event("own.event", {"a": 1})
        record_failover("local", "runpod", reason="timeout")
        return len(task)

    @job("render")
    async def coroutine(task: dict[str, Any]) -> None:
        async with stage("tts"):
            raise ValueError(task["job_id"])

    seen: list[Any] = [plain(TASK)]
    try:
        await coroutine(TASK)
    except ValueError as error:
        seen.append(str(error))
    with job("video", id="own", user="u") as this:
        this.set("tier", "pro")
        this.outcome("failed", error_type="own words")
        with measure("model.inference.duration", model="flux"):
            seen.append("measured")
    return seen
