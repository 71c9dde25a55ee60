"""Books several hours of GPUs in one transaction."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

import sqlalchemy as sa

from otel_pipeline.store.ledger_blocks import book, booked, difference, due
from otel_pipeline.store.ledger_marks import BOOKED, LATE, REPRICE
from otel_pipeline.store.ledger_nodes import block_of
from otel_pipeline.store.ledger_tables import BOOKING, KINDS, NO_GPU, add

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_pipeline.store.ledger_editions import Editions
    from otel_pipeline.store.ledger_names import Names
    from otel_pipeline.store.ledger_nodes import Block
    from otel_pipeline.store.ledger_state import State

log = logging.getLogger(__name__)

Told = tuple[int, int, dict[str, int], int]
"""Why the hour is booked, the number of the last booking, those of this transaction by kind, and the time in ms."""

Mark = tuple[int, int, int, int]
"""GPU, hour, from when on, and a place in KINDS: a row of DIRTY."""


def book_blocks(
    connection: sa.Connection, names: Names, editions: Editions, state: State, marks: Iterable[Mark], *, now_ms: int
) -> Counter[str]:
    """Adds what differs from what is booked. Counts the hours that were booked for the first time, corrected, and
    failed, and claims that told no weight."""
    counts = Counter[str]()
    if state.booked_ns is None or state.period_ns is None:
        return counts
    last: int = connection.execute(sa.select(sa.func.max(BOOKING.c.id))).scalar() or 0
    numbers: dict[str, int] = {}
    for gpu, hour, from_ns, reason in marks:
        block = block_of(gpu, hour, from_ns, state.booked_ns, state.period_ns)
        if len(block.cuts) < 2:
            continue
        try:
            with connection.begin_nested():
                kind, unweighted = _book_block(connection, names, editions, block, (reason, last, numbers, now_ms))
        except (ValueError, ArithmeticError, sa.exc.DataError) as error:
            # Trying again would not help, and would keep all others waiting. `ledger verify` names the hour.
            names.forget()
            editions.forget()
            counts["failed"] += 1
            log.error("hour %d of GPU %d cannot be booked: %s: %s", hour, gpu, type(error).__name__, error)  # noqa: TRY400
        else:
            counts[kind] += 1
            counts["unweighted"] += unweighted
    counts.pop("", None)
    return counts


def _book_block(
    connection: sa.Connection, names: Names, editions: Editions, block: Block, told: Told
) -> tuple[str, int]:
    """What became of the hour, empty if nothing differs; and how many claims told no weight."""
    reason, last, numbers, now_ms = told
    pinned, pins = editions.pins(connection, block, again=reason == REPRICE)
    after = due(connection, names, editions.book(connection, pins), block)
    if after.periods and pins != pinned and block.gpu != NO_GPU:
        editions.keep(connection, block, pins, now_ms)
    before = booked(connection, block)
    more = difference(before, after)
    if not more.periods:
        return "", 0
    kind = KINDS[reason if reason > LATE else LATE if before.periods else BOOKED]
    number = numbers.get(kind, last + len(numbers) + 1)
    book(connection, names, block, more, number)
    if kind not in numbers:
        add(connection, BOOKING, [(number, now_ms, kind)])
        numbers[kind] = number
    return "corrected" if before.periods else "booked", after.unweighted
