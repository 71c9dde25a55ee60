"""Which prices hold for an hour of a GPU: those that it was booked with, until `ledger reprice` covers it.

Else a span that comes late would book the hour anew at the prices of today. An edition is what a price book says of
time on GPUs; it is stored once, and each hour that is booked names it. The rows are kept and not the rates, for what
comes late may also tell more of a GPU's place, and then another row of the same edition holds. A price that changes
while an hour is being booked holds from the first period on that was not booked; so an hour may have several editions,
one after the other. Direct charges need none: they are stored with their spans.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.ledger.price_book import BooksInTurn, PriceBook
from otel_pipeline.ledger.price_rows import CALL_BASES, row_of, row_text
from otel_pipeline.limits import LEDGER_EDITIONS_KEPT
from otel_pipeline.store.database import listed
from otel_pipeline.store.ledger_names import hashed
from otel_pipeline.store.ledger_tables import EDITION, NO_GPU, PERIOD, PIN, PRICE, WORD, add, keep

if TYPE_CHECKING:
    from otel_pipeline.store.ledger_nodes import Block

Pins = list[tuple[int, int]]
"""Of one hour: (from_ns, number of the edition), in order; the first is that of the hour's begin."""


PINS: Final = (
    sa.select(PIN.c.from_ns, PIN.c.edition)
    .where((PIN.c.gpu == sa.bindparam("gpu_is")) & (PIN.c.hour == sa.bindparam("hour_is")))
    .order_by(PIN.c.from_ns)
)


class Editions:
    """The price book of this program, and those that hours are pinned to."""

    def __init__(self, current: PriceBook) -> None:
        told = [
            (entry.own, entry.row.id, row_text(entry.row))
            for entry in current.entries
            if entry.row.basis not in CALL_BASES
        ]
        self._rows = {hashed(text): (name, text) for _, name, text in told}
        self._body = json.dumps(sorted([int(own), hashed(text)] for own, _, text in told))
        self.number = hashed(self._body)
        """Of the current edition."""
        self._current = current
        self._others: OrderedDict[int, PriceBook] = OrderedDict()
        self._is_stored = False

    def forget(self) -> None:
        """After a transaction failed."""
        self._is_stored = False

    def pins(self, connection: sa.Connection, block: Block, *, again: bool) -> tuple[Pins, Pins]:
        """How the block's hour is pinned, and how it is when the block is booked now; `again` is at current prices."""
        known = pins_of(connection, block.gpu, block.hour) if block.gpu != NO_GPU else []
        if not known:
            return known, [(block.hour, self.number)]
        if again:
            from_ns = block.cuts[0]
        elif known[-1][1] == self.number:
            return known, known
        else:
            from_ns = _booked_until(connection, block)
            if from_ns >= block.cuts[-1]:
                return known, known
        kept = [pin for pin in known if pin[0] < from_ns]
        changes = not kept or kept[-1][1] != self.number
        return known, [*kept, (from_ns, self.number)] if changes else kept

    def book(self, connection: sa.Connection, pins: Pins) -> PriceBook:
        """The prices of an hour that is pinned so. Raises ValueError if they cannot be read."""
        if len(pins) == 1:
            return self._edition(connection, pins[0][1])
        return BooksInTurn([(from_ns, self._edition(connection, number)) for from_ns, number in pins])

    def keep(self, connection: sa.Connection, block: Block, pins: Pins, now_ms: int) -> None:
        """Pins the hour, within the transaction that books it."""
        if not self._is_stored:
            keep(connection, PRICE, [(number, now_ms, *row) for number, row in self._rows.items()])
            keep(connection, EDITION, [(self.number, now_ms, self._body)])
            self._is_stored = True
        connection.execute(sa.delete(PIN).where((PIN.c.gpu == block.gpu) & (PIN.c.hour == block.hour)))
        add(connection, PIN, [(block.gpu, block.hour, *pin) for pin in pins])

    def _edition(self, connection: sa.Connection, number: int) -> PriceBook:
        if number == self.number:
            return self._current
        found = self._others.get(number)
        if found is None:
            found = self._others[number] = _stored(connection, number)
            if len(self._others) > LEDGER_EDITIONS_KEPT:
                self._others.popitem(last=False)
        return found


def pins_of(connection: sa.Connection, gpu: int, hour: int) -> Pins:
    """How an hour is pinned; empty if it is not booked."""
    return [(row.from_ns, row.edition) for row in connection.execute(PINS, {"gpu_is": gpu, "hour_is": hour})]


def _booked_until(connection: sa.Connection, block: Block) -> int:
    columns = PERIOD.c
    here = (columns.gpu == block.gpu) & (columns.start_ns >= block.hour) & (columns.start_ns < block.hour + HOUR_NS)
    found: int | None = connection.execute(sa.select(sa.func.max(columns.end_ns)).where(here)).scalar()
    return block.hour if found is None else found


def _stored(connection: sa.Connection, number: int) -> PriceBook:
    body = connection.execute(sa.select(EDITION.c.body).where(EDITION.c.id == number)).scalar()
    if body is None:
        raise ValueError(f"edition {number} of the prices is not stored")
    told = [(bool(own), price) for own, price in json.loads(body)]
    source = listed(connection, [("price", WORD, [price for _, price in told])])
    wanted = sa.select(PRICE.c.id, PRICE.c.body).where(PRICE.c.id.in_(sa.select(source.c.price)))
    rows = {row.id: row_of(row.body) for row in connection.execute(wanted)}
    if missing := {price for _, price in told} - rows.keys():
        raise ValueError(f"row {min(missing)} of edition {number} of the prices is not stored")
    return PriceBook(*([rows[price] for own, price in told if own is whose] for whose in (True, False)))
