"""What spans and samples must cost, reckoned from docs/ledger.md and docs/cost.md alone, in fractions: an oracle.

It shares no code with the ledger. It knows what it may know: what was sent, and what each span is by construction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Final, TypeVar

SECOND_NS: Final = 10**9
MINUTE_NS: Final = 60 * SECOND_NS
HOUR_NS: Final = 60 * MINUTE_NS
SEEN_NS: Final = 90 * SECOND_NS
"""A longer gap between two sights of a GPU is unobserved."""
PAID_NS: Final = 5 * MINUTE_NS
"""A longer one ends what is paid for."""
STARTUP_NS: Final = 15 * MINUTE_NS
BUCKETS: Final = ("idle", "startup", "tail", "rounding", "unobserved")
TAILS: Final = True
"""Whether the ledger tells time after a life's last span from idling. Workers that are billed in units have none."""
DIRECT: Final = ""
"""Stands for the GPU of what ran on none."""

Key = tuple[int, int]
"""Trace and span, unsigned."""
Who = Key | str
"""Who bears a cost: a span or a bucket."""
Interval = tuple[int, int]
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Done:
    """A span as it is to be billed. `gpus`: those that it claims; `direct`: what it costs itself, in n$; `job`: id and
    attempt, if it says them; 0: it does not say the attempt.
    """

    key: Key
    parent: int
    start_ns: int
    end_ns: int
    gpus: tuple[str, ...] = ()
    direct: tuple[str, int] | None = None
    job: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a GPU costs: n$ per ns from a time on, by time. `unit_ns`: a life of it is rounded up to multiples of it."""

    currency: str
    rates: Sequence[tuple[int, Fraction]]
    unit_ns: int = 1

    def at(self, at_ns: int) -> Fraction:
        return [rate for since, rate in self.rates if since <= at_ns][-1]


@dataclass(slots=True)
class Bill:
    """n$ by (GPU, minute, currency) and (trace, span), or bucket, or in all; by (job, attempt, currency)."""

    cells: dict[tuple[str, int, str, Key], int] = field(default_factory=dict)
    buckets: dict[tuple[str, int, str, str], int] = field(default_factory=dict)
    totals: dict[tuple[str, int, str], int] = field(default_factory=dict)
    jobs: dict[tuple[str, int, str], int] = field(default_factory=dict)

    def differences(self, other: Bill) -> list[str]:
        """Where the two differ, some of them. What is missing counts as 0."""
        found = [
            *_differing("span", self.cells, other.cells),
            *_differing("bucket", self.buckets, other.buckets),
            *_differing("total", self.totals, other.totals),
        ]
        return [*found, *_differing("job", self.jobs, other.jobs)]


def _differing(name: str, one: Mapping[K, int], other: Mapping[K, int], shown: int = 5) -> list[str]:
    wrong = [key for key in {**one, **other} if one.get(key, 0) != other.get(key, 0)]
    told = [f"{name} {key}: {one.get(key, 0)} and {other.get(key, 0)}" for key in wrong[:shown]]
    return [*told, f"{len(wrong)} of {len(one)} of kind {name} differ"] if wrong else []


def bill(
    spans: Sequence[Done], minutes: Mapping[str, Iterable[int]], tariffs: Mapping[str, Tariff], until_ns: int
) -> Bill:
    """What all of it costs before `until_ns`, a full minute. `minutes`: when a GPU sent samples, as unix time / 60."""
    by_key = {span.key: span for span in spans}
    found = Bill()
    for gpu, tariff in tariffs.items():
        claims = [span for span in spans if gpu in span.gpus and span.start_ns < span.end_ns]
        seen = [(minute * MINUTE_NS, (minute + 1) * MINUTE_NS) for minute in minutes.get(gpu, ())]
        seen += [(span.start_ns, span.end_ns) for span in claims]
        _bill_gpu(found, (gpu, tariff), _Claims(claims, by_key), _lives(seen), until_ns)
    for span in spans:
        if span.direct and span.direct[1] and span.end_ns < until_ns:
            currency, nano = span.direct
            minute = span.end_ns // MINUTE_NS * MINUTE_NS
            found.cells[DIRECT, minute, currency, span.key] = nano
            found.totals[DIRECT, minute, currency] = found.totals.get((DIRECT, minute, currency), 0) + nano
    costs: dict[tuple[str, int, str], int] = defaultdict(int)
    for (_, _, currency, key), nano in found.cells.items():
        job = _job_of(key, by_key)
        if job:
            costs[*job, currency] += nano
    found.jobs = dict(costs)
    return found


class _Claims:
    """The spans that claim one GPU, and who is above whom."""

    def __init__(self, claims: Sequence[Done], by_key: Mapping[Key, Done]) -> None:
        self.all = claims
        self._above = {span.key: set(_above(span.key, by_key)) for span in claims}

    def deepest(self, start_ns: int, end_ns: int) -> list[Done]:
        """Those that are there from start to end, without those that have one below them there."""
        there = [span for span in self.all if span.start_ns <= start_ns and end_ns <= span.end_ns]
        return [one for one in there if not any(one.key in self._above[other.key] for other in there)]


@dataclass(slots=True)
class _Life:
    start_ns: int
    end_ns: int
    gaps: list[Interval]


def _lives(seen: Iterable[Interval]) -> list[_Life]:
    found: list[_Life] = []
    for start, end in sorted(seen):
        last = found[-1] if found else None
        if last is None or start > last.end_ns + PAID_NS:
            found.append(_Life(start, end, []))
            continue
        if start > last.end_ns + SEEN_NS:
            last.gaps.append((last.end_ns, start))
        last.end_ns = max(last.end_ns, end)
    return found


def _above(key: Key, by_key: Mapping[Key, Done]) -> list[Key]:
    found: list[Key] = []
    span = by_key.get(key)
    while span is not None and span.parent and (key[0], span.parent) not in found:
        found.append((key[0], span.parent))
        span = by_key.get(found[-1])
    return found


def _job_of(key: Key, by_key: Mapping[Key, Done]) -> tuple[str, int] | None:
    """The job that the span, or the nearest one above it, names; the attempt is that of the nearest one that says it,
    and else the first.
    """
    named = [by_key[one].job for one in (key, *_above(key, by_key)) if one in by_key]
    told = [job for job in named if job]
    return (told[0][0], next((attempt for _, attempt in told if attempt), 1)) if told else None


def _bill_gpu(found: Bill, of: tuple[str, Tariff], claims: _Claims, lives: list[_Life], until_ns: int) -> None:
    gpu, tariff = of
    exact: dict[int, dict[Who, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
    paid: dict[int, Fraction] = defaultdict(Fraction)
    for number, life in enumerate(lives):
        following = lives[number + 1].start_ns if number + 1 < len(lives) else None
        for start, end, who in _segments(life, tariff, claims, following, until_ns):
            cost = tariff.at(start) * (end - start)
            minute = start // MINUTE_NS * MINUTE_NS
            paid[minute] += cost
            for one in who:
                exact[minute][one] += cost / len(who)
    starts = {span.key: span.start_ns for span in claims.all}
    for hour in sorted({minute // HOUR_NS for minute in paid}):
        before = Fraction(0)
        for minute in range(hour * HOUR_NS, (hour + 1) * HOUR_NS, MINUTE_NS):
            total = round(before + paid[minute]) - round(before)  # a tie to the even one
            before += paid[minute]
            if exact[minute]:
                found.totals[gpu, minute, tariff.currency] = total
                for one, nano in _whole(total, exact[minute], starts).items():
                    if isinstance(one, str):
                        found.buckets[gpu, minute, tariff.currency, one] = nano
                    else:
                        found.cells[gpu, minute, tariff.currency, one] = nano


def _segments(
    life: _Life, tariff: Tariff, claims: _Claims, following: int | None, until_ns: int
) -> Iterable[tuple[int, int, list[Who]]]:
    """Times within one minute in which nothing changes, and who pays: spans, or a bucket."""
    billed_end = life.start_ns + -(-(life.end_ns - life.start_ns) // tariff.unit_ns) * tariff.unit_ns
    billed_end = min(billed_end, following) if following is not None else billed_end
    first = min((span.start_ns for span in claims.all if span.start_ns >= life.start_ns), default=None)
    ready = first if first is not None and first <= min(life.start_ns + STARTUP_NS, life.end_ns) else None
    last = max((span.end_ns for span in claims.all if life.start_ns < span.end_ns <= life.end_ns), default=life.end_ns)
    tail = last if TAILS and tariff.unit_ns == 1 else life.end_ns
    points = {life.start_ns, life.end_ns, billed_end, tail, *(edge for gap in life.gaps for edge in gap)}
    points |= {since for since, _ in tariff.rates} | ({ready} if ready is not None else set())
    points |= {edge for span in claims.all for edge in (span.start_ns, span.end_ns)}
    points |= set(range(life.start_ns // MINUTE_NS * MINUTE_NS, min(billed_end, until_ns), MINUTE_NS)) | {until_ns}
    ends = min(billed_end, until_ns)
    for start, end in pairwise(sorted(point for point in points if life.start_ns <= point <= ends)):
        who: list[Who] = [span.key for span in claims.deepest(start, end)]
        yield start, end, who or [_bucket(life, ready, tail, start)]


def _bucket(life: _Life, ready: int | None, tail: int, at_ns: int) -> str:
    if at_ns >= life.end_ns:
        return "rounding"
    if ready is not None and at_ns < ready:
        return "startup"
    if at_ns >= tail:
        return "tail"
    return "unobserved" if any(start <= at_ns < end for start, end in life.gaps) else "idle"


def _whole(total: int, exact: Mapping[Who, Fraction], starts: Mapping[Key, int]) -> dict[Who, int]:
    """Whole n$ with the total as their sum: by largest remainder, of equal ones the earlier span, then the lower id,
    buckets last.
    """

    def order(one: Who) -> tuple[int, ...]:
        return (1, BUCKETS.index(one)) if isinstance(one, str) else (0, starts[one], *one)

    whole = {one: amount.numerator // amount.denominator for one, amount in exact.items()}
    ranked = sorted(exact, key=lambda one: (whole[one] - exact[one], *order(one)))
    missing = total - sum(whole.values())
    for one in ranked[:missing] if missing > 0 else ():
        whole[one] += 1
    if missing < 0:  # a bill whose bounds lie just between two n$
        largest = max(ranked, key=lambda one: whole[one])
        whole[largest] += missing
    return whole
