"""BullMQ's Python package, with real workers and Redis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from otel_pipeline.demo.redis_server import redis_server
from tests.support.worker_queues import FAULTS, Seen, program

NODE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MAIN = """
    import asyncio, json, os, sys
    import redis.asyncio
    from bullmq import FlowProducer, Queue, Worker
    from bullmq.custom_errors import UnrecoverableError
    from opentelemetry import trace

    tracer = trace.get_tracer("app")
    url = os.environ["REDIS_URL"]
    store = redis.asyncio.Redis.from_url(url)
    tries = {}

    async def process(job, token):
        name = job.name
        tries[job.id] = tries.get(job.id, 0) + 1
        if name in ("good", "child", "parent"):
            with tracer.start_as_current_span("render"):
                await job.updateProgress(50)
        if name == "swallowed":
            return {"status": "failed", "error": "no gpu"}
        if name == "written":
            await store.hset("job:" + job.data["job_id"], mapping={"status": "failed"})
        if name == "raises":
            raise ValueError("bad")
        if name == "final":
            raise UnrecoverableError("never")
        if name == "flaky" and tries[job.id] == 1:
            raise TimeoutError("later")
        if name == "outer":
            queue = Queue("clips", {"connection": url})
            await queue.add("good", {"job_id": "inner-1"})
            await queue.close()

    NAMES = "good swallowed written raises flaky final outer".split()

    async def main():
        queue = Queue("clips", {"connection": url})
        shared = {"attempts": 2}
        added = []
        for name in NAMES:
            with tracer.start_as_current_span("request " + name):
                added.append(await queue.add(name, {"job_id": "app-" + name, "user_id": "u1"}, shared))
        with tracer.start_as_current_span("request bulk"):
            added += await queue.addBulk([{"name": "good", "data": {"job_id": f"bulk-{i}"}} for i in range(2)])
        flows = FlowProducer(url)
        child = {"name": "child", "queueName": "clips", "data": {"job_id": "flow-child"}}
        flow = {"name": "parent", "queueName": "clips", "data": {"job_id": "flow-parent"}, "children": [child]}
        with tracer.start_as_current_span("request flow"):
            await flows.add(flow)
        await queue.add("good", {"job_id": "node-1"}, {"tm": json.dumps({"traceparent": "TRACEPARENT"})})
        worker = Worker("clips", process, {"connection": url, "concurrency": 2})
        told, over = {}, asyncio.Event()
        def tell(job, result):
            if job.name != "raises" or tries[job.id] == 2:
                told[job.data["job_id"]] = [str(result), job.data, tries[job.id]]
            if len(told) == 13:
                over.set()
        def completed(job, result):
            with tracer.start_as_current_span("listener"):
                tell(job, result)
        worker.on("completed", completed)
        worker.on("failed", tell)
        await asyncio.wait_for(over.wait(), 20)
        await worker.close()
        print("RESULT", json.dumps([told, shared, sorted(flow), worker.processor.__name__], sort_keys=True))
        await queue.close()
        await flows.close()
        await store.aclose()

    asyncio.run(main())
""".replace("TRACEPARENT", NODE)
NAMES = ["good", "swallowed", "written", "raises", "flaky", "final", "outer"]


def played(folder: Path, **more: Any) -> Seen:
    with redis_server() as url, program(folder, {"main.py": MAIN}, redis_url=url, **more) as running:
        return running.wait()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return played(tmp_path_factory.mktemp("bullmq"))


def test_there_is_one_trace_for_each_request_and_no_span_of_bullmqs_own(seen: Seen) -> None:
    requests = [f"request {name}" for name in (*NAMES, "bulk", "flow")]
    assert seen.roots() == sorted([*requests, "process clips"]), seen.outline()


def test_a_job_is_below_the_span_that_added_it(seen: Seen) -> None:
    trace = seen.trace_of("request good")
    assert trace.paths() == [
        "request good",
        "request good > send clips",
        "request good > send clips > process clips",
        "request good > send clips > process clips > listener",
        "request good > send clips > process clips > render",
    ]
    job = trace.job
    assert (job.job("id"), job.job("type"), job.get("messaging.message.id")) == ("app-good", "good", "1")
    assert 0 <= job.job("queue_wait") < 60


@pytest.mark.parametrize(
    ("name", "outcomes", "retries"),
    [
        ("good", [("completed", "end", None)], [None]),
        ("swallowed", [("failed", "return", "_OTHER")], [None]),
        ("written", [("failed", "status", "_OTHER")], [None]),
        ("raises", [("failed", "exception", "ValueError")] * 2, [True, None]),
        ("flaky", [("failed", "exception", "TimeoutError"), ("completed", "end", None)], [True, None]),
        (
            "final",
            [("failed", "exception", "bullmq.custom_errors.unrecoverable_error.UnrecoverableError")],
            [None],
        ),
    ],
)
def test_each_attempt_tells_what_became_of_it(seen: Seen, name: str, outcomes: list[Any], retries: list[Any]) -> None:
    jobs = seen.trace_of(f"request {name}").jobs
    assert [job.verdict for job in jobs] == outcomes, seen.outline()
    assert [job.job("attempt") for job in jobs] == list(range(1, len(jobs) + 1))
    assert [job.job("will_retry") for job in jobs] == retries


def test_a_job_of_a_node_program_is_below_its_span(seen: Seen) -> None:
    [job] = [span for span in seen.spans if span.job("id") == "node-1" and span.job("outcome")]
    assert f"00-{job.trace_id}-{job.parent_id}-01" == NODE


def test_each_of_a_bulk_has_a_span_that_sends_it(seen: Seen) -> None:
    trace = seen.trace_of("request bulk")
    assert sorted(job.job("id") for job in trace.jobs) == ["bulk-0", "bulk-1"]
    assert len({job.parent_id for job in trace.jobs}) == 2


def test_the_jobs_of_a_flow_are_one_trace(seen: Seen) -> None:
    assert {job.job("id") for job in seen.trace_of("request flow").jobs} == {"flow-parent", "flow-child"}


def test_a_job_that_a_job_adds_is_in_its_trace(seen: Seen) -> None:
    assert {job.job("id") for job in seen.trace_of("request outer").jobs} == {"app-outer", "inner-1"}


def test_options_that_jobs_share_stay_as_they_were(seen: Seen) -> None:
    assert result(seen)[1] == {"attempts": 2}


def test_faults_of_ours_change_nothing(tmp_path: Path, seen: Seen) -> None:
    broken = played(tmp_path / "broken", **{FAULTS: "bullmq.,quiet."})
    plain = played(tmp_path / "plain", armed=False)
    assert result(broken) == result(plain) == result(seen)


def result(seen: Seen) -> Any:
    line = next(line for line in seen.text.splitlines() if line.startswith("RESULT"))
    return json.loads(line.removeprefix("RESULT"))
