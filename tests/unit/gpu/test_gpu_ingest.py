"""GPU samples out of metrics: each known emitter in its public shape, and what must not become a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_pipeline.errors import WireError
from otel_pipeline.gpu import ingest
from otel_pipeline.gpu.emitters import PLAUSIBLE_MAX, READINGS, scale_of
from otel_pipeline.gpu.hardware import to_request
from otel_pipeline.gpu.ingest import AGE_MAX, Device, Samples, hosts_of, read
from otel_pipeline.gpu.points import Budget
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.limits import GPU_ID_CHARS_MAX
from otel_pipeline.nvml import samples as own
from otel_pipeline.nvml.conventions import SENT_TIME
from otel_pipeline.wire import otlp_json
from otel_pipeline.wire.batch import Batch, Constants
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import any_value
from tests.support import otlp

DATA = Path(__file__).parents[2] / "data/gpu"
MIB = 1024 * 1024
A = "GPU-11111111-aaaa-4000-8000-000000000000"
B = "GPU-22222222-bbbb-4000-8000-000000000000"
NAME = "NVIDIA A100-SXM4-80GB"
TIME_NS = 1_795_294_144_000_000_000


def batch_of(*requests: bytes, signal: Signal = Signal.METRICS) -> Batch:
    return BatchReader(signal).read(requests)[0]


def recorded(name: str) -> Samples:
    return read(batch_of(otlp_json.decode(Signal.METRICS, (DATA / name).read_bytes())))


def values(samples: Samples) -> dict[tuple[str, Quantity], list[float]]:
    found = {(block.gpu, block.quantity): block.values.tolist() for block in samples.blocks}
    assert len(found) == len(samples.blocks)
    return found


class Request:
    """A metrics request with one resource; `add` takes a metric's name, unit and points."""

    def __init__(self, resource: dict[str, Any] | None = None) -> None:
        self.message = ExportMetricsServiceRequest()
        group = self.message.resource_metrics.add()
        for key, value in ({"host.name": "h"} if resource is None else resource).items():
            group.resource.attributes.add(key=key).value.CopyFrom(any_value(value))
        self.scope = group.scope_metrics.add()

    def add(
        self, name: str, *points: tuple[int, float], unit: str = "", temporality: int = 0, **attributes: Any
    ) -> Request:
        metric = self.scope.metrics.add(name=name, unit=unit)
        if temporality:
            metric.sum.aggregation_temporality = temporality  # type: ignore[assignment]  # an enum's number
        data = metric.sum if temporality else metric.gauge
        for time_ns, value in points:
            number = {"as_int": value} if isinstance(value, int) else {"as_double": value}
            point = data.data_points.add(time_unix_nano=time_ns, **number)
            for key, text in ({"hw__id": A} | attributes).items():
                point.attributes.add(key=key.replace("__", ".")).value.CopyFrom(any_value(text))
        return self

    def read(self) -> Samples:
        return read(batch_of(self.message.SerializeToString()))


# -- each emitter ------------------------------------------------------------------------------------------------------


def test_the_hardware_conventions_are_read_and_other_devices_are_not() -> None:
    samples = recorded("hw.json")
    assert values(samples) == {
        (A, Quantity.UTILIZATION): [0.97],
        (A, Quantity.MEMORY_USED): [63963136000.0],
        (A, Quantity.POWER): [387.25],
        (A, Quantity.ENERGY): [1234567.89],
    }
    assert {(block.hosts, block.source, block.age_max_ns) for block in samples.blocks} == {
        (("0f2c", "node-7"), "hw hardware", 0)
    }
    assert all(block.times_ns.tolist() == [TIME_NS] and block.times_ns.dtype == np.int64 for block in samples.blocks)
    assert samples.sent_ns == [(("0f2c", "node-7"), TIME_NS + 500_000_000)]
    assert samples.devices == [Device(("0f2c", "node-7"), A, None, NAME, "", {"limit": 81920.0 * MIB})]
    assert not samples.dropped


def test_openlits_collector_has_names_of_its_own_and_mig_devices() -> None:
    samples = recorded("openlit-collector.json")
    mig = "MIG-7f5a0f8e-1111-5000-8000-000000000000"
    assert values(samples) == {
        (A, Quantity.UTILIZATION): [0.97],
        (A, Quantity.MEMORY_USED): [63963136000.0],
        (A, Quantity.POWER): [387.25],
        (A, Quantity.ENERGY): [1234567.89],
        (mig, Quantity.MEMORY_USED): [1073741824.0],
    }
    assert [(each.gpu, each.index, each.parent) for each in samples.devices] == [(A, 0, ""), (mig, None, B)]
    assert not samples.dropped


