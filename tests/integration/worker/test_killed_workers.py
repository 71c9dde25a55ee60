"""Workers that die in mid job, and a real gateway: what was finished arrives, the job shows as cancelled or lost."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from otel_pipeline.wire.values import python_value
from tests.e2e.gateway import Gateway, Ports, Sink, configuration, to_sink
from tests.e2e.support import Launcher
from tests.support.worker_program import finish, start
from tests.support.worker_sink import until

LOST_AFTER_S = 2
TRACES_ONLY = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", "OTEL_PIPELINE_HEARTBEAT_S": "0.5"}
AT_WORK = """
job = begin()
with tracer.start_as_current_span("finished stage"):
    pass
print(format(job.span.get_span_context().span_id, "016x"), flush=True)
time.sleep(600)
"""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    folder = tmp_path / "servers"
    folder.mkdir()
    with Launcher(folder) as found:
        yield found


@pytest.fixture
def sink() -> Iterator[Sink]:
    found = Sink()
    found.up()
    try:
        yield found
    finally:
        found.down()


@pytest.fixture
def gateway(launcher: Launcher, sink: Sink) -> Gateway:
    ports = Ports.free()
    return Gateway(launcher, ports, configuration(ports, to_sink(sink.port), {"lost_jobs": {"lost_after": "2s"}}))


@contextmanager
def at_work(folder: Path, gateway: Gateway, body: str = AT_WORK) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A worker in mid job, and its job's span id."""
    process = start(folder, body, f"http://127.0.0.1:{gateway.ports.http}", **TRACES_ONLY)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        finish(process)


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: python_value(pair.value) for pair in span.attributes}


def job_spans(sink: Sink) -> list[Any]:
    return [span for span in sink.spans() if span.name == "process q"]


def open_jobs(gateway: Gateway) -> float:
    return sum(value for _, value in gateway.own_metrics().get("otel_pipeline_open_jobs", []))


def event(gateway: Gateway, name: str) -> float:
    samples = gateway.own_metrics().get("otel_pipeline_lost_jobs_total", [])
    return sum(value for labels, value in samples if labels["event"] == name)


def test_a_worker_that_is_killed_in_mid_job_leaves_a_lost_job(tmp_path: Path, gateway: Gateway, sink: Sink) -> None:
    with at_work(tmp_path, gateway) as (process, span_id):
        until(lambda: open_jobs(gateway) == 1, "the job is reported")
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    [span] = until(lambda: job_spans(sink), "the job's span")
    [stage] = [span for span in sink.spans() if span.name == "finished stage"]
    assert span.span_id.hex() == span_id
    assert (stage.trace_id, stage.parent_span_id) == (span.trace_id, span.span_id)
    found = attributes(span)
    assert (found["otel_pipeline.job.outcome"], found["error.type"], span.status.code) == ("lost", "lost", 2)
    assert (found["otel_pipeline.job.id"], found["messaging.destination.name"]) == ("j-1", "q")
    assert span.start_time_unix_nano < span.end_time_unix_nano
    [resource] = {
        group.resource.SerializeToString()
        for request in sink.requests()
        for group in request.resource_spans
        if any(each.name == "process q" for scope in group.scope_spans for each in scope.spans)
    }
    assert b"worker" in resource
    assert not [span for span in sink.spans() if span.name.startswith("job ")]
    assert event(gateway, "marked") == 1
    assert all(balance.holds for balance in gateway.balances().values())


def test_a_worker_that_gets_a_sigterm_in_mid_job_leaves_a_cancelled_job(
    tmp_path: Path, gateway: Gateway, sink: Sink
) -> None:
    with at_work(tmp_path, gateway) as (process, span_id):
        until(lambda: open_jobs(gateway) == 1, "the job is reported")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
    [span] = until(lambda: job_spans(sink), "the job's span")
    assert (span.span_id.hex(), attributes(span)["otel_pipeline.job.outcome"]) == (span_id, "cancelled")
    assert [span.name for span in sink.spans()].count("finished stage") == 1
    until(lambda: open_jobs(gateway) == 0, "the job is forgotten")
    assert event(gateway, "marked") == 0


def test_a_job_at_work_is_kept_alive_by_its_reports(tmp_path: Path, gateway: Gateway, sink: Sink) -> None:
    body = f"""
    job = begin()
    print(0, flush=True)
    time.sleep({2 * LOST_AFTER_S})
    job_end(job)
    """
    with at_work(tmp_path, gateway, body) as (process, _):
        assert finish(process).returncode == 0
    [span] = until(lambda: job_spans(sink), "the job's span")
    assert attributes(span)["otel_pipeline.job.outcome"] == "completed"
    assert event(gateway, "marked") == 0


def test_a_job_whose_worker_dies_while_the_gateway_is_down_is_marked(
    tmp_path: Path, gateway: Gateway, sink: Sink
) -> None:
    with at_work(tmp_path, gateway) as (process, span_id):
        until(lambda: open_jobs(gateway) == 1, "the job is reported")
        gateway.server.stop()
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    gateway.restart()
    [span] = until(lambda: job_spans(sink), "the job's span")
    assert (span.span_id.hex(), attributes(span)["otel_pipeline.job.outcome"]) == (span_id, "lost")


def test_a_gateway_that_was_killed_remembers_the_jobs(tmp_path: Path, gateway: Gateway, sink: Sink) -> None:
    with at_work(tmp_path, gateway) as (process, span_id):
        until(lambda: open_jobs(gateway) == 1, "the job is reported")
        written = gateway.data_dir / "components" / "pipelines" / "traces" / "lost_jobs" / "data.mdb"
        until(lambda: written.exists() and span_id.encode() in written.read_bytes(), "the job is written")
        gateway.server.kill()
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    gateway.restart()
    [span] = until(lambda: job_spans(sink), "the job's span")
    assert (span.span_id.hex(), attributes(span)["otel_pipeline.job.outcome"]) == (span_id, "lost")


def test_a_worker_that_stood_still_ends_its_lost_job_late(tmp_path: Path, gateway: Gateway, sink: Sink) -> None:
    body = "job = begin()\nready()\ntime.sleep(4)\njob_end(job)\n"
    with at_work(tmp_path, gateway, body) as (process, _):
        until(lambda: open_jobs(gateway) == 1, "the job is reported")
        process.send_signal(signal.SIGSTOP)
        until(lambda: job_spans(sink), "the job is lost")
        process.send_signal(signal.SIGCONT)
        assert finish(process).returncode == 0
    until(lambda: len(job_spans(sink)) == 2, "the late end passes")
    assert [attributes(span)["otel_pipeline.job.outcome"] for span in job_spans(sink)] == ["lost", "completed"]
    assert event(gateway, "late_end") == 1
