"""The law and its consequences over random GPU days, against the slow oracle. P1 to P10 are those of issue 6."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from hypothesis import given

from otel_pipeline.ledger import sums
from otel_pipeline.ledger.allocation import Allocation, Mode, allocate
from otel_pipeline.ledger.claims import Claim, claim_table
from otel_pipeline.ledger.corrections import corrections, reallocated
from otel_pipeline.ledger.tape import BUCKETS, Tape
from tests.unit.ledger.allocation_oracle import expected, largest_remainder, nearest
from tests.unit.ledger.conftest import PROPERTIES
from tests.unit.ledger.strategies import END, Day, big_days, days, even_price, nested_claims, odd_price


def allocated(
    day: Day, claims: Sequence[Claim] | None = None, cuts: Sequence[int] | None = None, mode: Mode | None = None
) -> Allocation:
    """The first GPU's allocation."""
    table = claim_table(day.claims if claims is None else claims, day.links)
    return allocate(day.tapes[0], table, cuts or day.cuts, mode or day.mode)


def costs(allocation: Allocation) -> dict[tuple[str, int], int]:
    table = allocation.table
    return {(table.spans[table.span[row]], int(table.attempt[row])): nano for row, nano in allocation.by_row().items()}


def one_of_each(claims: Sequence[Claim]) -> list[Claim]:
    """One claim of each span, GPU and attempt, and none that ends before it starts."""
    known = {(one.span, one.gpu, one.attempt): one for one in claims if one.start_ns <= one.end_ns}
    return list(known.values())


@PROPERTIES
@given(days())
def test_the_sweep_gives_what_the_slow_oracle_gives_on_both_gpus(day: Day) -> None:
    claims = one_of_each(day.claims)
    backwards = [one for one in day.claims if one.start_ns > one.end_ns]
    table = claim_table([*claims, *backwards], day.links)
    assert table.dropped == tuple(sorted({(one.span, one.gpu) for one in backwards}))
    for tape in day.tapes:
        oracle = expected(tape, claims, day.cuts[0], day.cuts[-1], mode=day.mode, links=day.links)
        here = sorted((one.start_ns, one.span, one.attempt) for one in claims if one.gpu == tape.gpu)
        keys = [(span, attempt) for _, span, attempt in here]
        amounts = [*(oracle.shares[key] for key in keys), *(oracle.buckets[name] for name in BUCKETS)]
        total = nearest(sum(amounts, Fraction(0)))
        found = allocate(tape, table, [day.cuts[0], day.cuts[-1]], day.mode)
        assert found.totals == [total]
        nano = costs(found)
        assert nano.keys() == oracle.times.keys()
        assert [*(nano.get(key, 0) for key in keys), *found.buckets[0]] == largest_remainder(total, amounts)
        times = zip(found.self_ns.tolist(), found.paid_ns.tolist(), found.shared_max.tolist(), strict=True)
        assert dict(zip(nano, times, strict=True)) == oracle.times


@PROPERTIES
@given(days())
def test_p1_spans_and_buckets_add_up_to_the_bill_of_each_gpu_and_period(day: Day) -> None:
    table = claim_table(day.claims, day.links)
    for tape in day.tapes:
        found = allocate(tape, table, day.cuts, day.mode)
        for period, total in enumerate(found.totals):
            assert sum(found.nano[found.period == period].tolist()) + sum(found.buckets[period]) == total
        assert not found.deviations()
        bill = [nearest(tape.bill(day.cuts[0], cut)) for cut in day.cuts]
        assert found.totals == [after - before for before, after in pairwise(bill)]


@PROPERTIES
@given(days())
def test_p2_however_time_is_cut_totals_stay_and_parts_move_by_less_than_one_unit_a_period(day: Day) -> None:
    whole, parts = allocated(day, cuts=[day.cuts[0], day.cuts[-1]]), allocated(day)
    assert sum(parts.totals) == sum(whole.totals)
    before, after = costs(whole), costs(parts)
    assert before.keys() == after.keys()
    assert all(abs(after[key] - before[key]) <= len(day.cuts) for key in before)


@PROPERTIES
@given(days(even_price))
def test_p2_parts_stay_exactly_where_nothing_has_to_be_rounded(day: Day) -> None:
    whole = allocated(day, cuts=[day.cuts[0], day.cuts[-1]], mode=Mode.EQUAL)
    parts = allocated(day, mode=Mode.EQUAL)
    assert (costs(parts), parts.by_bucket()) == (costs(whole), whole.by_bucket())


@PROPERTIES
@given(days())
def test_p2_a_period_by_itself_is_as_among_others_when_both_count_from_one_anchor(day: Day) -> None:
    table, tape, anchor = claim_table(day.claims, day.links), day.tapes[0], day.more[0] % (END + 1)
    together = allocate(tape, table, day.cuts, day.mode, anchor)
    for index, cuts in enumerate(pairwise(day.cuts)):
        alone = allocate(tape, table, cuts, day.mode, anchor)
        assert (alone.totals[0], alone.buckets[0]) == (together.totals[index], together.buckets[index])
        own = together.period == index
        assert (alone.row.tolist(), alone.nano.tolist()) == (together.row[own].tolist(), together.nano[own].tolist())


