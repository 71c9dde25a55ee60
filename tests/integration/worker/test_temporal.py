"""Temporal workers, against the real development server."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.worker_script import Finished, run
from tests.support.worker_temporal import temporal_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with temporal_server(tmp_path_factory.mktemp("temporal")) as address:
        yield address


WORKER = """
    import asyncio, os, sys
    from concurrent.futures import ThreadPoolExecutor
    from datetime import timedelta

    from opentelemetry import trace
    from opentelemetry.trace import SpanKind
    from temporalio.client import Client, WorkflowFailureError
    from temporalio.worker import Worker

    from stages import Child, Video, render, say, upload

    async def main():
        client = await Client.connect(sys.argv[1])
        with ThreadPoolExecutor(4) as pool:
            async with Worker(client, task_queue="gpu", workflows=[Video, Child], activities=[render, say, upload],
                              activity_executor=pool):
                for name in ("good", "bad"):
                    with trace.get_tracer("program").start_as_current_span("POST " + name, kind=SpanKind.SERVER):
                        handle = await client.start_workflow(
                            Video.run, {"user_id": "u1", "fail": name == "bad"}, id="video-" + name, task_queue="gpu"
                        )
                    try:
                        print(await handle.result())
                    except WorkflowFailureError as error:
                        print("failed:", error.cause.cause)

    asyncio.run(main())
    # Not through the interpreter's finalization: there the SDK's runtime aborts now and then, with us and without.
    sys.stdout.flush()
    os._exit(0)
"""
STAGES = """
    from datetime import timedelta
    from temporalio import activity, workflow
    from temporalio.common import RetryPolicy

    with workflow.unsafe.imports_passed_through():
        from opentelemetry import trace

    ONCE = RetryPolicy(maximum_attempts=1)
    LIMIT = timedelta(seconds=20)

    def step(name):
        with trace.get_tracer("program").start_as_current_span(name):
            pass

    @activity.defn
    async def say(job: dict) -> str:
        step("work say")
        if activity.info().attempt == 1:
            raise RuntimeError("voice service is busy")
        return "audio"

    @activity.defn
    def render(job: dict) -> dict:
        step("work render")
        return {"error": "CUDA out of memory"} if job["fail"] else {"frames": 24}

    @activity.defn
    async def upload(job: dict) -> str:
        step("work upload")
        if job["fail"]:
            raise LookupError("no frames")
        return "url"

    @workflow.defn
    class Child:
        @workflow.run
        async def run(self, job: dict) -> str:
            return await workflow.execute_activity(upload, job, start_to_close_timeout=LIMIT, retry_policy=ONCE)

    @workflow.defn
    class Video:
        @workflow.run
        async def run(self, job: dict) -> str:
            quick = RetryPolicy(initial_interval=timedelta(milliseconds=1), maximum_attempts=3)
            await workflow.execute_activity(say, job, start_to_close_timeout=LIMIT, retry_policy=quick)
            await workflow.execute_activity(render, job, start_to_close_timeout=LIMIT, retry_policy=ONCE)
            return await workflow.execute_child_workflow(Child.run, job, id=workflow.info().workflow_id + "-child")
"""


@pytest.fixture(scope="module")
def done(server: str, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    finished = run(tmp_path_factory.mktemp("worker"), {"worker.py": WORKER, "stages.py": STAGES}, server)
    assert finished.returncode == 0, finished.errors
    return finished


def test_the_program_gets_what_it_would_get(done: Finished) -> None:
    assert done.output.splitlines()[0] == "url"
    assert done.output.splitlines()[1].startswith("failed:")
    assert "sandbox" not in done.errors


def test_each_attempt_at_an_activity_is_a_job_with_its_outcome(done: Finished) -> None:
    found = [
        (job.name, job.get("otel_pipeline.job.attempt"), job.outcome, job.source, job.job_id) for job in done.jobs()
    ]
    good, bad = "video-good", "video-bad"
    assert found == [
        ("process say", 1, "failed", "exception", good),
        ("process say", 2, "completed", "end", good),
        ("process render", 1, "completed", "end", good),
        ("process upload", 1, "completed", "end", good),
        ("process say", 1, "failed", "exception", bad),
        ("process say", 2, "completed", "end", bad),
        ("process render", 1, "failed", "return", bad),
        ("process upload", 1, "failed", "exception", bad),
    ]


def test_a_workflow_is_one_trace_from_its_start(done: Finished) -> None:
    assert len(done.traces()) == 2
    assert sorted(done.roots()) == ["POST bad", "POST good"]
    sends = {span.span_id for span in done.named("send Video")}
    assert {job.parent_id for job in done.jobs()} == sends
    assert {span.parent_id for span in done.spans if span.name.startswith("work ")} == {
        job.span_id for job in done.jobs()
    }


def test_a_fault_of_ours_changes_nothing(server: str, tmp_path: Path) -> None:
    faults = """
        from otel_pipeline.worker.guard import HOOKS
        from otel_pipeline.worker.adapters import temporal_worker
        for name, each in HOOKS.items():
            if name.startswith("temporal."):
                each.fault = RuntimeError("ours")
    """
    script = textwrap.dedent(faults) + textwrap.dedent(WORKER).replace("video-", "fault-")
    finished = run(tmp_path, {"worker.py": script, "stages.py": STAGES}, server)
    assert (finished.returncode, finished.output.splitlines()[0], finished.jobs()) == (0, "url", [])