def test_of_openlits_sdk_percent_and_mib_are_converted_and_its_zeros_are_not_taken_for_measurements() -> None:
    samples = recorded("openlit-sdk.json")
    assert values(samples) == {
        (A, Quantity.UTILIZATION): [0.97],
        (B, Quantity.UTILIZATION): [0.0],  # may be true
        (A, Quantity.MEMORY_USED): [61000.0 * MIB],
        (A, Quantity.POWER): [387.0],
    }
    assert samples.dropped == {"sentinel": 3}
    assert {each.gpu: (each.index, each.name, each.memory_limit_bytes) for each in samples.devices} == {
        A: (0, NAME, 81920.0 * MIB),
        B: (1, NAME, None),
    }
    assert {block.hosts for block in samples.blocks} == {()}  # it tells no host


def test_genai_otel_instrument_tells_an_index_only() -> None:
    samples = recorded("genai.json")
    assert values(samples) == {
        ("index:0", Quantity.UTILIZATION): [0.97],
        ("index:0", Quantity.MEMORY_USED): [61000.0 * MIB],
        ("index:0", Quantity.POWER): [387.25],
    }
    assert samples.devices == [Device(("node-7",), "index:0", 0, NAME, "", {"limit": 81920.0 * MIB})]


def test_dcgm_through_a_collector_has_sentinels_mj_and_the_host_on_the_point() -> None:
    samples = recorded("dcgm-collector.json")
    assert values(samples) == {
        (A, Quantity.UTILIZATION): [0.97],  # not the engine's activity
        (B, Quantity.UTILIZATION): [0.0],
        (A, Quantity.MEMORY_USED): [61000.0 * MIB],
        (A, Quantity.POWER): [387.25],
        (A, Quantity.ENERGY): [pytest.approx(1234567.89)],
    }
    assert samples.dropped == {"sentinel": 2}
    assert {(block.hosts, block.age_max_ns) for block in samples.blocks} == {(("node-7",), 30 * 10**9)}
    assert {each.gpu: (each.index, each.memory_limit_bytes) for each in samples.devices} == {
        A: (0, 81920.0 * MIB),
        B: (1, None),
    }


def test_nvidia_gpu_exporter_leaves_out_the_prefix_of_the_uuid_and_the_host_is_the_address_asked() -> None:
    samples = recorded("nvidia-smi-collector.json")
    assert values(samples) == {
        (A, Quantity.UTILIZATION): [0.97],
        (A, Quantity.MEMORY_USED): [63963136000.0],
        (A, Quantity.POWER): [387.25],  # not the instantaneous one
        (A, Quantity.ENERGY): [1234567.89],
    }
    assert samples.devices == [Device(("node-7",), A, 0, NAME, "", {"limit": 81920.0 * MIB})]


def test_what_our_own_sampler_sends_is_read() -> None:
    its = [
        own.Series(A, own.Quantity.UTILIZATION, (), 0, [1, 2], [0.5, 0.25]),
        own.Series(A, own.Quantity.ENCODER_UTILIZATION, (), 0, [2], [0.75]),
        own.Series(A, own.Quantity.MEMORY_USED, (), 0, [2], [5]),
        own.Series(A, own.Quantity.POWER, (), 0, [2], [300.5]),
        own.Series(A, own.Quantity.ENERGY, (), 1, [2], [1e6]),
    ]
    devices = (own.Device(A, 3, NAME, memory_limit_bytes=100), own.Device("MIG-1", 0, NAME, parent=B))
    samples = read(batch_of(to_request(own.Reading(7, devices, tuple(its)), {"host.name": "h"})))
    assert values(samples) == {
        (A, Quantity.UTILIZATION): [0.5, 0.25],
        (A, Quantity.MEMORY_USED): [5.0],
        (A, Quantity.POWER): [300.5],
        (A, Quantity.ENERGY): [1e6],
    }
    assert {each.gpu: (each.index, each.parent, each.memory_limit_bytes) for each in samples.devices} == {
        A: (3, "", 100.0),
        "MIG-1": (None, B, None),
    }
    assert (samples.sent_ns, samples.dropped) == ([(("h",), 7)], {})


@pytest.mark.parametrize("name", READINGS)
def test_each_row_of_the_table_has_a_unit_that_its_quantity_can_have(name: str) -> None:
    assert scale_of(READINGS[name], "") is not None


