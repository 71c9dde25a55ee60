"""The text of a DCGM exporter, and what becomes of it by the hardware conventions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from otel_pipeline.gpu import dcgm, ingest
from otel_pipeline.gpu.dcgm import FIELDS, PARTS, Page, read_page, to_request
from otel_pipeline.gpu.emitters import BLANK_MIN
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.limits import DCGM_LINE_CHARS_MAX
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import python_value

DATA = Path(__file__).parents[2] / "data/gpu"
PAGES = ("dcgm.prom", "dcgm-mig.prom", "dcgm-shared.prom", "dcgm-readme.prom")
MIB = 1024 * 1024
A = "GPU-11111111-aaaa-4000-8000-000000000000"
B = "GPU-22222222-bbbb-4000-8000-000000000000"
MIG = "GPU-33333333-cccc-4000-8000-000000000000"
SHARED = "GPU-44444444-dddd-4000-8000-000000000000"


def page(name: str) -> Page:
    return read_page((DATA / name).read_text("utf-8"))


def request(page: Page, **settings: Any) -> ExportMetricsServiceRequest:
    given: dict[str, Any] = {"age_max_ns": 10**10, "host": "", "own_host": "own", "version": "1"} | settings
    return ExportMetricsServiceRequest.FromString(to_request(page.gpus.values(), 1_000, **given))


def written(message: ExportMetricsServiceRequest) -> dict[tuple[Any, ...], float]:
    """Values by metric and the attributes that tell points of one metric apart."""
    found = {}
    for metric in message.resource_metrics[0].scope_metrics[0].metrics:
        for point in (metric.gauge if metric.HasField("gauge") else metric.sum).data_points:
            attributes = {pair.key: python_value(pair.value) for pair in point.attributes}
            which = ("hw.gpu.task", "hw.sensor_location", "hw.gpu.clock.domain", "error.type")
            key = (metric.name, attributes["hw.id"], *(attributes[each] for each in which if each in attributes))
            assert key not in found
            assert point.time_unix_nano == 1_000
            found[key] = point.as_double
    return found


# -- reading -----------------------------------------------------------------------------------------------------------


def test_values_are_read_by_gpu_and_sentinels_are_left_out() -> None:
    read = page("dcgm.prom")
    assert list(read.gpus) == [A, B]
    identity = read.gpus[A].identity
    assert (identity.index, identity.name, identity.host, identity.profile) == (
        0,
        "NVIDIA A100-SXM4-80GB",
        "node-7",
        "",
    )
    assert read.gpus[A].values["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"] == 1234567890
    assert "DCGM_FI_DEV_POWER_USAGE" not in read.gpus[B].values
    assert read.dropped == {"sentinel": 3}


@pytest.mark.parametrize("name", PAGES)
def test_what_is_read_is_what_the_reference_parser_reads(name: str) -> None:
    ours = page(name).gpus
    theirs = {
        (sample.labels["UUID"], sample.name.removesuffix("_total"), sample.value)
        for family in parse_text((DATA / name).read_text("utf-8"))
        for sample in family.samples
        if sample.name.removesuffix("_total") in FIELDS.keys() | PARTS
    }
    read = {(gpu.identity.board, name, value) for gpu in ours.values() for name, value in gpu.values.items()}
    assert read
    assert read <= theirs


def test_a_mig_instance_has_its_own_memory_and_the_board_the_power_once() -> None:
    read = page("dcgm-mig.prom")
    assert {gpu_id: set(gpu.values) for gpu_id, gpu in read.gpus.items()} == {
        MIG: {"DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"},
        f"{MIG}/9": {"DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"},
        f"{MIG}/2": {"DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"},
    }
    assert (read.gpus[f"{MIG}/9"].identity.profile, read.gpus[f"{MIG}/9"].identity.host) == ("1g.10gb", "mig-node")
    assert read.dropped == {"copy": 2}


def test_of_a_shared_gpu_the_devices_own_line_counts_wherever_it_stands() -> None:
    read = page("dcgm-shared.prom")
    assert read.gpus[SHARED].values == {
        "DCGM_FI_DEV_GPU_UTIL": 90,
        "DCGM_FI_DEV_FB_USED": 30000,
        "DCGM_FI_DEV_POWER_USAGE": 300.5,
    }
    assert read.dropped == {"copy": 5}


def test_the_format_of_the_exporters_readme_is_read() -> None:
    read = page("dcgm-readme.prom")
    (gpu,) = read.gpus.values()
    assert gpu.values == {"DCGM_FI_DEV_SM_CLOCK": 139, "DCGM_FI_DEV_GPU_TEMP": 35}
    assert (gpu.identity.gpu, gpu.identity.host) == ("GPU-604ac76c-d9cf-fef3-62e9-d92044ab6e52", "")


@pytest.mark.parametrize("value", ["", "N/A", "NaN", "+Inf", "-1"])
def test_a_value_that_is_none_is_counted(value: str) -> None:
    read = read_page(f'DCGM_FI_DEV_GPU_UTIL{{UUID="{A}"}} {value}\nDCGM_FI_DEV_FB_USED{{UUID="{A}"}} 5')
    assert (read.gpus[A].values, read.dropped) == ({"DCGM_FI_DEV_FB_USED": 5}, {"invalid": 1})


def test_a_line_without_a_uuid_is_counted() -> None:
    assert read_page('DCGM_FI_DEV_GPU_UTIL{gpu="0"} 5').dropped == {"no_id": 1}


def test_gpus_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dcgm, "DCGM_GPUS_MAX", 2)
    read = read_page("\n".join(f'DCGM_FI_DEV_GPU_UTIL{{UUID="GPU-{index}"}} 5' for index in range(5)))
    assert (len(read.gpus), read.dropped) == (2, {"limit": 3})


def test_a_line_that_is_too_long_is_counted() -> None:
    read = read_page(f'DCGM_FI_DEV_GPU_UTIL{{UUID="{A}",x="{"y" * DCGM_LINE_CHARS_MAX}"}} 5')
    assert (read.gpus, read.dropped) == ({}, {"invalid": 1})


def test_labels_may_hold_what_looks_like_syntax() -> None:
    text = r'DCGM_FI_DEV_GPU_UTIL{UUID="GPU-1",modelName="a\"b},c=\\d",Hostname="h\n"} 5'
    (gpu,) = read_page(text).gpus.values()
    assert (gpu.identity.name, gpu.identity.host) == ('a"b},c=\\d', "h\n")


@given(st.text(max_size=300), st.floats() | st.integers() | st.text(max_size=10))
def test_any_text_is_read_and_no_value_is_negative_or_a_sentinel(labels: str, value: object) -> None:
    lines = [f'DCGM_FI_DEV_POWER_USAGE{{UUID="GPU-1",{labels}}} {value}', f"DCGM_FI_DEV_FB_USED{labels}", labels]
    read = read_page("\n".join(lines))
    for gpu in read.gpus.values():
        assert all(0 <= each < BLANK_MIN and math.isfinite(each) for each in gpu.values.values())
    samples = ingest.read(BatchReader(Signal.METRICS).read([request(read).SerializeToString()])[0])
    assert all((block.values >= 0).all() for block in samples.blocks)


# -- writing -----------------------------------------------------------------------------------------------------------


def test_names_units_and_kinds_are_those_of_the_conventions() -> None:
    message = request(page("dcgm.prom"))
    assert {
        metric.name: (
            metric.unit,
            metric.WhichOneof("data"),
            metric.sum.is_monotonic,
            metric.sum.aggregation_temporality,
        )
        for metric in message.resource_metrics[0].scope_metrics[0].metrics
    } == {
        "hw.gpu.clock.frequency": ("Hz", "gauge", False, 0),
        "hw.temperature": ("Cel", "gauge", False, 0),
        "hw.power": ("W", "gauge", False, 0),
        "hw.energy": ("J", "sum", True, 2),
        "hw.gpu.utilization": ("1", "gauge", False, 0),
        "hw.gpu.memory_controller.utilization": ("1", "gauge", False, 0),
        "otel_pipeline.gpu.xid.last": ("", "gauge", False, 0),
        "hw.gpu.memory.usage": ("By", "sum", False, 2),
        "hw.gpu.memory.limit": ("By", "sum", False, 2),
    }


def test_values_are_in_base_units() -> None:
    values = written(request(page("dcgm.prom")))
    expected = {
        ("hw.gpu.clock.frequency", A, "sm"): 1.41e9,
        ("hw.gpu.clock.frequency", B, "sm"): 2.1e8,
        ("hw.temperature", A, "memory"): 61,
        ("hw.temperature", A, "gpu"): 64,
        ("hw.temperature", B, "gpu"): 31,
        ("hw.power", A): 387.25,
        ("hw.energy", A): 1234567.89,
        ("hw.gpu.utilization", A, "general"): 0.97,
        ("hw.gpu.utilization", B, "general"): 0,
        ("hw.gpu.utilization", A, "encoder"): 0.12,
        ("hw.gpu.memory_controller.utilization", A): 0.41,
        ("otel_pipeline.gpu.xid.last", A): 31,
        ("otel_pipeline.gpu.xid.last", B): 0,
        ("hw.gpu.memory.usage", A): 61000 * MIB,
        ("hw.gpu.memory.usage", B): 3 * MIB,
        ("hw.gpu.memory.limit", A): 81920 * MIB,
        ("hw.gpu.memory.limit", B): 81003 * MIB,
    }
    assert values == pytest.approx(expected)


def test_the_ingest_reads_what_is_written() -> None:
    samples = ingest.read(BatchReader(Signal.METRICS).read([request(page("dcgm-mig.prom")).SerializeToString()])[0])
    assert {(block.gpu, block.quantity): block.values.tolist() for block in samples.blocks} == {
        (f"{MIG}/9", Quantity.MEMORY_USED): [1024.0 * MIB],
        (f"{MIG}/2", Quantity.MEMORY_USED): [20480.0 * MIB],
        (f"{MIG}/9", Quantity.UTILIZATION): [0.25],
        (f"{MIG}/2", Quantity.UTILIZATION): [0.75],
        (MIG, Quantity.POWER): [412.0],
        (MIG, Quantity.ENERGY): [5000.0],
    }
    assert {(block.hosts, block.age_max_ns) for block in samples.blocks} == {(("mig-node",), 10**10)}
    assert {each.gpu: (each.parent, each.index) for each in samples.devices} == {
        MIG: ("", 0),
        f"{MIG}/9": (MIG, None),
        f"{MIG}/2": (MIG, None),
    }
    assert not samples.dropped


def test_the_host_is_the_setting_else_the_label_else_who_was_asked() -> None:
    def host(name: str, setting: str) -> object:
        group = request(page(name), host=setting).resource_metrics[0]
        return {pair.key: python_value(pair.value) for pair in group.resource.attributes}["host.name"]

    assert [host("dcgm.prom", "set"), host("dcgm.prom", ""), host("dcgm-readme.prom", "")] == ["set", "node-7", "own"]


def test_each_host_has_a_resource_of_its_own() -> None:
    lines = [f'DCGM_FI_DEV_GPU_UTIL{{UUID="GPU-{index}",Hostname="h{index}"}} 5' for index in range(2)]
    message = request(read_page("\n".join(lines)))
    assert len(message.resource_metrics) == 2
