"""Readings as OTLP: names, units and attributes of the conventions, each sample with its own time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from otel_pipeline import limits
from otel_pipeline.exporters.prometheus import PrometheusExporter
from otel_pipeline.exposition.families import Exposition
from otel_pipeline.gpu.hardware import host_attributes, to_request
from otel_pipeline.nvml.conventions import SENT_TIME
from otel_pipeline.nvml.samples import Device, Failure, Quantity, Reading, Series
from otel_pipeline.stats import Stats
from otel_pipeline.wire.signal import Signal

NOW: Final = 1_790_000_000_000_000_000
A, B, MIG = "GPU-a", "GPU-b", "MIG-a"
DEVICES: Final = (
    Device(A, 0, "H100", serial="1", driver_version="550", memory_limit_bytes=1000),
    Device(B, 1, "H100", failed=True),
    Device(MIG, 0, "H100 MIG", memory_limit_bytes=500, parent=A, mig_id="1/0"),
)


def series(quantity: Quantity, *values: float, device: str = A, started: int = 0, **attributes: str) -> Series:
    times = [NOW - (len(values) - index) * 100 for index in range(len(values))]
    return Series(device, quantity, tuple(attributes.items()), started, times, list(values))


def reading(*of: Series, failures: tuple[Failure, ...] = ()) -> Reading:
    return Reading(NOW, DEVICES, of, failures)


def decoded(of: Reading, **resource: str) -> Any:
    return ExportMetricsServiceRequest.FromString(to_request(of, resource)).resource_metrics[0]


def told(of: Reading) -> Iterator[tuple[str, str, dict[str, object], int, float, int]]:
    """(name, unit, attributes, time, value, start) of each point."""
    for metric in decoded(of).scope_metrics[0].metrics:
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            attributes: dict[str, object] = {
                each.key: getattr(each.value, each.value.WhichOneof("value")) for each in point.attributes
            }
            value = getattr(point, point.WhichOneof("value"))
            yield metric.name, metric.unit, attributes, point.time_unix_nano, value, point.start_time_unix_nano


def points(of: Reading, name: str) -> list[tuple[dict[str, object], int, float]]:
    return [(attributes, time, value) for each, _, attributes, time, value, _ in told(of) if each == name]


def test_each_sample_is_a_point_with_its_own_time() -> None:
    found = points(reading(series(Quantity.POWER, 100.5, 200.25, 300)), "hw.power")
    expected = {"hw.id": A, "hw.name": "H100", "hw.type": "gpu"}
    assert found == [(expected, NOW - 300, 100.5), (expected, NOW - 200, 200.25), (expected, NOW - 100, 300)]


@pytest.mark.parametrize(
    ("quantity", "attributes", "name", "unit", "expected"),
    [
        (Quantity.UTILIZATION, {}, "hw.gpu.utilization", "1", {"hw.gpu.task": "general"}),
        (Quantity.ENCODER_UTILIZATION, {}, "hw.gpu.utilization", "1", {"hw.gpu.task": "encoder"}),
        (Quantity.MEMORY_UTILIZATION, {}, "hw.gpu.memory_controller.utilization", "1", {}),
        (Quantity.MEMORY_USED, {}, "hw.gpu.memory.usage", "By", {}),
        (Quantity.ENERGY, {}, "hw.energy", "J", {"hw.type": "gpu"}),
        (
            Quantity.TEMPERATURE,
            {"sensor": "memory"},
            "hw.temperature",
            "Cel",
            {"hw.type": "gpu", "hw.sensor_location": "memory"},
        ),
        (Quantity.CLOCK, {"domain": "sm"}, "hw.gpu.clock.frequency", "Hz", {"hw.gpu.clock.domain": "sm"}),
        (
            Quantity.THROTTLED,
            {"reason": "hw_thermal"},
            "hw.gpu.throttled",
            "",
            {"hw.gpu.throttle.reason": "hw_thermal"},
        ),
        (
            Quantity.ERRORS,
            {"kind": "uncorrected"},
            "hw.errors",
            "{error}",
            {"hw.type": "gpu", "error.type": "uncorrected"},
        ),
        (Quantity.XID, {}, "hw.gpu.xid", "", {}),
        (Quantity.PROCESS_MEMORY, {"pid": "17"}, "process.gpu.memory.usage", "By", {"process.pid": 17}),
        (Quantity.PROCESS_UTILIZATION, {"pid": "17"}, "process.gpu.utilization", "1", {"process.pid": 17}),
    ],
)
def test_a_quantity_has_the_name_the_unit_and_the_attributes_of_the_conventions(
    quantity: Quantity, attributes: dict[str, str], name: str, unit: str, expected: dict[str, object]
) -> None:
    found = [one for one in told(reading(series(quantity, 0.5, **attributes))) if one[0] == name]
    assert found == [(name, unit, {"hw.id": A, "hw.name": "H100", **expected}, NOW - 100, 0.5, 0)]


def test_every_quantity_is_told() -> None:
    of = reading(
        *(series(quantity, 1.0, **({"pid": "1"} if "process" in quantity.value else {})) for quantity in Quantity)
    )
    whole = decoded(of).scope_metrics[0].metrics
    states = {"otel_pipeline.gpu.available", "hw.status", "hw.gpu.memory.limit", "hw.gpu.memory.utilization"}
    assert len({one.name for one in whole} - states) == len(Quantity) - 2  # three tasks share a metric


def test_counters_are_cumulative_and_say_since_when() -> None:
    whole = decoded(reading(series(Quantity.ENERGY, 10.0, 20.0, started=77), series(Quantity.ENERGY, 1.0, started=99)))
    metric = next(one for one in whole.scope_metrics[0].metrics if one.name == "hw.energy")
    assert (metric.sum.is_monotonic, metric.sum.aggregation_temporality) == (True, 2)
    assert [(one.start_time_unix_nano, one.as_double) for one in metric.sum.data_points] == [
        (77, 10),
        (77, 20),
        (99, 1),
    ]


def test_whole_numbers_stay_whole() -> None:
    large = 2**61 + 1
    assert points(reading(series(Quantity.MEMORY_USED, large)), "hw.gpu.memory.usage")[0][2] == large


def test_the_limit_describes_the_device() -> None:
    first, second = points(reading(), "hw.gpu.memory.limit")
    assert first == (
        {
            "hw.id": A,
            "hw.name": "H100",
            "hw.model": "H100",
            "hw.vendor": "NVIDIA",
            "hw.serial_number": "1",
            "hw.driver_version": "550",
            "hw.type": "gpu",
            "gpu.index": 0,
        },
        NOW,
        1000,
    )
    assert second[0]["hw.parent"] == A
    assert second[0]["gpu.mig.id"] == "1/0"
    assert "gpu.index" not in second[0]


def test_the_fill_of_the_memory_is_the_last_value() -> None:
    assert [one[1:] for one in points(reading(series(Quantity.MEMORY_USED, 0, 250)), "hw.gpu.memory.utilization")] == [
        (NOW - 100, 0.25)
    ]


def test_a_device_is_in_one_state() -> None:
    found = {(one["hw.id"], one["hw.state"]): value for one, _, value in points(reading(), "hw.status")}
    assert found == {(A, "ok"): 1, (A, "failed"): 0, (B, "ok"): 0, (B, "failed"): 1, (MIG, "ok"): 1, (MIG, "failed"): 0}


def test_a_lost_device_leaves_the_others_available_and_is_named() -> None:
    of = reading(failures=(Failure("GPU_IS_LOST", "gone", B),))
    assert points(of, "otel_pipeline.gpu.available") == [({}, NOW, 1)]
    assert points(of, "otel_pipeline.gpu.failure") == [({"error.type": "GPU_IS_LOST", "hw.id": B}, NOW, 1)]


def test_without_a_library_nothing_is_told_but_that() -> None:
    of = Reading(NOW, failures=(Failure("DRIVER_NOT_LOADED", "the driver is not loaded"),))
    names = {name: (attributes, value) for name, _, attributes, _, value, _ in told(of)}
    assert names == {
        "otel_pipeline.gpu.available": ({}, 0),
        "otel_pipeline.gpu.failure": ({"error.type": "DRIVER_NOT_LOADED"}, 1),
    }


# -- the host ----------------------------------------------------------------------------------------------------------


def test_the_resource_has_what_was_given_and_the_clock_of_the_sender() -> None:
    attributes = decoded(reading(), **{"host.id": "h"}).resource.attributes
    assert [(one.key, one.value.string_value or one.value.int_value) for one in attributes] == [
        ("host.id", "h"),
        (SENT_TIME, NOW),
    ]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {"host.id": "0123abc"}),
        ({"RUNPOD_POD_ID": "pod7"}, {"host.id": "pod7", "cloud.provider": "runpod"}),
        ({"KUBERNETES_SERVICE_HOST": "x", "NODE_NAME": "n1"}, {"k8s.node.name": "n1"}),
    ],
)
def test_a_host_is_told_as_its_workers_tell_it(
    environment: dict[str, str], expected: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("0123abc\n")
    found = host_attributes(environment, tmp_path)
    assert found["host.name"]
    assert found.items() >= expected.items()
    assert ("host.id" in found) == ("host.id" in expected)
    assert not [key for key in found if "gpu" in key]


# -- on /metrics -------------------------------------------------------------------------------------------------------


def shown(*of: Reading) -> dict[str, list[tuple[dict[str, str], float]]]:
    context: Any = SimpleNamespace(component_id="x", exposition=Exposition(), stats=Stats(), clock=lambda: NOW / 1e9)
    exporter = PrometheusExporter(PrometheusExporter.Config(), context)
    for each in of:
        refused = exporter.deliver(Signal.METRICS, to_request(each, {"service.name": "agent", "host.id": "h"}))
        assert refused == 0
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in parse_text(exporter.render("")[1].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_on_metrics_there_is_one_series_for_each_gpu_with_the_newest_value() -> None:
    of = reading(
        series(Quantity.UTILIZATION, 0.1, 0.2, 0.9),
        series(Quantity.UTILIZATION, 0.5, 0.6, device=B),
        series(Quantity.ENERGY, 10.0, 30.0, started=5),
        series(Quantity.MEMORY_USED, 7, 9, device=MIG),
    )
    found = shown(of)
    busy = {labels["hw_id"]: value for labels, value in found["hw_gpu_utilization_ratio"]}
    assert busy == {A: 0.9, B: 0.6}
    assert [value for _, value in found["hw_energy_joules_total"]] == [30.0]
    assert [(labels["hw_id"], labels["hw_parent"], value) for labels, value in found["hw_gpu_memory_usage_bytes"]] == [
        (MIG, A, 9)
    ]
    assert {(labels["hw_id"], labels["hw_state"]): value for labels, value in found["hw_status_ratio"]}[
        B, "failed"
    ] == 1
    assert "otel_pipeline_received_metrics_dropped_total" not in found


def test_the_clock_of_the_sender_is_no_label() -> None:
    labels = [each for rows in shown(reading(), Reading(NOW + 10**9, DEVICES)).values() for each, _ in rows]
    assert not [each for each in labels if "otel_pipeline_sent_time_unix_nano" in each]


def test_a_full_reading_of_a_large_machine_fits_into_a_request() -> None:
    many = [series(quantity, *range(100), device=A) for quantity in (Quantity.POWER, Quantity.ENERGY)] * 64
    assert len(to_request(reading(*many), {})) < limits.REQUEST_BYTES_MAX / 10
