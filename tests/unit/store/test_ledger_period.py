"""A ledger that is booked by the second instead of by the minute."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from otel_pipeline.ledger.booking import HOUR_NS, MINUTE_NS
from otel_pipeline.ledger.money import NANO
from otel_pipeline.store.database import Database
from otel_pipeline.store.ledger import Ledger
from otel_pipeline.store.ledger_report import PAID
from otel_pipeline.store.ledger_verify import verify
from otel_pipeline.store.ledger_windows import Window, booked_ns, paid, spent
from tests.support.ledger_records import GPU, T0, One, price, prices, record

LATENESS_S = 2.0
SECOND_NS = NANO
Stores = Callable[[], Database]


class Clock:
    now_s = float(T0)

    def __call__(self) -> float:
        return self.now_s


def ledger(database: Database, clock: Clock, period_ns: int) -> Ledger:
    book = prices(price("0.001"))
    return Ledger(database, book, clock=clock, lateness_s=LATENESS_S, period_ns=period_ns, booking_s=float("inf"))


def booked(database: Database) -> tuple[float, int]:
    """Until when, in seconds after T0, and what was paid until then."""
    with database.read() as connection:
        until_ns = booked_ns(connection)
        amounts = paid(connection, Window(T0 * NANO, T0 * NANO + HOUR_NS)).get(("USD",))
    return until_ns / NANO - T0, amounts[PAID] if amounts else 0


def test_it_is_booked_while_the_minute_is_not_over(fresh: Stores) -> None:
    clock, database = Clock(), fresh()
    clock.now_s = T0 + 8.0
    ledger(database, clock, SECOND_NS).apply("outbox", 0, [record(One(1, 2, 5, kind="job"), seen={GPU: (0, 0)})])
    assert booked(database) == (6, 6_000_000)
    assert verify(database).deviations == []


def test_in_silence_it_goes_on_each_period(fresh: Stores) -> None:
    clock, database = Clock(), fresh()
    clock.now_s = T0 + 8.0
    book = ledger(database, clock, SECOND_NS)
    book.apply("outbox", 0, [record(One(1, 2, 5, kind="job"), seen={GPU: (0, 0)})])
    book.tend()
    for second in range(11, 16):
        clock.now_s = T0 + float(second)
        book.tend()
        assert booked(database) == (second - 2, (second - 2) * 1_000_000)
    assert verify(database).deviations == []


@pytest.mark.parametrize("step_s", [7, 60])
def test_the_sums_are_those_by_the_minute(step_s: int, fresh: Stores) -> None:
    told = []
    for period_ns in (SECOND_NS, MINUTE_NS):
        clock, database = Clock(), fresh()
        book = ledger(database, clock, period_ns)
        spans = [One(1, 2, 50.5, kind="job"), One(2, 10, 20, parent=1), One(3, 40, 130)]
        book.apply("outbox", 0, [record(*spans, seen={GPU: (0, 3)})])
        for second in range(0, 310, step_s):
            clock.now_s = T0 + float(second)
            book.tend()
        with database.read() as connection:
            window = Window(T0 * NANO, T0 * NANO + HOUR_NS)
            told.append((paid(connection, window), spent(connection, window, ["gpu"])))
        assert verify(database).deviations == []
    assert told[0] == told[1]
    assert told[0][0][("USD",)][PAID] == 240_000_000
