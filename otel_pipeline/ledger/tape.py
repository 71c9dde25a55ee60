"""The tape of a GPU: from when to when it is paid for, at which price, and what it does when nobody uses it.

All times are whole ns, intervals are half open. A price is a fraction of n$ per ns that counts from its time on; a tape
has prices for all of its paid time, for time without a price is unknown, and unknown is not free.

The state of a moment that nobody claims, the first that holds:
    rounding    after the worker has stopped: paid only because the bill is rounded up
    startup     before the worker is ready: the cold start
    tail        it takes no more work, because it is told to stop, but has not stopped
    unobserved  a gap of the telemetry: there may have been claims
    idle        ready and waiting, which includes an idle timeout after the last job
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_pipeline.ledger.claims import Ints

IDLE, STARTUP, TAIL, ROUNDING, UNOBSERVED = range(5)
BUCKETS: Final = ("idle", "startup", "tail", "rounding", "unobserved")

Exact = NDArray[Any]
"""Whole numbers: of 64 bits where they fit, else Python's."""


@dataclass(frozen=True, slots=True)
class Billed:
    """A time that is paid for; `ready_ns` and `draining_ns` within it, `stop_ns` is the end before rounding up."""

    start_ns: int
    end_ns: int
    ready_ns: int | None = None
    draining_ns: int | None = None
    stop_ns: int | None = None

    @staticmethod
    def rounded_up(start_ns: int, stop_ns: int, unit_ns: int, ready_ns: int | None = None) -> Billed:
        """What a worker costs that is billed in whole units, such as seconds of a serverless one."""
        end_ns = start_ns + -(-(stop_ns - start_ns) // unit_ns) * unit_ns
        return Billed(start_ns, end_ns, ready_ns=ready_ns, stop_ns=stop_ns)


@dataclass(frozen=True, slots=True)
class Tape:
    """What is known of one GPU. `rates` are (from_ns, n$ per ns) in order; `billed` don't overlap, in order.

    Raises ValueError with what is wrong.
    """

    gpu: str
    rates: Sequence[tuple[int, Fraction]]
    billed: Sequence[Billed]
    unobserved: Sequence[tuple[int, int]] = ()
    currency: str = "USD"

    def __post_init__(self) -> None:
        times = [at for at, _ in self.rates]
        if times != sorted(set(times)):
            raise ValueError(f"the prices of {self.gpu} are not in the order of their times")
        if any(rate < 0 for _, rate in self.rates):
            raise ValueError(f"a price of {self.gpu} is negative")
        edges = [edge for one in self.billed for edge in (one.start_ns, one.end_ns)]
        if edges != sorted(edges):
            raise ValueError(f"the billed times of {self.gpu} overlap, end before they start or have no order")
        paid = [one for one in self.billed if one.start_ns < one.end_ns]
        if paid and (not times or times[0] > paid[0].start_ns):
            raise ValueError(f"{self.gpu} is billed before it has a price")

    def points(self) -> list[int]:
        """All times at which the price or the state may change."""
        found = [at for at, _ in self.rates] + [edge for gap in self.unobserved for edge in gap]
        for one in self.billed:
            found += [one.start_ns, one.end_ns]
            found += [at for at in (one.ready_ns, one.draining_ns, one.stop_ns) if at is not None]
        return found

    def unit(self) -> int:
        """The tape's prices are whole numbers of this part of a n$ per ns."""
        return lcm(*{rate.denominator for _, rate in self.rates})

    def paid_and_rate(self, points: Ints) -> tuple[NDArray[np.bool_], Exact]:
        """Whether time is paid between each point and the next, and its price in parts of `unit()`, 0 where it is not.

        The points hold all of `points()` that lie between the first and the last of them.
        """
        unit = self.unit()
        parts = [rate.numerator * (unit // rate.denominator) for _, rate in self.rates]
        paid = np.zeros(len(points) - 1, dtype=bool)
        for one in self.billed:
            paid[_between(points, one.start_ns, one.end_ns)] = True
        times = np.array([at for at, _ in self.rates], dtype=np.int64)
        step = np.searchsorted(times, points[:-1], side="right")  # 0 is before the first price, where nothing is paid
        rate = np.array([0, *parts], dtype=exact_type(max(parts, default=0)))[step]
        return paid, np.where(paid, rate, 0)

    def state_of(self, points: Ints) -> Ints:
        """The state (IDLE ...) of each time between two points if nobody claims it."""
        state = np.full(len(points) - 1, IDLE, dtype=np.int64)
        for start, end in self.unobserved:
            state[_between(points, start, end)] = UNOBSERVED
        for one in self.billed:  # the later line wins
            if one.draining_ns is not None:
                state[_between(points, max(one.draining_ns, one.start_ns), one.end_ns)] = TAIL
            if one.ready_ns is not None:
                state[_between(points, one.start_ns, min(one.ready_ns, one.end_ns))] = STARTUP
            if one.stop_ns is not None:
                state[_between(points, max(one.stop_ns, one.start_ns), one.end_ns)] = ROUNDING
        return state

    def bill(self, start_ns: int, end_ns: int) -> Fraction:
        """What is paid from start to end, in n$, not rounded."""
        total = Fraction(0)
        if not self.rates:
            return total
        for (at, rate), until in zip(self.rates, [*(at for at, _ in self.rates[1:]), end_ns], strict=True):
            for one in self.billed:
                first, last = max(at, one.start_ns, start_ns), min(until, one.end_ns, end_ns)
                total += rate * max(last - first, 0)
        return total


def exact_type(largest: int) -> np.dtype[Any]:
    """The type of arrays that hold whole numbers up to `largest` in size and sums of two of them."""
    return np.dtype(np.int64 if largest < 2**62 else np.object_)


def _between(points: Ints, start: int, end: int) -> slice:
    low, high = np.searchsorted(points, [start, end])
    return slice(int(low), int(high))
