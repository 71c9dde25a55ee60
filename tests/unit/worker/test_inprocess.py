"""Queues inside the process carry the context of what the program puts into them."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from otel_pipeline.worker.adapters import inprocess
from otel_pipeline.worker.settings import Settings
from tests.support.worker_script import Finished, run

HEAD = """
import asyncio, queue, threading, time
from opentelemetry import trace
from opentelemetry.trace import SpanKind
tracer = trace.get_tracer("program")

def step(name):
    with tracer.start_as_current_span(name):
        pass

def request(name):
    return tracer.start_as_current_span(name, kind=SpanKind.SERVER)
"""


def worker(folder: Path, text: str, **options: Any) -> Finished:
    done = run(folder, {"worker.py": HEAD + textwrap.dedent(text)}, **options)
    assert done.returncode == 0, done.errors
    return done


THREAD = """
    jobs = queue.Queue()

    def loop():
        while True:
            item = jobs.get()
            if item is None:
                return
            step("work " + item["job_id"])
            jobs.task_done()

    thread = threading.Thread(target=loop)
    thread.start()
    for name in "ab":
        with request("POST " + name):
            jobs.put({"job_id": name})
    jobs.join()
    jobs.put(None)
    thread.join()
"""
TASK = """
    async def loop(inbox):
        while True:
            item = await GET
            if item is None:
                return
            step("work " + item["job_id"])
            await asyncio.sleep(0)
            inbox.task_done()

    async def main():
        jobs = asyncio.Queue()
        task = asyncio.create_task(loop(jobs))
        for name in "ab":
            with request("POST " + name):
                await jobs.put({"job_id": name})
        await jobs.join()
        await jobs.put(None)
        await task

    asyncio.run(main())
"""
POLLING = TASK.replace(
    "item = await GET",
    """try:
                item = inbox.get_nowait()
            except asyncio.QueueEmpty:
                await asyncio.sleep(0)
                continue""",
)
CONSUMERS = {
    "thread": THREAD,
    "task": TASK.replace("GET", "inbox.get()"),
    "task with a timeout": TASK.replace("GET", "asyncio.wait_for(inbox.get(), 5)"),
    "task that polls": POLLING,
    "priorities": THREAD.replace("queue.Queue()", "queue.PriorityQueue()")
    .replace("jobs.put({", "jobs.put((1, name, {")
    .replace("name})", "name}))")
    .replace('["job_id"]', '[2]["job_id"]')
    .replace("item = jobs.get()", "item = jobs.get()\n            if item[0] == 9: return")
    .replace("jobs.put(None)", "jobs.put((9,))"),
}


@pytest.mark.parametrize("kind", CONSUMERS)
def test_what_a_request_puts_is_a_job_of_its_own_and_a_child_of_the_request(tmp_path: Path, kind: str) -> None:
    done = worker(tmp_path, CONSUMERS[kind])
    assert sorted(span.name for span in done.spans) == [
        "POST a",
        "POST b",
        "process jobs",
        "process jobs",
        "work a",
        "work b",
    ]
    for name in "ab":
        job = next(span for span in done.named("process jobs") if span.job_id == name)
        assert job.parent_id == done.one(f"POST {name}").span_id
        assert done.one(f"work {name}").parent_id == job.span_id
        assert (job.outcome, job.get("messaging.system")) == ("completed", "in_process")
    assert sorted(done.roots()) == ["POST a", "POST b"]


def test_a_task_that_dies_of_its_item_fails_the_job(tmp_path: Path) -> None:
    script = """
        async def loop(inbox):
            item = await inbox.get()
            raise LookupError(item)

        async def main():
            jobs = asyncio.Queue()
            task = asyncio.create_task(loop(jobs))
            with request("POST"):
                jobs.put_nowait("x")
            try:
                await task
            except LookupError as error:
                print(repr(error))

        asyncio.run(main())
    """
    done = worker(tmp_path, script)
    job = done.one("process jobs")
    assert (job.outcome, job.get("error.type"), done.output) == ("failed", "LookupError", "LookupError('x')\n")


JOB = """
    from otel_pipeline.worker import flow, jobs as core   # stands for an adapter's pop

    def pop(identifier):
        flow.next_pop(["broker"])
        if identifier:
            flow.popped(core.job_start(core.Origin("redis", "broker"), job_id=identifier))
