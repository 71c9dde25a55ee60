"""The exporter `prometheus`: what a scrape gets, in both formats."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from pydantic import ValidationError

from otel_pipeline.errors import Refused
from otel_pipeline.exporters.prometheus import PrometheusExporter
from otel_pipeline.exposition.families import Exemplars, Exposition
from otel_pipeline.exposition.label_columns import one
from otel_pipeline.wire.signal import Signal

parse_openmetrics: Any = openmetrics.text_string_to_metric_families
SCRAPE = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
"""What Prometheus 2.42 sends."""


def exporter(**settings: Any) -> tuple[PrometheusExporter, Exposition]:
    exposition = Exposition(lambda: 1000.0)
    context: Any = SimpleNamespace(component_id="prometheus", exposition=exposition, clock=lambda: 1000.0)
    return PrometheusExporter(PrometheusExporter.Config.model_validate(settings), context), exposition


def request() -> bytes:
    """Every kind of metric, with values and texts that need care."""
    message = ExportMetricsServiceRequest()
    group = message.resource_metrics.add()
    group.resource.attributes.add(key="service.name").value.string_value = "worker"
    group.resource.attributes.add(key="host.name").value.string_value = 'gpu"7\\\n'
    scope = group.scope_metrics.add()
    scope.scope.name = "lib"
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE

    gauge = scope.metrics.add(name="hw.gpu.utilization", unit="1", description='Busy "time"\\\nin a window.')
    point = gauge.gauge.data_points.add(as_double=float("nan"), time_unix_nano=1)
    point.attributes.add(key="gpu.name").value.string_value = 'A "quoted"\nname\\ ü'

    counter = scope.metrics.add(name="jobs", unit="{job}", description="Jobs.")
    counter.sum.is_monotonic = True
    counter.sum.aggregation_temporality = cumulative
    point = counter.sum.data_points.add(as_int=10_000_000, time_unix_nano=1)
    point.exemplars.add(as_int=1, time_unix_nano=1_500_000_000, trace_id=b"t" * 16, span_id=b"s" * 8)

    histogram = scope.metrics.add(name="duration", unit="s", description="Durations.").histogram
    histogram.aggregation_temporality = cumulative
    for host in ("a", "b"):
        buckets = histogram.data_points.add(
            count=6, sum=2.5, time_unix_nano=1, bucket_counts=[1, 2, 3], explicit_bounds=[0.0, 1e6]
        )
        buckets.attributes.add(key="host").value.string_value = host
        buckets.exemplars.add(as_double=0.5, trace_id=b"t" * 16, span_id=b"s" * 8)

    growing = scope.metrics.add(name="size", unit="By").exponential_histogram
    growing.aggregation_temporality = cumulative
    growing.data_points.add(
        scale=3, count=3, sum=9, zero_count=1, positive={"offset": 10, "bucket_counts": [1, 0, 1]}, time_unix_nano=1
    )
    summary = scope.metrics.add(name="latency", unit="ms").summary.data_points.add(count=3, sum=6, time_unix_nano=1)
    summary.quantile_values.add(quantile=0.5, value=2)
    return message.SerializeToString()


def write_own(exposition: Exposition) -> None:
    """Derived metrics, one of them a gauge beside a counter of the same name."""
    exposition.counter("comfyui_job_cost_dollars_total", "Cost.", ["backend"]).add(one("fal"), 2.5)
    exposition.gauge("comfyui_job_cost_dollars", "Cost of the last job.", ["backend"]).set(one("fal"), 0.5)
    seconds = exposition.histogram("job_seconds", "Durations.", ["queue"], [1.0, 60.0])
    seconds.observe(one('qu"eue\n'), np.array([2.0]), Exemplars(lambda _: ("ab" * 16, "cd" * 8)))


def full(**settings: Any) -> PrometheusExporter:
    made, exposition = exporter(**settings)
    write_own(exposition)
    assert made.deliver(Signal.METRICS, request()) == 0
    return made


def test_openmetrics_is_valid_and_carries_exemplars() -> None:
    content_type, body = full().render(SCRAPE)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    families = {family.name: family for family in parse_openmetrics(body.decode())}
    assert {name: family.type for name, family in families.items()} == {
        "comfyui_job_cost_dollars": "gauge",
        "comfyui_job_cost_dollars_total": "unknown",
        "job_seconds": "histogram",
        "otel_pipeline_exposition_overflow": "counter",
        "duration_seconds": "histogram",
        "hw_gpu_utilization_ratio": "gauge",
        "jobs": "counter",
        "latency_milliseconds": "summary",
        "size_bytes": "histogram",
        "target_info": "gauge",
    }
    assert families["duration_seconds"].unit == "seconds"
    exemplars = {s.name: s.exemplar for family in families.values() for s in family.samples if s.exemplar}
    assert set(exemplars) == {"job_seconds_bucket", "duration_seconds_bucket", "jobs_total"}
    assert exemplars["job_seconds_bucket"].labels == {"trace_id": "ab" * 16, "span_id": "cd" * 8}
    assert families["hw_gpu_utilization_ratio"].samples[0].labels["gpu_name"] == 'A "quoted"\nname\\ ü'


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain;version=0.0.4", "text/html"])
def test_text_is_valid_and_has_types(accept: str) -> None:
    content_type, body = full().render(accept)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in parse_text(body.decode())}
    assert families["jobs"].type == "counter"
    assert families["duration_seconds"].type == "histogram"
    assert b"# TYPE comfyui_job_cost_dollars_total counter" in body
    assert b"# TYPE comfyui_job_cost_dollars gauge" in body
    assert b"jobs_total" in body
    assert b" # {" not in body, "no exemplars in this format"


NAMES = ["a", "a.total", "a.count", "a.bucket", "a.sum", "a.created", "a_info", "target", "job_seconds", "9"]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 5), st.sampled_from(["", "s", "1"])), max_size=12))
def test_whatever_names_meet_both_formats_stay_valid(metrics: list[tuple[str, int, str]]) -> None:
    message = ExportMetricsServiceRequest()
    scope = message.resource_metrics.add().scope_metrics.add()
    for name, kind, unit in metrics:
        metric = scope.metrics.add(name=name, unit=unit)
        if kind <= 2:
            metric.sum.is_monotonic = kind > 0
            metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
            metric.sum.data_points.add(as_int=1, time_unix_nano=1)
        elif kind == 3:
            metric.histogram.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
            metric.histogram.data_points.add(count=1, sum=1, time_unix_nano=1)
        elif kind == 4:
            metric.summary.data_points.add(count=1, sum=1, time_unix_nano=1)
        else:
            metric.gauge.data_points.add(as_double=-1, time_unix_nano=1)
    made, exposition = exporter()
    write_own(exposition)
    made.deliver(Signal.METRICS, message.SerializeToString())
    assert list(parse_openmetrics(made.render(SCRAPE)[1].decode()))
    assert list(parse_text(made.render("")[1].decode()))


def test_openmetrics_can_be_switched_off() -> None:
    assert full(enable_open_metrics=False).render(SCRAPE)[0] == "text/plain; version=0.0.4; charset=utf-8"


def test_nothing_yet_is_a_valid_scrape_too() -> None:
    made, _ = exporter()
    assert made.render("")[1] == b""
    assert made.render(SCRAPE)[1] == b"# EOF\n"


def test_namespace_and_constant_labels_apply_to_all() -> None:
    _, body = full(namespace="shop", const_labels={"region": "eu", "queue": "no"}).render("")
    families = list(parse_text(body.decode()))
    assert {family.name.split("_")[0] for family in families if family.name != "target_info"} == {"shop"}
    labels = [sample.labels for family in families for sample in family.samples]
    assert {one_set["region"] for one_set in labels} == {"eu"}
    own = next(family for family in families if family.name == "shop_job_seconds")
    assert own.samples[0].labels["queue"] == 'qu"eue\n', "a series keeps its own"


def test_resource_attributes_as_labels() -> None:
    _, body = full(resource_to_telemetry_conversion={"enabled": True}).render("")
    jobs = next(family for family in parse_text(body.decode()) if family.name == "jobs")
    assert jobs.samples[0].labels["host_name"] == 'gpu"7\\\n'


def test_names_without_suffixes_are_valid_in_both_formats() -> None:
    made = full(add_metric_suffixes=False)
    assert "jobs" in {family.name for family in parse_text(made.render("")[1].decode())}
    types = {family.name: family.type for family in parse_openmetrics(made.render(SCRAPE)[1].decode())}
    assert types["jobs"] == "unknown"
    assert types["duration"] == "histogram"


def test_received_series_expire() -> None:
    now = [1000.0]
    context: Any = SimpleNamespace(component_id="p", exposition=Exposition(), clock=lambda: now[0])
    made = PrometheusExporter(PrometheusExporter.Config.model_validate({"metric_expiration": "90s"}), context)
    made.deliver(Signal.METRICS, request())
    now[0] += 91
    assert made.render("")[1] == b""


def test_points_that_cannot_be_shown_are_reported() -> None:
    made, exposition = exporter(series_max=1)
    assert made.deliver(Signal.METRICS, request()) == 1
    assert b'otel_pipeline_received_metrics_dropped_total{reason="series_limit"} 1.0' in made.render("")[1]
    assert exposition.collect()


def test_what_is_no_metrics_request_is_refused_for_good() -> None:
    made, _ = exporter()
    with pytest.raises(Refused):
        made.deliver(Signal.METRICS, b"\xff\xff")
    with pytest.raises(Refused):
        made.deliver(Signal.TRACES, b"")
    made.close()


def test_it_says_where_it_is_scraped() -> None:
    made, _ = exporter(endpoint="0.0.0.0:9999")
    assert made.endpoint == "0.0.0.0:9999"
    assert list(made.paths) == ["/metrics"]


@pytest.mark.parametrize(
    "settings",
    [
        {"const_labels": {"le": "x"}},
        {"const_labels": {"__x": "x"}},
        {"endpoint": "nowhere"},
        {"metric_expiration": "soon"},
        {"unknown": 1},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PrometheusExporter.Config.model_validate(settings)
