"""OTLP metrics as Prometheus families: names, types, temporality, labels, what ends a series, what is refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Exemplar,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
    Summary,
    SummaryDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_pipeline.exposition.families import Exposition
from otel_pipeline.exposition.names import label_name, metric_name, unit_suffixes
from otel_pipeline.exposition.received import DROPPED, ReceivedMetrics, Translation
from otel_pipeline.limits import (
    EXEMPLAR_LABEL_CHARS_MAX,
    EXPONENTIAL_BUCKETS_MAX,
    RECEIVED_BUCKETS_MAX,
    RECEIVED_FAMILIES_MAX,
    RECEIVED_LABELS_MAX,
)
from otel_pipeline.wire.values import Value, any_value

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
SECOND_NS = 1_000_000_000


def pairs(attributes: dict[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def number(value: float, at_s: float = 1.0, labels: dict[str, Value] | None = None, **more: Value) -> NumberDataPoint:
    attributes = pairs({**(labels or {}), **more})
    return NumberDataPoint(as_double=value, time_unix_nano=int(at_s * SECOND_NS), attributes=attributes)


def gauge(name: str, *points: NumberDataPoint, unit: str = "", **fields: Any) -> Metric:
    return Metric(name=name, unit=unit, gauge=Gauge(data_points=points), **fields)


def total(
    name: str, *points: NumberDataPoint, unit: str = "", temporality: Any = CUMULATIVE, monotonic: bool = True
) -> Metric:
    data = Sum(data_points=points, aggregation_temporality=temporality, is_monotonic=monotonic)
    return Metric(name=name, unit=unit, sum=data)


def histogram(name: str, *points: HistogramDataPoint, temporality: Any = CUMULATIVE, unit: str = "s") -> Metric:
    return Metric(name=name, unit=unit, histogram=Histogram(data_points=points, aggregation_temporality=temporality))


def buckets(counts: list[int], bounds: list[float], at_s: float = 1.0, **fields: Any) -> HistogramDataPoint:
    return HistogramDataPoint(
        bucket_counts=counts,
        explicit_bounds=bounds,
        count=sum(counts),
        time_unix_nano=int(at_s * SECOND_NS),
        **{"sum": 1.5, **fields},
    )


def exponential(*points: ExponentialHistogramDataPoint, temporality: Any = CUMULATIVE) -> Metric:
    data = ExponentialHistogram(data_points=points, aggregation_temporality=temporality)
    return Metric(name="e", exponential_histogram=data)


def growing(
    scale: int, offset: int, counts: list[int], at_s: float = 1.0, **fields: Any
) -> ExponentialHistogramDataPoint:
    return ExponentialHistogramDataPoint(
        scale=scale,
        positive=ExponentialHistogramDataPoint.Buckets(offset=offset, bucket_counts=counts),
        time_unix_nano=int(at_s * SECOND_NS),
        **{"sum": 1.0, **fields},
    )


class Desk:
    """A store with a clock to turn."""

    def __init__(self, **settings: Any) -> None:
        self.now_s = 1000.0
        self.exposition = Exposition(lambda: self.now_s)
        self.store = ReceivedMetrics(self.exposition, lambda: self.now_s, **settings)

    def take(self, *metrics: Metric, resource: dict[str, Value] | None = None, scope: Any = None) -> int:
        group = ResourceMetrics(
            resource=Resource(attributes=pairs(resource or {})),
            scope_metrics=[ScopeMetrics(scope=scope, metrics=metrics)],
        )
        return self.store.take(ExportMetricsServiceRequest(resource_metrics=[group]))

    def families(self) -> dict[str, Family]:
        return {family.name: family for family in self.store.collect()}

    def samples(self) -> dict[str, float]:
        """Values by name and labels as they read in a scrape."""
        return {
            _written(sample.name, sample.labels): sample.value
            for family in self.store.collect()
            for sample in family.samples
        }

    def dropped(self) -> dict[str, float]:
        """Points by reason."""
        return {
            sample.labels["reason"]: sample.value
            for family in self.exposition.collect()
            for sample in family.samples
            if sample.name == DROPPED
        }


def _written(name: str, labels: dict[str, str]) -> str:
    inner = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return f"{name}{{{inner}}}" if inner else name


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("http.server.duration", "s", "histogram", "http_server_duration_seconds"),
        ("http.server.duration", "ms", "histogram", "http_server_duration_milliseconds"),
        ("process.memory.usage", "By", "gauge", "process_memory_usage_bytes"),
        ("hw.gpu.memory.bytes", "By", "gauge", "hw_gpu_memory_bytes"),
        ("hw.gpu.utilization", "1", "gauge", "hw_gpu_utilization_ratio"),
        ("requests", "1", "counter", "requests_total"),
        ("fan", "%", "gauge", "fan_percent"),
        ("network.io", "By/s", "gauge", "network_io_bytes_per_second"),
        ("jobs", "{job}/s", "gauge", "jobs_per_second"),
        ("jobs", "{job}", "counter", "jobs_total"),
        ("jobs.total", "", "counter", "jobs_total"),
        ("total.jobs", "", "counter", "jobs_total"),
        ("energy", "J", "counter", "energy_joules_total"),
        ("a..b--c__d", "", "gauge", "a_b_c_d"),
        ("2xx", "", "gauge", "_2xx"),
        ("job:rate", "", "gauge", "job:rate"),
        ("x", "furlong/fortnight", "gauge", "x_furlong_per_fortnight"),
        ("größe", "", "gauge", "gr_e"),
        ("___", "s", "gauge", ""),
        ("", "s", "gauge", ""),
    ],
)
def test_names_and_units(name: str, unit: str, kind: str, expected: str) -> None:
    assert metric_name(name, unit, kind)[0] == expected


def test_names_with_a_namespace_and_without_suffixes() -> None:
    assert metric_name("a.b", "s", "counter", "my-app") == ("my_app_a_b_seconds_total", "seconds")
    assert metric_name("a.b", "s", "counter", suffixes=False) == ("a_b", "")
    assert unit_suffixes("{request}") == ("", "")


@pytest.mark.parametrize(
    ("key", "expected"),
    [("http.route", "http_route"), ("__name__", "key_name_"), ("9lives", "key_9lives"), ("", "key_"), ("é", "key_")],
)
def test_label_names_are_legal_and_never_reserved(key: str, expected: str) -> None:
    assert label_name(key) == expected


# -- types and temporality ---------------------------------------------------------------------------------------------


def test_gauges_sums_and_unknown() -> None:
    desk = Desk()
    unknown = gauge("u", number(1), metadata=pairs({"prometheus.type": "unknown"}))
    desk.take(gauge("g", number(2.5)), total("c", number(3)), total("updown", number(-1), monotonic=False), unknown)
    assert {name: family.type for name, family in desk.families().items()} == {
        "g": "gauge",
        "c": "counter",
        "updown": "gauge",
        "u": "unknown",
    }
    assert desk.samples() == {"g": 2.5, "c_total": 3, "updown": -1, "u": 1}


def test_description_and_unit_become_metadata() -> None:
    desk = Desk()
    desk.take(gauge("g", number(1), unit="By", description="Memory."), gauge("plain", number(1)))
    families = desk.families()
    assert (families["g_bytes"].documentation, families["g_bytes"].unit) == ("Memory.", "bytes")
    assert families["plain"].documentation == "plain", "help must not be empty"


def test_a_histogram_is_cumulative_over_its_buckets() -> None:
    desk = Desk()
    desk.take(histogram("h", buckets([1, 2, 3], [0.5, 1.0])))
    assert desk.samples() == {
        "h_seconds_bucket{le=0.5}": 1,
        "h_seconds_bucket{le=1.0}": 3,
        "h_seconds_bucket{le=+Inf}": 6,
        "h_seconds_count": 6,
        "h_seconds_sum": 1.5,
    }


def test_a_histogram_without_buckets_has_only_the_infinite_one() -> None:
    desk = Desk()
    desk.take(histogram("h", HistogramDataPoint(count=4, sum=2, time_unix_nano=1)))
    assert desk.samples() == {"h_seconds_bucket{le=+Inf}": 4, "h_seconds_count": 4, "h_seconds_sum": 2}


def test_sum_and_count_are_left_out_where_openmetrics_forbids_them() -> None:
    desk = Desk()
    no_sum = buckets([1, 1], [1.0])
    no_sum.ClearField("sum")
    desk.take(histogram("negative", buckets([1, 1], [-1.0])), histogram("no_sum", no_sum))
    assert not [name for name in desk.samples() if not name.split("{")[0].endswith("_bucket")]


def test_deltas_are_added_up() -> None:
    desk = Desk()
    for at_s, amount in ((1, 2.0), (2, 3.0), (3, 0.5)):
        desk.take(
            total("c", number(amount, at_s), temporality=DELTA),
            histogram("h", buckets([1, 0], [1.0], at_s), temporality=DELTA),
        )
    samples = desk.samples()
    assert samples["c_total"] == 5.5
    assert (samples["h_seconds_count"], samples["h_seconds_sum"]) == (3, 4.5)


def test_a_delta_delivered_twice_counts_once() -> None:
    desk = Desk()
    delta = total("c", number(2.0, at_s=1), temporality=DELTA)
    assert [desk.take(delta), desk.take(delta)] == [0, 0]
    assert desk.samples() == {"c_total": 2}
    assert desk.dropped() == {"old": 1}


def test_a_delta_with_other_bounds_starts_anew() -> None:
    desk = Desk()
    desk.take(histogram("h", buckets([5, 5], [1.0], 1), temporality=DELTA))
    desk.take(histogram("h", buckets([1, 0], [2.0], 2), temporality=DELTA))
    assert desk.samples()["h_seconds_count"] == 1


def test_points_that_come_late_are_ignored_but_not_refused() -> None:
    desk = Desk()
    assert desk.take(gauge("g", number(2, at_s=20), number(1, at_s=10))) == 0
    assert desk.samples() == {"g": 2}
    assert desk.dropped() == {"old": 1}


def test_a_summary() -> None:
    desk = Desk()
    point = SummaryDataPoint(count=3, sum=6, time_unix_nano=1)
    for quantile, value in ((0.99, 5.0), (0.5, 2.0), (1.5, 9.0), (0.1, -1.0)):
        point.quantile_values.add(quantile=quantile, value=value)
    desk.take(Metric(name="s", unit="s", summary=Summary(data_points=[point])))
    assert desk.samples() == {
        "s_seconds{quantile=0.5}": 2,
        "s_seconds{quantile=0.99}": 5,
        "s_seconds_count": 3,
        "s_seconds_sum": 6,
    }


# -- exponential histograms --------------------------------------------------------------------------------------------


def test_an_exponential_histogram_gets_the_bounds_of_its_scale() -> None:
    desk = Desk()
    point = growing(
        0, 0, [1, 0, 2], zero_count=4, negative=ExponentialHistogramDataPoint.Buckets(offset=1, bucket_counts=[3])
    )
    desk.take(exponential(point))
    assert desk.samples() == {
        "e_bucket{le=-2.0}": 3,
        "e_bucket{le=0.0}": 7,
        "e_bucket{le=2.0}": 8,
        "e_bucket{le=4.0}": 8,
        "e_bucket{le=8.0}": 10,
        "e_bucket{le=+Inf}": 10,
    }


def test_a_fine_exponential_histogram_is_reduced_to_a_scale_that_is_bounded() -> None:
    desk = Desk()
    desk.take(exponential(growing(5, -2000, [1] * 4000)))
    les = [float(sample.labels["le"]) for sample in desk.families()["e"].samples if "le" in sample.labels]
    assert len(les) <= EXPONENTIAL_BUCKETS_MAX + 2
    assert les == sorted(les)
    assert desk.samples()["e_bucket{le=+Inf}"] == desk.samples()["e_count"] == 4000


def test_exponential_deltas_of_two_scales_are_added_at_the_coarser_one() -> None:
    desk = Desk()
    desk.take(exponential(growing(1, 0, [1, 1, 1, 1], 1), temporality=DELTA))
    desk.take(exponential(growing(0, 0, [5], 2), temporality=DELTA))
    assert desk.samples() == {
        "e_bucket{le=0.0}": 0,
        "e_bucket{le=2.0}": 7,
        "e_bucket{le=4.0}": 9,
        "e_bucket{le=+Inf}": 9,
        "e_count": 9,
        "e_sum": 2,
    }


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=40), st.integers(-4, 10))
def test_no_value_leaves_its_bucket_when_the_scale_is_reduced(values: list[float], scale: int) -> None:
    """Each bound counts at least the values below it, and none above the next coarser bound."""
    indices = [math.ceil(math.log2(value) * 2.0**scale) - 1 for value in values]
    low = min(indices)
    counts = [0] * min(max(indices) - low + 1, 4096)
    kept = [value for value, index in zip(values, indices, strict=True) if index - low < len(counts)]
    for index in indices:
        if index - low < len(counts):
            counts[index - low] += 1
    desk = Desk()
    assert desk.take(exponential(growing(scale, low, counts))) == 0
    for sample in desk.families()["e"].samples:
        if "le" in sample.labels and sample.labels["le"] != "+Inf":
            bound = float(sample.labels["le"])
            assert (
                sum(v <= bound * (1 - 1e-9) for v in kept) <= sample.value <= sum(v <= bound * (1 + 1e-9) for v in kept)
            )


# -- labels ------------------------------------------------------------------------------------------------------------


def test_resource_and_scope_become_labels_and_target_info() -> None:
    desk = Desk()
    resource: dict[str, Value] = {
        "service.namespace": "video",
        "service.name": "worker",
        "service.instance.id": "w1",
        "host.name": "gpu-7",
        "gpus": 2,
    }
    scope = InstrumentationScope(name="lib", version="1.2", attributes=pairs({"flavour": "x"}))
    desk.take(gauge("g", number(1, stage="decode")), resource=resource, scope=scope)
    own = "instance=w1,job=video/worker"
    assert desk.samples() == {
        f"g{{{own},otel_scope_flavour=x,otel_scope_name=lib,otel_scope_version=1.2,stage=decode}}": 1,
        "target_info{gpus=2,host_name=gpu-7,instance=w1,job=video/worker}": 1,
    }


def test_one_target_info_for_each_job_and_instance() -> None:
    desk = Desk()
    for version in ("1", "2"):
        desk.take(resource={"service.name": "worker", "service.version": version})
    desk.take(resource={"host.name": "nameless"})
    desk.take(resource={"service.name": "only-a-name"})
    assert desk.samples() == {"target_info{job=worker,service_version=2}": 1}


def test_resource_attributes_become_labels_if_wanted() -> None:
    desk = Desk(translation=Translation(resource_labels=True))
    desk.take(
        gauge("g", number(1, labels={"host.name": "mine"})),
        resource={"service.name": "w", "host.name": "h", "zone": "z"},
    )
    assert "g{host_name=mine,job=w,service_name=w,zone=z}" in desk.samples()


def test_attributes_of_any_type_and_with_names_that_meet() -> None:
    desk = Desk()
    point = number(1, labels={"a.b": "first", "a_b": True, "n": 2.5, "l": ["x", 1], "e": "", "y": b"\x01\xff"})
    desk.take(gauge("g", point))
    assert desk.samples() == {'g{a_b=first;true,l=["x",1],n=2.5,y=01ff}': 1}


def test_attributes_cannot_take_the_place_of_labels_with_a_meaning() -> None:
    desk = Desk()
    point = buckets([1], [], attributes=pairs({"le": "x", "job": "mine", "otel_scope_name": "y"}))
    desk.take(histogram("h", point), gauge("g", number(1, le="free")), resource={"service.name": "w"})
    samples = desk.samples()
    assert "h_seconds_bucket{exported_job=mine,exported_le=x,exported_otel_scope_name=y,job=w,le=+Inf}" in samples
    assert "g{job=w,le=free}" in samples


# -- exemplars ---------------------------------------------------------------------------------------------------------


def exemplar(value: float, at_s: int = 1, **attributes: Value) -> Exemplar:
    return Exemplar(
        as_double=value,
        time_unix_nano=at_s * SECOND_NS,
        trace_id=b"\x01" * 16,
        span_id=b"\x02" * 8,
        filtered_attributes=pairs(attributes),
    )


def test_each_bucket_shows_its_largest_exemplar_and_a_counter_its_latest() -> None:
    desk = Desk()
    point = buckets([3, 1], [1.0], exemplars=[exemplar(0.5), exemplar(0.9), exemplar(0.1), exemplar(7)])
    counted = number(3)
    counted.exemplars.extend([exemplar(1, at_s=9, user="u"), exemplar(2, at_s=3)])
    desk.take(histogram("h", point), total("c", counted))
    low, high, *_ = (sample.exemplar for sample in desk.families()["h_seconds"].samples)
    assert low is not None
    assert high is not None
    assert (low.value, high.value) == (0.9, 7)
    latest = desk.families()["c"].samples[0].exemplar
    assert latest is not None
    assert latest.labels == {"trace_id": "01" * 16, "span_id": "02" * 8, "user": "u"}
    assert latest.timestamp == 9.0


def test_exemplars_stay_until_a_newer_point_has_some_and_attributes_that_are_too_long_go() -> None:
    desk = Desk()
    first = number(1, at_s=1)
    first.exemplars.append(exemplar(1, long="x" * EXEMPLAR_LABEL_CHARS_MAX))
    desk.take(total("c", first, temporality=DELTA))
    desk.take(total("c", number(1, at_s=2), temporality=DELTA))
    kept = desk.families()["c"].samples[0].exemplar
    assert kept is not None
    assert set(kept.labels) == {"trace_id", "span_id"}


# -- what ends a series ------------------------------------------------------------------------------------------------


def test_the_senders_flag_ends_a_series() -> None:
    desk = Desk()
    desk.take(gauge("g", number(1, at_s=1, host="a"), number(1, at_s=1, host="b")))
    desk.take(gauge("g", NumberDataPoint(flags=1, time_unix_nano=2 * SECOND_NS, attributes=pairs({"host": "a"}))))
    assert desk.samples() == {"g{host=b}": 1}


def test_what_is_not_heard_of_expires_and_frees_its_name() -> None:
    desk = Desk(expiration_s=60.0)
    desk.take(gauge("g", number(1, host="old"), number(1, host="new")), resource={"service.name": "a", "x": "y"})
    desk.now_s += 40
    desk.take(gauge("g", number(2, at_s=2, host="new")), resource={"service.name": "a"})
    desk.now_s += 40
    assert desk.samples() == {"g{host=new,job=a}": 2}
    desk.now_s += 100
    assert desk.samples() == {}
    desk.take(total("g", number(1), monotonic=False), resource={})
    assert desk.samples() == {"g": 1}


def test_a_sender_whose_clock_was_ahead_comes_back_after_the_expiration() -> None:
    desk = Desk(expiration_s=60.0)
    desk.take(gauge("g", number(1, at_s=1e9)))
    desk.now_s += 61
    desk.take(gauge("g", number(2, at_s=5)))
    assert desk.samples() == {"g": 2}


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_the_first_type_of_a_name_wins() -> None:
    desk = Desk()
    desk.take(gauge("x.y", number(1)), histogram("h", buckets([1], []), unit=""))
    taken = [
        Metric(name="x.y", summary=Summary(data_points=[SummaryDataPoint(time_unix_nano=1)])),
        gauge("h_count", number(1)),
        gauge("target_info", number(1)),
    ]
    assert desk.take(*taken) == 3
    assert desk.dropped() == {"type_conflict": 3}


def test_names_of_the_gateways_own_metrics_are_taken() -> None:
    desk = Desk(translation=Translation(namespace="my.app"))
    desk.exposition.histogram("seconds", "Own.", ["x"], [1.0])
    assert desk.take(gauge("seconds.bucket", number(1))) == 1
    assert desk.take(gauge("other", number(1))) == 0


def test_series_are_bounded_by_metric_and_in_all() -> None:
    desk = Desk(series_max=2, series_all_max=3)
    points = [number(1, host=str(host)) for host in range(5)]
    assert desk.take(gauge("a", *points), gauge("b", *points)) == 3 + 4
    assert desk.dropped() == {"series_limit": 7}
    assert desk.take(gauge("a", number(2, at_s=2, host="0"))) == 0, "known series go on"
    assert len(desk.samples()) == 3


def test_names_are_bounded() -> None:
    desk = Desk()
    assert desk.take(*(gauge(f"g{index}", number(1)) for index in range(RECEIVED_FAMILIES_MAX + 1))) == 1
    assert desk.dropped() == {"series_limit": 1}


@pytest.mark.parametrize(
    "metric",
    [
        gauge("no_time", NumberDataPoint(as_int=1)),
        gauge("no_value", NumberDataPoint(time_unix_nano=1)),
        gauge("!", number(1)),
        gauge("x" * 2000, number(1)),
        gauge("labels", number(1, labels={f"a{index}": "x" for index in range(RECEIVED_LABELS_MAX + 1)})),
        total("falls", number(-1)),
        total("nan", number(math.nan)),
        histogram("counts", buckets([1, 1, 1], [1.0])),
        histogram("order", buckets([1, 1, 1], [2.0, 1.0])),
        histogram("nan", buckets([1, 1], [math.nan])),
        histogram("many", buckets([1] * (RECEIVED_BUCKETS_MAX + 1), [float(x) for x in range(RECEIVED_BUCKETS_MAX)])),
        exponential(growing(-12, 0, [1])),
        exponential(growing(0, 2**31 - 1, [1])),
        exponential(growing(0, 0, [1] * 5000)),
        exponential(growing(0, 0, [1], zero_threshold=math.nan)),
    ],
    ids=lambda metric: metric.name[:20],
)
def test_what_prometheus_could_not_take_is_refused(metric: Metric) -> None:
    desk = Desk()
    assert desk.take(metric, gauge("good", number(1))) == 1
    assert desk.dropped() == {"invalid": 1}
    assert "good" in desk.samples()


def test_deltas_of_what_may_fall_and_unspecified_temporality_are_refused() -> None:
    desk = Desk()
    assert desk.take(total("updown", number(1), temporality=DELTA, monotonic=False)) == 1
    assert desk.take(total("unspecified", number(1), temporality=0)) == 1
    assert desk.dropped() == {"temporality": 2}


def test_without_suffixes_a_counter_loses_its_type_and_exemplar() -> None:
    desk = Desk(translation=Translation(suffixes=False))
    point = number(1)
    point.exemplars.append(exemplar(1))
    desk.take(total("c", point, unit="s"))
    family = desk.families()["c"]
    assert (family.type, family.samples[0].name, family.samples[0].exemplar) == ("unknown", "c", None)
