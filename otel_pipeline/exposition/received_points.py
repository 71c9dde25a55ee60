"""OTLP data points as values that Prometheus knows: numbers, classic histograms, summaries.

Reads protobuf, keeps frozen values and writes samples. A value that takes in a delta makes a new one, so that a scrape
may read while the next request is stored.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

from opentelemetry.proto.metrics.v1 import metrics_pb2
from prometheus_client.samples import Exemplar, Sample

from otel_pipeline.exposition.names import labels_of, number_text
from otel_pipeline.limits import (
    EXEMPLAR_LABEL_CHARS_MAX,
    EXPONENTIAL_BUCKETS_MAX,
    EXPONENTIAL_BUCKETS_READ_MAX,
    EXPONENTIAL_SCALE_MAX,
    RECEIVED_BUCKETS_MAX,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

EXPONENTIAL_SCALE_MIN: Final = -11
"""The coarsest scale there is: two buckets hold every double."""
EXPONENT_MAX: Final = 2.0**12
"""No double has an exponent near this; at the coarsest scale a bucket ends at 2**2048."""

Labels: TypeAlias = dict[str, str]
DataPoint: TypeAlias = (
    metrics_pb2.NumberDataPoint
    | metrics_pb2.HistogramDataPoint
    | metrics_pb2.ExponentialHistogramDataPoint
    | metrics_pb2.SummaryDataPoint
)


@dataclass(frozen=True, slots=True)
class Number:
    """A gauge, or a counter with the latest of its exemplars."""

    value: float
    exemplar: Exemplar | None = None

    def plus(self, delta: Number) -> Number:
        """With a delta added."""
        return Number(self.value + delta.value, delta.exemplar or self.exemplar)

    def samples(self, name: str, labels: Labels) -> list[Sample]:
        """One sample; a counter's name is given with `_total`."""
        return [Sample(name, labels, self.value, None, self.exemplar)]


