"""Sums of the ledger over a window of time: whole hours from the hourly sums, what is left at its ends by the minute.

All numbers are n$ of one currency, or ns. What spans cost and what is nobody's add up to what was paid: that is the law
of ledger/allocation.py, for each GPU and window.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.store.ledger_sums import BY_JOB, NO_WASTE, SUM, WHATS
from otel_pipeline.store.ledger_tables import (
    ALLOCATION,
    AMOUNTS,
    FACT,
    GPU,
    GPU_HOUR,
    NO_GPU,
    PERIOD,
    STATE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """From start to end, ns since 1970; the end is not part of it."""

    start_ns: int
    end_ns: int

    def before(self) -> Window:
        """The window of the same length that ends where this one starts."""
        return Window(2 * self.start_ns - self.end_ns, self.start_ns)


@dataclass(slots=True)
class Spent:
    """What spans cost; `wasted` of it for jobs that came to nothing."""

    nano: int = 0
    wasted: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a window, by the hour or by the minute."""

    window: Window
    hourly: bool


def booked_ns(connection: sa.Connection) -> int:
    """Until when the ledger is booked; 0: not at all."""
    return connection.execute(sa.select(STATE.c.value).where(STATE.c.name == "booked_ns")).scalar() or 0


def spent(connection: sa.Connection, window: Window, names: Sequence[str]) -> dict[Key, Spent]:
    """What spans cost, by (*names, currency); names are hour, gpu, and one of fact, user_id and job."""
    found: dict[Key, Spent] = defaultdict(Spent)
    bad = sa.select(FACT.c.id).where(FACT.c.outcome.not_in(NO_WASTE))
    what = next((name for name in names if name in WHATS), "fact")
    for part in _parts(connection, window):
        table, at = (SUM, SUM.c.hour) if part.hourly else (ALLOCATION, ALLOCATION.c.start_ns)
        keys = [*_keys(table, at, names), table.c.currency]
        wasted = SUM.c.wasted if part.hourly else sa.case((ALLOCATION.c.fact.in_(bad), ALLOCATION.c.nano), else_=0)
        question = sa.select(*keys, _sum(table.c.nano), _sum(wasted)).where(_within(table, at, part.window))
        if part.hourly:
            question = question.where(SUM.c.what == WHATS[what])
        for *key, nano, lost in connection.execute(question.group_by(*keys)):
            one = found[tuple(key)]
            one.nano += nano
            one.wasted += lost
    return found


def dearest_jobs(connection: sa.Connection, window: Window, limit: int) -> dict[Key, Spent]:
    """The jobs that cost most in the window, by (job, currency): in a month there are more than can be read."""
    bad = sa.select(FACT.c.id).where(FACT.c.outcome.not_in(NO_WASTE))
    parts = []
    for part in _parts(connection, window):
        if part.hourly:
            rows = sa.select(SUM.c.number.label("job"), SUM.c.currency, SUM.c.nano, SUM.c.wasted)
            parts.append(rows.where(_within(SUM, SUM.c.hour, part.window) & (SUM.c.what == BY_JOB)))
        else:
            wasted = sa.case((ALLOCATION.c.fact.in_(bad), ALLOCATION.c.nano), else_=0)
            rows = sa.select(ALLOCATION.c.job, ALLOCATION.c.currency, ALLOCATION.c.nano, wasted.label("wasted"))
            parts.append(rows.where(_within(ALLOCATION, ALLOCATION.c.start_ns, part.window)))
    if not parts:
        return {}
    every = sa.union_all(*parts).subquery()
    keys, nano = (every.c.job, every.c.currency), _sum(every.c.nano)
    question = sa.select(*keys, nano, _sum(every.c.wasted)).group_by(*keys).order_by(nano.desc(), *keys).limit(limit)
    return {(job, currency): Spent(cost, lost) for job, currency, cost, lost in connection.execute(question)}


def paid(connection: sa.Connection, window: Window, names: Sequence[str] = ()) -> dict[Key, list[int]]:
    """AMOUNTS by (*names, currency); a name is hour or gpu. Of no currency is time without a price."""
    found: dict[Key, list[int]] = {}
    for part in _parts(connection, window):
        table, at = (GPU_HOUR, GPU_HOUR.c.hour) if part.hourly else (PERIOD, PERIOD.c.start_ns)
        keys = [*_keys(table, at, names), table.c.currency]
        sums = [_sum(table.c[name]) for name in AMOUNTS]
        question = sa.select(*keys, *sums).where(_within(table, at, part.window)).group_by(*keys)
        for row in connection.execute(question):
            key, amounts = tuple(row[: len(keys)]), row[len(keys) :]
            known = found.get(key, [0] * len(AMOUNTS))
            found[key] = [one + other for one, other in zip(known, amounts, strict=True)]
    return {key: amounts for key, amounts in found.items() if any(amounts)}


def _parts(connection: sa.Connection, window: Window) -> Iterator[_Part]:
    """Whole hours, and what is left before and behind; an hour that is booked until the end is whole."""
    start, end = window.start_ns, window.end_ns
    first = -(-start // HOUR_NS) * HOUR_NS
    last = -(-end // HOUR_NS) * HOUR_NS if end >= booked_ns(connection) else end // HOUR_NS * HOUR_NS
    if first >= last:
        if start < end:
            yield _Part(window, hourly=False)
        return
    yield _Part(Window(first, last), hourly=True)
    for edge in (Window(start, first), Window(last, end)):
        if edge.start_ns < edge.end_ns:
            yield _Part(edge, hourly=False)


def _keys(table: sa.Table, at: sa.Column[Any], names: Sequence[str]) -> list[sa.ColumnElement[Any]]:
    found: list[sa.ColumnElement[Any]] = []
    for name in names:
        if name == "hour":
            found.append((at - at % HOUR_NS).label("hour"))
        else:
            found.append(table.c["number" if table is SUM and name in WHATS else name])
    return found


def _within(table: sa.Table, at: sa.Column[Any], window: Window) -> sa.ColumnElement[bool]:
    """By GPU, for the tables of minutes are sorted by it."""
    there = (at >= window.start_ns) & (at < window.end_ns)
    if table in {SUM, GPU_HOUR}:
        return there
    return table.c.gpu.in_(sa.union_all(sa.select(GPU.c.id), sa.select(sa.literal(NO_GPU)))) & there


def _sum(value: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """PostgreSQL's sum is a decimal number."""
    return sa.cast(sa.func.sum(value), sa.BigInteger)
