"""Energy of a GPU from samples of its counter: what is known of an interval, and what it cost.

Between two samples the power is taken as constant. A counter that falls was reset: between those two samples nothing is
known, and nothing is invented: what is known is told beside how much of the interval it covers. A counter moves in
steps, so an interval is uncertain by a step at each end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

from otel_pipeline.ledger.money import NANO

MJ_PER_KWH: Final = 3_600_000_000
SENTINEL_MIN: Final = 2**62
"""DCGM says "no value" with numbers close to the end of 64 bits."""


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


def consumed(samples: Sequence[tuple[int, int]], start_ns: int, end_ns: int) -> Energy:
    """Energy between start and end; samples are (ns, mJ since some start) in the order of their times."""
    mj, known_ns = Fraction(0), 0
    valid = [sample for sample in samples if 0 <= sample[1] < SENTINEL_MIN]
    for (at, before), (until, after) in pairwise(valid):
        first, last = max(at, start_ns), min(until, end_ns)
        if first < last and after >= before:
            mj += Fraction((after - before) * (last - first), until - at)
            known_ns += last - first
    return Energy(mj, known_ns, max(end_ns - start_ns, 0))


def power_steps(samples: Sequence[tuple[int, int]]) -> list[tuple[int, Fraction]]:
    """mJ per ns from each sample on, as a tape takes prices: the sweep then splits energy as it splits money."""
    steps = []
    for (at, before), (until, after) in pairwise(samples):
        steps.append((at, Fraction(max(after - before, 0), until - at)))
    return steps


def energy_cost(mj: Fraction, per_kwh: Fraction) -> Fraction:
    """n$ of the energy at a tariff in $ per kWh, not rounded."""
    return mj / MJ_PER_KWH * per_kwh * NANO
