"""The metrics about the telemetry that passes: written by processors in columns, rendered by whoever is scraped.

Owns counters, gauges and histograms by name and their series by label values, all bounded. Knows no batch and no HTTP.
Processors' threads write, an HTTP thread collects: each family has a lock, held for microseconds by both.

    groups = group_rows([batch.resource_strings("service.name"), batch.name()], batch.keep)
    calls.add(groups)
    duration.observe(groups, batch.duration_s)

A family that has `series_max` series puts every further combination into one series whose labels all read
`__overflow__`, and `otel_pipeline_exposition_overflow_total` counts the rows that went there.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

import numpy as np
from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, HistogramMetricFamily, Metric

from otel_pipeline.errors import ConfigError
from otel_pipeline.exposition.names import LABEL_NAME, METRIC_NAME, number_text
from otel_pipeline.limits import EXEMPLAR_INTERVAL_S, EXPOSITION_FAMILIES_MAX, EXPOSITION_SERIES_MAX, LABEL_CHARS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline.exposition.label_columns import Groups
    from otel_pipeline.wire.batch import Floats, Ints, Mask

OVERFLOW: Final = "__overflow__"
OVERFLOW_METRIC: Final = "otel_pipeline_exposition_overflow_total"
MISSING: Final = -1


@dataclass(frozen=True, slots=True)
class Exemplars:
    """Where a histogram finds its exemplars."""

    ids: Callable[[int], tuple[str, str]]
    """Trace id and span id of a row, in hex."""
    eligible: Mask | None = None
    """The rows of the batch that may become one: those whose trace somebody keeps. None: all."""


class Exposition:
    """The families of one process. Registering the same family again returns the first: two pipelines may share it."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._families: dict[str, Family] = {}

    def counter(
        self, name: str, help_text: str, labels: Sequence[str] = (), series_max: int = EXPOSITION_SERIES_MAX
    ) -> Counter:
        """A counter; its name ends in `_total`."""
        if not name.endswith("_total"):
            raise ConfigError([f"metric {name!r}: the name of a counter must end in _total"])
        return self._register(Counter(name, help_text, tuple(labels), series_max))

    def gauge(
        self, name: str, help_text: str, labels: Sequence[str] = (), series_max: int = EXPOSITION_SERIES_MAX
    ) -> Gauge:
        """A gauge."""
        return self._register(Gauge(name, help_text, tuple(labels), series_max))

    def histogram(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str],
        buckets: Sequence[float],
        series_max: int = EXPOSITION_SERIES_MAX,
    ) -> Histogram:
        """A histogram for values >= 0; `buckets` are the upper bounds below +Inf."""
        return self._register(
            Histogram(name, help_text, tuple(labels), series_max, buckets=tuple(buckets), clock=self._clock)
        )

    def names(self) -> set[str]:
        """Every name under which a sample may appear, and those that OpenMetrics reserves with them."""
        with self._lock:
            families = list(self._families.values())
        return {OVERFLOW_METRIC}.union(*(sample_names(family.name, family.kind) for family in families))

    def collect(self) -> list[Metric]:
        """A snapshot of all families that have series, by name."""
        with self._lock:
            families = [self._families[name] for name in sorted(self._families)]
        overflow = CounterMetricFamily(
            OVERFLOW_METRIC,
            "Rows counted in the overflow series because the metric has its full number of series.",
            labels=["metric"],
        )
        metrics = []
        for family in families:
            if metric := family.collect():
                metrics.append(metric)
                overflow.add_metric([family.name], family.overflowed)
        return [*metrics, overflow] if metrics else []

    def _register(self, family: FamilyT) -> FamilyT:
        with self._lock:
            known = self._families.get(family.name)
            if known is None:
                if len(self._families) >= EXPOSITION_FAMILIES_MAX:
                    raise ConfigError([f"metric {family.name!r}: more than {EXPOSITION_FAMILIES_MAX} metrics"])
                self._families[family.name] = family
                return family
        if isinstance(known, type(family)) and known.shape == family.shape:
            return known
        raise ConfigError([f"metric {family.name!r} is defined twice, with other labels, buckets or another type"])


