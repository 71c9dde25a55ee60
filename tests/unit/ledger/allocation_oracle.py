"""The law, done the slow and obvious way: every unit of time by itself, in fractions. Small numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from otel_pipeline.ledger.allocation import Mode
from otel_pipeline.ledger.claims import Claim
from otel_pipeline.ledger.tape import BUCKETS, Tape

Shares = dict[tuple[str, str, int], Fraction]


def exact_shares(
    tape: Tape, claims: Sequence[Claim], start: int, end: int, mode: Mode = Mode.EQUAL
) -> tuple[Shares, dict[str, Fraction]]:
    """The exact cost of each claim on the tape's GPU, by (span, GPU, attempt), and of each bucket. No duplicates."""
    here = [claim for claim in claims if claim.gpu == tape.gpu]
    parents = {
        claim.span: claim.parent for claim in sorted(claims, key=lambda one: (one.gpu, one.attempt), reverse=True)
    }
    shares = {(claim.span, claim.gpu, claim.attempt): Fraction(0) for claim in here}
    buckets = dict.fromkeys(BUCKETS, Fraction(0))
    for at in range(start, end):
        price = price_at(tape, at)
        there = [claim for claim in here if claim.start_ns <= at < claim.end_ns]
        deepest = [one for one in there if not any(one.span in ancestors(other.span, parents) for other in there)]
        left = price
        for claim, part in zip(deepest, parts(deepest, at, mode), strict=True):
            shares[claim.span, claim.gpu, claim.attempt] += price * part
            left -= price * part
        buckets["idle" if deepest else state_at(tape, at)] += left
    return shares, buckets


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


def ancestors(span: str, parents: dict[str, str | None]) -> set[str]:
    found: set[str] = set()
    at = parents.get(span)
    while at is not None and at not in found:
        found.add(at)
        at = parents.get(at)
    return found


def price_at(tape: Tape, at: int) -> Fraction:
    if not any(one.start_ns <= at < one.end_ns for one in tape.billed):
        return Fraction(0)
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
