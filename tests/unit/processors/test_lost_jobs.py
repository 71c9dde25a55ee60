"""The processor `lost_jobs`: reports in, spans of lost jobs out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_pipeline.contracts import Accepted, RetryLater, Verdict
from otel_pipeline.processors import lost_jobs
from otel_pipeline.processors.lost_jobs import LostJobsProcessor
from otel_pipeline.stats import Stats
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import any_value, python_value
from otel_pipeline.worker import names
from otel_pipeline.worker.process import records
from tests.support.fakes import RememberingEntrance

TRACE, JOB, PARENT = b"t" * 16, b"j" * 8, b"p" * 8
START_NS = 1_795_294_144_000_000_001
"""Odd, so that a double could not hold it."""

REPORT: dict[str, Any] = {
    names.JOB_STATE: "started",
    names.JOB_SPAN_ID: JOB.hex(),
    names.JOB_PARENT_SPAN_ID: PARENT.hex(),
    names.JOB_START_TIME: START_NS,
    names.MESSAGING_SYSTEM: "redis",
    names.MESSAGING_DESTINATION: "video:queue",
    names.JOB_ATTEMPT: 2,
    names.JOB_ID: "job-1",
    names.USER_ID: "u-7",
}


def request(*spans: tuple[bytes, str, Mapping[str, Any]], at_ns: int = START_NS, service: str = "worker") -> bytes:
    """A request with a span for each id, name and attributes."""
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = service
    scope = group.scope_spans.add()
    for span_id, name, attributes in spans:
        span = scope.spans.add(trace_id=TRACE, span_id=span_id, name=name, start_time_unix_nano=at_ns)
        for key, value in attributes.items():
            span.attributes.add(key=key).value.CopyFrom(any_value(value))
    return message.SerializeToString()


def report(at_ns: int = START_NS, **changes: Any) -> bytes:
    return request((b"r" * 8, "job started", {**REPORT, **changes}), at_ns=at_ns)


def ending(outcome: str = "completed") -> bytes:
    return request((JOB, "process video:queue", {names.JOB_OUTCOME: outcome}))


class Bench:
    """One processor, its clock and what it handed in."""

    def __init__(self, directory: Path | None = None, *verdicts: Verdict, **settings: Any) -> None:
        self.now_s = 1000.0
        self.stats = Stats()
        self.entrance = RememberingEntrance(*verdicts)
        context: Any = SimpleNamespace(
            component_id="lost_jobs", stats=self.stats, clock=lambda: self.now_s, directory=directory
        )
        self.processor = LostJobsProcessor(LostJobsProcessor.Config.model_validate(settings), context)

    def take(self, body: bytes) -> list[str]:
        """The names of the spans that it lets pass."""
        batch = BatchReader(Signal.TRACES, self.processor.attributes(Signal.TRACES)).read([body])[0]
        self.processor.process(batch)
        if not batch.keep.any():
            return []
        return [span.name for span in spans_of(bytes(batch.encode()))]

    def run(self, done: Callable[[], bool], before: Callable[[], None] = lambda: None) -> None:
        """Let it originate until the condition holds; `before` runs in the loop first."""

        async def until_done() -> None:
            before()
            task = asyncio.create_task(self.processor.originate(self.entrance))
            async with asyncio.timeout(20):
                while not done():
                    await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(until_done())

    def rounds(self, count: int = 5) -> None:
        """Let some rounds pass."""
        left = iter(range(count * 10))
        self.run(lambda: next(left, None) is None)

    def event(self, name: str) -> float:
        value = self.stats.registry.get_sample_value(
            "otel_pipeline_lost_jobs_total", {"processor": "lost_jobs", "event": name}
        )
        assert value is not None
        return value

    def open(self) -> float | None:
        return self.stats.registry.get_sample_value("otel_pipeline_open_jobs", {"processor": "lost_jobs"})


def spans_of(body: bytes) -> list[Span]:
    message = ExportTraceServiceRequest.FromString(body)
    return [span for group in message.resource_spans for scope in group.scope_spans for span in scope.spans]


def attributes(span: Span) -> dict[str, Any]:
    return {pair.key: python_value(pair.value) for pair in span.attributes}


@pytest.fixture(autouse=True)
def _quick_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_jobs, "ROUND_S", 0.001)


def test_its_names_are_those_that_workers_write() -> None:
    assert lost_jobs.STATE == names.JOB_STATE
    assert lost_jobs.SPAN_ID == names.JOB_SPAN_ID
    assert lost_jobs.PARENT_SPAN_ID == names.JOB_PARENT_SPAN_ID
    assert lost_jobs.START_TIME == names.JOB_START_TIME
    assert lost_jobs.OUTCOME == names.JOB_OUTCOME
    assert lost_jobs.OUTCOME_SOURCE == names.JOB_OUTCOME_SOURCE
    recorded = {names.MESSAGING_SYSTEM, names.MESSAGING_DESTINATION, names.MESSAGING_MESSAGE_ID}
    assert {*lost_jobs.TEXTS} == {*recorded, names.MESSAGING_CONSUMER_GROUP, *records.RECORDED}


def test_reports_are_dropped_and_other_spans_pass() -> None:
    bench = Bench()
    assert bench.take(request((b"r" * 8, "job started", REPORT), (b"x" * 8, "GET", {}))) == ["GET"]
    assert bench.open() == 1


def test_reports_pass_if_so_configured() -> None:
    assert Bench(keep_records=True).take(report()) == ["job started"]


def test_a_silent_job_is_handed_in_with_its_own_ids_and_fields() -> None:
    bench = Bench()
    bench.take(report(at_ns=START_NS + 5))
    bench.now_s += 91
    bench.run(lambda: bool(bench.entrance.bodies))
    [body] = bench.entrance.bodies
    [span] = spans_of(body)
    assert (span.trace_id, span.span_id, span.parent_span_id) == (TRACE, JOB, PARENT)
    assert (span.name, span.kind, span.status.code) == ("process video:queue", 5, 2)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (START_NS, START_NS + 5)
    found = attributes(span)
    assert found[names.JOB_OUTCOME] == "lost"
    assert found[names.ERROR_TYPE] == "lost"
    assert (found[names.JOB_ID], found[names.USER_ID], found[names.JOB_ATTEMPT]) == ("job-1", "u-7", 2)
    resource = ExportTraceServiceRequest.FromString(body).resource_spans[0].resource
    assert resource.attributes[0].value.string_value == "worker"
    assert bench.event("marked") == 1
    assert bench.open() == 0


def test_its_own_span_passes_and_is_no_late_end() -> None:
    bench = Bench()
    bench.take(report())
    bench.now_s += 91
    bench.run(lambda: bool(bench.entrance.bodies))
    assert bench.take(bench.entrance.bodies[0]) == ["process video:queue"]
    assert bench.event("late_end") == 0


def test_a_job_that_ends_is_forgotten() -> None:
    bench = Bench()
    bench.take(report())
    assert bench.take(ending()) == ["process video:queue"]
    assert bench.open() == 0
    bench.now_s += 1000
    bench.rounds()
    assert bench.entrance.bodies == []


def test_a_report_that_comes_after_the_end_is_of_no_account() -> None:
    bench = Bench()
    bench.take(ending())
    bench.take(report())
    assert bench.open() == 0


def test_a_report_in_time_keeps_a_job_alive() -> None:
    bench = Bench()
    bench.take(report())
    bench.now_s += 80
    bench.take(report(**{names.JOB_STATE: "running"}))
    bench.now_s += 80
    bench.rounds()
    assert bench.entrance.bodies == []


def test_a_lost_job_that_ends_after_all_passes_and_is_counted() -> None:
    bench = Bench()
    bench.take(report())
    bench.now_s += 91
    bench.run(lambda: bool(bench.entrance.bodies))
    bench.take(report(**{names.JOB_STATE: "running"}))
    assert bench.open() == 0
    assert bench.take(ending()) == ["process video:queue"]
    assert bench.event("late_end") == 1


def test_while_the_door_is_closed_nobody_is_lost() -> None:
    bench = Bench(None, RetryLater(1.0, "full"), Accepted())
    bench.take(report())
    bench.now_s += 91
    bench.run(lambda: bool(bench.entrance.bodies))
    bench.now_s += 1
    bench.rounds()
    assert len(bench.entrance.bodies) == 1
    bench.now_s += 90
    bench.run(lambda: len(bench.entrance.bodies) == 2)
    assert bench.event("marked") == 1


def test_a_gateway_that_stood_still_gives_all_jobs_time_again() -> None:
    bench = Bench()
    bench.take(report())
    left = iter(range(50))

    def jump() -> None:
        bench.now_s += 500

    def soon() -> None:
        asyncio.get_running_loop().call_later(0.05, jump)

    bench.run(lambda: bench.now_s > 1400 and next(left, None) is None, soon)
    assert bench.entrance.bodies == []


def test_one_job_too_many_is_counted() -> None:
    bench = Bench(jobs_max=1)
    bench.take(report())
    bench.take(report(**{names.JOB_SPAN_ID: "ab" * 8}))
    assert bench.open() == 1
    assert bench.event("overflow") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {names.JOB_SPAN_ID: "xyz"},
        {names.JOB_SPAN_ID: 7},
        {names.JOB_START_TIME: "soon"},
        {names.JOB_START_TIME: -1},
        {names.JOB_PARENT_SPAN_ID: "0"},
    ],
)
def test_a_report_that_says_nonsense_is_dropped(changes: dict[str, Any]) -> None:
    bench = Bench()
    assert bench.take(report(**changes)) == []
    assert bench.open() == 0


def test_jobs_survive_a_restart_and_get_the_whole_time_again(tmp_path: Path) -> None:
    first = Bench(tmp_path / "jobs")
    first.take(report(at_ns=START_NS + 9))
    first.rounds()
    second = Bench(tmp_path / "jobs")
    second.now_s = first.now_s + 10_000
    second.rounds()
    assert second.entrance.bodies == []
    assert second.event("marked") == 0


def test_a_job_of_before_the_restart_is_marked_after_it(tmp_path: Path) -> None:
    first = Bench(tmp_path / "jobs")
    first.take(report(at_ns=START_NS + 9))
    first.rounds()
    second = Bench(tmp_path / "jobs", lost_after="3s")

    def pass_time() -> None:
        second.now_s += 1
        asyncio.get_running_loop().call_later(0.02, pass_time)

    second.run(lambda: bool(second.entrance.bodies), pass_time)
    [span] = spans_of(second.entrance.bodies[0])
    assert (span.span_id, span.end_time_unix_nano) == (JOB, START_NS + 9)


def test_an_ended_job_is_gone_from_the_file(tmp_path: Path) -> None:
    first = Bench(tmp_path / "jobs")
    first.take(report())
    first.rounds()
    first.take(ending())
    first.rounds()
    assert lost_jobs.Journal(tmp_path / "jobs", 10).load() == []


def test_a_file_that_cannot_be_read_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"no database" * 1000)
    bench = Bench(folder)
    bench.take(report())
    bench.rounds()
    journal = lost_jobs.Journal(folder, 10)
    assert [job.span_id for job in journal.load()] == [JOB.hex()]
    journal.close()


def test_a_directory_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("a file")
    bench = Bench(tmp_path / "jobs")
    bench.take(report())
    bench.now_s += 91
    bench.run(lambda: bool(bench.entrance.bodies))
    assert bench.event("marked") == 1


def test_many_lost_jobs_come_in_requests_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_jobs, "LOST_JOBS_REQUEST_MAX", 2)
    bench = Bench()
    for number in range(5):
        bench.take(report(**{names.JOB_SPAN_ID: f"{number + 1:016x}"}))
    bench.now_s += 91
    bench.run(lambda: len(bench.entrance.bodies) == 3)
    assert [len(spans_of(body)) for body in bench.entrance.bodies] == [2, 2, 1]
