"""What every ledger must obey where GPUs are priced by what they use, whatever the database."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction

import sqlalchemy as sa
from hypothesis import strategies as st

from otel_pipeline.ledger.price_book import PriceBook
from otel_pipeline.store.database import Database
from otel_pipeline.store.ledger_report import gpu_reasons
from otel_pipeline.store.ledger_tables import READING
from otel_pipeline.store.ledger_verify import verify
from otel_pipeline.store.ledger_windows import Window
from tests.support.ledger_laws import LATER_S, Watched, totals
from tests.support.ledger_records import GPU, T0, One, at_ns, price, prices, record

TARIFF = prices(price("0.15", basis="kilowatt_hour"))
WITH_ENERGY = prices(price("3.6", basis="gpu_hour", energy_price="0.15"))
V13 = [(0, 0), (10, 1_000_000), (20, 4_500_000), (30, 8_000_000), (40, 9_000_000)]
WATT_MINUTE = Fraction(60 * 1000, 3_600_000_000) * Fraction("0.15") * 10**9
"""n$ that a minute of 1 W costs."""


def even(watts: int, first: int, last: int, start: int = 1) -> list[tuple[float, int]]:
    """Readings every 10 s from a second to another, at a power that stays the same."""
    return [(at, start + watts * 1000 * (at - first)) for at in range(first, last + 1, 10)]


def a_span_costs_the_energy_of_its_gpu(database: Database) -> None:
    """Vector V13: 5600 J at 0.15 a kWh are 233,333 1/3 n$; start and tail have a third, too, which the span takes."""
    watched = Watched(database, TARIFF)
    watched.apply(record(One(1, 12, 28), seen={GPU: (0, 0)}, energy=V13))
    watched.settle()
    found = totals(watched.books())
    assert (found["span 1"], found["startup"], found["tail"]) == (233_334, 70_833, 70_833)
    assert found["total"] == 375_000
    assert found["unpriced_ns"] == 20 * 10**9
    with database.read() as connection:
        assert gpu_reasons(connection, Window(at_ns(0), at_ns(60))) == ["unknown_energy"]
    watched.prove()


def idle_power_is_idle_cost(database: Database) -> None:
    watched = Watched(database, TARIFF)
    watched.apply(record(seen={GPU: (0, 30)}, energy=even(100, 0, 1860)))
    watched.settle()
    found = totals(watched.books())
    assert found["idle"] == found["total"] == 31 * 100 * WATT_MINUTE
    assert "unpriced_ns" not in found
    watched.prove()


def what_a_gpu_was_bought_for_is_paid_beside_its_energy(database: Database) -> None:
    """0.001 a second, for a minute whose second half has no readings: that is told, and not taken for 0."""
    watched = Watched(database, WITH_ENERGY)
    watched.apply(record(One(1, 0, 30), seen={GPU: (0, 0)}, energy=even(200, 0, 30)))
    watched.settle()
    found = totals(watched.books())
    assert found["span 1"] == 30_000_000 + 100 * WATT_MINUTE
    assert found["total"] == 60_000_000 + 100 * WATT_MINUTE
    assert (found["paid_ns"], found["unpriced_ns"]) == (60 * 10**9, 30 * 10**9)
    watched.prove()


def a_counter_that_falls_leaves_time_without_a_price(database: Database) -> None:
    watched = Watched(database, TARIFF)
    readings = [*even(100, 0, 120, start=9_000_000), *even(100, 130, 300)]
    watched.apply(record(seen={GPU: (0, 4)}, energy=readings))
    watched.settle()
    found = totals(watched.books())
    assert found["unpriced_ns"] == 10 * 10**9
    assert found["total"] == round(290 * 100 * WATT_MINUTE / 60)
    watched.prove()


def readings_far_apart_tell_nothing(database: Database) -> None:
    watched = Watched(database, TARIFF)
    watched.apply(record(seen={GPU: (0, 19)}, energy=[(0, 1), (300, 30_000_001), (601, 60_000_001), (1200, 10**8)]))
    watched.settle()
    found = totals(watched.books())
    assert (found["paid_ns"], found["unpriced_ns"]) == (300 * 10**9, 900 * 10**9)
    watched.prove()


def a_counter_that_never_counts_is_none(database: Database) -> None:
    watched = Watched(database, TARIFF)
    watched.apply(record(seen={GPU: (0, 1)}, energy=[(at, 0) for at in range(0, 121, 10)]))
    watched.settle()
    assert totals(watched.books()) == {"unpriced_ns": 120 * 10**9}
    watched.prove()


def of_two_counters_one_is_taken_and_the_other_fills_its_gaps(database: Database) -> None:
    watched = Watched(database, TARIFF)
    first, second = even(100, 0, 120), even(100, 100, 240, start=77)
    watched.apply(record(seen={GPU: (0, 3)}, energy=first, counter="one"))
    watched.apply(record(energy=second, counter="two"))
    watched.settle()
    assert totals(watched.books()) == {"total": 400 * WATT_MINUTE, "idle": 400 * WATT_MINUTE, "paid_ns": 240 * 10**9}
    watched.prove()


def a_late_reading_is_a_correction(database: Database) -> None:
    watched = Watched(database, TARIFF)
    watched.apply(record(One(1, 60, 120), seen={GPU: (0, 30)}, energy=[(0, 1), (240, 24_000_001)]))
    before = totals(watched.books())
    assert before["span 1"] == 100 * WATT_MINUTE
    watched.apply(record(energy=[(120, 24_000_001)]))  # all of it in the first half
    after = totals(watched.books())
    assert (after["span 1"], after["total"]) == (200 * WATT_MINUTE, before["total"])
    watched.prove()


def of_two_readings_at_one_time_the_higher_counts(database: Database) -> None:
    watched = Watched(database, TARIFF)
    watched.apply(record(seen={GPU: (0, 1)}, energy=[(0, 1), (120, 6_000_001)]))
    watched.settle()
    assert totals(watched.books())["total"] == 100 * WATT_MINUTE
    watched.apply(record(energy=[(120, 12_000_001), (0, 1)]), record(energy=[(120, 7_000_001)]))
    assert totals(watched.books())["total"] == 200 * WATT_MINUTE
    watched.prove()


def both_reasons_are_told(database: Database) -> None:
    watched = Watched(database, prices(price("0.15", basis="kilowatt_hour", since=60)))
    watched.apply(record(seen={GPU: (0, 1)}))
    watched.settle()
    with database.read() as connection:
        assert gpu_reasons(connection, Window(at_ns(0), at_ns(120))) == ["no_price", "unknown_energy"]
        assert gpu_reasons(connection, Window(at_ns(3600), at_ns(7200))) == []
    watched.prove()


def readings_are_forgotten_with_the_spans(database: Database) -> None:
    watched = Watched(database, TARIFF, retention_s=LATER_S)
    watched.now_s = T0 + 20_000.0
    watched.apply(record(seen={GPU: (0, 100)}, energy=even(100, 0, 6000)))
    watched.settle()
    watched.settle()
    assert watched.counts["compacted"] == 2
    watched.apply(record(energy=[(5, 3), (3000, 7)]))
    with database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(READING)).scalar_one() == 0
    assert verify(database).deviations == []


LAWS: Sequence[Callable[[Database], None]] = (
    a_span_costs_the_energy_of_its_gpu,
    idle_power_is_idle_cost,
    what_a_gpu_was_bought_for_is_paid_beside_its_energy,
    a_counter_that_falls_leaves_time_without_a_price,
    readings_far_apart_tell_nothing,
    a_counter_that_never_counts_is_none,
    of_two_counters_one_is_taken_and_the_other_fills_its_gaps,
    a_late_reading_is_a_correction,
    of_two_readings_at_one_time_the_higher_counts,
    both_reasons_are_told,
    readings_are_forgotten_with_the_spans,
)

# -- any order ---------------------------------------------------------------------------------------------------------

readings = st.lists(
    st.tuples(
        st.sampled_from(["one", "one", "two"]),
        st.integers(0, 700).map(lambda slot: slot * 10 + slot % 7 / 8),
        st.integers(0, 10**9),
    ),
    max_size=40,
)
"""Who counts, seconds and mJ: any numbers, so many of them fall or are too far apart."""
BOOKS = (
    TARIFF,
    WITH_ENERGY,
    prices(
        price("0.31", basis="kilowatt_hour", until=1000),
        price("0.9", basis="gpu_hour", since=1000, until=5000, energy_price="0.2718", id="bought"),
        price("0.0007", since=5000, currency="EUR"),
    ),
)


def any_order_gives_the_same_energy(
    fresh: Callable[[], Database],
    ones: list[One],
    told: list[tuple[str, float, int]],
    seed: int,
    book: PriceBook,
) -> None:
    """All at once, or in any order and any split, some of it twice."""
    chance = random.Random(seed)
    grown = _growing(told) if chance.randint(0, 3) else told
    whole = Watched(fresh(), book)
    parts = [record(one) for one in ones] + [record(seen={GPU: (0, 60)})]
    parts += [record(energy=[(at, mj)], counter=source) for source, at, mj in grown]
    whole.apply(*parts)
    pieces = Watched(fresh(), book, lateness_s=chance.choice([0.0, 60.0, 600.0]))
    parts += chance.sample(parts, len(parts) // 3)
    chance.shuffle(parts)
    while parts:
        size = chance.randint(1, 6)
        pieces.apply(*parts[:size])
        pieces.prove()
        del parts[:size]
    whole.settle()
    pieces.settle()
    whole.prove()
    pieces.prove()
    assert pieces.books() == whole.books()


def _growing(told: list[tuple[str, float, int]]) -> list[tuple[str, float, int]]:
    """The same as counters that mostly grow, at up to 500 W."""
    found = []
    for name in ("one", "two"):
        total, last = 1, 0.0
        for source, at, mj in sorted(told):
            if source == name:
                total += int((at - last) * (mj % 500_000))
                last = at
                found.append((source, at, total))
    return found
