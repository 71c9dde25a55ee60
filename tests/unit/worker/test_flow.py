"""Pop to next pop, in the ways that real consumers are built. The queue is a list; the adapter's part is `pop`."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from otel_pipeline.worker import flow, names, tasks
from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.jobs import Job, Origin, current_job, job_start
from otel_pipeline.worker.process import lifecycle
from tests.support.worker_spans import Spans, attributes

WAIT_S = 10


@pytest.fixture(autouse=True)
def patched() -> Iterator[None]:
    """What tasks.py wraps, put back afterwards."""
    places = [(asyncio.BaseEventLoop, "create_task"), (threading.Thread, "start"), (ThreadPoolExecutor, "submit")]
    originals = [(place, name, place.__dict__[name]) for place, name in places]
    tasks.patch()
    yield
    for place, name, original in originals:
        setattr(place, name, original)


def pop(name: str, elements: list[str]) -> str | None:
    """What an adapter does around a pop."""
    is_job = flow.next_pop([name])
    element = elements.pop(0) if elements else None
    if is_job and element is not None:
        flow.popped(job_start(Origin("redis", name), job_id=element))
    return element


def work(name: str) -> None:
    with trace.get_tracer("t").start_as_current_span(f"work {name}"):
        pass


def check(spans: Spans, *ids: str) -> None:
    """One trace per job; the work of each is in it."""
    for identifier in ids:
        (job,) = [each for each in spans.named("process q") if attributes(each)[names.JOB_ID] == identifier]
        assert job.parent is None
        inner = spans.one(f"work {identifier}")
        assert inner.context.trace_id == job.context.trace_id
        assert inner.end_time is not None
        assert job.end_time is not None
        assert inner.end_time <= job.end_time
        assert attributes(job)[names.JOB_OUTCOME] == "completed"
    assert len(spans.traces()) == len(ids)


def test_a_loop_makes_one_job_of_each_element(spans: Spans) -> None:
    queue = ["a", "b"]
    while (element := pop("q", queue)) is not None:
        work(element)
    check(spans, "a", "b")


def test_the_job_is_over_when_the_next_pop_begins_not_when_it_returns(spans: Spans) -> None:
    pop("q", ["a"])
    assert current_job() is not None
    flow.next_pop(["q"])
    assert current_job() is None
    assert len(spans.named("process q")) == 1


def test_two_queues_that_are_polled_in_turn_are_one_loop(spans: Spans) -> None:
    high: list[str] = []
    low = ["a", "b"]
    for _ in range(4):
        element = pop("high", high) or pop("q", low)
        if element is not None:
            work(element)
    check(spans, "a", "b")


def test_a_pop_of_another_queue_within_a_job_belongs_to_it(spans: Spans) -> None:
    pop("q", ["a"])
    assert pop("reply:a", ["result"]) == "result"
    work("a")
    pop("q", [])
    check(spans, "a")
    assert len(spans.all()) == 2


def test_a_pop_in_a_web_request_is_no_job(spans: Spans) -> None:
    with trace.get_tracer("t").start_as_current_span("GET /", kind=SpanKind.SERVER):
        assert pop("reply:a", ["result"]) == "result"
        assert current_job() is None
    assert len(spans.all()) == 1


def test_a_settled_job_ends_when_it_was_settled_not_when_the_loop_came_back(spans: Spans) -> None:
    pop("q", ["a"])
    job = current_job()
    assert job is not None
    job.settle()
    settled_ns = job.settled_ns
    time.sleep(0.02)
    pop("q", [])
    assert spans.one("process q").end_time == settled_ns


def test_a_thread_for_each_job_keeps_them_apart(spans: Spans) -> None:
    queue, threads, gate = ["a", "b"], [], threading.Event()

    def handle(name: str) -> None:
        gate.wait(WAIT_S)
        work(name)

    while (element := pop("q", queue)) is not None:
        threads.append(threading.Thread(target=handle, args=(element,)))
        threads[-1].start()
    assert spans.all() == []  # the loop is through, the jobs are not
    gate.set()
    for thread in threads:
        thread.join(WAIT_S)
    check(spans, "a", "b")


def test_an_exception_that_ends_a_jobs_thread_fails_the_job(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _arguments: None)

    def handle() -> None:
        raise LookupError("no such voice")

    pop("q", ["a"])
    thread = threading.Thread(target=handle)
    thread.start()
    pop("q", [])
    thread.join(WAIT_S)
    assert attributes(spans.one("process q"))[names.ERROR_TYPE] == "LookupError"


def test_a_pool_keeps_jobs_apart(spans: Spans) -> None:
    queue = ["a", "b", "c"]
    with ThreadPoolExecutor(2) as pool:
        while (element := pop("q", queue)) is not None:
            pool.submit(work, element)
    check(spans, "a", "b", "c")


def test_a_helper_thread_does_not_keep_a_job_open_that_the_loop_itself_works_on(spans: Spans) -> None:
    stop = threading.Event()
    pop("q", ["a"])
    helper = threading.Thread(target=lambda: stop.wait(WAIT_S), daemon=True)
    helper.start()
    work("a")
    pop("q", [])
    check(spans, "a")
    stop.set()
    helper.join(WAIT_S)


def test_a_loop_that_only_keeps_its_books_after_it_handed_a_job_on_does_not_end_it(spans: Spans) -> None:
    gate = threading.Event()

    def handle(name: str) -> None:
        gate.wait(WAIT_S)
        work(name)

    pop("q", ["a"])
    thread = threading.Thread(target=handle, args=("a",))
    thread.start()
    with trace.get_tracer("opentelemetry.instrumentation.redis").start_as_current_span("HSET"):
        flow.touch(busy=False)
    pop("q", [])
    assert spans.named("process q") == []
    gate.set()
    thread.join(WAIT_S)
    check(spans, "a")


def test_an_exception_that_was_on_its_way_at_the_pop_is_none_of_the_new_job(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lifecycle_excepthook)
    threads = []

    def handle(name: str) -> None:
        try:
            work(name)
            if name == "a":
                raise LookupError("no such voice")
        finally:
            following = pop("q", ["b"] if name == "a" else [])
            if following is not None:
                threads.append(threading.Thread(target=handle, args=(following,)))
                threads[-1].start()

    element = pop("q", ["a"])
    threads.append(threading.Thread(target=handle, args=(element,)))
    threads[0].start()
    threads[0].join(WAIT_S)
    threads[1].join(WAIT_S)
    pop("q", [])
    found = {attributes(each)[names.JOB_ID]: attributes(each)[names.JOB_OUTCOME] for each in spans.named("process q")}
    assert found == {"a": "failed", "b": "completed"}


def lifecycle_excepthook(arguments: threading.ExceptHookArgs) -> None:
    lifecycle._thread_failed(arguments)


def test_a_task_that_pops_while_an_exception_leaves_it_does_not_fail_the_new_job(spans: Spans) -> None:
    async def handle() -> None:
        try:
            raise LookupError("no such voice")
        finally:
            pop("q", ["b"])

    async def main() -> None:
        await asyncio.gather(handle(), return_exceptions=True)

    asyncio.run(main())
    assert attributes(spans.one("process q"))[names.JOB_OUTCOME] == "completed"


def test_a_thread_that_pops_and_hands_on_at_its_end_leaves_nothing_that_keeps_the_job_open(spans: Spans) -> None:
    threads: list[threading.Thread] = []

    def handle(name: str) -> None:
        work(name)
        following = pop("q", ["b"] if name == "a" else [])
        if following is not None:
            threads.append(threading.Thread(target=work, args=(following,)))
            threads[-1].start()

    element = pop("q", ["a"])
    threads.append(threading.Thread(target=handle, args=(element,)))
    gc.disable()
    try:
        threads[0].start()
        threads[0].join(WAIT_S)
        threads[1].join(WAIT_S)
        check(spans, "a", "b")
    finally:
        gc.enable()


def test_a_pop_in_the_finally_of_the_jobs_thread_begins_a_trace_of_its_own(spans: Spans) -> None:
    queue, threads = ["b"], []

    def handle(name: str) -> None:
        try:
            work(name)
        finally:
            following = pop("q", queue)
            if following is not None:
                threads.append(threading.Thread(target=handle, args=(following,)))
                threads[-1].start()

    element = pop("q", ["a"])
    assert element is not None
    threads.append(threading.Thread(target=handle, args=(element,)))
    threads[0].start()
    threads[0].join(WAIT_S)
    threads[1].join(WAIT_S)
    pop("q", [])
    check(spans, "a", "b")


def test_a_job_whose_thread_ends_is_over(spans: Spans) -> None:
    def consume() -> None:
        element = pop("q", ["a"])
        assert element is not None
        work(element)

    thread = threading.Thread(target=consume)
    thread.start()
    thread.join(WAIT_S)
    del thread
    check(spans, "a")


# -- asyncio -----------------------------------------------------------------------------------------------------------


def test_an_async_loop_makes_one_job_of_each_element(spans: Spans) -> None:
    async def main() -> None:
        queue = ["a", "b"]
        while (element := pop("q", queue)) is not None:
            await asyncio.sleep(0)
            work(element)

    asyncio.run(main())
    check(spans, "a", "b")


async def apop(name: str, elements: list[str]) -> str | None:
    await asyncio.sleep(0)
    element = pop(name, elements)
    await asyncio.sleep(0)
    return element


def test_a_pop_under_wait_for_reaches_the_one_that_waits(spans: Spans) -> None:
    async def main() -> None:
        queue = ["a", "b"]
        while (element := await asyncio.wait_for(apop("q", queue), WAIT_S)) is not None:
            work(element)

    asyncio.run(main())
    check(spans, "a", "b")


def test_a_pop_beside_a_stop_event_reaches_the_one_that_waits(spans: Spans) -> None:
    async def main() -> None:
        queue, stop = ["a", "b"], asyncio.Event()
        stopping = asyncio.create_task(stop.wait())
        while True:
            popping = asyncio.create_task(apop("q", queue))
            await asyncio.wait({popping, stopping}, return_when=asyncio.FIRST_COMPLETED)
            element = popping.result()
            if element is None:
                break
            work(element)
        stop.set()
        await stopping

    asyncio.run(main())
    check(spans, "a", "b")


def test_a_pop_in_a_pool_thread_reaches_the_task_that_waits(spans: Spans) -> None:
    async def main() -> None:
        queue = ["a", "b"]
        while (element := await asyncio.to_thread(pop, "q", queue)) is not None:
            work(element)

    asyncio.run(main())
    check(spans, "a", "b")


@pytest.mark.parametrize("timed", [False, True], ids=["plain", "wait_for"])
def test_a_task_for_each_job_keeps_them_apart(spans: Spans, timed: bool) -> None:  # noqa: FBT001  a parameter
    async def handle(name: str, gate: asyncio.Event) -> None:
        await gate.wait()
        work(name)

    async def main() -> None:
        queue, gate, running = ["a", "b", "c"], asyncio.Event(), []
        while True:
            element = await asyncio.wait_for(apop("q", queue), WAIT_S) if timed else await apop("q", queue)
            if element is None:
                break
            running.append(asyncio.create_task(handle(element, gate)))
        assert spans.all() == []
        gate.set()
        await asyncio.gather(*running)
        await asyncio.sleep(0)

    asyncio.run(main())
    check(spans, "a", "b", "c")


def test_a_cancelled_jobs_task_is_a_cancelled_job(spans: Spans) -> None:
    async def main() -> None:
        await apop("q", ["a"])
        running = asyncio.create_task(asyncio.sleep(WAIT_S))
        await apop("q", [])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert attributes(spans.one("process q"))[names.JOB_OUTCOME] == "cancelled"


def test_an_exception_that_ends_the_consumer_fails_its_job(spans: Spans) -> None:
    async def consume() -> None:
        await apop("q", ["a"])
        raise LookupError("no such voice")

    async def main() -> None:
        await asyncio.gather(asyncio.create_task(consume()), return_exceptions=True)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert attributes(spans.one("process q"))[names.ERROR_TYPE] == "LookupError"


def test_several_consumers_in_one_loop_keep_their_jobs_apart(spans: Spans) -> None:
    async def consume(queue: list[str]) -> None:
        while (element := await apop("q", queue)) is not None:
            for _ in range(3):
                await asyncio.sleep(0)
            work(element)

    async def main() -> None:
        queue = list("abcdef")
        await asyncio.gather(*(consume(queue) for _ in range(3)))

    asyncio.run(main())
    check(spans, *"abcdef")


def test_a_task_factory_of_the_program_is_left_alone(spans: Spans) -> None:
    made = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: object) -> asyncio.Task[object]:
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop)  # type: ignore[arg-type]

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)  # type: ignore[arg-type]
        await asyncio.create_task(apop("q", []))

    asyncio.run(main())
    assert made
    assert spans.all() == []


def test_evidence_of_a_finished_flow_counts(spans: Spans) -> None:
    pop("q", ["a"])
    flow.finish(flow.this_flow(), Evidence(Source.SIGNAL, Outcome.CANCELLED, "SIGTERM"))
    assert attributes(spans.one("process q"))[names.JOB_OUTCOME] == "cancelled"


def test_an_exceptions_type_is_qualified_and_its_text_is_cut() -> None:
    said = flow.exception_evidence(asyncio.QueueFull("x" * 1000))
    assert said.error_type == "asyncio.queues.QueueFull"
    assert said.message is not None
    assert len(said.message) <= 256
    assert flow.exception_evidence(ValueError()).error_type == "ValueError"


def test_a_job_is_handed_over_only_to_a_task_whose_context_is_known(spans: Spans) -> None:
    pop("q", ["a"])
    job = current_job()
    assert isinstance(job, Job)
    assert not flow.hand_over(job, flow.this_flow(), flow.Flow())
    assert spans.all() == []
