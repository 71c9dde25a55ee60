"""What stands in a ledger, as a bill that can be compared with the one that the oracle reckons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline.store.ledger_state import read_state
from otel_pipeline.store.ledger_tables import AMOUNTS, BUCKETS
from tests.support.ledger_bill import Bill
from tests.support.ledger_laws import books

if TYPE_CHECKING:
    from otel_pipeline.store.database import Database


def booked_until(database: Database) -> int:
    """All periods before are booked; 0 if none is."""
    with database.read() as connection:
        return read_state(connection).booked_ns or 0


def booked_bill(database: Database) -> Bill:
    """The sums over all bookings."""
    found = books(database)
    bill = Bill()
    for (gpu, start_ns, (low, high, span), _, _, _, currency), nano in found["cells"].items():
        key = (unsigned(high) << 64 | unsigned(low), unsigned(span))
        bill.cells[gpu, start_ns, currency, key] = bill.cells.get((gpu, start_ns, currency, key), 0) + nano
    for (gpu, start_ns, currency), amounts in found["periods"].items():
        told = dict(zip(AMOUNTS, amounts, strict=True))
        bill.totals[gpu, start_ns, currency] = told["total"]
        bill.buckets.update({(gpu, start_ns, currency, name): told[name] for name in BUCKETS})
    bill.jobs = found["costs"]
    return bill


def unsigned(word: int) -> int:
    """A word of an id, as it stands in a trace."""
    return word & (2**64 - 1)
