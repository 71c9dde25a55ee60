"""What the ledger tells Prometheus: cost of jobs by backend, the day against its budget, idle, waste, savings.

Counters begin at 0 when the gateway starts, as Prometheus expects, and never fall: where a correction lowers a sum, its
counter waits until it is reached again. What must be exact over restarts is in the ledger. The book's thread reads the
store, at most every READ_S; who scrapes gets what was read last, and never waits for the store.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from otel_pipeline.errors import StoreError
from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.ledger.money import NANO
from otel_pipeline.limits import COST_BACKENDS_MAX
from otel_pipeline.store.ledger_report import Total, budget, day_of, savings, totals
from otel_pipeline.store.ledger_runs import failed_for_good, last_costs, succeeded_by_type
from otel_pipeline.store.ledger_tables import AMOUNTS, FACT
from otel_pipeline.store.ledger_views import nobody
from otel_pipeline.store.ledger_windows import Window, booked_ns, paid, spent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client import Metric

    from otel_pipeline.store.database import Database
    from otel_pipeline.store.ledger_report_config import CostReportsConfig

READ_S: Final = 30.0
"""Between two readings: with a million spans one takes some 0.1 s."""
RECENT_NS: Final = 48 * HOUR_NS
"""Hours that are added up at each reading; what is older is added up anew once an hour."""
RATIO_NS: Final = 24 * HOUR_NS
"""Ratios are of so long a time."""
DOLLARS: Final = "USD"
OTHERS: Final = "__overflow__"
Sums = dict[tuple[str, ...], int]


@dataclass(slots=True)
class _Counter:
    """Sums of the ledger as counters."""

    first: Sums | None = None
    shown: Sums = field(default_factory=dict)
    fresh: set[tuple[str, ...]] = field(default_factory=set)
    """Series that nobody has scraped yet."""

    def take(self, sums: Mapping[tuple[str, ...], int], *, told: bool) -> Sums:
        """What to show: what is new since the first reading. A new series is shown as 0 until that was `told` once, or
        Prometheus would not know that it rose.
        """
        if told:
            self.fresh.clear()
        known = self.first is not None
        if self.first is None:
            self.first = dict(sums)
        for key, nano in sums.items():
            if key not in self.shown:
                self.shown[key] = 0
                self.fresh.add(key)
                if known:
                    self.first.setdefault(key, 0)
            if key in self.fresh:
                continue
            self.shown[key] = max(self.shown[key], nano - self.first.get(key, 0))
        return dict(self.shown)


@dataclass(slots=True)
class _Read:
    """What was read last: n$."""

    jobs: Sums = field(default_factory=dict)
    paid: Sums = field(default_factory=dict)
    idle: Sums = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    day: dict[str, Total] = field(default_factory=dict)
    budget: tuple[str, int] | None = None
    saved: tuple[str, int] | None = None
    ratios: dict[str, float] = field(default_factory=dict)
    refunds: float | None = None
    unpriced_ns: int = 0
    booked_ns: int = 0
    told: bool = False
    """Somebody has scraped it."""


class LedgerMetrics:
    """A collector for prometheus_client. One thread calls `read`, any other `collect`."""

    def __init__(self, database: Database, config: CostReportsConfig, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._config = config
        self._clock = clock
        self._read_s = float("-inf")
        self._found = _Read()
        self._jobs = _Counter()
        self._paid = _Counter()
        self._idle = _Counter()
        self._old: tuple[int, Sums, Sums, Sums] | None = None
        self._backends: set[str] = set()
        self._last_seen_ns = 0

    def describe(self) -> Iterable[Metric]:
        """What the registry asks for at first."""
        return self._families(_Read())

    def collect(self) -> Iterable[Metric]:
        """What was read last."""
        found = self._found
        found.told = True
        return self._families(found)

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Read the ledger if it was not within READ_S; what was read last stands if it cannot be read."""
        if self._clock() - self._read_s < READ_S:
            return
        self._read_s = self._clock()
        try:
            with self._database.read() as connection:
                self._read(connection, int(self._read_s * NANO))
        except StoreError:
            return

    def _read(self, connection: sa.Connection, now_ns: int) -> None:
        jobs, whole, idle = self._sums(connection, now_ns)
        found = _Read(booked_ns=booked_ns(connection))
        day, recent = day_of(now_ns), Window(now_ns - RATIO_NS, now_ns)
        found.day = totals(connection, day)
        unpriced = paid(connection, day).get(("",))
        found.unpriced_ns = unpriced[AMOUNTS.index("unpriced_ns")] if unpriced else 0
        if (one := budget(connection, self._config, now_ns)) is not None:
            found.budget = (one.currency, one.budget)
        if (saved := savings(connection, self._config, day, found.day)) is not None:
            found.saved = (saved.currency, saved.saved)
        for currency, total in totals(connection, recent).items():
            if total.waste_ratio is not None:
                found.ratios[currency] = total.waste_ratio
        failed, good = failed_for_good(connection, recent), sum(succeeded_by_type(connection, recent).values())
        found.refunds = failed / (failed + good) if failed + good else None
        found.last = self._last(connection, min(found.booked_ns, now_ns))
        told = self._found.told
        found.jobs = self._jobs.take(jobs, told=told)
        found.paid = self._paid.take(whole, told=told)
        found.idle = self._idle.take(idle, told=told)
        self._found = found

    def _sums(self, connection: sa.Connection, now_ns: int) -> tuple[Sums, Sums, Sums]:
        """Over all time: by backend, by currency, by currency and bucket. Old hours change by corrections only."""
        cut = (now_ns - RECENT_NS) // HOUR_NS * HOUR_NS
        if self._old is None or self._old[0] != cut:
            self._old = (cut, *self._between(connection, Window(0, cut)))
        recent = self._between(connection, Window(cut, 2**62))
        jobs, whole, idle = (
            {key: old.get(key, 0) + new.get(key, 0) for key in old.keys() | new.keys()}
            for old, new in zip(self._old[1:], recent, strict=True)
        )
        return jobs, whole, idle

    def _between(self, connection: sa.Connection, window: Window) -> tuple[Sums, Sums, Sums]:
        facts = {row.id: row.backend for row in connection.execute(sa.select(FACT.c.id, FACT.c.backend))}
        jobs: Sums = {}
        for (fact, currency), one in spent(connection, window, ["fact"]).items():
            if currency == DOLLARS and facts.get(fact):
                key = (self._label(facts[fact]),)
                jobs[key] = jobs.get(key, 0) + one.nano
        whole: Sums = {}
        idle: Sums = {}
        for (currency,), amounts in paid(connection, window).items():
            if currency:
                whole[currency,] = amounts[AMOUNTS.index("total")]
                idle.update({(currency, bucket): nano for bucket, nano in nobody(amounts).items()})
        return jobs, whole, idle

    def _last(self, connection: sa.Connection, booked: int) -> dict[str, int]:
        """n$ of the last job of each backend whose end is booked; what was known before stays."""
        last = dict(self._found.last)
        window = Window(self._last_seen_ns or booked - RATIO_NS, booked)
        if window.start_ns < window.end_ns:
            for backend, nano in last_costs(connection, window, DOLLARS).items():
                last[self._label(backend)] = nano
            self._last_seen_ns = booked - HOUR_NS  # what ended there may be told later
        return last

    def _label(self, backend: str) -> str:
        if backend not in self._backends and len(self._backends) >= COST_BACKENDS_MAX:
            return OTHERS
        self._backends.add(backend)
        return backend

    # -- telling -------------------------------------------------------------------------------------------------------

    def _families(self, found: _Read) -> Iterable[Metric]:
        jobs = _counter("comfyui_job_cost_dollars", "Cost of jobs.", ("backend",), found.jobs)
        last = GaugeMetricFamily("comfyui_job_cost_dollars", "Cost of the last job.", labels=("backend",))
        for backend, nano in found.last.items():
            last.add_metric((backend,), nano / NANO)
        return (last, jobs, *_of_the_day(found), *_of_the_ledger(found))


