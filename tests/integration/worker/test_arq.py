"""arq, with real workers and Redis. It needs an older redis-py than the others, so it is not beside them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from otel_pipeline.demo.redis_server import redis_server
from tests.support.worker_queues import FAULTS, ROOT, Seen, program

ARQ = Path(os.environ.get("OTEL_PIPELINE_PEERS") or ROOT / ".cache" / "peers") / "arq"
pytestmark = pytest.mark.skipif(not ARQ.is_dir(), reason="arq is not installed in .cache/peers")

MAIN = """
    import asyncio, json, logging, os, sys
    from arq import Retry, create_pool, cron
    from arq.connections import RedisSettings
    from arq.worker import Worker, func
    from opentelemetry import trace

    tracer = trace.get_tracer("app")
    log = logging.getLogger("app")
    settings = RedisSettings.from_dsn(os.environ["REDIS_URL"])

    async def good(ctx, job_id, user_id="u1"):
        with tracer.start_as_current_span("render"):
            await ctx["redis"].set("out:" + job_id, "x")

    async def swallowed(ctx, job_id):
        return {"status": "failed", "error": "no gpu"}

    async def written(ctx, job_id):
        await ctx["redis"].hset("job:" + job_id, mapping={"status": "failed"})

    async def raises(ctx, job_id):
        raise ValueError("bad")

    async def flaky(ctx, job_id):
        if ctx["job_try"] == 1:
            try:
                raise TimeoutError("later")
            except TimeoutError as error:
                raise Retry(defer=0.05) from error

    async def asks(ctx, job_id):
        if ctx["job_try"] == 1:
            raise Retry()

    async def slow(ctx, job_id):
        await asyncio.sleep(30)

    async def aborted(ctx, job_id):
        await asyncio.sleep(30)

    async def outer(ctx, job_id):
        await ctx["redis"].enqueue_job("good", "inner-1")

    async def tick(ctx):
        pass

    NAMES = "good swallowed written raises flaky asks slow unknown aborted outer".split()

    async def main():
        pool = await create_pool(settings, default_queue_name="avatars")
        jobs = {}
        for name in NAMES:
            with tracer.start_as_current_span("request " + name):
                jobs[name] = await pool.enqueue_job(name, "app-" + name)
        with tracer.start_as_current_span("request again"):
            assert await pool.enqueue_job("good", "other", _job_id=jobs["good"].job_id) is None
        functions = [good, swallowed, written, raises, flaky, asks, func(slow, timeout=0.2), aborted, outer]
        worker = Worker(
            functions, redis_settings=settings, queue_name="avatars", burst=True, poll_delay=0.02,
            handle_signals=False, allow_abort_jobs=True, cron_jobs=[cron(tick, run_at_startup=True)],
        )
        async def abort():
            while "aborted" not in started:
                await asyncio.sleep(0.01)
            with tracer.start_as_current_span("request abort"):
                await jobs["aborted"].abort(poll_delay=0.02)
        started = set()
        async def on_job_start(ctx):
            with tracer.start_as_current_span("on start"):
                pass
            if ctx["job_id"] == jobs["aborted"].job_id:
                started.add("aborted")
        worker.on_job_start = on_job_start
        task = asyncio.create_task(abort())
        await worker.async_run()
        await task
        told = {}
        for name, job in jobs.items():
            info = await job.result_info()
            told[name] = [info.success, repr(info.result), info.job_try, list(info.args), info.kwargs]
        left = [key.decode() for key in await pool.keys("otelp:*")]
        print("RESULT", json.dumps([told, sorted(left)]))
        await worker.close()
        await pool.aclose()

    asyncio.run(main())
"""
NAMES = ["good", "swallowed", "written", "raises", "flaky", "asks", "slow", "unknown", "aborted", "outer"]


def played(folder: Path, **more: Any) -> Seen:
    with redis_server() as url, program(folder, {"main.py": MAIN}, redis_url=url, path=(str(ARQ),), **more) as running:
        return running.wait()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return played(tmp_path_factory.mktemp("arq"))


def test_there_is_one_trace_for_each_request_and_no_span_of_arqs_own(seen: Seen) -> None:
    requests = [f"request {name}" for name in (*NAMES, "again", "abort")]
    assert seen.roots() == sorted([*requests, "process avatars"]), seen.outline()


def test_a_job_is_below_the_span_that_enqueued_it(seen: Seen) -> None:
    trace = seen.trace_of("request good")
    assert trace.paths() == [
        "request good",
        "request good > send avatars",
        "request good > send avatars > process avatars",
        "request good > send avatars > process avatars > on start",
        "request good > send avatars > process avatars > render",
        "request good > send avatars > process avatars > render > SET",
    ]
    assert (trace.job.job("id"), trace.job.job("type")) == ("app-good", "good")
    assert 0 <= trace.job.job("queue_wait") < 60


@pytest.mark.parametrize(
    ("name", "outcomes", "retries"),
    [
        ("good", [("completed", "end", None)], [None]),
        ("swallowed", [("failed", "return", "_OTHER")], [None]),
        ("written", [("failed", "status", "_OTHER")], [None]),
        ("raises", [("failed", "exception", "ValueError")], [None]),
        ("flaky", [("failed", "framework", "TimeoutError"), ("completed", "end", None)], [True, None]),
        ("asks", [("skipped", "framework", None), ("completed", "end", None)], [True, None]),
        ("slow", [("failed", "framework", "TimeoutError")], [None]),
        ("unknown", [("failed", "framework", "arq.worker.JobExecutionFailed")], [None]),
        ("aborted", [("cancelled", "framework", "aborted")], [None]),
    ],
)
def test_each_attempt_tells_what_became_of_it(seen: Seen, name: str, outcomes: list[Any], retries: list[Any]) -> None:
    jobs = seen.trace_of(f"request {name}").jobs
    assert [job.verdict for job in jobs] == outcomes, seen.outline()
    assert [job.job("attempt") for job in jobs] == list(range(1, len(jobs) + 1))
    assert [job.job("will_retry") for job in jobs] == retries


def test_a_job_that_a_job_enqueues_is_in_its_trace(seen: Seen) -> None:
    trace = seen.trace_of("request outer")
    assert {job.job("id") for job in trace.jobs} == {"app-outer", "inner-1"}


def test_a_job_that_arq_has_already_is_not_another_one(seen: Seen) -> None:
    assert seen.trace_of("request again").jobs == []


def test_a_cron_job_is_the_root_of_its_trace(seen: Seen) -> None:
    trace = seen.trace_of("process avatars")
    assert (trace.job.job("type"), trace.job.verdict[0]) == ("cron:tick", "completed")


def test_no_context_is_left_in_redis(seen: Seen) -> None:
    assert result(seen)[1] == []


def test_faults_of_ours_change_nothing(tmp_path: Path, seen: Seen) -> None:
    broken = played(tmp_path / "broken", **{FAULTS: "arq.,quiet.,redis."})
    plain = played(tmp_path / "plain", armed=False)
    assert result(broken)[0] == result(plain)[0] == result(seen)[0]


def result(seen: Seen) -> Any:
    line = next(line for line in seen.text.splitlines() if line.startswith("RESULT"))
    return json.loads(line.removeprefix("RESULT"))