# -- units -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "unit", "raw", "expected"),
    [
        ("hw.gpu.utilization", "%", 97, 0.97),
        ("gpu.utilization", "1", 0.97, 0.97),
        ("hw.gpu.memory.usage", "MiBy", 2, 2 * MIB),
        ("gpu.memory.used", "By", 7, 7.0),
        ("hw.power", "mW", 350_000, 350.0),
        ("hw.energy", "kWh", 0.5, 1.8e6),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "J", 5.0, 5.0),
    ],
)
def test_the_metrics_own_unit_beats_the_table(name: str, unit: str, raw: float, expected: float) -> None:
    ids: dict[str, Any] = {"hw__type": "gpu", "gpu__uuid": A, "UUID": A}
    samples = Request().add(name, (1, raw), unit=unit, **ids).read()
    assert [block.values.tolist() for block in samples.blocks] == [[pytest.approx(expected)]]


@pytest.mark.parametrize(("name", "unit"), [("hw.power", "J"), ("hw.gpu.memory.usage", "%"), ("hw.energy", "furlong")])
def test_a_unit_that_the_quantity_cannot_have_is_not_guessed_at(name: str, unit: str) -> None:
    samples = Request().add(name, (1, 1.0), (2, 1.0), unit=unit, hw__type="gpu").read()
    assert (samples.blocks, samples.dropped) == ([], {"unit": 2})


# -- what is no sample -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "no_value"),
        (float("inf"), "invalid"),
        (-0.01, "invalid"),
        (1.01, "invalid"),
        (9223372036854775794, "sentinel"),
        (2147483632, "sentinel"),
        (140737488355330.0, "sentinel"),
    ],
)
def test_a_value_that_is_none_is_counted_and_its_neighbours_stay(value: float, reason: str) -> None:
    samples = Request().add("hw.gpu.utilization", (1, 0.5), (2, value), (3, 0.25)).read()
    assert [(block.times_ns.tolist(), block.values.tolist()) for block in samples.blocks] == [([1, 3], [0.5, 0.25])]
    assert samples.dropped == {reason: 1}


@pytest.mark.parametrize("time_ns", [0, 2**63, 2**64 - 1])
def test_a_time_that_is_none_is_counted(time_ns: int) -> None:
    samples = Request().add("hw.gpu.utilization", (time_ns, 0.5)).read()
    assert (samples.blocks, samples.dropped) == ([], {"invalid": 1})


def test_a_point_that_says_that_it_has_no_value_is_counted() -> None:
    request = Request().add("hw.gpu.utilization", (1, 0.5), (2, 0.5))
    request.scope.metrics[0].gauge.data_points[1].flags = 1
    samples = request.read()
    assert ([block.times_ns.tolist() for block in samples.blocks], samples.dropped) == ([[1]], {"no_value": 1})


def test_a_delta_is_no_counter() -> None:
    samples = Request().add("hw.energy", (1, 5.0), temporality=1, hw__type="gpu").read()
    assert (samples.blocks, samples.dropped) == ([], {"temporality": 1})


def test_a_histogram_by_the_name_of_a_sample_is_counted() -> None:
    request = Request()
    request.scope.metrics.add(name="hw.power").histogram.data_points.add(time_unix_nano=1)
    assert request.read().dropped == {"malformed": 1}