@dataclass(frozen=True, slots=True)
class Classic:
    """A histogram with its own bounds; `counts` has one more, for what lies above the last bound."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float | None
    exemplars: tuple[Exemplar, ...] = ()

    def plus(self, delta: Classic) -> Classic:
        """With a delta added; a delta with other bounds starts anew, which reads as a reset."""
        if delta.bounds != self.bounds:
            return delta
        counts = tuple(one + other for one, other in zip(self.counts, delta.counts, strict=True))
        return Classic(self.bounds, counts, _sum(self.sum, delta.sum), delta.exemplars or self.exemplars)

    def samples(self, name: str, labels: Labels) -> list[Sample]:
        """Buckets, and count and sum where OpenMetrics allows them: the sum must be known and no bound negative."""
        largest: dict[int, Exemplar] = {}
        for exemplar in sorted(self.exemplars, key=lambda one: one.value):
            largest[bisect_left(self.bounds, exemplar.value)] = exemplar
        samples = []
        les = [number_text(bound) for bound in (*self.bounds, math.inf)]
        for index, (le, count) in enumerate(zip(les, accumulate(self.counts), strict=True)):
            samples.append(Sample(f"{name}_bucket", {**labels, "le": le}, count, None, largest.get(index)))
        if self.sum is not None and self.sum >= 0 and not (self.bounds and self.bounds[0] < 0):
            samples.append(Sample(f"{name}_count", labels, samples[-1].value))
            samples.append(Sample(f"{name}_sum", labels, self.sum))
        return samples


@dataclass(frozen=True, slots=True)
class Exponential:
    """A histogram whose bounds are powers of b = 2**(2**-scale): bucket i holds what is above b**i, up to b**(i+1)."""

    scale: int
    zero: int
    zero_threshold: float
    positive: Mapping[int, int]
    negative: Mapping[int, int]
    sum: float | None
    exemplars: tuple[Exemplar, ...] = ()

    def plus(self, delta: Exponential) -> Exponential:
        """With a delta added, at the coarser of the two scales."""
        scale = min(self.scale, delta.scale)
        one, other = self.at(scale), delta.at(scale)
        return replace(
            other,
            zero=one.zero + other.zero,
            zero_threshold=max(one.zero_threshold, other.zero_threshold),
            positive=Counter(one.positive) + Counter(other.positive),
            negative=Counter(one.negative) + Counter(other.negative),
            sum=_sum(one.sum, other.sum),
            exemplars=other.exemplars or one.exemplars,
        ).bounded()

    def at(self, scale: int) -> Exponential:
        """The same at a coarser scale: 2**n buckets become one, so bounds vanish but none appears."""
        down = self.scale - scale
        return replace(self, scale=scale, positive=_merge(self.positive, down), negative=_merge(self.negative, down))

    def bounded(self) -> Exponential:
        """At a scale where the buckets are few enough to be written out."""
        scale = min(self.scale, EXPONENTIAL_SCALE_MAX)
        while True:
            coarse = self.at(scale)
            if scale <= EXPONENTIAL_SCALE_MIN or coarse.width() <= EXPONENTIAL_BUCKETS_MAX:
                return coarse
            scale -= 1

    def width(self) -> int:
        """How many buckets lie between the outermost ones."""
        return sum(max(side) - min(side) + 1 for side in (self.positive, self.negative) if side)

    def classic(self) -> Classic:
        """As a classic histogram, from the largest negative bucket over zero to the largest positive one."""
        pairs = [(-_power(index, self.scale), self.negative.get(index, 0)) for index in _downwards(self.negative)]
        pairs.append((self.zero_threshold, self.zero))
        pairs += [(_power(i + 1, self.scale), self.positive.get(i, 0)) for i in reversed(_downwards(self.positive))]
        bounds: list[float] = []
        counts: list[int] = []
        above = 0
        for bound, count in pairs:
            if not math.isfinite(bound):
                above += count
            elif bounds and bound <= bounds[-1]:  # below what a double can tell from zero
                counts[-1] += count
            else:
                bounds.append(bound)
                counts.append(count)
        return Classic(tuple(bounds), (*counts, above), self.sum, self.exemplars)

    def samples(self, name: str, labels: Labels) -> list[Sample]:
        """Those of the classic histogram."""
        return self.classic().samples(name, labels)


@dataclass(frozen=True, slots=True)
class Summary:
    """Quantiles computed by the sender."""

    quantiles: tuple[tuple[float, float], ...]
    count: int
    sum: float

    def samples(self, name: str, labels: Labels) -> list[Sample]:
        """Quantiles, count, and the sum where it may be a counter."""
        samples = [Sample(name, {**labels, "quantile": number_text(q)}, value) for q, value in self.quantiles]
        samples.append(Sample(f"{name}_count", labels, self.count))
        if self.sum >= 0:
            samples.append(Sample(f"{name}_sum", labels, self.sum))
        return samples


Point: TypeAlias = Number | Classic | Exponential | Summary


def read_point(point: DataPoint, *, monotonic: bool, exemplars: bool) -> Point | None:
    """The value of a data point, or None if there is none that Prometheus could take; a monotonic one must be >= 0."""
    if isinstance(point, metrics_pb2.NumberDataPoint):
        return _number(point, monotonic=monotonic, exemplars=exemplars)
    if isinstance(point, metrics_pb2.HistogramDataPoint):
        return _classic(point)
    if isinstance(point, metrics_pb2.ExponentialHistogramDataPoint):
        return _exponential(point)
    quantiles = {pair.quantile: pair.value for pair in point.quantile_values if 0 <= pair.quantile <= 1}
    allowed = tuple((quantile, value) for quantile, value in sorted(quantiles.items()) if not value < 0)
    return Summary(allowed[:RECEIVED_BUCKETS_MAX], point.count, point.sum)


def accumulated(earlier: Point, delta: Point) -> Point:
    """The earlier value with a delta added; of two types the delta starts anew."""
    if isinstance(earlier, Number) and isinstance(delta, Number):
        return earlier.plus(delta)
    if isinstance(earlier, Classic) and isinstance(delta, Classic):
        return earlier.plus(delta)
    if isinstance(earlier, Exponential) and isinstance(delta, Exponential):
        return earlier.plus(delta)
    return delta


def _number(point: metrics_pb2.NumberDataPoint, *, monotonic: bool, exemplars: bool) -> Number | None:
    member = point.WhichOneof("value")
    if member is None:
        return None
    value = float(point.as_int if member == "as_int" else point.as_double)
    if not monotonic:
        return Number(value)
    if not 0 <= value < math.inf:
        return None
    read = _exemplars(sorted(point.exemplars, key=lambda one: one.time_unix_nano)) if exemplars else ()
    return Number(value, read[-1] if read else None)


def _classic(point: metrics_pb2.HistogramDataPoint) -> Classic | None:
    bounds, counts = tuple(point.explicit_bounds), tuple(point.bucket_counts)
    if not counts:
        bounds, counts = (), (point.count,)
    if bounds and bounds[-1] == math.inf and len(counts) == len(bounds) + 1:
        bounds, counts = bounds[:-1], (*counts[:-2], counts[-2] + counts[-1])
    if len(counts) != len(bounds) + 1 or len(counts) > RECEIVED_BUCKETS_MAX:
        return None
    if not all(math.isfinite(bound) for bound in bounds) or any(low >= high for low, high in pairwise(bounds)):
        return None
    return Classic(bounds, counts, _known(point), _exemplars(point.exemplars))


def _exponential(point: metrics_pb2.ExponentialHistogramDataPoint) -> Exponential | None:
    if point.scale < EXPONENTIAL_SCALE_MIN or not 0 <= point.zero_threshold < math.inf:
        return None
    for side in (point.positive, point.negative):
        ends = (side.offset, side.offset + len(side.bucket_counts))
        if len(side.bucket_counts) > EXPONENTIAL_BUCKETS_READ_MAX or any(
            abs(end * 2.0**-point.scale) > EXPONENT_MAX for end in ends
        ):
            return None
    return Exponential(
        point.scale,
        point.zero_count,
        point.zero_threshold,
        _sparse(point.positive),
        _sparse(point.negative),
        _known(point),
        _exemplars(point.exemplars),
    ).bounded()


def _sparse(buckets: metrics_pb2.ExponentialHistogramDataPoint.Buckets) -> dict[int, int]:
    return {buckets.offset + index: count for index, count in enumerate(buckets.bucket_counts) if count}


def _merge(buckets: Mapping[int, int], down: int) -> dict[int, int]:
    merged: dict[int, int] = {}
    for index, count in buckets.items():
        merged[index >> down] = merged.get(index >> down, 0) + count
    return merged


def _downwards(buckets: Mapping[int, int]) -> Sequence[int]:
    return range(max(buckets), min(buckets) - 1, -1) if buckets else range(0)


def _power(index: int, scale: int) -> float:
    """The lower bound of a bucket; inf above what a double holds."""
    exponent = index * 2.0**-scale
    return 2.0**exponent if exponent < 1024 else math.inf


def _known(point: metrics_pb2.HistogramDataPoint | metrics_pb2.ExponentialHistogramDataPoint) -> float | None:
    return point.sum if point.HasField("sum") and math.isfinite(point.sum) else None


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _exemplars(exemplars: Iterable[metrics_pb2.Exemplar]) -> tuple[Exemplar, ...]:
    read = [_exemplar(exemplar) for exemplar in list(exemplars)[-RECEIVED_BUCKETS_MAX:]]
    return tuple(exemplar for exemplar in read if exemplar is not None)


def _exemplar(exemplar: metrics_pb2.Exemplar) -> Exemplar | None:
    value = float(exemplar.as_int if exemplar.WhichOneof("value") == "as_int" else exemplar.as_double)
    if not math.isfinite(value):
        return None
    ids = {"trace_id": exemplar.trace_id.hex(), "span_id": exemplar.span_id.hex()}
    labels = {name: text for name, text in ids.items() if text}
    more = {**labels_of(exemplar.filtered_attributes), **labels}
    if sum(len(name) + len(text) for name, text in more.items()) <= EXEMPLAR_LABEL_CHARS_MAX:
        labels = more
    elif sum(len(name) + len(text) for name, text in labels.items()) > EXEMPLAR_LABEL_CHARS_MAX:
        return None
    return Exemplar(labels, value, exemplar.time_unix_nano / 1e9 or None)
