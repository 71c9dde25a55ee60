"""From when a GPU was seen to what it is paid for, and what belongs to whom. Pure."""

from __future__ import annotations

import numpy as np
import pytest

from otel_pipeline.ledger.allocation import allocate
from otel_pipeline.ledger.booking import (
    GAP_BILLED_NS,
    GAP_SEEN_NS,
    HOUR_NS,
    STARTUP_NS_MAX,
    Bill,
    Place,
    belongs,
    bill,
    lives,
    merged,
    order_of,
    table_of,
    without_cycles,
)
from otel_pipeline.ledger.claims import NO_PARENT
from otel_pipeline.ledger.price_book import PriceBook, Subject
from otel_pipeline.ledger.records import Fact
from tests.support.ledger_records import NAME, T0, at_ns, price, prices

HOUR = (at_ns(0), at_ns(0) + HOUR_NS)


def ns(*seconds: float) -> tuple[int, ...]:
    return tuple(at_ns(one) for one in seconds)


def place(*seen: tuple[float, float], host: str = "h") -> Place:
    return Place(Subject(gpu=NAME, host=host), [(at_ns(start), at_ns(end)) for start, end in seen])


def billed(found: Bill) -> list[tuple[str, float, float]]:
    """Currency, start and end in seconds."""
    return [
        (tape.currency, one.start_ns / 1e9 - T0, one.end_ns / 1e9 - T0)
        for tape, _ in found.tapes
        for one in tape.billed
    ]


def test_a_serverless_worker_is_paid_from_its_start_until_the_second_it_stopped_in() -> None:
    """Vector V6."""
    found = bill("g", [place((0, 56.5))], prices(price("0.00031", basis="serverless_second")), HOUR, ns(14.2))
    ((tape, (row,)),) = found.tapes
    table = table_of("g", 1, np.array([NO_PARENT]), np.array(ns(14.2)), np.array(ns(51.5)))
    split = allocate(tape, table, [at_ns(0), at_ns(60)], anchor_ns=HOUR[0])
    assert row.id == "test"
    assert split.nano.tolist() == [11_563_000]
    assert split.by_bucket() == {
        "idle": 1_550_000, "startup": 4_402_000, "tail": 0, "rounding": 155_000, "unobserved": 0,
    }  # fmt: skip
    assert split.totals == [17_670_000]


def test_gaps_that_are_paid_for_are_told_and_longer_ones_end_a_life() -> None:
    gap = GAP_BILLED_NS
    first, second = lives(
        [(0, 10), (10 + GAP_SEEN_NS, 400 * 10**9), (400 * 10**9 + gap, 800 * 10**9), (2 * 10**12, 3 * 10**12)]
    )
    assert (first.start_ns, first.end_ns, first.gaps) == (0, 800 * 10**9, [(400 * 10**9, 400 * 10**9 + gap)])
    assert (second.start_ns, second.gaps) == (2 * 10**12, [])


def test_intervals_are_merged_in_any_order() -> None:
    assert merged([(5, 6), (0, 2), (1, 3)], 1) == [(0, 3), (5, 6)]
    assert merged([(5, 6), (0, 2), (1, 3)], 2) == [(0, 6)]


@pytest.mark.parametrize(
    ("claimed", "startup_s"),
    [([], 0), ([30], 30), ([STARTUP_NS_MAX / 1e9 + 1], 0), ([-5, 20, 40], 20)],
    ids=["never used", "used soon", "used late", "used before and soon"],
)
def test_a_gpu_starts_up_until_it_is_used_if_that_is_soon(claimed: list[float], startup_s: float) -> None:
    found = bill("g", [place((0, 3000))], prices(), HOUR, sorted(ns(*claimed)))
    ((tape, _),) = found.tapes
    table = table_of("g", 0, *(np.zeros(0, dtype=np.int64) for _ in range(3)))
    split = allocate(tape, table, [*HOUR])
    assert split.by_bucket()["startup"] == startup_s * 1_000_000


def test_each_currency_has_a_tape_and_time_without_a_price_has_none() -> None:
    rows = [price("1", until=100), price("2", since=200, until=300, currency="EUR"), price("3", since=300)]
    found = bill("g", [place((0, 400))], PriceBook(rows), HOUR, [])
    assert billed(found) == [("EUR", 200, 300), ("USD", 0, 100), ("USD", 300, 400)]
    assert found.unpriced == [(*ns(100, 200), "no_price")]


def test_a_gpu_that_moves_costs_what_it_costs_where_it_is() -> None:
    rows = [
        price("1", id="a", match={"gpu": NAME, "host": "a"}),
        price("2", id="b", match={"gpu": NAME, "host": "b"}),
    ]
    found = bill("g", [place((0, 100), host="a"), place((160, 300), host="b")], PriceBook(rows), HOUR, [])
    assert billed(found) == [("USD", 0, 160), ("USD", 160, 300)]
    ((tape, used),) = found.tapes
    assert [row.id for row in used] == ["a", "b"]
    assert [int(rate) for _, rate in tape.rates] == [1, 2]


def test_only_what_lies_within_the_window_is_paid() -> None:
    found = bill("g", [place((-500, 100), (3500, 4000))], prices(), HOUR, [])
    assert billed(found) == [("USD", 0, 100), ("USD", 3500, 3600)]
    assert bill("g", [place((-500, -100))], prices(), HOUR, []) == Bill([], [])


def test_a_span_without_words_of_its_own_belongs_to_the_one_above() -> None:
    above = Fact(model="m", workflow="w", attempt=2, outcome="error", kind="job", dimensions=(("a", "1"), ("b", "2")))
    own = Fact(model="own", host="h", kind="stage", dimensions=(("b", "3"),))
    found = belongs(own, above, same_job=True)
    assert (found.model, found.workflow, found.host, found.kind) == ("own", "w", "h", "stage")
    assert (found.attempt, found.outcome, found.dimensions) == (2, "error", (("a", "1"), ("b", "3")))
    assert belongs(own, above, same_job=False).attempt == 1


def test_spans_that_are_above_themselves_have_no_parents() -> None:
    parent = np.array([1, 2, 0, 0, 3, NO_PARENT, 5])
    assert without_cycles(parent).tolist() == [NO_PARENT] * 3 + [0, 3, NO_PARENT, 5]
    deep = np.arange(-1, 2000)
    assert without_cycles(deep.copy()).tolist() == deep.tolist()


def test_ids_are_ordered_as_unsigned_numbers() -> None:
    ids = np.array([[-1, 0, 0], [1, -1, 0], [1, 0, 5], [1, 0, -5]])
    assert order_of(ids).tolist() == [2, 3, 1, 0]