class Family:
    """One metric: its series by their label values."""

    kind: ClassVar[str] = ""

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...], series_max: int) -> None:
        mistakes = [
            f"metric {name!r}: label {label!r} is no label name" for label in labels if not label_allowed(label)
        ]
        if not METRIC_NAME.fullmatch(name):
            mistakes.append(f"metric {name!r}: letters, digits, _ and : are allowed, no digit at the start")
        if len(set(labels)) < len(labels):
            mistakes.append(f"metric {name!r}: a label stands twice")
        if mistakes:
            raise ConfigError(mistakes)
        self.name = name
        self.help_text = help_text
        self.labels = labels
        self.overflowed = 0
        """Rows that went to the overflow series."""
        self._series_max = series_max
        self._lock = threading.Lock()
        self._index: dict[tuple[str, ...], int] = {}
        self._series: list[tuple[str, ...]] = []
        self._overflow = MISSING

    @property
    def shape(self) -> tuple[object, ...]:
        """What must be equal for two registrations to mean one family."""
        return self.labels

    def collect(self) -> Metric | None:
        """A snapshot, or nothing if there is no series."""
        raise NotImplementedError

    def _grow(self, capacity: int) -> None:
        """Make room for so many series."""
        raise NotImplementedError

    def _resolve(self, labels: Sequence[tuple[str, ...]], counts: Ints) -> tuple[Ints, bool]:
        """The series of each combination, and whether each stands once. The caller holds the lock."""
        series = list(map(self._index.get, labels))
        if None in series:
            for position, number in enumerate(series):
                if number is None:
                    series[position] = self._admit(labels[position], int(counts[position]))
        return np.array(series, np.int64), len(set(series)) == len(series)

    def _admit(self, values: tuple[str, ...], rows: int) -> int:
        if len(values) != len(self.labels):
            raise ValueError(f"metric {self.name!r} has {len(self.labels)} labels, not {len(values)}")
        values = tuple(value[:LABEL_CHARS_MAX] for value in values)
        known = self._index.get(values)
        if known is not None:
            return known
        if len(self._index) < self._series_max:
            number = self._index[values] = self._append(values)
            return number
        if self._overflow == MISSING:
            self._overflow = self._append((OVERFLOW,) * len(self.labels))
        self.overflowed += rows
        return self._overflow

    def _append(self, values: tuple[str, ...]) -> int:
        number = len(self._series)
        if number & (number - 1) == 0:
            self._grow(max(2 * number, 1))
        self._series.append(values)
        return number


FamilyT = TypeVar("FamilyT", bound=Family)


class Counter(Family):
    """A sum that only grows."""

    kind = "counter"

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...], series_max: int) -> None:
        super().__init__(name, help_text, labels, series_max)
        self._values: Floats = np.zeros(0)

    def add(self, groups: Groups, amounts: Floats | float = 1.0) -> None:
        """Add one amount, or an amount for each row of the batch; those that are not finite or below 0 are left out.

        A combination to which nothing is added gets no series.
        """
        labels, counts = groups.labels, groups.counts
        totals: Ints | Floats
        if isinstance(amounts, float | int):
            if not 0 < amounts < math.inf:
                return
            totals = counts if amounts == 1 else counts.astype(np.float64) * amounts
        else:
            chosen = amounts if groups.rows is None else amounts[groups.rows]
            good = (chosen >= 0) & (chosen < math.inf)
            totals = np.bincount(groups.group, np.where(good, chosen, 0.0), len(labels)).astype(np.float64)
            live = np.flatnonzero(totals)
            labels, counts, totals = [labels[index] for index in live.tolist()], counts[live], totals[live]
        with self._lock:
            series, distinct = self._resolve(labels, counts)
            if distinct:
                self._values[series] += totals
            else:
                np.add.at(self._values, series, totals)

    def collect(self) -> Metric | None:
        with self._lock:
            series, values = self._series[:], self._values[: len(self._series)].tolist()
        metric = CounterMetricFamily(self.name, self.help_text, labels=self.labels)
        for labels, value in zip(series, values, strict=True):
            metric.add_metric(labels, value)
        return metric if series else None

    def _grow(self, capacity: int) -> None:
        self._values = np.concatenate([self._values, np.zeros(capacity - len(self._values))])


class Gauge(Family):
    """A value as it is now."""

    kind = "gauge"

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...], series_max: int) -> None:
        super().__init__(name, help_text, labels, series_max)
        self._values: Floats = np.zeros(0)

    def set(self, groups: Groups, values: Floats | float) -> None:
        """Set to one value, or to the value of each combination's last row that has one; NaN is no value."""
        if isinstance(values, float | int):
            latest = np.full(len(groups.labels), float(values))
        else:
            chosen = values if groups.rows is None else values[groups.rows]
            known = ~np.isnan(chosen)
            latest = np.full(len(groups.labels), np.nan)
            latest[groups.group[known]] = chosen[known]
        live = np.flatnonzero(~np.isnan(latest))
        labels = [groups.labels[index] for index in live.tolist()]
        with self._lock:
            series, _ = self._resolve(labels, groups.counts[live])
            self._values[series] = latest[live]

    def collect(self) -> Metric | None:
        with self._lock:
            series, values = self._series[:], self._values[: len(self._series)].tolist()
        metric = GaugeMetricFamily(self.name, self.help_text, labels=self.labels)
        for labels, value in zip(series, values, strict=True):
            metric.add_metric(labels, value)
        return metric if series else None

    def _grow(self, capacity: int) -> None:
        self._values = np.concatenate([self._values, np.zeros(capacity - len(self._values))])


