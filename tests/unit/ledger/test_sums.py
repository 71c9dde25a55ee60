"""Sums refuse what must not be added; tapes refuse what is no time; corrections are between like and like."""

from __future__ import annotations

from fractions import Fraction

import pytest

from otel_pipeline.ledger import sums
from otel_pipeline.ledger.allocation import Mode, allocate
from otel_pipeline.ledger.claims import Claim, claim_table
from otel_pipeline.ledger.corrections import corrections
from otel_pipeline.ledger.tape import Billed, Tape

TABLE = claim_table([Claim("a", "g0", 0, 10), Claim("a", "g1", 0, 10)])


def tape(gpu: str, rate: int = 1, currency: str = "USD") -> Tape:
    return Tape(gpu, [(0, Fraction(rate))], [Billed(0, 10)], currency=currency)


def test_currencies_are_not_added() -> None:
    both = [allocate(tape("g0"), TABLE, [0, 10]), allocate(tape("g1", currency="EUR"), TABLE, [0, 10])]
    with pytest.raises(ValueError, match="USD and EUR cannot be added"):
        sums.row_costs(TABLE, both)


def test_rows_of_another_table_are_not_added() -> None:
    with pytest.raises(ValueError, match="another table"):
        sums.row_costs(claim_table([]), [allocate(tape("g0"), TABLE, [0, 10])])


def test_a_changed_price_is_booked_as_what_the_bill_changed() -> None:
    before, after = (allocate(tape("g0", rate), TABLE, [0, 5, 20]) for rate in (3, 2))
    booked = corrections(before, after)
    assert [(one.span, one.start_ns, one.end_ns, one.nano) for one in booked] == [("a", 0, 5, -5), ("a", 5, 20, -5)]
    assert sum(after.totals) - sum(before.totals) == sum(one.nano for one in booked) == -10


def test_corrections_are_between_the_same_periods_of_one_gpu() -> None:
    with pytest.raises(ValueError, match="one GPU"):
        corrections(allocate(tape("g0"), TABLE, [0, 10]), allocate(tape("g1"), TABLE, [0, 10]))


def test_totals_count_from_the_anchor_also_when_it_lies_behind() -> None:
    third = Tape("g0", [(0, Fraction(1, 3))], [Billed(0, 10)])
    from_start = allocate(third, TABLE, [0, 2, 4, 6, 8, 10]).totals
    assert from_start == [1, 0, 1, 1, 0]
    assert [allocate(third, TABLE, [at, at + 2], anchor_ns=0).totals[0] for at in range(0, 10, 2)] == from_start
    assert sum(allocate(third, TABLE, [at, at + 2], anchor_ns=10).totals[0] for at in range(0, 10, 2)) == 3


def test_a_bill_between_two_units_never_makes_a_part_negative() -> None:
    half = Tape("g0", [(0, Fraction(1, 2))], [Billed(0, 100)])
    table = claim_table([Claim(span, "g0", 0, 100) for span in "ab"])
    found = allocate(half, table, list(range(0, 101, 2)), anchor_ns=-1)
    shifted = allocate(half, table, list(range(1, 100, 2)), anchor_ns=0)
    for allocation in (found, shifted):
        assert not allocation.deviations()
        assert min(allocation.nano.tolist()) >= 0
    assert set(shifted.totals) == {0, 2}


def test_a_bill_that_is_one_less_than_its_only_part_is_taken_from_it() -> None:
    table = claim_table([Claim("a", "g0", 0, 100)])
    found = allocate(Tape("g0", [(0, Fraction(1, 2))], [Billed(0, 100)]), table, [1, 3, 5, 7], anchor_ns=0)
    assert found.nano.tolist() == found.totals == [2, 0, 2]


def test_claims_in_periods_and_different_weights_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_pipeline.ledger.allocation.LEDGER_CELLS_MAX", 4)
    table = claim_table([Claim("a", "g0", 0, 10, weight=7), Claim("b", "g0", 0, 9, weight=6)])
    assert allocate(tape("g0"), table, [0, 5, 10]).totals == [5, 5]
    with pytest.raises(ValueError, match="6 claims in periods are too many; at most 4"):
        allocate(tape("g0"), table, [0, 5, 7, 10])
    monkeypatch.setattr("otel_pipeline.ledger.allocation.LEDGER_FINE_BITS_MAX", 3)
    with pytest.raises(ValueError, match="too many different weights"):
        allocate(tape("g0"), table, [0, 10], Mode.WEIGHTED)
