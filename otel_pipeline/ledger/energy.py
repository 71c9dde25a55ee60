"""Energy of a GPU from readings of its counter: what is known of an interval, and what it cost.

Between two readings the power is taken as constant. A counter that falls was reset, one that stays at 0 never counts,
one that grows faster than a GPU can draw is another one, and readings further apart than READING_GAP_NS tell nothing
about a minute: between those two nothing is known, and nothing is invented. A counter moves in steps, so an interval is
uncertain by a step at each end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

from otel_pipeline.ledger.money import NANO

MJ_PER_KWH: Final = 3_600_000_000
SENTINEL_MIN: Final = 2**62
"""DCGM says "no value" with numbers close to the end of 64 bits."""
READING_GAP_NS: Final = 300 * NANO
"""As long as a GPU that is not seen is paid for."""
POWER_W_MAX: Final = 100_000
"""That of a rack: no GPU draws it."""

Reading = tuple[int, int]
"""Time in ns, and mJ since some start."""
Power = tuple[int, int, Fraction]
"""From when until when (ns), and mJ per ns: W / 1e6."""


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy in mJ and the time of which it is known."""

    mj: Fraction
    known_ns: int
    asked_ns: int

    @property
    def coverage(self) -> Fraction:
        """The known part of the interval, 0 to 1."""
        return Fraction(self.known_ns, self.asked_ns) if self.asked_ns > 0 else Fraction(0)

    def above(self, idle_w: Fraction) -> Fraction:
        """mJ beyond what the GPU takes when it waits, never negative."""
        return max(self.mj - idle_w * Fraction(self.known_ns, 1_000_000), Fraction(0))


def power(readings: Sequence[Reading]) -> list[Power]:
    """What is known of one counter, by readings in the order of their times."""
    found = []
    valid = [reading for reading in readings if 0 <= reading[1] < SENTINEL_MIN]
    for (at, before), (until, after) in pairwise(valid):
        length, mj = until - at, after - before
        if 0 < length <= READING_GAP_NS and after and 0 <= mj * 1_000_000 <= POWER_W_MAX * length:
            found.append((at, until, Fraction(mj, length)))
    return found


def of_one(counters: Iterable[Sequence[Power]]) -> list[Power]:
    """What several counters of one GPU tell: each fills what those before it leave open."""
    found: list[Power] = []
    for counter in counters:
        found = sorted([*found, *_between(found, counter)]) if found else list(counter)
    return found


def _between(known: Sequence[Power], more: Sequence[Power]) -> Iterable[Power]:
    """The parts of `more` that lie outside of `known`; both are in order."""
    place = 0
    for start, until, rate in more:
        at = start
        while place < len(known) and known[place][1] <= at:
            place += 1
        for begin, end, _ in known[place:]:
            if begin >= until:
                break
            if at < begin:
                yield at, begin, rate
            at = max(at, end)
        if at < until:
            yield at, until, rate


def consumed(readings: Sequence[Reading], start_ns: int, end_ns: int) -> Energy:
    """Energy between start and end."""
    mj, known_ns = Fraction(0), 0
    for at, until, rate in power(readings):
        length = min(until, end_ns) - max(at, start_ns)
        if length > 0:
            mj += rate * length
            known_ns += length
    return Energy(mj, known_ns, max(end_ns - start_ns, 0))


def energy_cost(mj: Fraction, per_kwh: Fraction) -> Fraction:
    """n$ of the energy at a tariff in $ per kWh, not rounded; of mJ per ns the n$ per ns."""
    return mj / MJ_PER_KWH * per_kwh * NANO
