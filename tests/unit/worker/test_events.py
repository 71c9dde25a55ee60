"""Lifecycle events of jobs, and those that the program tells of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry._logs import SeverityNumber

from otel_pipeline.worker import events, names
from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.jobs import Origin, job_end, job_start
from tests.support.worker_logs import Records, attributes, recorded_logs
from tests.support.worker_spans import Spans

ORIGIN = Origin("redis", "q")


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch, spans: Spans) -> Iterator[Records]:  # noqa: ARG001  puts observers back
    events.install()
    with recorded_logs(monkeypatch) as found:
        yield found


def test_a_job_tells_of_its_start_and_its_end(records: Records) -> None:
    job = job_start(ORIGIN, b'{"job_id": "j-1"}')
    job_end(job)
    start, end = records.all()
    assert (start.event_name, end.event_name) == ("job_start", "job_complete")
    assert attributes(end)[names.JOB_OUTCOME] == "completed"
    assert attributes(end)[events.DURATION_S] >= 0
    for record in (start, end):
        assert record.trace_id == job.span.get_span_context().trace_id
        assert attributes(record)[names.JOB_ID] == "j-1"
        assert attributes(record)[names.MESSAGING_DESTINATION] == "q"


@pytest.mark.parametrize(
    ("outcome", "name", "severity"),
    [
        (Outcome.FAILED, "job_failed", SeverityNumber.ERROR),
        (Outcome.CANCELLED, "job_cancelled", SeverityNumber.INFO),
        (Outcome.PARTIAL, "job_complete", SeverityNumber.INFO),
    ],
)
def test_the_name_of_the_end_tells_the_outcome(
    records: Records, outcome: Outcome, name: str, severity: SeverityNumber
) -> None:
    job_end(job_start(ORIGIN), Evidence(Source.RETURN, outcome, "TimeoutError"))
    record = records.one(name)
    assert record.severity_number == severity
    assert attributes(record)[names.ERROR_TYPE] == "TimeoutError"
    assert attributes(record)[names.JOB_OUTCOME_SOURCE] == "return"


def test_a_failover_names_both_backends(records: Records) -> None:
    events.failover("local", "runpod", "timeout")
    record = records.one("failover")
    assert record.severity_number == SeverityNumber.WARN
    assert attributes(record) == {
        names.FAILOVER_FROM: "local",
        names.FAILOVER_TO: "runpod",
        names.FAILOVER_REASON: "timeout",
    }


def test_a_users_name_never_goes_out(records: Records) -> None:
    events.emit("job_created", user_id="ada", email="ada@example.com", backend="local", cost=0.08, name="Ada")
    found = attributes(records.one("job_created"))
    assert "ada" not in str(found).lower()
    assert (found[names.BACKEND], found["cost"]) == ("local", 0.08)


def test_an_event_within_a_job_belongs_to_it(records: Records) -> None:
    job = job_start(ORIGIN, b'{"job_id": "j-1"}')
    events.emit("cost_calculated", cost=1.5)
    job_end(job)
    record = records.one("cost_calculated")
    assert record.span_id == job.span.get_span_context().span_id
    assert attributes(record)[names.JOB_ID] == "j-1"


def test_an_event_of_nonsense_raises_nothing(records: Records) -> None:
    events.emit("odd", value=object(), nested={"a": 1}, none=None)
    assert "nested" not in attributes(records.one("odd"))
