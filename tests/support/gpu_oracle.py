"""What a GPU did in a span, in plain Python with exact fractions: slow, one sample and one span at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from statistics import median_low

from otel_pipeline.gpu.quantities import Quantity

SECOND = 1_000_000_000
SPACINGS = 15
INTERVAL_MAX = 60 * SECOND


@dataclass(frozen=True)
class Answer:
    """Of one quantity in one span."""

    covered: int
    total: Fraction
    """Value times ns of a gauge; what a counter has counted."""
    highest: float | None
    known: int = 0
    """ns for which a counter's total is known, though it is not known when in a gap it was counted."""


class History:
    """Samples of one quantity."""

    def __init__(self, quantity: Quantity, samples: Iterable[tuple[int, float]]) -> None:
        self.quantity = quantity
        first: dict[int, float] = {}
        for time, value in samples:
            first.setdefault(time, value)
        self.rows = sorted(first.items())
        self.segments: list[tuple[int, int, float, float, bool]] = []
        spacings = [after[0] - before[0] for before, after in zip(self.rows, self.rows[1:], strict=False)]
        for index, (before, after) in enumerate(zip(self.rows, self.rows[1:], strict=False)):
            nearby = spacings[index - SPACINGS : index] if index >= SPACINGS else spacings[:SPACINGS]
            is_gap = 2 * spacings[index] > 5 * min(median_low(nearby), INTERVAL_MAX)
            self.segments.append((before[0], after[0], before[1], after[1], is_gap))

    def during(self, start: int, end: int) -> Answer:
        """Of the span [start, end), start < end."""
        counts = self.quantity is Quantity.ENERGY
        return self._counted(start, end) if counts else self._gauged(start, end)

    def _gauged(self, start: int, end: int) -> Answer:
        covered, total, seen = 0, Fraction(0), []
        of_moment = self.quantity is Quantity.MEMORY_USED
        for begin, stop, before, value, is_gap in self.segments:
            shared = min(end, stop) - max(start, begin)
            if shared > 0 and not is_gap:
                covered += shared
                total += shared * Fraction(value)
                seen += [before, value] if of_moment else [value]
        for time, value in self.rows:
            if start < time <= end or (of_moment and time == start):
                seen.append(value)
        return Answer(covered, total, max(seen, default=None))

    def _counted(self, start: int, end: int) -> Answer:
        covered, known, total = 0, 0, Fraction(0)
        for begin, stop, before, value, is_gap in self.segments:
            shared = min(end, stop) - max(start, begin)
            if shared > 0 and value >= before:
                known += shared
                total += (Fraction(value) - Fraction(before)) * shared / (stop - begin)
                if not is_gap or shared == stop - begin:
                    covered += shared
        return Answer(covered, total, None, known)
