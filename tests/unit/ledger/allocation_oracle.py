"""The law, done the slow and obvious way: every unit of time by itself, in fractions. Small numbers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from otel_pipeline.ledger.allocation import Mode
from otel_pipeline.ledger.claims import Claim
from otel_pipeline.ledger.tape import BUCKETS, Tape

Key = tuple[str, int]
"""Span and attempt."""


@dataclass(frozen=True)
class Expected:
    """Of one GPU: exact n$ of each claim and bucket; of each claim self time, how much of it is paid, most at once."""

    shares: dict[Key, Fraction]
    buckets: dict[str, Fraction]
    times: dict[Key, tuple[int, int, int]]


def expected(
    tape: Tape, claims: Sequence[Claim], start: int, end: int, *, mode: Mode, links: Mapping[str, str]
) -> Expected:
    """What the tape's GPU costs from start to end. Claims are one of each span, GPU and attempt."""
    here = [claim for claim in claims if claim.gpu == tape.gpu]
    above = {span: ancestors(span, parents_of(claims, links)) for span in {claim.span for claim in here}}
    shares = {(claim.span, claim.attempt): Fraction(0) for claim in here}
    times = dict.fromkeys(shares, (0, 0, 0))
    buckets = dict.fromkeys(BUCKETS, Fraction(0))
    for at in range(start, end):
        price = price_at(tape, at)
        there = [claim for claim in here if claim.start_ns <= at < claim.end_ns]
        covered = set().union(*(above[claim.span] for claim in there))
        deepest = [claim for claim in there if claim.span not in covered]
        left = price or Fraction(0)
        for claim, part in zip(deepest, parts(deepest, at, mode), strict=True):
            key = (claim.span, claim.attempt)
            self_time, paid, most = times[key]
            times[key] = (self_time + 1, paid + (price is not None), max(most, len(deepest)))
            if price:
                shares[key] += price * part
                left -= price * part
        if left:
            buckets["idle" if deepest else state_at(tape, at)] += left
    return Expected(shares, buckets, {key: found for key, found in times.items() if found[0]})


def parts(claims: Sequence[Claim], at: int, mode: Mode) -> list[Fraction]:
    if mode is Mode.FIXED:
        fixed = [Fraction(1) if claim.share is None else claim.share for claim in claims]
        return [one / max(sum(fixed), Fraction(1)) for one in fixed]
    weights = [weight_at(claim, at) if mode is Mode.WEIGHTED else 1 for claim in claims]
    if not any(weights):
        weights = [1] * len(weights)
    return [Fraction(one, sum(weights)) for one in weights]


def weight_at(claim: Claim, at: int) -> int:
    if isinstance(claim.weight, int):
        return claim.weight
    return [weight for time, weight in claim.weight if time <= at or (time, weight) == claim.weight[0]][-1]


def parents_of(claims: Sequence[Claim], links: Mapping[str, str]) -> dict[str, str | None]:
    """Of several claims of a span the first by GPU and attempt tells its parent; who is above himself has none."""
    parents: dict[str, str | None] = dict(links)
    for claim in sorted(claims, key=lambda one: (one.gpu, one.attempt), reverse=True):
        parents[claim.span] = claim.parent or links.get(claim.span)
    return {span: None if span in ancestors(span, parents) else parent for span, parent in parents.items()}


def ancestors(span: str, parents: Mapping[str, str | None]) -> set[str]:
    found: set[str] = set()
    at = parents.get(span)
    while at is not None and at not in found:
        found.add(at)
        at = parents.get(at)
    return found


def price_at(tape: Tape, at: int) -> Fraction | None:
    """None where nothing is paid."""
    if not any(one.start_ns <= at < one.end_ns for one in tape.billed):
        return None
    return [rate for time, rate in tape.rates if time <= at][-1]


def state_at(tape: Tape, at: int) -> str:
    for one in tape.billed:
        if one.start_ns <= at < one.end_ns:
            if one.stop_ns is not None and at >= one.stop_ns:
                return "rounding"
            if one.ready_ns is not None and at < one.ready_ns:
                return "startup"
            if one.draining_ns is not None and at >= one.draining_ns:
                return "tail"
    return "unobserved" if any(start <= at < end for start, end in tape.unobserved) else "idle"


def nearest(value: Fraction) -> int:
    """Python rounds a fraction to the nearest whole number, ties to even."""
    return round(value)


def largest_remainder(total: int, amounts: Sequence[Fraction]) -> list[int]:
    """Whole numbers that add up to the total; of equal remainders the first ones win."""
    whole = [int(amount) for amount in amounts]
    order = sorted(range(len(amounts)), key=lambda index: whole[index] - amounts[index])
    for index in order[: total - sum(whole)]:
        whole[index] += 1
    return whole
