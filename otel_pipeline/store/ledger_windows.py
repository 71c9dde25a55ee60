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
from otel_pipeline.store.database import listed
from otel_pipeline.store.ledger_sums import NO_WASTE, SUM, WHATS
from otel_pipeline.store.ledger_tables import (
    ALLOCATION,
    AMOUNTS,
    FACT,
    GPU,
    GPU_HOUR,
    NO_GPU,
    PERIOD,
    STATE,
    WORD,
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


def spent(
    connection: sa.Connection, window: Window, names: Sequence[str], only: Sequence[int] | None = None
) -> dict[Key, Spent]:
    """What spans cost, by (*names, currency); names are hour, gpu, and one of fact, user_id and job. `only`: numbers of
    the last name.
    """
    found: dict[Key, Spent] = {}
    for part in _parts(connection, window):
        for currency in _currencies(connection, part):
            rows = _cells(part, currency, names).subquery()
            keys = [rows.c[name] for name in names]
            question = sa.select(*keys, _sum(rows.c.nano), _sum(rows.c.wasted)).group_by(*keys)
            if only is not None:
                wanted = listed(connection, [("number", WORD, only)])
                question = question.where(keys[-1].in_(sa.select(wanted.c.number)))
            for *key, nano, lost in connection.execute(question).all():
                if nano is not None:
                    one = found.get(place := (*key, currency))
                    if one is None:
                        found[place] = Spent(nano, lost)
                    else:
                        one.nano += nano
                        one.wasted += lost
    return found


def dearest_jobs(connection: sa.Connection, window: Window, limit: int) -> dict[Key, Spent]:
    """The jobs that cost most in the window, by (job, currency): in a month there are more than can be read."""
    by_currency: dict[str, list[sa.Select[Any]]] = defaultdict(list)
    for part in _parts(connection, window):
        for currency in _currencies(connection, part):
            by_currency[currency].append(_cells(part, currency, ["job"]))
    found: list[tuple[int, str, Spent]] = []
    for currency, parts in by_currency.items():
        every = sa.union_all(*parts).subquery()
        nano = _sum(every.c.nano).label("cost")
        question = sa.select(every.c.job, nano, _sum(every.c.wasted)).group_by(every.c.job)
        rows = connection.execute(question.order_by(sa.desc("cost"), every.c.job).limit(limit))
        found += [(job, currency, Spent(cost, lost)) for job, cost, lost in rows]
    found.sort(key=lambda row: (-row[2].nano, row[0], row[1]))
    return {(job, currency): one for job, currency, one in found[:limit]}


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


def _currencies(connection: sa.Connection, part: _Part) -> list[str]:
    """Those that something was paid in. Each is asked for by itself: to group rows by a text takes longer."""
    table, at = (GPU_HOUR, GPU_HOUR.c.hour) if part.hourly else (PERIOD, PERIOD.c.start_ns)
    question = sa.select(table.c.currency).where(_within(table, at, part.window) & (table.c.currency != "")).distinct()
    return sorted(connection.execute(question).scalars())


def _cells(part: _Part, currency: str, names: Sequence[str]) -> sa.Select[Any]:
    """Rows of what spans cost: the columns `names`, nano, wasted."""
    if part.hourly:
        what = next((name for name in names if name in WHATS), "fact")
        wanted = _within(SUM, SUM.c.hour, part.window) & (SUM.c.what == WHATS[what]) & (SUM.c.currency == currency)
        return sa.select(*_keys(SUM, SUM.c.hour, names), SUM.c.nano, SUM.c.wasted).where(wanted)
    cells = ALLOCATION.c
    bad = sa.select(FACT.c.id).where(FACT.c.outcome.not_in(NO_WASTE))
    wasted = sa.case((cells.fact.in_(bad), cells.nano), else_=0).label("wasted")
    wanted = _within(ALLOCATION, cells.start_ns, part.window) & (cells.currency == currency)
    return sa.select(*_keys(ALLOCATION, cells.start_ns, names), cells.nano, wasted).where(wanted)


def _keys(table: sa.Table, at: sa.Column[Any], names: Sequence[str]) -> list[sa.ColumnElement[Any]]:
    found: list[sa.ColumnElement[Any]] = []
    for name in names:
        if name == "hour":
            found.append((at - at % HOUR_NS).label("hour"))
        else:
            found.append(table.c["number" if table is SUM and name in WHATS else name].label(name))
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
