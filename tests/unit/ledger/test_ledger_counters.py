"""Energy of GPUs: what is known of their counters, and what a bill makes of it. Pure."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_pipeline.ledger.allocation import allocate
from otel_pipeline.ledger.booking import HOUR_NS, NO_ENERGY, Place, bill, table_of
from otel_pipeline.ledger.claims import NO_PARENT
from otel_pipeline.ledger.energy import READING_GAP_NS, Power, Reading, consumed, energy_cost, of_one, power
from otel_pipeline.ledger.money import NANO
from otel_pipeline.ledger.price_book import PriceBook, Subject
from tests.support.ledger_records import NAME, at_ns, price

READINGS = st.lists(st.tuples(st.integers(0, 900), st.integers(0, 10**8)), max_size=12, unique_by=lambda one: one[0])
COUNTER = READINGS.map(lambda told: sorted((at * NANO, mj) for at, mj in told))


def rate_at(counter: list[Reading], at_ns: int) -> Fraction | None:
    """The simplest way to say it."""
    before = [one for one in counter if one[0] <= at_ns]
    after = [one for one in counter if one[0] > at_ns]
    if not before or not after:
        return None
    (start, low), (end, high) = before[-1], after[0]
    watts = Fraction((high - low) * 10**6, end - start)
    return Fraction(high - low, end - start) if end - start <= READING_GAP_NS and high and 0 <= watts <= 10**5 else None


@given(st.lists(COUNTER, max_size=3), st.lists(st.integers(0, 900 * NANO), max_size=20))
def test_of_several_counters_the_first_that_knows_counts(counters: list[list[Reading]], times: list[int]) -> None:
    found = of_one(map(power, counters))
    assert all(start < end for start, end, _ in found)
    assert all(one[1] <= other[0] for one, other in pairwise(found))
    for at in times:
        rates = (rate_at(counter, at) for counter in counters)
        known = [rate for start, end, rate in found if start <= at < end]
        assert known == [rate for rate in rates if rate is not None][:1]


@given(COUNTER, st.integers(0, 900), st.integers(0, 900))
def test_energy_of_two_parts_is_that_of_the_whole(counter: list[Reading], start: int, end: int) -> None:
    middle = (start + end) // 2
    parts = [consumed(counter, low * NANO, high * NANO) for low, high in ((start, middle), (middle, end))]
    whole = consumed(counter, start * NANO, end * NANO)
    if start <= end:
        assert whole.mj == sum(part.mj for part in parts) >= 0
        assert whole.known_ns == sum(part.known_ns for part in parts) <= whole.asked_ns


@settings(deadline=None)
@given(
    st.lists(COUNTER, max_size=2),
    st.sampled_from(["gpu_hour", "kilowatt_hour"]),
    st.integers(0, 800),
    st.integers(1, 100),
)
def test_a_bill_is_the_energy_that_is_known_and_tells_the_rest(
    counters: list[list[Reading]], basis: str, start: int, length: int
) -> None:
    steps: list[Power] = [(at + at_ns(0), end + at_ns(0), rate) for at, end, rate in of_one(map(power, counters))]
    is_bought = basis == "gpu_hour"
    row = price("0.36", basis="gpu_hour", energy_price="0.27") if is_bought else price("0.27", basis="kilowatt_hour")
    window = at_ns(0), at_ns(0) + HOUR_NS
    place = Place(Subject(gpu=NAME, host="h"), [(at_ns(0), at_ns(900))])
    found = bill("g", [place], PriceBook([row]), window, [], power=steps)
    mj = sum(rate * (end - at) for at, end, rate in steps)
    exact = energy_cost(Fraction(mj), Fraction("0.27")) + (Fraction(90_000_000) if is_bought else 0)
    unknown = 900 * NANO - sum(end - at for at, end, _ in steps)
    assert sum(end - at for at, end, _ in found.unpriced) == unknown
    assert {why for *_, why in found.unpriced} <= {NO_ENERGY}
    assert sum(tape.bill(*window) for tape, _ in found.tapes) == exact
    table = table_of("g", 1, np.array([NO_PARENT]), np.array([at_ns(start)]), np.array([at_ns(start + length)]))
    for tape, _ in found.tapes:
        split = allocate(tape, table, [*range(at_ns(0), at_ns(960), 60 * NANO)], anchor_ns=window[0])
        assert split.deviations() == []
        assert abs(sum(split.totals) - exact) <= Fraction(1, 2)
        own = tape.bill(at_ns(start), at_ns(start + length))
        assert abs(sum(split.nano.tolist()) - own) <= 1 + length // 60 + 1