@PROPERTIES
@given(days())
def test_p3_the_order_of_arrival_changes_nothing(day: Day) -> None:
    shuffled = [claim for _, claim in sorted(zip(day.more, day.claims, strict=False), key=lambda pair: pair[0])]
    assert len(shuffled) == len(day.claims)
    assert not corrections(allocated(day), allocated(day, shuffled))


@PROPERTIES
@given(days(even_price, nested_claims))
def test_p4_one_more_span_makes_nobody_elses_cost_higher(day: Day) -> None:
    start, end = sorted(number % (END + 1) for number in day.more[:2])
    parents = [None, *(claim.span for claim in day.claims)]
    one_more = Claim("Z", "g0", start, end, parents[day.more[2] % len(parents)])
    before = costs(allocated(day, mode=Mode.EQUAL))
    after = costs(allocated(day, [*day.claims, one_more], mode=Mode.EQUAL))
    assert all(after.get(key, 0) <= cost for key, cost in before.items())


@PROPERTIES
@given(days(even_price, nested_claims))
def test_p5_a_span_that_is_split_into_children_costs_as_much(day: Day) -> None:
    leaf = day.claims[-1]
    inner = sorted(leaf.start_ns + number % (leaf.end_ns - leaf.start_ns + 1) for number in day.more[:3])
    bounds = pairwise([leaf.start_ns, *inner, leaf.end_ns])
    children = [Claim(f"Z{at}", "g0", start, end, leaf.span) for at, (start, end) in enumerate(bounds)]
    before = costs(allocated(day, mode=Mode.EQUAL))
    after = costs(allocated(day, [*day.claims, *children], mode=Mode.EQUAL))
    assert sum(after.values()) == sum(before.values())
    parts = {(claim.span, 1) for claim in (leaf, *children)}
    assert sum(after.get(key, 0) for key in parts) == before.get((leaf.span, 1), 0)


@PROPERTIES
@given(days(odd_price, nested_claims))
def test_p6_the_roots_with_their_descendants_cost_what_all_spans_cost(day: Day) -> None:
    table = claim_table(day.claims)
    own = sums.span_costs(table, sums.row_costs(table, [allocate(day.tapes[0], table, day.cuts, day.mode)]))
    inclusive = sums.inclusive_costs(table, own)
    assert sum(inclusive[claim.span] for claim in day.claims if claim.parent is None) == sum(own.values())
    for claim in day.claims:
        children = [one.span for one in day.claims if one.parent == claim.span]
        assert inclusive[claim.span] == own[claim.span] + sum(inclusive[child] for child in children)


@PROPERTIES
@given(days())
def test_p7_late_spans_give_zero_sum_corrections_that_lead_to_what_a_batch_gives(day: Day) -> None:
    parts: tuple[list[Claim], list[Claim]] = ([], [])
    for number, claim in zip(day.more, day.claims, strict=False):
        parts[number % 2].append(claim)
    early, late = parts
    before = allocated(day, early)
    after, booked = reallocated(before, day.tapes[0], early, late, mode=day.mode, links=day.links)
    batch = allocated(day)
    assert not corrections(after, batch)
    for start in day.cuts:
        assert sum(one.nano for one in booked if one.start_ns == start) == 0
    spans = Counter(costs(before))
    spans.update(dict.fromkeys(costs(batch), 0))
    for one in booked:
        spans[one.span, one.attempt] += one.nano if one.span else 0
    assert +spans == +Counter(costs(batch))


@PROPERTIES
@given(days())
def test_p8_nothing_is_negative(day: Day) -> None:
    table = claim_table(day.claims, day.links)
    for tape in day.tapes:
        found = allocate(tape, table, day.cuts, day.mode)
        assert min([0, *found.nano.tolist(), *found.totals]) >= 0
        assert min(min(buckets) for buckets in found.buckets) >= 0


@PROPERTIES
@given(days())
def test_p9_what_is_delivered_twice_changes_nothing_and_the_report_that_ends_last_counts(day: Day) -> None:
    once = allocated(day)
    again = [claim for number, claim in zip(day.more, day.claims, strict=False) if number % 2]
    assert not corrections(once, allocated(day, [*day.claims, *again]))
    longest: dict[tuple[str, str, int], tuple[int, int]] = {}
    for claim in day.claims:
        if claim.start_ns <= claim.end_ns:
            key, length = (claim.span, claim.gpu, claim.attempt), (claim.end_ns, -claim.start_ns)
            longest[key] = max(longest.get(key, length), length)
    kept = [
        claim
        for claim in day.claims
        if longest.get((claim.span, claim.gpu, claim.attempt)) == (claim.end_ns, -claim.start_ns)
    ]
    assert not corrections(once, allocated(day, kept))


@PROPERTIES
@given(big_days())
def test_p10_sums_are_exact_with_numbers_beyond_64_bits(day: tuple[Tape, list[Claim]]) -> None:
    tape, claims = day
    end = tape.billed[0].end_ns
    found = allocate(tape, claim_table(claims), [0, end // 7, end // 3, end])
    assert not found.deviations()
    assert sum(found.nano.tolist()) + sum(map(sum, found.buckets)) == nearest(tape.rates[0][1] * end)
