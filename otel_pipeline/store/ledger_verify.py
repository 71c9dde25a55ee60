"""Proves from the stored rows alone that the ledger adds up, and names every deviation.

The law, for each GPU, period and currency, to the nano-unit: what spans cost and what is nobody's is what was paid. It
holds for each booking by itself, so each correction adds up to what it changed of the total: to 0, unless the bill
changed. Direct charges are a GPU of their own, for which what was paid is their sum.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.limits import LEDGER_DEVIATIONS_MAX
from otel_pipeline.store.ledger_blocks import booked, difference, due
from otel_pipeline.store.ledger_editions import Editions, pins_of
from otel_pipeline.store.ledger_names import Names
from otel_pipeline.store.ledger_nested import charged_twice
from otel_pipeline.store.ledger_nodes import block_of
from otel_pipeline.store.ledger_sums import proofs
from otel_pipeline.store.ledger_tables import (
    ALLOCATION,
    AMOUNTS,
    ATTEMPT_COST,
    BUCKETS,
    CLAIM,
    DIRTY,
    FACT,
    GPU,
    GPU_HOUR,
    NO_GPU,
    PERIOD,
    SPAN,
    SPAN_KEY,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_pipeline.ledger.price_book import PriceBook
    from otel_pipeline.store.database import Database
    from otel_pipeline.store.ledger_nodes import Block
    from otel_pipeline.store.ledger_state import State

EVER: Final = (-(2**62), 2**62)
A, P = ALLOCATION.c, PERIOD.c


@dataclass(frozen=True, slots=True)
class Deviation:
    """`kind` is the law that is broken, `place` tells where, `nano` by how much (n$, or a number of rows)."""

    kind: str
    place: dict[str, Any]
    nano: int


@dataclass(slots=True)
class Verdict:
    """What was looked at, and what is wrong with it."""

    periods: int = 0
    spans: int = 0
    bookings: int = 0
    waiting: int = 0
    """Hours of GPUs that are marked to be booked."""
    totals: dict[str, int] = field(default_factory=dict)
    """What was paid, by currency."""
    deviations: list[Deviation] = field(default_factory=list)
    outdated: list[Deviation] = field(default_factory=list)
    """Hours that are booked at other prices than those of today, and what the difference is: no mistake."""
    more: bool = False
    """There are further deviations."""


def verify(database: Database, since_ns: int = EVER[0], until_ns: int = EVER[1]) -> Verdict:
    """Looks at the hours that begin from `since_ns` until before `until_ns`; sums by job are looked at in full."""
    found = Verdict()
    with database.read() as connection:
        _count(connection, found, since_ns, until_ns)
        for kind, question in _questions(since_ns, until_ns):
            if kind == "law" and not found.deviations:
                continue  # what adds up in each booking does so over all of them
            rows = connection.execute(question.limit(LEDGER_DEVIATIONS_MAX + 1)).mappings().all()
            found.more |= len(rows) > LEDGER_DEVIATIONS_MAX
            for row in rows[:LEDGER_DEVIATIONS_MAX]:
                place = {name: value for name, value in row.items() if name != "off"}
                found.deviations.append(Deviation(kind, place, int(row["off"])))
        twice = list(islice(charged_twice(connection, Names(), since_ns, until_ns), LEDGER_DEVIATIONS_MAX + 1))
        found.more |= len(twice) > LEDGER_DEVIATIONS_MAX
        for place in twice[:LEDGER_DEVIATIONS_MAX]:
            found.deviations.append(Deviation("charged_twice", place, place.pop("off")))
    return found


def recompute(database: Database, prices: PriceBook, state: State, since_ns: int, until_ns: int) -> Iterator[Deviation]:
    """What would be booked if all was allocated once more, at the prices that each hour was booked with: nothing. Takes
    as long as the booking took.
    """
    editions = Editions(prices)
    for block, connection in _blocks(database, state, since_ns, until_ns):
        pins = pins_of(connection, block.gpu, block.hour) or [(block.hour, editions.number)]
        more = difference(booked(connection, block), due(connection, Names(), editions.book(connection, pins), block))
        for (start_ns, currency), amounts in sorted(more.periods.items()):
            place = {"gpu": block.gpu, "start_ns": start_ns, "currency": currency}
            yield Deviation("recomputed", place, amounts[0] or max(amounts, key=abs))


def outdated(database: Database, prices: PriceBook, state: State, since_ns: int, until_ns: int) -> Iterator[Deviation]:
    """What `ledger reprice` would book for the hours of GPUs whose prices are not these: by hour and currency. No
    mistake of the ledger.
    """
    editions = Editions(prices)
    for block, connection in _blocks(database, state, since_ns, until_ns):
        pins = pins_of(connection, block.gpu, block.hour)
        if all(edition == editions.number for _, edition in pins):
            continue
        more = difference(booked(connection, block), due(connection, Names(), prices, block))
        hours: dict[str, list[int]] = {}
        for (_, currency), amounts in more.periods.items():
            known = hours.get(currency, [0] * len(AMOUNTS))
            hours[currency] = [one + other for one, other in zip(known, amounts, strict=True)]
        for currency, sums in sorted(hours.items()):
            if any(sums):
                place = {"gpu": block.gpu, "hour": block.hour, "currency": currency}
                yield Deviation("price", place, sums[0] or max(sums, key=abs))


def _blocks(database: Database, state: State, since_ns: int, until_ns: int) -> Iterator[tuple[Block, sa.Connection]]:
    """The hours of GPUs that are booked and not marked to be booked again, each with a transaction that is given up
    afterwards.
    """
    if state.booked_ns is None or state.period_ns is None:
        return
    wanted = sa.select(GPU_HOUR.c.gpu, GPU_HOUR.c.hour).distinct().order_by(GPU_HOUR.c.hour, GPU_HOUR.c.gpu)
    wanted = wanted.where((GPU_HOUR.c.hour >= max(since_ns, state.compacted_ns or 0)) & (GPU_HOUR.c.hour < until_ns))
    with database.read() as connection:
        dirty = {(row.gpu, row.hour) for row in connection.execute(sa.select(DIRTY.c.gpu, DIRTY.c.hour))}
        blocks = [(row.gpu, row.hour) for row in connection.execute(wanted)]
    for gpu, hour in blocks:
        if (gpu, hour) in dirty:
            continue
        block = block_of(gpu, hour, hour, state.booked_ns, state.period_ns)
        with database.read() as connection:
            yield block, connection
            connection.rollback()


def _count(connection: sa.Connection, found: Verdict, since_ns: int, until_ns: int) -> None:
    within = (P.start_ns >= since_ns) & (P.start_ns < until_ns)
    keys = sa.select(P.gpu, P.start_ns).where(within).distinct().subquery()
    found.periods = connection.execute(sa.select(sa.func.count()).select_from(keys)).scalar_one()
    found.bookings = connection.execute(sa.select(sa.func.count(sa.distinct(P.booking))).where(within)).scalar_one()
    found.spans = connection.execute(sa.select(sa.func.count()).select_from(SPAN)).scalar_one()
    found.waiting = connection.execute(sa.select(sa.func.count()).select_from(DIRTY)).scalar_one()
    totals = sa.select(P.currency, _sum(P.total)).where(within & (P.currency != "")).group_by(P.currency)
    found.totals = {currency: int(total) for currency, total in connection.execute(totals)}


def _questions(since_ns: int, until_ns: int) -> Iterator[tuple[str, sa.Select[Any]]]:
    cells = (A.start_ns >= since_ns) & (A.start_ns < until_ns)
    periods = (P.start_ns >= since_ns) & (P.start_ns < until_ns)
    yield "correction", _balance(cells, periods, "gpu", "start_ns", "currency", "booking")
    yield "law", _balance(cells, periods, "gpu", "start_ns", "currency")
    yield "booked_twice", _twice(cells)
    yield "negative", _negative(periods)
    yield "overlap", _overlaps(periods)
    yield "unknown_span", _unknown(cells)
    yield "not_booked", _not_booked(since_ns, until_ns)
    yield "job_total", _job_totals()
    for question in proofs(since_ns, until_ns):
        yield "sum", question
    for name in AMOUNTS:
        yield "hour_total", _hours(name, since_ns, until_ns, periods)


def _sum(column: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.sum(column), sa.BigInteger)


def _off(parts: list[sa.Select[Any]], names: tuple[str, ...]) -> sa.Select[Any]:
    """Where the column `x` of the parts does not add up to 0."""
    both = sa.union_all(*parts).subquery()
    keys = [both.c[name] for name in names]
    return sa.select(*keys, _sum(both.c.x).label("off")).group_by(*keys).having(sa.func.sum(both.c.x) != 0)


def _balance(cells: sa.ColumnElement[bool], periods: sa.ColumnElement[bool], *names: str) -> sa.Select[Any]:
    spare = sum((P[name] for name in BUCKETS[1:]), P[BUCKETS[0]])
    return _off(
        [
            sa.select(*(A[name] for name in names), A.nano.label("x")).where(cells),
            sa.select(*(P[name] for name in names), (spare - P.total).label("x")).where(periods),
        ],
        names,
    )


def _twice(cells: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Spans that belong to several facts, users or jobs at a time, or cost less than nothing."""
    span = [A[name] for name in ("gpu", "start_ns", *SPAN_KEY)]
    named = cells & ((A.span != 0) | (A.trace_lo != 0))
    # Most stand there once. To see that takes no sorting, for the key begins so.
    several = sa.select(*span).where(named).group_by(*span).having((sa.func.count() > 1) | (sa.func.min(A.nano) < 0))
    key = [*span, A.currency]
    one = sa.select(*key, _sum(A.nano).label("nano")).where(sa.tuple_(*span).in_(several))
    each = one.group_by(*key, A.fact, A.user_id, A.job).having(sa.func.sum(A.nano) != 0).subquery()
    keys = [each.c[column.name] for column in key]
    wrong = (sa.func.count() > 1) | (sa.func.min(each.c.nano) < 0)
    return sa.select(*keys, _sum(each.c.nano).label("off")).group_by(*keys).having(wrong)