def _of_the_day(found: _Read) -> Iterable[Metric]:
    cost = GaugeMetricFamily("otel_pipeline_day_cost", "Paid today (UTC).", labels=("currency",))
    limit = GaugeMetricFamily("otel_pipeline_day_budget", "What a day may cost.", labels=("currency",))
    saved = GaugeMetricFamily("otel_pipeline_day_savings", "Saved today.", labels=("currency",))
    unpriced = GaugeMetricFamily("otel_pipeline_day_unpriced_gpu_seconds", "Today's GPU time without a price.")
    for currency, total in found.day.items():
        cost.add_metric((currency,), total.paid / NANO)
    if found.budget is not None:
        limit.add_metric((found.budget[0],), found.budget[1] / NANO)
        if found.budget[0] not in found.day:
            cost.add_metric((found.budget[0],), 0)
    if found.saved is not None:
        saved.add_metric((found.saved[0],), found.saved[1] / NANO)
    unpriced.add_metric((), found.unpriced_ns / NANO)
    return (cost, limit, saved, unpriced)


def _of_the_ledger(found: _Read) -> Iterable[Metric]:
    waste = GaugeMetricFamily("otel_pipeline_waste_ratio", "Wasted part of the costs of jobs.", labels=("currency",))
    refunds = GaugeMetricFamily("otel_pipeline_refund_ratio", "Jobs that failed for good, of those that ended.")
    booked = GaugeMetricFamily("otel_pipeline_ledger_booked_timestamp_seconds", "Until when costs are booked.")
    for currency, ratio in found.ratios.items():
        waste.add_metric((currency,), ratio)
    if found.refunds is not None:
        refunds.add_metric((), found.refunds)
    if found.booked_ns:
        booked.add_metric((), found.booked_ns / NANO)
    return (
        _counter("otel_pipeline_cost", "What was paid.", ("currency",), found.paid),
        _counter("otel_pipeline_idle_cost", "What nobody used.", ("currency", "bucket"), found.idle),
        waste,
        refunds,
        booked,
    )


def _counter(name: str, text: str, labels: tuple[str, ...], sums: Sums) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, nano in sums.items():
        family.add_metric(key, nano / NANO)
    return family
