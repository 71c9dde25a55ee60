"""The law and its consequences over random GPU days, against the slow oracle. P1 to P10 are those of issue 6."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.ledger import sums
from otel_pipeline.ledger.allocation import Allocation, Mode, allocate
from otel_pipeline.ledger.claims import Claim, claim_table
from otel_pipeline.ledger.corrections import corrections, reallocated
from otel_pipeline.ledger.tape import BUCKETS, Billed, Tape
from tests.unit.ledger.allocation_oracle import exact_shares, largest_remainder, nearest
from tests.unit.ledger.conftest import PROPERTIES
from tests.unit.ledger.strategies import END, EVEN_PRICES, claim_lists, cut_lists, tapes, trees

MODES = st.sampled_from(Mode)


def allocated(
    tape: Tape, claims: Sequence[Claim], cuts: Sequence[int] = (0, END), mode: Mode = Mode.EQUAL
) -> Allocation:
    return allocate(tape, claim_table(claims), cuts, mode)


def costs(allocation: Allocation) -> dict[tuple[str, int], int]:
    table = allocation.table
    return {(table.spans[table.span[row]], int(table.attempt[row])): nano for row, nano in allocation.by_row().items()}


def without_cycles(claims: Sequence[Claim]) -> list[Claim]:
    """The oracle takes a loop of parents for kin of each other; the table takes them for strangers."""
    return [
        replace(claim, parent=None if claim.parent and claim.parent >= claim.span else claim.parent) for claim in claims
    ]


@PROPERTIES
@given(tapes(), claim_lists(), MODES)
def test_the_sweep_gives_what_the_slow_oracle_gives(tape: Tape, claims: list[Claim], mode: Mode) -> None:
    claims = without_cycles(claims)
    shares, buckets = exact_shares(tape, claims, 0, END, mode)
    order = sorted(claims, key=lambda claim: (claim.start_ns, claim.span, claim.attempt))
    keys = [(claim.span, claim.gpu, claim.attempt) for claim in order]
    amounts = [*(shares[key] for key in keys), *(buckets[name] for name in BUCKETS)]
    total = nearest(sum(amounts, Fraction(0)))
    expected = largest_remainder(total, amounts)
    allocation = allocated(tape, claims, mode=mode)
    assert allocation.totals == [total]
    found = costs(allocation)
    assert [*(found.get((span, attempt), 0) for span, _, attempt in keys), *allocation.by_bucket().values()] == expected


@PROPERTIES
@given(st.tuples(tapes(), tapes(gpu="g1")), claim_lists(("g0", "g1")), MODES)
def test_two_gpus_are_as_the_oracle_has_them(both: tuple[Tape, Tape], claims: list[Claim], mode: Mode) -> None:
    claims = without_cycles(claims)
    table = claim_table(claims)
    for tape in both:
        shares, _ = exact_shares(tape, claims, 0, END, mode)
        found = costs(allocate(tape, table, [0, END], mode))
        assert all(abs(found.get((span, attempt), 0) - exact) < 1 for (span, _, attempt), exact in shares.items())


@PROPERTIES
@given(tapes(), claim_lists(), cut_lists(), MODES)
def test_p1_spans_and_buckets_add_up_to_the_bill_of_each_period(
    tape: Tape, claims: list[Claim], cuts: list[int], mode: Mode
) -> None:
    allocation = allocated(tape, claims, cuts, mode)
    assert not allocation.deviations()
    assert sum(allocation.totals) == nearest(tape.bill(0, END))


@PROPERTIES
@given(tapes(), claim_lists(), cut_lists(), MODES)
def test_p2_however_time_is_cut_totals_stay_and_parts_move_by_less_than_one_unit_a_period(
    tape: Tape, claims: list[Claim], cuts: list[int], mode: Mode
) -> None:
    whole, parts = allocated(tape, claims, mode=mode), allocated(tape, claims, cuts, mode)
    assert sum(parts.totals) == sum(whole.totals)
    before, after = costs(whole), costs(parts)
    assert before.keys() == after.keys()
    assert all(abs(after[key] - before[key]) <= len(cuts) for key in before)


@PROPERTIES
@given(tapes(EVEN_PRICES), claim_lists(), cut_lists(), st.sampled_from([Mode.EQUAL]))
def test_p2_parts_stay_exactly_where_nothing_has_to_be_rounded(
    tape: Tape, claims: list[Claim], cuts: list[int], mode: Mode
) -> None:
    whole, parts = allocated(tape, claims, mode=mode), allocated(tape, claims, cuts, mode)
    assert (costs(parts), parts.by_bucket()) == (costs(whole), whole.by_bucket())


@PROPERTIES
@given(tapes(), claim_lists(), cut_lists(), MODES)
def test_p2_a_period_by_itself_is_as_among_others_when_both_count_from_one_anchor(
    tape: Tape, claims: list[Claim], cuts: list[int], mode: Mode
) -> None:
    table = claim_table(claims)
    together = allocate(tape, table, cuts, mode)
    for index in range(len(cuts) - 1):
        alone = allocate(tape, table, cuts[index : index + 2], mode, anchor_ns=0)
        assert (alone.totals[0], alone.buckets[0]) == (together.totals[index], together.buckets[index])
        own = together.period == index
        assert (alone.row.tolist(), alone.nano.tolist()) == (together.row[own].tolist(), together.nano[own].tolist())


@PROPERTIES
@given(tapes(), claim_lists(), st.randoms(use_true_random=False), MODES)
def test_p3_the_order_of_arrival_changes_nothing(
    tape: Tape, claims: list[Claim], shuffle: random.Random, mode: Mode
) -> None:
    shuffled = list(claims)
    shuffle.shuffle(shuffled)
    assert not corrections(allocated(tape, claims, mode=mode), allocated(tape, shuffled, mode=mode))


@PROPERTIES
@given(tapes(EVEN_PRICES), trees(max_size=5), st.tuples(st.integers(0, END), st.integers(0, END)))
def test_p4_one_more_span_makes_nobody_elses_cost_higher(
    tape: Tape, claims: list[Claim], times: tuple[int, int]
) -> None:
    before = costs(allocated(tape, claims))
    after = costs(allocated(tape, [*claims, Claim("Z", "g0", min(times), max(times))]))
    assert all(after.get(key, 0) <= cost for key, cost in before.items())


@PROPERTIES
@given(tapes(EVEN_PRICES), trees(max_size=5), st.data())
def test_p5_a_span_that_is_split_into_children_costs_as_much(
    tape: Tape, claims: list[Claim], data: st.DataObject
) -> None:
    leaf = claims[-1]
    middle = data.draw(st.integers(leaf.start_ns, leaf.end_ns))
    children = [
        Claim("Y", "g0", leaf.start_ns, middle, leaf.span),
        Claim("Z", "g0", middle, leaf.end_ns, leaf.span),
    ]
    before, after = costs(allocated(tape, claims)), costs(allocated(tape, [*claims, *children]))
    assert sum(after.values()) == sum(before.values())
    parts = {(claim.span, 1) for claim in (leaf, *children)}
    assert sum(after.get(key, 0) for key in parts) == before.get((leaf.span, 1), 0)


@PROPERTIES
@given(tapes(), trees())
def test_p6_the_roots_with_their_descendants_cost_what_all_spans_cost(tape: Tape, claims: list[Claim]) -> None:
    table = claim_table(claims)
    own = sums.span_costs(table, sums.row_costs(table, [allocate(tape, table, [0, END])]))
    inclusive = sums.inclusive_costs(table, own)
    assert sum(inclusive[claim.span] for claim in claims if claim.parent is None) == sum(own.values())
    assert all(inclusive[name] >= cost for name, cost in own.items())


@PROPERTIES
@given(tapes(), claim_lists(), cut_lists(), st.integers(0, 7), MODES)
def test_p7_late_spans_give_zero_sum_corrections_that_lead_to_what_a_batch_gives(
    tape: Tape, claims: list[Claim], cuts: list[int], count: int, mode: Mode
) -> None:
    early, late = claims[count:], claims[:count]
    before = allocated(tape, early, cuts, mode)
    after, booked = reallocated(before, tape, early, late, mode=mode)
    assert not corrections(after, allocated(tape, claims, cuts, mode))
    for start in cuts:
        assert sum(one.nano for one in booked if one.start_ns == start) == 0


@PROPERTIES
@given(tapes(), claim_lists(), cut_lists(), MODES)
def test_p8_nothing_is_negative(tape: Tape, claims: list[Claim], cuts: list[int], mode: Mode) -> None:
    allocation = allocated(tape, claims, cuts, mode)
    assert min([0, *allocation.nano.tolist(), *allocation.totals]) >= 0
    assert min(min(buckets) for buckets in allocation.buckets) >= 0


@PROPERTIES
@given(tapes(), claim_lists(), st.lists(st.integers(0, 6), max_size=4), MODES)
def test_p9_what_is_delivered_twice_changes_nothing(
    tape: Tape, claims: list[Claim], again: list[int], mode: Mode
) -> None:
    twice = [*claims, *(claims[index] for index in again if index < len(claims))]
    assert not corrections(allocated(tape, claims, mode=mode), allocated(tape, twice, mode=mode))


@pytest.mark.parametrize("day", [1, 365])
@PROPERTIES
@given(
    st.integers(1, 10**15),
    st.integers(1, 10**13),
    st.lists(st.tuples(st.integers(0, 86_400 * 10**9), st.integers(0, 86_400 * 10**9)), max_size=12),
)
def test_p10_sums_are_exact_with_numbers_beyond_64_bits(
    day: int, price: int, per: int, times: list[tuple[int, int]]
) -> None:
    claims = [Claim(f"s{index}", "g0", min(pair), max(pair)) for index, pair in enumerate(times)]
    end = day * 86_400 * 10**9
    tape = whole_day(Fraction(price, per), end)
    allocation = allocate(tape, claim_table(claims), [0, end // 7, end // 3, end])
    assert not allocation.deviations()
    assert sum(allocation.totals) == nearest(Fraction(price, per) * end)


def whole_day(rate: Fraction, end: int) -> Tape:
    return Tape("g0", [(0, rate)], [Billed(0, end)])
