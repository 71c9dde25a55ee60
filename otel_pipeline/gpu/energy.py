"""Energy of many intervals out of one series, and how far it may be off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from otel_pipeline.gpu.reading import covered_ns, differences, totals_around
from otel_pipeline.gpu.series import SECOND_NS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otel_pipeline.gpu.reading import Places
    from otel_pipeline.gpu.series import Series
    from otel_pipeline.gpu.together import Bundle

Ints: TypeAlias = "NDArray[np.int64]"
Floats: TypeAlias = "NDArray[np.float64]"

POWER_WINDOW_NS: Final = SECOND_NS
"""Drivers tell the mean of the past second, older ones the moment."""
_RATE_ROWS: Final = (1, 2, 4, 8)
_STEPS: Final = 2


def energy_of(counter: Series | Bundle, found: Places) -> tuple[Floats, Floats, Ints, Ints]:
    """J by a counter and the bound of its error; for how many ns of each interval it is known, and for how many of them
    one by one: where an interval begins or ends in a gap, its part of the gap's energy is a guess.
    """
    before, after = totals_around(counter.totals, found)
    energy = differences((before, after), found)
    low = np.where(found.times > found.at, before, after)  # the last value read by each moment
    high = _next_read(counter, found)
    error = _bound(energy, low, high, found.count)
    known = covered = covered_ns(counter, found)
    if len(counter.holes):
        error += counter.holes.weight_within(found.starts, found.ends)
    if len(counter.gaps):
        covered = known - _cut(counter, found)
    return energy, error, known, covered


def power_of(power: Series | Bundle, found: Places) -> tuple[Floats, Floats, Ints]:
    """J by the integral of power, the bound of its error, and for how many ns of each interval it is known."""
    low, high = totals_around(power.totals, found)
    energy = differences((low, high), found)
    ends = np.maximum(power.values[found.rows - 1], power.values[found.rows])
    error = _bound(energy, low, high, found.count) + differences(totals_around(power.sways, found), found)
    error += POWER_WINDOW_NS * np.maximum(ends[: found.count], ends[found.count :])
    return energy / SECOND_NS, error / SECOND_NS, covered_ns(power, found)


def _bound(energy: Floats, low: Floats, high: Floats, count: int) -> Floats:
    """The distance to what is certain: the least and the most that may have been used."""
    most = high[count:] - low[:count]
    least = np.maximum(low[count:] - high[:count], 0.0)
    return np.maximum(np.maximum(most - energy, energy - least), 0.0)


def _next_read(counter: Series | Bundle, found: Places) -> Floats:
    """The first value that is read a whole step after each moment, if the counter goes on so long."""
    later = found.at + counter.stale_ns
    last = counter.count - 1
    rows = found.rows
    for _ in range(_STEPS):  # mostly it is one of the next rows: a look at them is cheaper than a search
        rows = np.minimum(rows + (counter.times[rows] < later), last)
    beyond = counter.times[rows] < later
    far = beyond.nonzero()[0]
    if len(far):
        rows[far] = counter.times.searchsorted(later[far])
        beyond = rows > last
        rows = np.minimum(rows, last)
    values: Floats = counter.totals[rows]
    if len(counter.holes):
        beyond |= counter.holes.within(found.at, counter.times[rows]) > 0
    short = beyond.nonzero()[0]
    if len(short):
        values[short] = counter.totals[found.rows[short]] + _rate(counter, found.rows[short]) * counter.stale_ns
    return values


def _rate(counter: Series | Bundle, rows: Ints) -> Floats:
    """The highest power around some rows, J per ns: of the last segments, one by one and together."""
    found = np.zeros(len(rows))
    for back in _RATE_ROWS:
        before = np.maximum(rows - back, 0)
        length = np.maximum(counter.times[rows] - counter.times[before], 1)
        found = np.maximum(found, (counter.totals[rows] - counter.totals[before]) / length)
    return found


def _cut(counter: Series | Bundle, found: Places) -> Ints:
    """ns of those gaps in each interval that it does not contain as a whole."""
    low, high = counter.gaps.around(found.at)
    starts, ends = found.starts, found.ends
    at_start = np.minimum(high[: found.count], ends) - starts
    at_end = ends - np.maximum(low[found.count :], starts)
    same = (low[: found.count] == low[found.count :]) & (high[: found.count] > starts)
    lost: Ints = at_start + np.where(same, 0, at_end)
    return lost
