"""The random GPU days of the property tests have every hard shape, each once in a hundred days or more often."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import combinations, pairwise, permutations

import pytest

from otel_pipeline.ledger.allocation import Mode
from otel_pipeline.ledger.claims import Claim
from otel_pipeline.ledger.tape import BUCKETS
from tests.unit.ledger.allocation_oracle import Expected, ancestors, expected, parents_of, weight_at
from tests.unit.ledger.strategies import DAY_BYTES, END, Day, day_of

DAYS = 600
ENOUGH = DAYS // 100


@pytest.fixture(scope="module")
def days() -> list[Day]:
    chance = random.Random(6)
    return [day_of(chance.randbytes(DAY_BYTES)) for _ in range(DAYS)]


def here(day: Day) -> list[Claim]:
    return [one for one in day.claims if one.gpu == "g0" and one.start_ns <= one.end_ns]


def pairs(day: Day) -> Iterator[tuple[Claim, Claim]]:
    """Different spans' claims on g0, each pair once."""
    return ((one, other) for one, other in combinations(here(day), 2) if one.span != other.span)


def families(day: Day) -> Iterator[tuple[Claim, Claim]]:
    """A parent and its child, both on g0 for a while, at some time together."""
    for one, other in permutations(here(day), 2):
        if other.parent == one.span != other.span and overlap(one, other):
            yield one, other


def overlap(one: Claim, other: Claim) -> bool:
    return max(one.start_ns, other.start_ns) < min(one.end_ns, other.end_ns)


def parents(day: Day) -> dict[str, str | None]:
    return {**day.links, **{one.span: one.parent for one in day.claims}}


def paid(day: Day, at: int) -> bool:
    return any(one.start_ns <= at < one.end_ns for one in day.tapes[0].billed)


def prices_while_paid(day: Day) -> list[int]:
    return [at for at, _ in day.tapes[0].rates[1:] if paid(day, at) and paid(day, at - 1)]


def at_once(day: Day, mode: Mode) -> Iterator[list[Claim]]:
    """Who is there at each time that is paid, of days of that mode."""
    for at in range(END if day.mode is mode else 0):
        there = [one for one in here(day) if one.start_ns <= at < one.end_ns]
        if there and paid(day, at):
            yield there


SHAPES: dict[str, Callable[[Day], object]] = {
    "equal claims": lambda day: any(
        (one.start_ns, one.end_ns) == (other.start_ns, other.end_ns) and one.start_ns < one.end_ns
        for one, other in pairs(day)
    ),
    "one begins as another ends": lambda day: any(one.end_ns == other.start_ns for one, other in pairs(day)),
    "of no length": lambda day: any(one.start_ns == one.end_ns for one in here(day)),
    "ends before it starts": lambda day: any(one.start_ns > one.end_ns for one in day.claims),
    "a child within its parent": lambda day: any(
        one.start_ns < other.start_ns and other.end_ns < one.end_ns for one, other in families(day)
    ),
    "a child as long as its parent": lambda day: any(
        (one.start_ns, one.end_ns) == (other.start_ns, other.end_ns) for one, other in families(day)
    ),
    "a child that outlives its parent": lambda day: any(other.end_ns > one.end_ns for one, other in families(day)),
    "siblings in parallel": lambda day: any(
        one.parent == other.parent is not None and overlap(one, other) for one, other in pairs(day)
    ),
    "three generations": lambda day: any(
        other.span == child.parent and child.span not in {one.span, other.span}
        for one, other in families(day)
        for _, child in families(day)
    ),
    "kin through a span that claims nothing here": lambda day: any(
        one.span in ancestors(other.span, parents_of(day.claims, day.links)) and other.parent != one.span
        for one, other in permutations(here(day), 2)
        if overlap(one, other)
    ),
    "a loop of parents": lambda day: any(span in ancestors(span, parents(day)) for span in parents(day)),
    "two reports of one claim": lambda day: any(
        (one.span, one.attempt) == (other.span, other.attempt) and one != other
        for one, other in combinations(here(day), 2)
    ),
    "two attempts": lambda day: any(
        one.span == other.span and one.attempt != other.attempt for one, other in combinations(here(day), 2)
    ),
    "one span on both GPUs": lambda day: (
        {one.span for one in here(day)} & {one.span for one in day.claims if one.gpu == "g1"}
    ),
    "a new price while somebody is there": lambda day: any(
        one.start_ns < at < one.end_ns for at in prices_while_paid(day) for one in here(day)
    ),
    "a new price as somebody begins": lambda day: any(
        one.start_ns == at for at in prices_while_paid(day) for one in here(day)
    ),
    "paid for the first part only": lambda day: any(
        one.start_ns < billed.end_ns < one.end_ns and billed.start_ns < billed.end_ns
        for one in here(day)
        for billed in day.tapes[0].billed
    ),
    "billed times that touch": lambda day: day.tapes[0].billed[0].end_ns == day.tapes[0].billed[1].start_ns,
    "a claim over a cut": lambda day: any(one.start_ns < cut < one.end_ns for one in here(day) for cut in day.cuts),
    "a claim from before the first cut": lambda day: any(one.start_ns < day.cuts[0] < one.end_ns for one in here(day)),
    "a claim that ends at a cut": lambda day: any(one.end_ns in day.cuts[1:-1] for one in here(day)),
    "four at once": lambda day: any(len(there) >= 4 for mode in Mode for there in at_once(day, mode)),
    "a weight that changes": lambda day: any(
        weight_at(one, at) != weight_at(one, at - 1)
        for one in here(day)
        for at in range(one.start_ns + 1, one.end_ns)
        if day.mode is Mode.WEIGHTED
    ),
    "weights that are all 0": lambda day: any(
        all(one.weight == 0 for one in there) and len(there) > 1 for there in at_once(day, Mode.WEIGHTED)
    ),
    "shares above the whole": lambda day: any(
        sum(one.share or Fraction(1) for one in there) > 1 for there in at_once(day, Mode.FIXED)
    ),
    "shares below the whole": lambda day: any(
        sum(Fraction(1) if one.share is None else one.share for one in there) < 1 for there in at_once(day, Mode.FIXED)
    ),
    "a price of 0": lambda day: any(rate == 0 for _, rate in day.tapes[0].rates) and any(at_once(day, day.mode)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_hard_shape_comes_often_enough(days: list[Day], shape: str) -> None:
    assert sum(bool(SHAPES[shape](day)) for day in days) >= ENOUGH


@pytest.fixture(scope="module")
def answers(days: list[Day]) -> list[Expected]:
    found = []
    for day in days[: DAYS // 2]:
        one_of_each = list({(one.span, one.attempt): one for one in here(day)}.values())
        found.append(expected(day.tapes[0], one_of_each, day.cuts[0], day.cuts[-1], mode=day.mode, links=day.links))
    return found


@pytest.mark.parametrize("bucket", BUCKETS)
def test_each_bucket_gets_something(answers: list[Expected], bucket: str) -> None:
    assert sum(one.buckets[bucket] > 0 for one in answers) >= ENOUGH


def test_bills_between_two_units_and_equal_remainders_come_often_enough(answers: list[Expected]) -> None:
    bills = [sum(one.shares.values()) + sum(one.buckets.values()) for one in answers]
    assert sum(bill % 1 == Fraction(1, 2) for bill in bills) >= ENOUGH
    rests = [sorted(share % 1 for share in one.shares.values() if share % 1) for one in answers]
    assert sum(any(low == high for low, high in pairwise(rest)) for rest in rests) >= ENOUGH
