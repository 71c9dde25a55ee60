"""Makes old hours small: spans are forgotten, and what they cost is kept by the hour, by fact, user and job.

Sums stay what they are, so everything that is told of a ledger by the hour stays the same, and the law holds. What is
compacted is not allocated again: spans that come later than that are passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.limits import LEDGER_COMPACTED_MAX
from otel_pipeline.store import ledger_energy
from otel_pipeline.store.database import listed
from otel_pipeline.store.ledger_state import keep_state
from otel_pipeline.store.ledger_tables import (
    ALLOCATION,
    AMOUNTS,
    BOOKING,
    CLAIM,
    DIRTY,
    GPU_HOUR,
    PERIOD,
    PIN,
    SPAN,
    SPAN_KEY,
    WORD,
    add,
)

if TYPE_CHECKING:
    from otel_pipeline.store.ledger_state import State

A, P = ALLOCATION.c, PERIOD.c
DAY_NS: Final = 24 * HOUR_NS


def compact(connection: sa.Connection, state: State, until_ns: int, now_ms: int) -> int:
    """Compacts the oldest hours that end before `until_ns` and are booked; how many. Call it again until it is none."""
    limit = min(until_ns, state.booked_ns or 0) // HOUR_NS * HOUR_NS
    columns = GPU_HOUR.c
    wanted = sa.select(columns.hour, columns.gpu).distinct().order_by(columns.hour, columns.gpu)
    wanted = wanted.where((columns.hour >= (state.compacted_ns or 0)) & (columns.hour < limit))
    oldest = (
        sa.select(columns.hour).distinct().where((columns.hour >= (state.compacted_ns or 0)) & (columns.hour < limit))
    )
    hours = connection.execute(oldest.order_by(columns.hour).limit(LEDGER_COMPACTED_MAX)).scalars().all()
    if not hours:
        return 0
    booking: int = (connection.execute(sa.select(sa.func.max(BOOKING.c.id))).scalar() or 0) + 1
    add(connection, BOOKING, [(booking, now_ms, "compacted")])
    for row in connection.execute(wanted.where(columns.hour <= hours[-1])).all():
        _compact_periods(connection, row.gpu, row.hour, booking)
        _forget_spans(connection, row.gpu, row.hour)
        ledger_energy.forget(connection, row.gpu, row.hour + HOUR_NS)
    end_ns = hours[-1] + HOUR_NS
    if end_ns // DAY_NS > hours[0] // DAY_NS:
        # The others, such as those that only stand between two: to find them all spans are looked at.
        connection.execute(sa.delete(SPAN).where(SPAN.c.end_ns < end_ns))
    connection.execute(sa.delete(DIRTY).where(DIRTY.c.hour < end_ns))
    connection.execute(sa.delete(PIN).where(PIN.c.hour < end_ns))
    state.compacted_ns = end_ns
    keep_state(connection, "compacted_ns", end_ns)
    return len(hours)


def _compact_periods(connection: sa.Connection, gpu: int, hour: int, booking: int) -> None:
    here = (A.gpu == gpu) & (A.start_ns >= hour) & (A.start_ns < hour + HOUR_NS)
    keys = [A[name] for name in ("fact", "user_id", "job", "currency")]
    total = sa.cast(sa.func.sum(A.nano), sa.BigInteger)
    rows: list[tuple[Any, ...]] = [
        (gpu, hour, 0, 0, 0, *row[:4], booking, row[4])
        for row in connection.execute(sa.select(*keys, total).where(here).group_by(*keys)).all()
        if row[4]
    ]
    connection.execute(sa.delete(ALLOCATION).where(here))
    add(connection, ALLOCATION, rows)
    here = (P.gpu == gpu) & (P.start_ns >= hour) & (P.start_ns < hour + HOUR_NS)
    sums = [sa.cast(sa.func.sum(P[name]), sa.BigInteger) for name in AMOUNTS]
    found = sa.select(P.currency, sa.func.max(P.price), *sums).where(here).group_by(P.currency)
    rows = [
        (gpu, hour, row[0], booking, hour + HOUR_NS, *row[2:], row[1])
        for row in connection.execute(found).all()
        if any(row[2:])
    ]
    connection.execute(sa.delete(PERIOD).where(here))
    add(connection, PERIOD, rows)


def _forget_spans(connection: sa.Connection, gpu: int, hour: int) -> None:
    """Those that cost something in the hour and don't reach beyond it: else they are needed there still."""
    here = (CLAIM.c.gpu == gpu) & (CLAIM.c.hour == hour)
    keys = connection.execute(sa.select(*(CLAIM.c[name] for name in SPAN_KEY)).where(here)).all()
    if keys:
        columns = [(name, WORD, words) for name, words in zip(SPAN_KEY, zip(*keys, strict=True), strict=True)]
        wanted = listed(connection, columns)
        theirs = sa.tuple_(*(SPAN.c[name] for name in SPAN_KEY)).in_(sa.select(*wanted.c))
        connection.execute(sa.delete(SPAN).where(theirs & (SPAN.c.end_ns < hour + HOUR_NS)))
    connection.execute(sa.delete(CLAIM).where(here))