class Histogram(Family):
    """Observations >= 0 by buckets, with one exemplar a series and bucket."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: tuple[str, ...],
        series_max: int,
        *,
        buckets: tuple[float, ...],
        clock: Callable[[], float],
    ) -> None:
        super().__init__(name, help_text, labels, series_max)
        if not buckets or any(not 0 <= bound < math.inf for bound in buckets) or list(buckets) != sorted(set(buckets)):
            raise ConfigError([f"metric {name!r}: buckets must be finite numbers >= 0 in ascending order"])
        self._clock = clock
        self._bounds = np.array(buckets, np.float64)
        self._width = len(buckets) + 1
        self._le = [number_text(bound) for bound in (*buckets, math.inf)]
        self._counts: Ints = np.zeros((0, self._width), np.int64)
        self._sums: Floats = np.zeros(0)
        self._exemplar_at: Floats = np.zeros((0, self._width))
        """When each exemplar was taken; -inf: there is none."""
        self._exemplars: dict[tuple[int, int], Exemplar] = {}

    @property
    def shape(self) -> tuple[object, ...]:
        return (*self.labels, *self._bounds.tolist())

    def observe(
        self,
        groups: Groups,
        values: Floats | float,
        exemplars: Exemplars | None = None,
    ) -> None:
        """Observe one value for all, or the value of each row; values that are not finite or below 0 are left out.

        Of each series and bucket the latest exemplar stays, to a second.
        """
        if isinstance(values, float | int):
            chosen: Floats = np.full(len(groups.group), float(values))
        else:
            chosen = values if groups.rows is None else values[groups.rows]
        if not len(chosen):
            return
        if not (np.minimum.reduce(chosen) >= 0 and np.maximum.reduce(chosen) < math.inf):  # NaN fails both
            good = (chosen >= 0) & (chosen < math.inf)
            groups, chosen = groups.where(good), chosen[good]
        combinations = len(groups.labels)
        cells = groups.group * self._width
        cells += self._bounds.searchsorted(chosen)
        grid = np.bincount(cells, minlength=combinations * self._width).reshape(-1, self._width)
        sums = np.bincount(groups.group, chosen, combinations)
        with self._lock:
            series, distinct = self._resolve(groups.labels, groups.counts)
            if distinct:
                self._counts[series] += grid
                self._sums[series] += sums
            else:
                np.add.at(self._counts, series, grid)
                np.add.at(self._sums, series, sums)
            if exemplars is not None:
                due = (self._exemplar_at[series] <= self._clock() - EXEMPLAR_INTERVAL_S) & (grid > 0)
                if due.any():
                    taken = self._take(np.flatnonzero(due), cells, groups, chosen, exemplars)
                    for cell, exemplar in taken:
                        target = int(series[cell // self._width]), cell % self._width
                        self._exemplars[target] = exemplar
                        self._exemplar_at[target] = exemplar.timestamp

    def collect(self) -> Metric | None:
        with self._lock:
            number = len(self._series)
            series, sums = self._series[:], self._sums[:number].tolist()
            counts = self._counts[:number].cumsum(axis=1).tolist()
            exemplars = self._exemplars.copy()
        metric = HistogramMetricFamily(self.name, self.help_text, labels=self.labels)
        for index, (labels, row, total) in enumerate(zip(series, counts, sums, strict=True)):
            buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
            for bucket, (le, count) in enumerate(zip(self._le, row, strict=True)):
                exemplar = exemplars.get((index, bucket))
                buckets.append((le, count, exemplar) if exemplar else (le, count))
            metric.add_metric(labels, buckets, total)
        return metric if series else None

    def _take(
        self, due: Ints, cells: Ints, groups: Groups, values: Floats, exemplars: Exemplars
    ) -> list[tuple[int, Exemplar]]:
        """For each cell in `due` the last row that may be an exemplar, if there is one."""
        rows = np.arange(len(cells)) if groups.rows is None else groups.rows
        allowed = np.arange(len(cells)) if exemplars.eligible is None else np.flatnonzero(exemplars.eligible[rows])
        latest = np.full(len(groups.labels) * self._width, MISSING)
        latest[cells[allowed]] = allowed
        now = self._clock()
        taken = []
        for cell in due.tolist():
            position = int(latest[cell])
            if position != MISSING:
                trace_id, span_id = exemplars.ids(int(rows[position]))
                labels = {"trace_id": trace_id, "span_id": span_id}
                taken.append((cell, Exemplar(labels, float(values[position]), now)))
        return taken

    def _grow(self, capacity: int) -> None:
        room = capacity - len(self._sums)
        self._sums = np.concatenate([self._sums, np.zeros(room)])
        self._counts = np.concatenate([self._counts, np.zeros((room, self._width), np.int64)])
        self._exemplar_at = np.concatenate([self._exemplar_at, np.full((room, self._width), -math.inf)])


def label_allowed(name: str) -> bool:
    """Whether it is a label name that neither Prometheus nor a histogram reserves."""
    return LABEL_NAME.fullmatch(name) is not None and not name.startswith("__") and name not in {"le", "quantile"}


def sample_names(name: str, kind: str) -> set[str]:
    """The names that a family takes up; a counter's name is given with `_total`."""
    if kind == "histogram":
        return {name + suffix for suffix in ("", "_bucket", "_count", "_sum", "_created")}
    if kind == "summary":
        return {name + suffix for suffix in ("", "_count", "_sum", "_created")}
    return {name}
