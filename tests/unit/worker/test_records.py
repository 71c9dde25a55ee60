"""Records of jobs under way, their end by age, and the worker's own metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_pipeline.worker import names
from otel_pipeline.worker.jobs import Origin, job_end, job_start
from otel_pipeline.worker.process import draining, records
from otel_pipeline.worker.process.records import Reporter
from otel_pipeline.worker.settings import Settings
from tests.support.worker_spans import Spans, attributes

ORIGIN = Origin("redis", "video:queue", "m-1", "workers")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(records, "FLUSH_EVERY_S", 0.0)
    monkeypatch.setattr(records, "START_AFTER_S", 0.0)
    monkeypatch.setattr(draining, "request", lambda _: None)
    yield
    records.forget()


def test_a_record_tells_what_the_jobs_span_would(spans: Spans) -> None:
    parent = trace.set_span_in_context(trace.get_tracer("t").start_span("enqueue"))
    job = job_start(ORIGIN, b'{"job_id": "j-1", "user_id": "ada", "model": "flux"}', parent=parent, attempt=2)
    Reporter().round(0.0)
    record = spans.one("job started")
    own = job.span.get_span_context()
    assert record.parent is not None
    assert (record.context.trace_id, record.parent.span_id) == (own.trace_id, own.span_id)
    assert record.start_time == record.end_time
    found = attributes(record)
    assert found[names.JOB_STATE] == "started"
    assert found[names.JOB_SPAN_ID] == f"{own.span_id:016x}"
    assert found[names.JOB_PARENT_SPAN_ID] == f"{job.parent_span_id:016x}"
    assert found[names.JOB_START_TIME] == job.started_ns
    assert (found[names.MESSAGING_SYSTEM], found[names.MESSAGING_DESTINATION]) == ("redis", "video:queue")
    assert (found[names.JOB_ID], found[names.JOB_ATTEMPT]) == ("j-1", 2)
    assert found.get(names.USER_ID) == job.fields.get(names.USER_ID)


def test_a_record_is_no_activity_of_the_job(spans: Spans) -> None:
    job = job_start(ORIGIN)
    before = job.activity_ns
    Reporter().round(0.0)
    assert job.activity_ns == before
    assert len(spans.all()) == 1


def test_an_open_job_is_reported_as_running_each_heartbeat(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "settings", lambda: Settings(heartbeat_s=30.0))
    job_start(ORIGIN)
    reporter = Reporter()
    for now_s in (0.0, 10.0, 29.9, 45.0, 61.0):
        reporter.round(now_s)
    assert [span.name for span in spans.all()] == ["job started", "job running", "job running"]


def test_a_job_that_is_over_leaves_no_record(spans: Spans) -> None:
    job_end(job_start(ORIGIN))
    Reporter().round(0.0)
    assert [span.name for span in spans.all()] == ["process video:queue"]


def test_a_job_that_nobody_ends_is_ended_by_its_age(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "settings", lambda: Settings(job_timeout_s=5.0))
    job = job_start(ORIGIN)
    job.started_ns -= 6_000_000_000
    Reporter().round(0.0)
    assert attributes(spans.one("process video:queue"))[names.JOB_OUTCOME] == "unknown"


def test_the_thread_reports_a_job_soon_after_its_start(spans: Spans) -> None:
    records.install()
    job_start(ORIGIN)
    deadline_s = time.monotonic() + 10
    while not spans.named("job started"):
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_jobs_are_counted_by_queue_and_outcome(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "get_meter", provider.get_meter)
    monkeypatch.setattr(records, "_Counters", type("Counters", (), {}))
    records.install()
    job_end(job_start(ORIGIN))
    job_start(ORIGIN)
    points = {
        metric.name: [(dict(point.attributes or {}), point.value) for point in metric.data.data_points]  # type: ignore[union-attr]
        for group in reader.get_metrics_data().resource_metrics  # type: ignore[union-attr]  # there is data
        for scope in group.scope_metrics
        for metric in scope.metrics
    }
    queue = {names.MESSAGING_DESTINATION: "video:queue"}
    assert points["otel_pipeline.jobs.started"] == [(queue, 2)]
    assert points["otel_pipeline.jobs.ended"] == [({**queue, names.JOB_OUTCOME: "completed"}, 1)]
    assert points["otel_pipeline.jobs.open"] == [(queue, 1)]
    [(labels, value)] = points["worker_active"]
    assert (set(labels), value) == ({"worker"}, 1)
    assert len(spans.named("process video:queue")) == 1
    provider.shutdown()


def test_a_process_that_takes_no_jobs_is_no_worker() -> None:
    records.forget()
    assert list(records._observe_active(CallbackOptions())) == []
    records.consuming()
    records.stop_consuming()
    assert [each.value for each in records._observe_active(CallbackOptions())] == [0]
