"""The metrics that arrive over OTLP, as a Prometheus scrape sees them: the latest point of each series.

A series lives until its sender says that it ended, or nothing was heard of it for the expiration; both are bounded. It
keeps what it has when points come late or twice. What cannot be kept is counted in
`otel_pipeline_received_metrics_dropped_total` by reason:

    old            not newer than what is there: late, or delivered twice
    type_conflict  the name belongs to a metric of another type, or to one of the gateway's own
    series_limit   the metric, or all together, have their full number of series
    temporality    a delta of something that may fall, or no temporality at all
    invalid        no time, no value, bounds that do not ascend, too many labels, a name without a letter
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, DataPointFlags
from prometheus_client.core import Metric

from otel_pipeline.exposition.families import sample_names
from otel_pipeline.exposition.label_columns import one
from otel_pipeline.exposition.names import label_text, labels_of, metric_name, with_namespace
from otel_pipeline.exposition.received_points import Labels, Point, accumulated, read_point
from otel_pipeline.limits import (
    EXPOSITION_SERIES_MAX,
    LABEL_CHARS_MAX,
    RECEIVED_FAMILIES_MAX,
    RECEIVED_LABELS_MAX,
    RECEIVED_SERIES_MAX,
    RECEIVED_TARGETS_MAX,
)
from otel_pipeline.wire.values import python_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.metrics.v1 import metrics_pb2
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    from otel_pipeline.exposition.families import Exposition
    from otel_pipeline.exposition.received_points import DataPoint

DROPPED: Final = "otel_pipeline_received_metrics_dropped_total"
TARGET_INFO: Final = "target_info"
RESERVED: Final = {"histogram": "le", "summary": "quantile"}
"""The label that the format itself gives to samples of a type."""
IDENTITY: Final = frozenset({"service.name", "service.namespace", "service.instance.id"})
MOMENTARY: Final = frozenset({"otel_pipeline.sent_time_unix_nano", "otel_pipeline.sample_age_max_nano"})
"""Resource attributes that tell of one request: as labels they would begin new series with each."""
CUMULATIVE: Final = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA: Final = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
NO_VALUE: Final = DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK

Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Translation:
    """How names and labels are made."""

    namespace: str = ""
    """Put before every name."""
    suffixes: bool = True
    """Append unit and `_total`."""
    resource_labels: bool = False
    """Every resource attribute becomes a label of each series."""


@dataclass(frozen=True, slots=True)
class Series:
    """The latest point of one set of labels."""

    labels: Labels
    time_ns: int
    seen_s: float
    """When the gateway got it."""
    point: Point


@dataclass(slots=True)
class Family:
    """One metric by its final name."""

    name: str
    kind: str
    help_text: str
    unit: str
    series: dict[Key, Series] = field(default_factory=dict)


class ReceivedMetrics:
    """Takes requests in one thread, is collected in another."""

    def __init__(
        self,
        exposition: Exposition,
        clock: Callable[[], float],
        *,
        translation: Translation | None = None,
        expiration_s: float = 300.0,
        series_max: int = EXPOSITION_SERIES_MAX,
        series_all_max: int = RECEIVED_SERIES_MAX,
    ) -> None:
        self._exposition = exposition
        self._dropped = exposition.counter(DROPPED, "Received data points that are not exposed, by reason.", ["reason"])
        self._clock = clock
        self._translation = translation or Translation()
        self._expiration_s = expiration_s
        self._series_max = series_max
        self._series_all_max = series_all_max
        self._lock = threading.Lock()
        self._families: dict[str, Family] = {}
        self._owners: dict[str, str] = {}
        """Which family has each sample name."""
        self._targets: dict[Key, tuple[float, Labels]] = {}
        self._count = 0
        self._swept_s = clock()

    def take(self, request: ExportMetricsServiceRequest) -> int:
        """Store the points of a request; returns how many are refused for good, not counting those that come late."""
        refused = 0
        with self._lock:
            now = self._clock()
            self._sweep(now)
            for group in request.resource_metrics:
                target = self._target(group.resource, now)
                for scope in group.scope_metrics:
                    base = {**target, **scope_labels(scope.scope)}
                    for metric in scope.metrics:
                        refused += self._metric(metric, base, now)
        return refused

    def collect(self) -> list[Metric]:
        """A snapshot of all families, by name."""
        with self._lock:
            self._sweep(self._clock(), force=True)
            families = [
                (family, [(series.labels, series.point) for series in family.series.values()])
                for _, family in sorted(self._families.items())
            ]
            targets = [labels for _, labels in self._targets.values()]
        metrics = []
        for family, points in families:
            name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
            metric = Metric(name, family.help_text, family.kind, family.unit)
            for labels, point in points:
                metric.samples += point.samples(family.name, labels)
            metrics.append(metric)
        if targets:
            info = Metric(TARGET_INFO, "Attributes of the resources that send metrics.", "gauge")
            for labels in targets:
                info.add_sample(TARGET_INFO, labels, 1)
            metrics.append(info)
        return metrics

    # -- what comes in -------------------------------------------------------------------------------------------------

    def _metric(self, metric: metrics_pb2.Metric, base: Labels, now: float) -> int:
        member = metric.WhichOneof("data")
        if member is None:
            return 0
        data = getattr(metric, member)
        points: Iterable[DataPoint] = data.data_points
        total = len(data.data_points)
        temporality = getattr(data, "aggregation_temporality", CUMULATIVE)
        kind = kind_of(metric)
        if temporality not in {CUMULATIVE, DELTA} or (temporality == DELTA and kind == "gauge"):
            return self._drop("temporality", total)
        name, unit = metric_name(
            metric.name, metric.unit, kind, self._translation.namespace, suffixes=self._translation.suffixes
        )
        if not name or len(name) > LABEL_CHARS_MAX:
            return self._drop("invalid", total)
        if kind == "counter" and not name.endswith("_total"):
            kind = "unknown"  # the formats know no counter without the suffix
        family = self._family(name, kind, unit, metric)
        if isinstance(family, str):
            return self._drop(family, total)
        refused = 0
        for point in points:
            reason = self._point(family, point, base, now, delta=temporality == DELTA)
            if reason:
                refused += self._drop(reason, 1)
        return refused

    def _family(self, name: str, kind: str, unit: str, metric: metrics_pb2.Metric) -> Family | str:
        """The family of a name, new if need be, or the reason why there is none. The first of two types wins."""
        family = self._families.get(name)
        if family is not None:
            return family if family.kind == kind else "type_conflict"
        names = sample_names(name, kind)
        if names & self._reserved() or any(each in self._owners for each in names):
            return "type_conflict"
        if len(self._families) >= RECEIVED_FAMILIES_MAX:
            return "series_limit"
        family = Family(name, kind, (metric.description or metric.name)[:LABEL_CHARS_MAX], unit)
        self._families[name] = family
        self._owners.update(dict.fromkeys(names, name))
        return family

    def _reserved(self) -> set[str]:
        """The names of the gateway's own metrics on the same endpoint."""
        return {TARGET_INFO, *(with_namespace(self._translation.namespace, name) for name in self._exposition.names())}

    def _point(self, family: Family, point: DataPoint, base: Labels, now: float, *, delta: bool) -> str:
        """Store one point; returns the reason if it is not stored."""
        labels = self._labels(family.kind, base, point)
        if len(labels) > RECEIVED_LABELS_MAX or not point.time_unix_nano:
            return "invalid"
        key = tuple(sorted(labels.items()))
        series = family.series.get(key)
        if series is not None and point.time_unix_nano <= series.time_ns:
            return "old"
        if point.flags & NO_VALUE:
            self._count -= family.series.pop(key, None) is not None
            return ""
        value = read_point(point, monotonic=delta or family.kind == "counter", exemplars=family.kind != "unknown")
        if value is None:
            return "invalid"
        if series is None:
            if len(family.series) >= self._series_max or self._count >= self._series_all_max:
                return "series_limit"
            self._count += 1
        elif delta:
            value = accumulated(series.point, value)
        family.series[key] = Series(labels, point.time_unix_nano, now, value)
        return ""

    def _labels(self, kind: str, base: Labels, point: DataPoint) -> Labels:
        """The attributes of the point win over resource attributes, never over what tells target and scope."""
        labels = dict(base)
        for name, value in labels_of(point.attributes).items():
            fixed = name in {"job", "instance"} or name.startswith("otel_scope_") or name == RESERVED.get(kind)
            labels[f"exported_{name}" if fixed else name] = value
        return labels

    def _target(self, resource: Resource, now: float) -> Labels:
        """The labels that a resource gives to its series; notes it for `target_info`."""
        identity = {
            pair.key: label_text(python_value(pair.value))
            for pair in reversed(resource.attributes)  # of equal keys the first counts
            if pair.key in IDENTITY
        }
        labels: Labels = {}
        if service := identity.get("service.name"):
            namespace = identity.get("service.namespace")
            labels["job"] = f"{namespace}/{service}" if namespace else service
        if instance := identity.get("service.instance.id"):
            labels["instance"] = instance
        lasting = [pair for pair in resource.attributes if pair.key not in MOMENTARY]
        others = labels_of(pair for pair in lasting if pair.key not in IDENTITY)
        key = tuple(labels.items())
        room = key in self._targets or len(self._targets) < RECEIVED_TARGETS_MAX
        if labels and room and 0 < len(others) <= RECEIVED_LABELS_MAX:
            self._targets[key] = now, {**others, **labels}
        return {**labels_of(lasting), **labels} if self._translation.resource_labels else labels

    # -- what goes -----------------------------------------------------------------------------------------------------

    def _sweep(self, now: float, *, force: bool = False) -> None:
        """Remove what has expired, at each scrape and now and then in between."""
        if not force and now - self._swept_s < self._expiration_s:
            return
        self._swept_s = now
        oldest = now - self._expiration_s
        for name, family in list(self._families.items()):
            for key in [key for key, series in family.series.items() if series.seen_s < oldest]:
                del family.series[key]
                self._count -= 1
            if not family.series:
                del self._families[name]
                for each in sample_names(name, family.kind):
                    del self._owners[each]
        for target in [target for target, (seen_s, _) in self._targets.items() if seen_s < oldest]:
            del self._targets[target]

    def _drop(self, reason: str, points: int) -> int:
        """Count points that are not exposed; returns how many of them the sender must hear of."""
        self._dropped.add(one(reason), points)
        return 0 if reason == "old" else points


def kind_of(metric: metrics_pb2.Metric) -> str:
    """The Prometheus type of a metric."""
    member = metric.WhichOneof("data") or ""
    if member == "sum":
        return "counter" if metric.sum.is_monotonic else "gauge"
    if member == "gauge":
        unknown = any(
            pair.key == "prometheus.type" and pair.value.string_value == "unknown" for pair in metric.metadata
        )
        return "unknown" if unknown else "gauge"
    return "summary" if member == "summary" else "histogram"


def scope_labels(scope: InstrumentationScope) -> Labels:
    """The labels that an instrumentation scope gives to its series."""
    labels = {f"otel_scope_{key}": value for key, value in labels_of(scope.attributes).items()}
    labels |= {"otel_scope_name": label_text(scope.name), "otel_scope_version": label_text(scope.version)}
    return {name: value for name, value in labels.items() if value}
