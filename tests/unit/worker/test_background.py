"""Background tasks of Starlette and FastAPI are jobs, children of the request."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.worker_script import Finished, run

FASTAPI = "opentelemetry.instrumentation.fastapi:FastAPIInstrumentor"
APP = """
    import asyncio, inspect
    from fastapi import BackgroundTasks, FastAPI
    from opentelemetry import trace
    import httpx

    tracer = trace.get_tracer("program")
    app = FastAPI()

    def plain(job_id, prompt=""):
        with tracer.start_as_current_span("render " + job_id):
            return {"error": "no GPU"} if job_id == "status" else None

    async def coroutine(job_id):
        with tracer.start_as_current_span("render " + job_id):
            await asyncio.sleep(0)
        if job_id == "raises":
            raise RuntimeError("CUDA out of memory")

    class Renderer:
        async def __call__(self, job_id):
            await coroutine(job_id)

    @app.post("/plain/{job_id}")
    async def post_plain(job_id: str, tasks: BackgroundTasks):
        tasks.add_task(plain, job_id, prompt="a cat")
        return {"queued": job_id}

    @app.post("/coroutine/{job_id}")
    async def post_coroutine(job_id: str, tasks: BackgroundTasks):
        tasks.add_task(coroutine, job_id)
        tasks.add_task(Renderer(), "second")
        assert [task.func for task in tasks.tasks][0] is coroutine
        return {"queued": job_id}

    async def main():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for path in ("plain/good", "plain/status", "coroutine/fine", "coroutine/raises"):
                print((await client.post(path)).text)

    asyncio.run(main())
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    finished = run(tmp_path_factory.mktemp("background"), {"app.py": APP}, official=[FASTAPI])
    assert finished.returncode == 0, finished.errors
    return finished


def test_the_answers_are_as_ever(done: Finished) -> None:
    names = ("good", "status", "fine", "raises")
    assert done.output.splitlines() == [f'{{"queued":"{name}"}}' for name in names]


def test_each_task_is_a_job_with_its_outcome(done: Finished) -> None:
    found = [(span.name, span.job_id, span.outcome, span.source) for span in done.jobs()]
    assert found == [
        ("BackgroundTask plain", "good", "completed", "end"),
        ("BackgroundTask plain", "status", "failed", "return"),
        ("BackgroundTask coroutine", "fine", "completed", "end"),
        ("BackgroundTask Renderer", "second", "completed", "end"),
        ("BackgroundTask coroutine", "raises", "failed", "exception"),
    ]


def test_a_job_is_a_child_of_its_request_and_the_work_of_its_job(done: Finished) -> None:
    requests = {span.span_id for span in done.spans if span.kind == "server"}
    assert {job.parent_id for job in done.jobs()} == requests
    for job in done.jobs():
        assert [span for span in done.spans if span.parent_id == job.span_id]
    assert len(done.traces()) == 4


def test_without_the_official_span_the_job_has_its_own(tmp_path: Path) -> None:
    script = """
        import asyncio
        from opentelemetry import trace
        from opentelemetry.trace import SpanKind
        from starlette.background import BackgroundTasks

        def fail():
            raise ValueError("x")

        async def main():
            tasks = BackgroundTasks()
            tasks.add_task(fail)
            with trace.get_tracer("program").start_as_current_span("POST", kind=SpanKind.SERVER):
                await tasks()

        asyncio.run(main())
    """
    finished = run(tmp_path, {"app.py": script})
    job = finished.one("process fail")
    assert (job.parent_id, job.outcome, job.kind) == (finished.one("POST").span_id, "failed", "consumer")
    assert "ValueError: x" in finished.errors


def test_without_any_request_span_a_task_is_the_root_of_a_trace(tmp_path: Path) -> None:
    script = """
        import asyncio
        from starlette.background import BackgroundTask
        asyncio.run(BackgroundTask(print, "x")())
    """
    finished = run(tmp_path, {"app.py": script})
    assert (finished.output, finished.one("process print").parent_id) == ("x\n", "")
