"""Readings as the SDK's data, what is worth sending, and what happens in a process that has none of it."""

from __future__ import annotations

import socket
import threading
from typing import Any, Final

import pytest
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from otel_pipeline.gpu.hardware import to_request
from otel_pipeline.nvml.claims import Claims
from otel_pipeline.nvml.samples import Device, Failure, Quantity, Reading, Series
from otel_pipeline.worker import gpu_sampling
from otel_pipeline.worker.gpu_sampling import Sampling, to_data
from otel_pipeline.worker.process import lifecycle

NOW: Final = 1_790_000_000_000_000_000
GPU: Final = Device("GPU-a", 0, "H100", memory_limit_bytes=1000)


def reading(*failures: Failure) -> Reading:
    series = (
        Series("GPU-a", Quantity.POWER, (), 0, [NOW, NOW + 5], [100.5, 200.0]),
        Series("GPU-a", Quantity.ENERGY, (), 7, [NOW, NOW + 5], [10.0, 20.0]),
        Series("GPU-a", Quantity.MEMORY_USED, (), 0, [NOW], [500]),
        Series("GPU-a", Quantity.TEMPERATURE, (("sensor", "gpu"),), 0, [NOW], [40]),
    )
    return Reading(NOW + 10, () if failures else (GPU,), () if failures else series, failures)


def flat(request: Any) -> dict[Any, Any]:
    """What a request tells, whatever the order."""
    found = {}
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        kind = metric.WhichOneof("data")
        data = getattr(metric, kind)
        for point in data.data_points:
            attributes = tuple(sorted((one.key, str(one.value)) for one in point.attributes))
            value = getattr(point, point.WhichOneof("value"))
            key = (
                metric.name,
                metric.unit,
                kind,
                getattr(data, "is_monotonic", None),
                attributes,
                point.time_unix_nano,
            )
            found[key] = (value, point.start_time_unix_nano)
    return found


def test_a_worker_sends_what_an_agent_sends() -> None:
    resource = Resource({"service.name": "w", "host.id": "h"})
    by_worker = encode_metrics(to_data(reading(), resource))
    by_agent = ExportMetricsServiceRequest.FromString(to_request(reading(), {"service.name": "w", "host.id": "h"}))
    assert flat(by_worker) == flat(by_agent)
    attributes = [
        {one.key: one.value for one in each.resource_metrics[0].resource.attributes} for each in (by_worker, by_agent)
    ]
    assert attributes[0] == attributes[1]


@pytest.mark.parametrize(
    ("is_asked_for", "told", "waiting"),
    [
        (False, reading(), 1),
        (False, Reading(NOW), 0),
        (False, reading(Failure("DRIVER_NOT_LOADED", "x")), 0),
        (True, reading(Failure("DRIVER_NOT_LOADED", "x")), 1),
        (True, reading(Failure("LIBRARY_NOT_FOUND", "x")), 1),
    ],
)
def test_only_what_tells_something_is_sent(is_asked_for: bool, told: Reading, waiting: int) -> None:  # noqa: FBT001
    sampling = Sampling(is_asked_for=is_asked_for)
    sampling._put(told)
    assert len(sampling._waiting) == waiting


def test_where_there_is_no_driver_it_ends_by_itself() -> None:
    sampling = Sampling(is_asked_for=False)
    sampling._put(reading(Failure("LIBRARY_NOT_FOUND", "x")))
    assert sampling._runner._stop.is_set()
    assert list(sampling._waiting) == [None]


def test_a_forked_child_touches_no_lock_of_its_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = Sampling(is_asked_for=False)
    monkeypatch.setattr(gpu_sampling.os, "getpid", lambda: -1)
    sampling.stop(1.0)
    assert not sampling._runner._stop.is_set()
    assert not sampling._filled.is_set()


def test_of_too_many_readings_the_oldest_go() -> None:
    sampling = Sampling(is_asked_for=False)
    for index in range(gpu_sampling.READINGS_MAX + 5):
        sampling._put(Reading(NOW + index, (GPU,)))
    first = sampling._waiting[0]
    assert first is not None
    assert (len(sampling._waiting), first.taken_unix_nano) == (gpu_sampling.READINGS_MAX, NOW + 5)


# -- the exporter ------------------------------------------------------------------------------------------------------


class Remembering(MetricExporter):
    """Keeps what it is given, or raises."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.given: list[Any] = []
        self.error = error

    def export(self, metrics_data: Any, timeout_millis: float = 10_000, **_: Any) -> Any:  # noqa: ARG002  the SDK's
        self.given.append(metrics_data)
        if self.error is not None:
            raise self.error

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002  the SDK's
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        pass


def provided(monkeypatch: pytest.MonkeyPatch, *readers: Any) -> MeterProvider:
    provider = MeterProvider(readers, Resource({"service.name": "w"}), shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    return provider


def test_a_reading_leaves_by_every_exporter_of_the_process_and_no_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    exporters = [Remembering(), Remembering()]
    pushing = [PeriodicExportingMetricReader(each, export_interval_millis=float("inf")) for each in exporters]
    scraped = InMemoryMetricReader()
    provided(monkeypatch, *pushing, scraped)
    assert gpu_sampling._send(reading())
    assert [len(each.given) for each in exporters] == [1, 1]
    assert exporters[0].given[0].resource_metrics[0].resource.attributes["service.name"] == "w"
    assert scraped.get_metrics_data() is None


def test_an_exporter_that_raises_costs_the_reading_only(monkeypatch: pytest.MonkeyPatch) -> None:
    provided(
        monkeypatch, PeriodicExportingMetricReader(Remembering(OSError("away")), export_interval_millis=float("inf"))
    )
    failures = gpu_sampling._send.failures
    assert gpu_sampling._send(reading()) is None
    assert gpu_sampling._send.failures == failures + 1


def test_without_the_sdk_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "get_meter_provider", metrics.NoOpMeterProvider)
    before = len(lifecycle.closing), threading.active_count()
    gpu_sampling.install()
    assert (len(lifecycle.closing), threading.active_count()) == before


# -- claims ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    return f"GPU-{abs(hash((request.node.nodeid, str(tmp_path))))}"


def test_one_worker_samples_a_gpu_until_it_gives_it_up(gpu: str) -> None:
    first, second = Claims("worker"), Claims("worker")
    assert (first.take(gpu), first.take(gpu), second.take(gpu)) == (True, True, False)
    assert second.take(f"{gpu}-other")
    first.release()
    assert second.take(gpu)
    second.release()


def test_a_worker_gives_up_what_an_agent_announces(gpu: str) -> None:
    worker, other, agent = Claims("worker"), Claims("worker"), Claims("agent")
    assert worker.take(gpu)
    assert agent.announce(gpu)
    assert not worker.take(gpu)
    agent.release()
    assert other.take(gpu)
    other.release()


def test_two_agents_both_sample_what_they_were_told_to(gpu: str) -> None:
    agents = [Claims("agent"), Claims("agent")]
    assert all(each.announce(gpu) for each in agents)
    for each in agents:
        each.release()


def test_where_sockets_are_forbidden_nobody_can_claim_and_all_sample(gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden(socket.socket):
        def bind(self, _: Any) -> None:
            raise PermissionError("injected")

    monkeypatch.setattr(socket, "socket", Forbidden)
    assert Claims("worker").take(gpu)
