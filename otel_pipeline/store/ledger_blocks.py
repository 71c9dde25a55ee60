"""Books an hour of a GPU: allocates it from what is stored, and adds what differs from what was booked.

The totals of its periods are rounded from the begin of the hour on, so an hour is worked on as a whole or from one of
its periods on; which of them changes nothing in the result.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise, repeat
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import sqlalchemy as sa

from otel_pipeline.ledger.allocation import Mode, allocate
from otel_pipeline.ledger.booking import HOUR_NS, STARTUP_NS_MAX, bill, lives, table_of
from otel_pipeline.ledger.shares import missing, split
from otel_pipeline.store.ledger_energy import power_of
from otel_pipeline.store.ledger_nodes import load_nodes, same_span
from otel_pipeline.store.ledger_presence import places
from otel_pipeline.store.ledger_sums import add_sums
from otel_pipeline.store.ledger_tables import (
    ALLOCATION,
    AMOUNTS,
    CHARGE,
    CLAIM,
    GPU_HOUR,
    NO_GPU,
    PERIOD,
    SPAN,
    add,
    add_up,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_pipeline.ledger.booking import Interval, Place
    from otel_pipeline.ledger.price_book import PriceBook
    from otel_pipeline.ledger.price_rows import Row
    from otel_pipeline.store.ledger_names import Names
    from otel_pipeline.store.ledger_nodes import Block, Nodes

Cell = tuple[int, int, int, int, int, int, int, str]
"""start_ns, trace_lo, trace_hi, span, fact, user, job, currency: what a row of ALLOCATION is about."""
NOTHING: Final = (0,) * len(AMOUNTS)


def _booked(table: sa.Table, keys: Sequence[str], sums: Sequence[str]) -> sa.Select[Any]:
    """The sums over all bookings of a GPU since and until a time. Built once: that takes as long as to ask it."""
    columns = table.c
    here = columns.gpu == sa.bindparam("gpu_is")
    within = (columns.start_ns >= sa.bindparam("since")) & (columns.start_ns < sa.bindparam("until"))
    by = [columns[name] for name in keys]
    total = [sa.cast(sa.func.sum(columns[name]), sa.BigInteger) for name in sums]
    return sa.select(*by, *total).where(here & within).group_by(*by)


CELL_KEYS: Final = ("start_ns", "trace_lo", "trace_hi", "span", "fact", "user_id", "job", "currency")
BOOKED_PERIODS: Final = _booked(PERIOD, ("start_ns", "currency"), AMOUNTS)
BOOKED_CELLS: Final = _booked(ALLOCATION, CELL_KEYS, ("nano",))


@dataclass(frozen=True, slots=True)
class Books:
    """What is or should be booked in a block. periods: AMOUNTS by (start, currency); prices: rows of the price book;
    reasons: why there is time without a price; unweighted: claims that tell no weight where one is asked for."""

    cells: dict[Cell, int]
    periods: dict[tuple[int, str], tuple[int, ...]]
    prices: dict[str, list[Row]]
    reasons: str = ""
    unweighted: int = 0


def due(connection: sa.Connection, names: Names, prices: PriceBook, block: Block) -> Books:
    """What should be booked: a pure function of what is stored of spans and GPUs, and of the prices."""
    nodes = load_nodes(connection, names, block)
    if block.gpu == NO_GPU:
        return _direct(connection, nodes, block)
    end = block.cuts[-1]
    where = places(connection, block.gpu, block.hour, end)
    if not where:
        return Books({}, {}, {})
    claimed = _claimed(connection, block, where)
    power = power_of(connection, block.gpu, block.hour, end)
    billed = bill(str(block.gpu), where, prices, (block.hour, end), claimed, power=power, known_ns=block.known_ns)
    table = table_of(str(block.gpu), nodes.claims, nodes.above, nodes.start_ns, nodes.end_ns)
    cells: dict[Cell, int] = {}
    periods: dict[tuple[int, str], tuple[int, ...]] = {}
    rows: dict[str, list[Row]] = {}
    unweighted = 0
    for tape, used in billed.tapes:
        parts = nodes.share[: nodes.claims]
        unweighted = max(unweighted, missing(used[0], parts))
        shared = replace(table, **split(used[0], parts))
        found = allocate(tape, shared, block.cuts, Mode(used[0].shares), anchor_ns=block.hour)
        rows[tape.currency] = rows.get(tape.currency, []) + used
        costs = np.flatnonzero(found.nano)
        row, starts = found.row[costs], np.array(block.cuts)[found.period[costs]]
        order = np.lexsort((row, starts))
        row = row[order]
        columns = (starts[order], *(nodes.ids[row, place] for place in range(3)), *nodes.belongs[:, row])
        keys = zip(*(column.tolist() for column in columns), repeat(tape.currency), strict=False)
        some = dict(zip(keys, found.nano[costs][order].tolist(), strict=True))
        cells = {key: cells.get(key, 0) + some.get(key, 0) for key in cells | some} if cells else some
        for at, total, spare, paid in zip(block.cuts, found.totals, found.buckets, found.paid_by_period, strict=False):
            if paid:
                known = periods.get((at, tape.currency), NOTHING)
                amounts = (total, *spare, paid, 0)
                periods[at, tape.currency] = tuple(one + more for one, more in zip(known, amounts, strict=True))
    for at, ns in _by_period(((start, until) for start, until, _ in billed.unpriced), block.cuts).items():
        periods[at, ""] = (*NOTHING[:-1], ns)
    return Books(cells, periods, rows, " ".join(sorted({why for _, _, why in billed.unpriced})), unweighted)


def booked(connection: sa.Connection, block: Block) -> Books:
    """What is booked: the sums over all bookings."""
    times = {"gpu_is": block.gpu, "since": block.cuts[0], "until": block.cuts[-1]}
    rows: Iterable[Any] = connection.execute(BOOKED_PERIODS, times)
    periods = {(row[0], row[1]): tuple(row[2:]) for row in rows}
    if not periods:
        return Books({}, {}, {})
    rows = connection.execute(BOOKED_CELLS, times)
    cells = {(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7]): row[8] for row in rows}
    return Books(cells, periods, {})


def difference(before: Books, after: Books) -> Books:
    """What must be added to the one to get the other."""
    if not before.periods:
        return after
    cells: dict[Cell, int] = {}
    for cell in sorted(before.cells.keys() | after.cells.keys()):
        nano = after.cells.get(cell, 0) - before.cells.get(cell, 0)
        if nano:
            cells[cell] = nano
    periods = {}
    for period in before.periods.keys() | after.periods.keys():
        new, old = after.periods.get(period, NOTHING), before.periods.get(period, NOTHING)
        amounts = tuple(one - other for one, other in zip(new, old, strict=True))
        if any(amounts):
            periods[period] = amounts
    # Amounts that only move between spans keep the period's row: it says at which price.
    for cell in cells:
        periods.setdefault((cell[0], cell[-1]), NOTHING)
    return Books(cells, periods, after.prices, after.reasons)


def book(connection: sa.Connection, names: Names, block: Block, more: Books, booking: int) -> None:
    """Adds to what is booked, and to all sums of it; `booking` is its number."""
    rows = [(block.gpu, *cell, booking, nano) for cell, nano in more.cells.items()]
    add(connection, ALLOCATION, rows)
    length = block.cuts[1] - block.cuts[0]
    told = {"": more.reasons} | {currency: " ".join(row.id for row in used) for currency, used in more.prices.items()}
    periods = [
        (block.gpu, at, currency, booking, at + length, *amounts, told.get(currency, ""))
        for (at, currency), amounts in sorted(more.periods.items())
    ]
    add(connection, PERIOD, periods)
    add_sums(connection, names, block.hour, block.gpu, more.cells)
    _add_hours(connection, block, more)


def _add_hours(connection: sa.Connection, block: Block, more: Books) -> None:
    hours: dict[str, tuple[int, ...]] = {}
    for (_, currency), amounts in more.periods.items():
        known = hours.get(currency, NOTHING)
        hours[currency] = tuple(one + other for one, other in zip(known, amounts, strict=True))
    rows = [(block.hour, block.gpu, currency, *amounts) for currency, amounts in sorted(hours.items())]
    add_up(connection, GPU_HOUR, rows, AMOUNTS)


# -- what is due -------------------------------------------------------------------------------------------------------


def _direct(connection: sa.Connection, nodes: Nodes, block: Block) -> Books:
    """Charges as they are; what they add up to is what was paid."""
    length = block.cuts[1] - block.cuts[0]
    numbers = set(nodes.charge.tolist())
    question = sa.select(CHARGE.c.id, CHARGE.c.currency).where(CHARGE.c.id.in_(numbers))
    currencies = {row.id: row.currency for row in connection.execute(question)} if numbers else {}
    cells: dict[Cell, int] = {}
    totals: dict[tuple[int, str], int] = defaultdict(int)
    starts = block.hour + (nodes.end_ns - block.hour) // length * length
    columns = (starts, *nodes.ids.T, *nodes.belongs[:, : nodes.claims], nodes.charge, nodes.nano)
    for *key, charge, nano in zip(*(column[: nodes.claims].tolist() for column in columns), strict=True):
        at, lo, hi, span, fact, user, job = key
        currency = currencies.get(charge, "")
        cells[at, lo, hi, span, fact, user, job, currency] = nano
        totals[at, currency] += nano
    return Books(cells, {key: (total, *NOTHING[1:]) for key, total in totals.items()}, {})


def _claimed(connection: sa.Connection, block: Block, where: list[Place]) -> list[int]:
    """When spans began to use the GPU after a life of it began that may start up within the block."""
    low, high = block.hour - STARTUP_NS_MAX, block.cuts[-1]
    begins = [life.start_ns for life in lives(one for place in where for one in place.seen)]
    begins = [at for at in begins if low <= at < high]
    if not begins:
        return []
    found = (_first_claim(connection, block.gpu, at) for at in begins)
    return sorted(at for at in found if at is not None)


def _first_claim(connection: sa.Connection, gpu: int, since_ns: int) -> int | None:
    """When a span began to use the GPU, the first within STARTUP_NS_MAX."""
    until_ns = since_ns + STARTUP_NS_MAX
    here = (CLAIM.c.gpu == gpu) & (CLAIM.c.hour >= since_ns // HOUR_NS * HOUR_NS) & (CLAIM.c.hour <= until_ns)
    times = (SPAN.c.start_ns >= since_ns) & (SPAN.c.start_ns <= until_ns)
    question = sa.select(sa.func.min(SPAN.c.start_ns)).select_from(sa.join(CLAIM, SPAN, same_span()))
    found: int | None = connection.execute(question.where(here & times)).scalar()
    return found


def _by_period(intervals: Iterable[Interval], cuts: list[int]) -> dict[int, int]:
    found: dict[int, int] = defaultdict(int)
    for start, end in intervals:
        for at, until in pairwise(cuts):
            ns = min(end, until) - max(start, at)
            if ns > 0:
                found[at] += ns
    return found
