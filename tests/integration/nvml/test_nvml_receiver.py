"""The receiver `nvml` in a gateway process over the stub: on /metrics and out by OTLP, through trouble of all kinds."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from otel_pipeline.contracts import Accepted, Context, Rejected, RetryLater
from otel_pipeline.event_loop import EventLoop
from otel_pipeline.exposition.families import Exposition
from otel_pipeline.nvml.samples import Device, Quantity, Reading, Series
from otel_pipeline.receivers.nvml import NvmlReceiver
from otel_pipeline.stats import Stats
from otel_pipeline.wire.signal import Signal
from tests.benchmarks.process import free_ports
from tests.support import nvml_stub
from tests.support.fakes import RememberingEntrance
from tests.support.nvml_stub.control import RINGS, Control, gpu, uuid

NOW: Final = 1_790_000_000_000_000_000
WAIT_S: Final = 30.0


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline_s = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline_s, what
        time.sleep(0.05)
    return found


# -- in this process ---------------------------------------------------------------------------------------------------


class Running:
    """A receiver with an entrance that remembers; its own readings are those of a machine without a driver."""

    def __init__(self, entrance: RememberingEntrance, **settings: Any) -> None:
        self.stats = Stats()
        self.loop = EventLoop()
        self.loop.start()
        context = Context("nvml", self.stats, Exposition(), self.loop)
        config = NvmlReceiver.Config(flush_interval=0.1, **settings)
        self.receiver = NvmlReceiver(config, context, {"http": {Signal.METRICS: entrance}})

    def counted(self, outcome: str) -> float:
        return (
            self.stats.registry.get_sample_value(
                "otel_pipeline_nvml_readings_total", {"receiver": "nvml", "outcome": outcome}
            )
            or 0.0
        )


@contextmanager
def running(entrance: RememberingEntrance, **settings: Any) -> Iterator[Running]:
    found = Running(entrance, **settings)
    try:
        yield found
    finally:
        found.receiver.stop(2.0)
        found.loop.stop()


def names(body: bytes) -> set[str]:
    request = ExportMetricsServiceRequest.FromString(body)
    return {metric.name for metric in request.resource_metrics[0].scope_metrics[0].metrics}


def test_without_a_driver_it_hands_in_that_and_why(caplog: pytest.LogCaptureFixture) -> None:
    entrance = RememberingEntrance()
    with running(entrance) as found:
        found.receiver.start()
        until(lambda: len(entrance.bodies) >= 2, "two readings")
        assert names(entrance.bodies[0]) == {"otel_pipeline.gpu.available", "otel_pipeline.gpu.failure"}
    warned = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert len(warned) == 1
    assert "GPUs cannot be read: LIBRARY_NOT_FOUND: libnvidia-ml.so.1 is not there" in warned[0]


def test_what_is_refused_for_now_is_handed_in_again() -> None:
    entrance = RememberingEntrance(RetryLater(0.05, "full"), RetryLater(0.05, "full"), Accepted())
    with running(entrance) as found:
        found.receiver.start()
        until(lambda: found.counted("ok") >= 2, "two readings are in")
        assert entrance.bodies[0] == entrance.bodies[1] == entrance.bodies[2]
        assert entrance.bodies[3] != entrance.bodies[2]
        assert found.counted("retry_later") == 2


def test_what_is_refused_for_good_is_counted() -> None:
    with running(RememberingEntrance(Rejected("no"))) as found:
        found.receiver.start()
        until(lambda: found.counted("rejected") >= 2, "two are rejected")
        assert found.counted("ok") == 0


def test_what_cannot_be_handed_in_before_the_end_is_counted_as_dropped() -> None:
    with running(RememberingEntrance(RetryLater(60.0, "full"))) as found:
        found.receiver.start()
        until(lambda: found.counted("retry_later") >= 1, "one is refused")
        found.receiver.stop(0.3)
        assert found.counted("dropped") >= 1


def test_stopping_twice_or_before_the_start_is_nothing() -> None:
    with running(RememberingEntrance()) as found:
        found.receiver.stop(0.1)
        found.receiver.start()
        found.receiver.stop(1.0)
        found.receiver.stop(1.0)
        assert not found.receiver._claims._sockets


def test_the_resource_tells_the_host() -> None:
    entrance = RememberingEntrance()
    with running(entrance, service_name="gpus") as found:
        found.receiver.start()
        found.receiver._take(
            Reading(NOW, (Device("GPU-a", 0),), (Series("GPU-a", Quantity.POWER, (), 0, [NOW], [1.0]),))
        )
        until(lambda: entrance.bodies, "a reading")
    resource = ExportMetricsServiceRequest.FromString(entrance.bodies[0]).resource_metrics[0].resource
    told = {one.key: one.value.string_value for one in resource.attributes}
    assert (told["service.name"], told["host.name"]) == ("gpus", socket.gethostname())
    assert told["service.instance.id"] == told.get("host.id", told["host.name"])


# -- as a gateway ------------------------------------------------------------------------------------------------------


class Gateway:
    """A process that samples the stub and shows its metrics."""

    def __init__(self, folder: Path, environment: Mapping[str, str], **nvml: Any) -> None:
        self._own, self._shown = free_ports(2)
        configuration = {
            "receivers": {"nvml": {"flush_interval": "200ms", "retry_interval": "1s", **nvml}},
            "exporters": {
                "prometheus": {"endpoint": f"127.0.0.1:{self._shown}"},
                "file": {"path": str(folder / "metrics.jsonl"), "flush_interval": "100ms"},
            },
            "service": {
                "telemetry": {"metrics": {"address": f"127.0.0.1:{self._own}"}},
                "pipelines": {"metrics": {"receivers": ["nvml"], "exporters": ["prometheus", "file"]}},
            },
        }
        self.file = folder / "metrics.jsonl"
        settings = folder / "gateway.yaml"
        settings.write_text(json.dumps(configuration))
        command = ("run", "--config", str(settings), "--data-dir", str(folder / "data"))
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "otel_pipeline", *command),
                env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(nvml_stub.SOURCE.parents[3]), **environment},
                stdout=log,
                stderr=log,
            )

    def metrics(self, *, own: bool = False) -> dict[str, list[tuple[dict[str, str], float]]]:
        """What is shown now; nothing while nobody listens."""
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://127.0.0.1:{self._own if own else self._shown}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        for family in parse_text(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    def by_gpu(self, name: str, **labels: str) -> dict[str, float]:
        """The values of a metric by hw.id."""
        rows = [(each, value) for each, value in self.metrics().get(name, []) if labels.items() <= each.items()]
        assert len(rows) == len({each["hw_id"] for each, _ in rows}), rows
        return {each["hw_id"]: value for each, value in rows}

    def stop(self) -> int:
        self._process.terminate()
        try:
            return self._process.wait(20)
        finally:
            self._process.kill()


def test_a_gateway_shows_one_series_for_each_gpu_and_tells_of_one_that_is_lost(tmp_path: Path) -> None:
    control = Control(tmp_path)
    both = gpu(0, *RINGS), gpu(1, *RINGS, "step power 0=300", "step utilization 0=90")
    control.write(*both)
    gateway = Gateway(tmp_path, control.environment(nvml_stub.built()))
    try:
        a, b = uuid(0), uuid(1)
        until(
            lambda: gateway.by_gpu("hw_gpu_utilization_ratio", hw_gpu_task="general") == {a: 0.5, b: 0.9}, "both busy"
        )
        assert until(lambda: gateway.by_gpu("hw_power_watts"), "power") == {a: 100.0, b: 300.0}
        assert gateway.by_gpu("hw_gpu_memory_limit_bytes") == {a: 80 * 2**30, b: 80 * 2**30}
        before = gateway.by_gpu("hw_energy_joules_total")
        control.write(both[0], f"{both[1]}\nfail * 15")
        until(lambda: gateway.by_gpu("hw_status_ratio", hw_state="failed") == {a: 0, b: 1}, "one is lost")
        after = until(
            lambda: (now := gateway.by_gpu("hw_energy_joules_total"))[a] > before[a] and now, "the other goes on"
        )
        assert after[a] - before[a] < 100 * 60
        control.write(*both)
        until(lambda: gateway.by_gpu("hw_status_ratio", hw_state="failed") == {a: 0, b: 0}, "it is back")
        refused = gateway.metrics(own=True)["otelcol_receiver_refused_metric_points_total"]
        assert {value for _, value in refused} == {0}
    finally:
        code = gateway.stop()
    assert code == 0, (tmp_path / "log").read_text()
    written = [json.loads(line) for line in gateway.file.read_text().splitlines()]
    times = [
        int(point["timeUnixNano"])
        for request in written
        for group in request["resourceMetrics"]
        for metric in group["scopeMetrics"][0]["metrics"]
        if metric["name"] == "hw.energy"
        for point in metric["sum"]["dataPoints"]
        if point["attributes"][0]["value"]["stringValue"] == uuid(0)
    ]
    assert times == sorted(set(times))
    assert len(times) >= 10


def test_only_the_quantities_of_the_configuration_are_shown(tmp_path: Path) -> None:
    control = Control(tmp_path)
    control.write(gpu(0))
    gateway = Gateway(tmp_path, control.environment(nvml_stub.built()), quantities=["energy"])
    try:
        until(lambda: gateway.by_gpu("hw_energy_joules_total"), "energy")
        shown = {name for name in gateway.metrics() if name.startswith("hw_")}
        assert shown == {"hw_energy_joules_total", "hw_status_ratio", "hw_gpu_memory_limit_bytes"}
    finally:
        assert gateway.stop() == 0