"""


def test_what_a_job_puts_is_work_on_the_job_and_its_end_waits_for_it(tmp_path: Path) -> None:
    script = """
        local = queue.Queue()

        def gpu():
            while (item := local.get()) is not None:
                time.sleep(0.02)
                step("render " + item)

        thread = threading.Thread(target=gpu)
        thread.start()
        for identifier in "ab":
            pop(identifier)
            local.put(identifier)
        pop(None)
        local.put(None)
        thread.join()
    """
    done = worker(tmp_path, textwrap.dedent(JOB) + textwrap.dedent(script))
    for identifier in "ab":
        job = next(span for span in done.named("process broker") if span.job_id == identifier)
        rendering = done.one(f"render {identifier}")
        assert rendering.parent_id == job.span_id
        assert job.end_ns >= rendering.end_ns
        assert job.outcome == "completed"
    assert len(done.spans) == 4


def test_results_that_come_back_through_a_queue_are_no_jobs(tmp_path: Path) -> None:
    script = """
        work, results = queue.Queue(), queue.Queue()

        def helper():
            while (item := work.get()) is not None:
                step("part")
                results.put(item * 2)

        threading.Thread(target=helper).start()
        for identifier in ("one", "two"):
            pop(identifier)
            work.put(identifier)
            print(results.get())
            step("whole")
        pop(None)
        work.put(None)
    """
    done = worker(tmp_path, textwrap.dedent(JOB) + textwrap.dedent(script))
    assert done.output.split() == ["oneone", "twotwo"]
    assert [span.name for span in done.jobs()] == ["process broker"] * 2
    assert {span.parent_id for span in (*done.named("part"), *done.named("whole"))} == {
        span.span_id for span in done.jobs()
    }


def test_a_stream_inside_one_request_makes_no_jobs(tmp_path: Path) -> None:
    script = """
        async def produce(tokens):
            for token in ("a", "b"):
                await tokens.put(token)
            await tokens.put(None)

        async def main():
            with request("GET"):
                tokens = asyncio.Queue()
                task = asyncio.create_task(produce(tokens))
                while (token := await tokens.get()) is not None:
                    step(token)
                await task

        asyncio.run(main())
    """
    done = worker(tmp_path, script)
    assert sorted(span.name for span in done.spans) == ["GET", "a", "b"]
    assert done.roots() == ["GET"]


def test_what_another_request_puts_is_no_job_inside_a_request(tmp_path: Path) -> None:
    script = """
        feed = queue.Queue()
        with request("POST"):
            feed.put("event")
        with request("GET"), tracer.start_as_current_span("endpoint"):
            step(feed.get())
    """
    done = worker(tmp_path, script)
    assert (done.jobs(), done.one("event").parent_id) == ([], done.one("endpoint").span_id)


def test_from_a_thread_to_the_loop(tmp_path: Path) -> None:
    script = """
        async def main():
            loop, jobs = asyncio.get_running_loop(), asyncio.Queue()

            def handler():
                with request("POST"):
                    loop.call_soon_threadsafe(jobs.put_nowait, "x")

            thread = threading.Thread(target=handler)
            thread.start()
            item = await jobs.get()
            step("work " + item)
            thread.join()

        asyncio.run(main())
    """
    done = worker(tmp_path, script)
    [job] = done.jobs()
    assert (job.parent_id, done.one("work x").parent_id) == (done.one("POST").span_id, job.span_id)


def test_queues_of_libraries_and_items_without_context_are_left_alone(tmp_path: Path) -> None:
    script = """
        import sys, types
        library = types.ModuleType("library")
        code = compile("def put(q, item):\\n    q.put(item)\\n", sys.prefix + "/lib/site-packages/library.py", "exec")
        exec(code, library.__dict__)

        outside, theirs = queue.Queue(), queue.Queue()
        outside.put("x")
        with request("POST"):
            library.put(theirs, "y")
        print(outside.get(), theirs.get(), vars(outside).get("_otel_pipeline"), vars(theirs).get("_otel_pipeline"))
    """
    done = worker(tmp_path, script)
    assert (done.output, done.jobs()) == ("x y None None\n", [])


def test_excluded_queues_carry_nothing(tmp_path: Path) -> None:
    done = worker(tmp_path, CONSUMERS["thread"], environment={"OTEL_PIPELINE_QUEUES_EXCLUDED": "jo*"})
    assert done.jobs() == []


def test_items_are_not_kept_alive_and_a_cleared_queue_forgets_them(tmp_path: Path) -> None:
    script = """
        import gc, weakref
        class Item: pass
        jobs = queue.Queue()
        with request("POST"):
            for _ in range(3):
                jobs.put(Item())
        seen = weakref.ref(jobs.queue[0])
        jobs.queue.clear()
        gc.collect()
        with request("POST"):
            jobs.put("x")
        jobs.get()
        print(seen(), len(jobs._otel_pipeline.waiting))
    """
    assert worker(tmp_path, script).output == "None 0\n"


def test_a_full_queue_raises_as_ever(tmp_path: Path) -> None:
    script = """
        jobs = asyncio.Queue(1)
        with request("POST"):
            jobs.put_nowait("x")
            try:
                jobs.put_nowait("y")
            except asyncio.QueueFull as error:
                print(repr(error), sum(map(len, jobs._otel_pipeline.waiting.values())))
    """
    assert worker(tmp_path, script).output == "QueueFull() 1\n"


def test_a_fault_of_ours_changes_nothing(tmp_path: Path) -> None:
    faults = """
        from otel_pipeline.worker.guard import HOOKS
        for name, each in HOOKS.items():
            if name.startswith("inprocess."):
                each.fault = RuntimeError("ours")
    """
    done = worker(tmp_path, textwrap.dedent(faults) + textwrap.dedent(CONSUMERS["task with a timeout"]))
    assert sorted(span.name for span in done.spans) == ["POST a", "POST b", "work a", "work b"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("generation_queue", True),
        ("jobs", True),
        ("_queue", True),
        ("audit_queue", False),
        ("progress_queue", False),
        ("results", False),
        ("message_queue", False),
        ("ws_events", False),
    ],
)
def test_queues_by_their_names_that_hold_no_work_are_left_alone(name: str, wanted: bool) -> None:  # noqa: FBT001
    assert inprocess._wanted(name) is wanted


def test_a_queue_that_the_operator_names_holds_work_whatever_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inprocess, "settings", lambda: Settings(queues=("message_*",)))
    assert inprocess._wanted("message_queue")
    assert not inprocess._wanted("jobs")