def _negative(periods: sa.ColumnElement[bool]) -> sa.Select[Any]:
    key = (P.gpu, P.start_ns, P.currency)
    wrong = sa.or_(*(sa.func.sum(P[name]) < 0 for name in AMOUNTS))
    return sa.select(*key, _sum(P.total).label("off")).where(periods).group_by(*key).having(wrong)


def _overlaps(periods: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Periods that begin before the one before them has ended."""
    key = (P.gpu, P.start_ns)
    each = sa.select(*key, sa.func.max(P.end_ns).label("end_ns")).where(periods).group_by(*key).subquery()
    before = sa.func.lag(each.c.end_ns).over(partition_by=each.c.gpu, order_by=each.c.start_ns).label("before")
    both = sa.select(each.c.gpu, each.c.start_ns, before).subquery()
    off = (both.c.before - both.c.start_ns).label("off")
    return sa.select(both.c.gpu, both.c.start_ns, off).where(both.c.before > both.c.start_ns)


def _unknown(cells: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Costs of spans that are not stored; those of compacted spans have no ids."""
    same = sa.and_(*(A[name] == SPAN.c[name] for name in SPAN_KEY))
    named = (A.span != 0) | (A.trace_lo != 0)
    return (
        sa.select(A.gpu, A.start_ns, *(A[name] for name in SPAN_KEY), A.nano.label("off"))
        .select_from(ALLOCATION.outerjoin(SPAN, same))
        .where(cells & named & SPAN.c.span.is_(None))
    )


def _not_booked(since_ns: int, until_ns: int) -> sa.Select[Any]:
    """Hours with spans, before the watermark, of which nothing is booked or marked to be."""
    hours = (
        sa.select(CLAIM.c.gpu, CLAIM.c.hour).distinct().where((CLAIM.c.hour >= since_ns) & (CLAIM.c.hour < until_ns))
    )
    each = hours.subquery()
    done = (GPU_HOUR.c.gpu == each.c.gpu) & (GPU_HOUR.c.hour == each.c.hour)
    marked = (DIRTY.c.gpu == each.c.gpu) & (DIRTY.c.hour == each.c.hour)
    booked_ns = sa.text("(SELECT value FROM ledger_state WHERE name = 'booked_ns')")
    return (
        sa.select(each.c.gpu, each.c.hour, sa.literal(1).label("off"))
        .select_from(each.outerjoin(GPU_HOUR, done).outerjoin(DIRTY, marked))
        .where(GPU_HOUR.c.hour.is_(None) & DIRTY.c.hour.is_(None))
        .where(each.c.hour + HOUR_NS <= sa.cast(booked_ns, sa.BigInteger))
    )


def _job_totals() -> sa.Select[Any]:
    names = ("job", "attempt", "currency")
    spans = sa.select(A.job, FACT.c.attempt, A.currency, A.nano.label("x")).join_from(
        ALLOCATION, FACT, FACT.c.id == A.fact
    )
    jobs = sa.select(*(ATTEMPT_COST.c[name] for name in names), (-ATTEMPT_COST.c.nano).label("x"))
    return _off([spans.where(A.job != 0), jobs], names)


def _hours(name: str, since_ns: int, until_ns: int, periods: sa.ColumnElement[bool]) -> sa.Select[Any]:
    names = ("hour", "gpu", "currency")
    hour = (P.start_ns - P.start_ns % HOUR_NS).label("hour")
    each = sa.select(hour, P.gpu, P.currency, P[name].label("x")).where(periods)
    within = (GPU_HOUR.c.hour >= since_ns) & (GPU_HOUR.c.hour < until_ns)
    sums = sa.select(*(GPU_HOUR.c[one] for one in names), (-GPU_HOUR.c[name]).label("x")).where(within)
    return _off([each, sums], names)


def gpu_names(database: Database) -> dict[int, str]:
    """The ids of GPUs by number."""
    with database.read() as connection:
        found = {row.id: row.uuid for row in connection.execute(sa.select(GPU.c.id, GPU.c.uuid))}
    return {NO_GPU: "direct charges", **found}
