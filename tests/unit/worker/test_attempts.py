"""What queue frameworks say of a job, and their own silence."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace

import pytest
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_pipeline.worker import guard, names
from otel_pipeline.worker.attempts import age_s, raised, retried, typed, waited_since
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, Origin, job_end, job_start
from otel_pipeline.worker.quiet import quietly, restore, silent, silent_by_us, speak
from tests.support.worker_spans import Spans, attributes


class Retry(Exception):
    def __init__(self, exc: BaseException | None = None) -> None:
        super().__init__("again")
        self.exc = exc


@pytest.fixture
def job(spans: Spans) -> Job:
    assert not spans.all()
    return job_start(Origin("test", "queue", "m1"))


def told(spans: Spans) -> tuple[object, object, object, object]:
    known = attributes(spans.one("process queue"))
    keys = (names.JOB_OUTCOME, names.JOB_OUTCOME_SOURCE, names.ERROR_TYPE, names.JOB_WILL_RETRY)
    return tuple(known.get(key) for key in keys)  # type: ignore[return-value]  # four


def test_a_retry_with_a_cause_is_a_failed_attempt(job: Job, spans: Spans) -> None:
    retried(job, Retry(ValueError("bad")))
    job_end(job)
    assert told(spans) == ("failed", "framework", "ValueError", True)
    assert [event.name for event in spans.one("process queue").events] == ["exception"]


def test_a_retry_that_an_except_clause_raises_has_that_cause(job: Job, spans: Spans) -> None:
    try:
        try:
            raise OSError("no")  # noqa: TRY301  it is what is tested
        except OSError:
            raise Retry()  # noqa: B904  as programs do
    except Retry as error:
        retried(job, error)
    job_end(job)
    assert told(spans) == ("failed", "framework", "OSError", True)


def test_a_retry_without_a_cause_is_a_skipped_attempt(job: Job, spans: Spans) -> None:
    retried(job, Retry())
    job_end(job)
    assert told(spans) == ("skipped", "framework", None, True)


def test_an_exception_is_an_event_on_a_span_of_our_own(job: Job, spans: Spans) -> None:
    raised(job, ValueError("bad"))
    job_end(job)
    assert told(spans) == ("failed", "exception", "ValueError", None)
    assert [event.name for event in spans.one("process queue").events] == ["exception"]


def test_the_time_in_the_queue_is_never_negative(job: Job) -> None:
    waited_since(job, job.started_ns / 1e9 + 5)
    assert job.fields[names.JOB_QUEUE_WAIT_S] == 0
    waited_since(job, None)
    assert job.fields[names.JOB_QUEUE_WAIT_S] == 0


def test_the_type_that_the_message_told_stays(job: Job) -> None:
    typed(job, None)
    typed(job, "render")
    typed(job, "other")
    assert job.fields[names.JOB_TYPE] == "render"


@pytest.mark.parametrize("value", [None, "x", 0, -1, 1e30])
def test_what_is_no_time_is_none(value: object) -> None:
    assert age_s(value) is None


def test_a_function_is_silent_and_its_callbacks_are_not() -> None:
    seen: list[tuple[bool, bool]] = []

    def note() -> None:
        seen.append((is_instrumentation_enabled(), silent_by_us()))

    def work() -> str:
        note()
        token = speak()
        note()
        restore(token)
        note()
        return "done"

    async def later() -> str:
        note()
        await asyncio.sleep(0)
        return work()

    owner = SimpleNamespace(work=work, later=later)
    quietly(owner, "work", "later", "missing")
    assert owner.work() == "done"
    assert asyncio.run(owner.later()) == "done"
    assert seen == [(False, True), (True, False), (False, True), (False, True), *seen[:3]]
    assert not silent()
    assert inspect.iscoroutinefunction(owner.later)


def test_a_silent_function_raises_what_it_raised() -> None:
    def work() -> None:
        raise KeyError("x")

    owner = SimpleNamespace(work=work)
    quietly(owner, "work")
    with pytest.raises(KeyError):
        owner.work()
    assert not silent()


def test_the_timer_of_a_framework_gets_through_a_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    class TimeIsOver(Exception):
        pass

    @hook("test.interrupted")
    def interrupted(_value: object) -> None:
        raise TimeIsOver

    try:
        interrupted(1)
        monkeypatch.setattr(guard, "interrupts", [TimeIsOver])
        with pytest.raises(TimeIsOver):
            interrupted(1)
        assert interrupted.failures == 1
    finally:
        del guard.HOOKS["test.interrupted"]
