"""Book `ledger`: what every span costs, and what every GPU was paid.

A record is applied in two steps. First its spans, each once by (trace, span), and when GPUs were seen are stored, in
the transaction that keeps the position. Then hours of GPUs are booked, some in each transaction: up to the watermark,
which is behind the latest time that any data told, and once more where later data changes what is booked. The marks of
what is to be booked are stored, so that a crash between the two loses nothing.

In a fleet several gateways feed one ledger; each of these transactions begins by locking it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np
import sqlalchemy as sa

from otel_pipeline.ledger.booking import HOUR_NS, MINUTE_NS
from otel_pipeline.ledger.money import NANO
from otel_pipeline.ledger.records import decode
from otel_pipeline.limits import LEDGER_BLOCKS_MAX, LEDGER_BOOKING_S, LEDGER_LATENESS_S
from otel_pipeline.store import ledger_energy, ledger_marks, ledger_nested, ledger_presence
from otel_pipeline.store.database import keep_position, position
from otel_pipeline.store.ledger_arrivals import claim_rows, gather
from otel_pipeline.store.ledger_booking import book_blocks
from otel_pipeline.store.ledger_compaction import compact
from otel_pipeline.store.ledger_editions import Editions
from otel_pipeline.store.ledger_jobs import keep_jobs
from otel_pipeline.store.ledger_marks import BOOKED, LATE, Marks
from otel_pipeline.store.ledger_names import Names
from otel_pipeline.store.ledger_runs import keep_runs
from otel_pipeline.store.ledger_state import keep_state, locked
from otel_pipeline.store.ledger_tables import CLAIM, DIRTY, SPAN, add

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline.ledger.price_book import PriceBook
    from otel_pipeline.ledger.records import Record
    from otel_pipeline.store.database import Database
    from otel_pipeline.store.ledger_arrivals import Arrivals
    from otel_pipeline.store.ledger_state import State

log = logging.getLogger(__name__)

TEND_S: Final = 15.0
"""Between looks for what became due in silence; with shorter periods each of these."""


class Ledger:
    """Keeps the ledger in a database. `counted(event, number)` is told: stored, repeated, told_twice, implausible,
    too_old (spans), unreadable (records), late, booked, corrected, failed (hours of GPUs), unweighted (spans that told
    no weight, whenever an hour is booked). `observe` is called now and then by the thread that applies and tends.
    """

    name: str = "ledger"

    def __init__(
        self,
        database: Database,
        prices: PriceBook,
        counted: Callable[[str, int], None] = lambda _event, _number: None,
        clock: Callable[[], float] = time.time,
        *,
        lateness_s: float = LEDGER_LATENESS_S,
        retention_s: float = float("inf"),
        period_ns: int = MINUTE_NS,
        booking_s: float = LEDGER_BOOKING_S,
        observe: Callable[[], None] = lambda: None,
    ) -> None:
        if HOUR_NS % period_ns:
            raise ValueError("an hour must be a number of whole periods")
        self._database = database
        self._editions = Editions(prices)
        self._counted = counted
        self._clock = clock
        self._lateness_ns = int(lateness_s * NANO)
        self._period_ns = period_ns
        self._booking_s = booking_s
        self._observe = observe
        self._retention_s = retention_s
        self._tend_at_s = float("-inf")
        self._names = Names()
        self._has_dirt = True

    def position(self, epoch: str) -> int:
        """The number of the first record that is not applied; 0 if the outbox is unknown."""
        with self._database.read() as connection:
            return position(connection, self.name, epoch)

    def apply(self, epoch: str, first: int, records: Sequence[bytes]) -> None:
        """Store what the records tell, numbered from `first` on; those that were applied before are passed over. Then
        book what is due, for a bounded time.
        """
        self._observe()
        counts = Counter[str]()
        try:
            with self._database.write() as connection:
                state = locked(connection)
                start = max(first, position(connection, self.name, epoch))
                pending = records[start - first :]
                if pending:
                    readable = _readable(pending, start, counts)
                    self._store(connection, state, readable, counts)
                    keep_position(connection, self.name, epoch, start + len(pending), int(self._clock() * 1000))
                self._advance(connection, state)
        except BaseException:
            self._forget()
            raise
        self._has_dirt = True
        self._tell(counts)
        self.book(self._booking_s)

    def tend(self) -> None:
        """Book what became due while nothing came, and compact what is old."""
        self._observe()
        if not self._has_dirt and self._clock() < self._tend_at_s:
            return
        self._tend_at_s = self._clock() + min(TEND_S, self._period_ns / NANO)
        with self._database.write() as connection:
            self._has_dirt |= self._advance(connection, locked(connection))
        if self.book(self._booking_s):
            self._compact()

    def _compact(self) -> None:
        """One step; the next is due at once if there is more."""
        until_s = self._clock() - self._retention_s
        if until_s <= 0:
            return
        with self._database.write() as connection:
            state = locked(connection)
            hours = compact(connection, state, int(until_s * NANO), int(self._clock() * 1000))
        if hours:
            self._tend_at_s = float("-inf")
            self._tell(Counter(compacted=hours))

    def book(self, seconds: float = float("inf")) -> bool:
        """Book what is marked, for so long at most; True if nothing is left."""
        until = time.monotonic() + seconds
        while self._has_dirt and time.monotonic() < until:
            counts = Counter[str]()
            try:
                with self._database.write() as connection:
                    self._has_dirt = self._book_some(connection, locked(connection), counts)
            except BaseException:
                self._forget()
                raise
            self._tell(counts)
        return not self._has_dirt

    def close(self) -> None:
        """Give up the store."""
        self._database.close()

    # -- storing -------------------------------------------------------------------------------------------------------

    def _store(self, connection: sa.Connection, state: State, records: Sequence[Record], counts: Counter[str]) -> None:
        compacted_ns = state.compacted_ns or 0
        marks = Marks(state.booked_ns if state.booked_ns is not None else compacted_ns, compacted_ns)
        spans = [record.spans for record in records if record.spans is not None and len(record.spans)]
        arrivals = gather(connection, self._names, spans) if spans else None
        if arrivals is not None:
            arrivals = self._store_spans(connection, arrivals, marks, counts)
        presence = [one for record in records for one in record.presence]
        found = ledger_presence.seen(presence, arrivals)
        ledger_presence.keep(connection, self._names, marks, found)
        ledger_energy.keep(connection, self._names, marks, presence)
        marks.write(connection, LATE)
        counts["late"] += len(marks.found)
        self._note_time(connection, state, [at for one in found.values() for _, at, _ in one.intervals], arrivals)

    def _store_spans(
        self, connection: sa.Connection, arrivals: Arrivals, marks: Marks, counts: Counter[str]
    ) -> Arrivals:
        """Those that are new."""
        told = len(arrivals)
        if marks.kept_ns:
            arrivals = arrivals.only(arrivals.start_ns >= marks.kept_ns)
            counts["too_old"] += told - len(arrivals)
            told = len(arrivals)
        known = ledger_marks.known_spans(connection, arrivals.ids)
        if known:
            there = {(row.trace_hi, row.trace_lo, row.span) for row in known}
            arrivals = arrivals.only(
                np.array([tuple(ids) not in there for ids in arrivals.ids.tolist()], dtype=np.bool_)
            )
        counts["repeated"] += told - len(arrivals)
        counts["stored"] += len(arrivals)
        counts["implausible"] += arrivals.implausible()
        counts["told_twice"] += ledger_nested.take_back(connection, self._names, marks, arrivals, known)
        add(connection, SPAN, arrivals.rows())
        add(connection, CLAIM, claim_rows(connection, self._names, arrivals))
        keep_jobs(connection, arrivals)
        keep_runs(connection, arrivals)
        ledger_marks.mark_claims(connection, marks, self._names, arrivals)
        ledger_marks.mark_below(connection, marks, self._names, arrivals, known)
        return arrivals

    def _note_time(self, connection: sa.Connection, state: State, seen: list[int], arrivals: Arrivals | None) -> None:
        """How far time has come by what is told; not beyond the clock, for some clocks are wrong."""
        now_s = self._clock()
        latest = [*seen, *([int(arrivals.end_ns.max())] if arrivals is not None and len(arrivals) else [])]
        if latest:
            state.seen_ns = max(state.seen_ns or 0, min(max(latest), int(now_s * NANO)))
            state.seen_at_ms = int(now_s * 1000)
            keep_state(connection, "seen_ns", state.seen_ns)
            keep_state(connection, "seen_at_ms", state.seen_at_ms)

    # -- booking -------------------------------------------------------------------------------------------------------

    def _advance(self, connection: sa.Connection, state: State) -> bool:
        """Move the watermark on and mark what lies before it; whether there is something."""
        if state.seen_ns is None or state.seen_at_ms is None:
            return False
        if state.period_ns is None:
            state.period_ns = self._period_ns
            keep_state(connection, "period_ns", state.period_ns)
        now_ms = int(self._clock() * 1000)
        silent_ns = max(0, now_ms - state.seen_at_ms) * 1_000_000
        reached = min(state.seen_ns + silent_ns, now_ms * 1_000_000) if silent_ns > self._lateness_ns else state.seen_ns
        booked_ns = (reached - self._lateness_ns) // state.period_ns * state.period_ns
        if booked_ns <= (state.booked_ns or 0):
            return False
        marks = Marks(booked_ns, state.compacted_ns or 0)
        ledger_marks.advance(connection, marks, state.booked_ns)
        if state.booked_ns is not None:
            ledger_presence.mark_ended(connection, marks, state.booked_ns)
        marks.write(connection, BOOKED)
        keep_state(connection, "booked_ns", booked_ns)
        state.booked_ns = booked_ns
        return bool(marks.found)

    def _book_some(self, connection: sa.Connection, state: State, counts: Counter[str]) -> bool:
        """Book the oldest marks; whether there may be more."""
        wanted = sa.select(DIRTY).order_by(DIRTY.c.hour, DIRTY.c.gpu).limit(LEDGER_BLOCKS_MAX)
        rows = list(connection.execute(wanted))
        if not rows or state.booked_ns is None:
            return False
        marks = [(row.gpu, row.hour, row.from_ns, row.reason) for row in rows]
        now_ms = int(self._clock() * 1000)
        counts.update(book_blocks(connection, self._names, self._editions, state, marks, now_ms=now_ms))
        done = sa.delete(DIRTY).where((DIRTY.c.gpu == sa.bindparam("g")) & (DIRTY.c.hour == sa.bindparam("h")))
        connection.execute(done, [{"g": row.gpu, "h": row.hour} for row in rows])
        return len(rows) == LEDGER_BLOCKS_MAX

    def _forget(self) -> None:
        """After a transaction failed."""
        self._names.forget()
        self._editions.forget()

    def _tell(self, counts: Counter[str]) -> None:
        for event, number in counts.items():
            if number:
                self._counted(event, number)


def _readable(records: Sequence[bytes], first: int, counts: Counter[str]) -> list[Record]:
    """The records that can be read; trying the others again would not help."""
    readable = []
    for number, record in enumerate(records, first):
        try:
            readable.append(decode(record))
        except ValueError as error:
            counts["unreadable"] += 1
            log.error("record %d of the ledger cannot be read, what it tells is not booked: %s", number, error)  # noqa: TRY400
    return readable