def test_points_that_cannot_be_read_are_counted_and_raise_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scan refuses what protobuf would; what it let pass must not raise either."""

    def refuse(*_: object) -> None:
        raise WireError("no data points", 0)

    monkeypatch.setattr(ingest, "read_points", refuse)
    samples = Request().add("hw.gpu.utilization", (1, 0.5), (2, 0.5)).read()
    assert (samples.blocks, samples.dropped) == ([], {"malformed": 2})


def test_points_that_would_hold_up_the_gateway_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "Budget", lambda: Budget(singles=1))
    samples = Request().add("hw.gpu.utilization", (1, 0.5), (2, 0.5)).read()
    assert (samples.blocks, samples.dropped) == ([], {"limit": 2})


def test_metrics_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "GPU_METRICS_MAX", 1)
    samples = Request().add("hw.gpu.utilization", (1, 0.5)).add("hw.power", (1, 5.0), (2, 5.0), hw__type="gpu").read()
    assert ([block.quantity for block in samples.blocks], samples.dropped) == ([Quantity.UTILIZATION], {"limit": 2})


@pytest.mark.parametrize("identity", ["", "x" * (GPU_ID_CHARS_MAX + 1)])
def test_without_an_id_there_is_no_sample(identity: str) -> None:
    samples = Request().add("hw.gpu.utilization", (1, 0.5), hw__id=identity).read()
    assert (samples.blocks, samples.devices, samples.dropped) == ([], [], {"no_id": 1})


def test_what_another_processor_has_dropped_is_not_read() -> None:
    batch = batch_of(Request().add("hw.gpu.utilization", (1, 0.5)).message.SerializeToString())
    batch.drop(np.array([True]))
    assert read(batch).blocks == []


def test_a_name_that_another_processor_has_set_counts() -> None:
    batch = batch_of(Request().add("renamed", (1, 0.5)).message.SerializeToString())
    batch.set_name(Constants(np.array([0], np.int32), ["hw.gpu.utilization"]))
    assert [block.quantity for block in read(batch).blocks] == [Quantity.UTILIZATION]


@pytest.mark.parametrize("signal", [Signal.TRACES, Signal.LOGS])
def test_other_signals_hold_no_samples(signal: Signal) -> None:
    body = otlp.traces(["hw.power"]) if signal is Signal.TRACES else otlp.logs(["hw.power"])
    assert read(batch_of(body, signal=signal)) == Samples()


def test_a_batch_without_gpu_metrics_is_asked_for_nothing_but_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(otlp.metrics({"queue.depth": 1.0, "hw.gpu.memory.utilization": 0.5}))
    monkeypatch.delattr(Batch, "resources")
    assert read(batch) == Samples()


# -- MIG, copies, several senders --------------------------------------------------------------------------------------


def test_of_mig_instances_memory_is_their_own_and_power_is_the_boards_once() -> None:
    request = Request()
    for instance in ("9", "2"):
        request.add("DCGM_FI_DEV_FB_USED", (1, float(instance)), UUID=A, GPU_I_ID=instance)
    metric = request.add("DCGM_FI_DEV_POWER_USAGE", (1, 400.0), UUID=A, GPU_I_ID="9").scope.metrics[-1]
    copy = metric.gauge.data_points.add()
    copy.CopyFrom(metric.gauge.data_points[0])
    copy.attributes[-1].value.string_value = "2"
    samples = request.read()
    assert values(samples) == {
        (f"{A}/9", Quantity.MEMORY_USED): [9.0 * MIB],
        (f"{A}/2", Quantity.MEMORY_USED): [2.0 * MIB],
        (A, Quantity.POWER): [400.0],
    }
    assert {each.gpu: each.parent for each in samples.devices} == {f"{A}/9": A, f"{A}/2": A, A: ""}
    assert samples.dropped == {"copy": 1}


def test_of_a_shared_gpu_the_device_counts_and_not_what_a_pod_uses() -> None:
    request = Request().add("DCGM_FI_DEV_GPU_UTIL", (1, 30.0), UUID=A, pod="a", namespace="n")
    point = request.scope.metrics[0].gauge.data_points.add(time_unix_nano=1, as_double=90.0)
    point.attributes.add(key="UUID").value.string_value = A
    samples = request.read()
    assert values(samples) == {(A, Quantity.UTILIZATION): [0.9]}
    assert samples.dropped == {"copy": 1}


def test_two_senders_of_one_gpu_stay_apart() -> None:
    samples = Request().add("hw.energy", (1, 5.0), hw__type="gpu").add("hw.gpu.energy.consumed", (1, 3.0)).read()
    assert {block.source: block.values.tolist() for block in samples.blocks} == {"hw": [5.0], "openlit": [3.0]}


def test_two_scopes_with_the_same_names_stay_apart() -> None:
    requests = [Request().add("hw.energy", (1, value), hw__type="gpu") for value in (5.0, 3.0)]
    for request, scope in zip(requests, ("otel_pipeline.nvml", "otel_pipeline.receivers.dcgm"), strict=True):
        request.scope.scope.name = scope
    samples = read(batch_of(*(request.message.SerializeToString() for request in requests)))
    assert {block.source: block.values.tolist() for block in samples.blocks} == {
        "hw otel_pipeline.nvml": [5.0],
        "hw otel_pipeline.receivers.dcgm": [3.0],
    }


def test_requests_of_one_sender_that_came_together_become_one_block_in_their_order() -> None:
    bodies = [
        Request({"host.id": "h", SENT_TIME: time_ns}).add("hw.gpu.utilization", (time_ns, 0.5)).message
        for time_ns in (3, 1, 2)
    ]
    samples = read(batch_of(*(body.SerializeToString() for body in bodies)))
    assert [block.times_ns.tolist() for block in samples.blocks] == [[3, 1, 2]]
    assert samples.sent_ns == [(("h",), 3), (("h",), 1), (("h",), 2)]


def test_how_old_a_sample_may_be_stands_beside_it() -> None:
    samples = Request({"host.name": "h", AGE_MAX: 10_000_000_000}).add("hw.gpu.utilization", (1, 0.5)).read()
    assert [block.age_max_ns for block in samples.blocks] == [10_000_000_000]


@pytest.mark.parametrize("age", [-1, "10", 2.5, True and 2**62 * 2 - 1])
def test_an_age_that_is_none_is_no_age(age: Any) -> None:
    samples = Request({"host.name": "h", AGE_MAX: age}).add("hw.gpu.utilization", (1, 0.5)).read()
    assert [block.age_max_ns for block in samples.blocks] == [age if isinstance(age, int) and age > 0 else 0]


def test_scraped_samples_say_that_their_times_are_not_by_the_hosts_clock() -> None:
    assert {block.is_scraped for block in recorded("dcgm-collector.json").blocks} == {True}
    assert {block.is_scraped for block in recorded("nvidia-smi-collector.json").blocks} == {True}
    assert {block.is_scraped for block in recorded("hw.json").blocks} == {False}
    ours = Request({"host.name": "h", AGE_MAX: 0}).add("hw.gpu.utilization", (1, 0.5)).read()
    assert {block.is_scraped for block in ours.blocks} == {True}


@pytest.mark.parametrize(("instance", "gpu"), [("", A), ("0", f"{A}/0"), (0, f"{A}/0")])
def test_an_empty_instance_is_none(instance: Any, gpu: str) -> None:
    samples = Request().add("DCGM_FI_DEV_FB_USED", (1, 5.0), UUID=A, GPU_I_ID=instance).read()
    assert [block.gpu for block in samples.blocks] == [gpu]


def test_names_of_the_host_come_in_the_order_of_their_worth() -> None:
    resource = {"container.id": "c", "host.name": "n", "k8s.node.name": "n", "host.id": "i", "other": "x"}
    assert hosts_of(resource) == ("i", "n", "c")
    assert hosts_of({"host.name": "x" * (GPU_ID_CHARS_MAX + 1), "host.id": 7}) == ()


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "::1", ""])
def test_a_loopback_address_is_no_host(address: str) -> None:
    samples = Request({"server.address": address}).add("DCGM_FI_DEV_GPU_UTIL", (1, 5.0), UUID=A).read()
    assert [block.hosts for block in samples.blocks] == [()]


# -- any points --------------------------------------------------------------------------------------------------------

numbers = st.one_of(
    st.floats(width=64),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0x7FFFFFF0, 0x7FFFFFF3, 0x7FFFFFFFFFFFFFF0, 2.0**47, 2.0**47 + 3, 0, 1, 100.0]),
)
points = st.lists(st.tuples(st.integers(0, 2**64 - 1), numbers), max_size=40)


@given(st.dictionaries(st.sampled_from(sorted(READINGS)), points, max_size=4), st.sampled_from(["", "%", "mW", "kWh"]))
def test_samples_are_never_negative_never_a_sentinel_and_in_their_order(
    metrics: dict[str, list[tuple[int, float]]], unit: str
) -> None:
    request = Request()
    for name, its in metrics.items():
        request.add(name, *its, unit=unit, UUID=A, uuid=A, hw__type="gpu", gpu_id="0", gpu__uuid=A)
    samples = request.read()
    for block in samples.blocks:
        assert len(block.times_ns) == len(block.values) > 0
        assert (block.times_ns > 0).all()
        assert np.isfinite(block.values).all()
        assert (block.values >= 0).all()
        assert (block.values <= PLAUSIBLE_MAX[block.quantity]).all()
        came = [{time_ns for time_ns, _ in its} for its in metrics.values()]
        assert any(set(block.times_ns.tolist()) <= times for times in came)
    taken = sum(len(block.values) for block in samples.blocks)
    assert taken + samples.dropped.total() <= sum(map(len, metrics.values()))


@given(points)
def test_what_is_left_has_the_order_in_which_it_came(its: list[tuple[int, float]]) -> None:
    numbered = [(index + 1, value) for index, (_, value) in enumerate(its)]
    samples = Request().add("hw.gpu.memory.usage", *numbered).read()
    left = [time_ns for block in samples.blocks for time_ns in block.times_ns.tolist()]
    assert left == sorted(left)
    assert len(left) + samples.dropped.total() == len(its)
