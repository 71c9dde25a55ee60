"""Reads one series at the ends of many intervals at once: differences of totals, covered time, the highest value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otel_pipeline.gpu.series import Series
    from otel_pipeline.gpu.together import Bundle, Columns

Ints: TypeAlias = "NDArray[np.int64]"
Floats: TypeAlias = "NDArray[np.float64]"
Bools: TypeAlias = "NDArray[np.bool_]"


@dataclass(frozen=True, slots=True)
class Places:
    """Intervals and where they lie among the rows of a series. Starts first, then ends, in one array each."""

    series: Series | Bundle
    count: int
    """Of intervals."""
    wanted: Ints
    """Starts and ends, as asked for."""
    is_inside: bool
    """All of them lie between the first row and the last."""
    at: Ints
    """The same, moved to there."""
    rows: Ints
    """The first row at or after `at`, but not row 0: its segment contains the moment, or ends there."""
    times: Ints
    """Of these rows."""
    parts: Floats
    """How much of the segment lies after the moment: 0 at its end, 1 at its begin."""

    @property
    def starts(self) -> Ints:
        """As moved."""
        return self.at[: self.count]

    @property
    def ends(self) -> Ints:
        """As moved."""
        return self.at[self.count :]


class Finder:
    """Finds the same intervals in one series after the other. Series of one agent mostly share their times: then what
    was found in one holds for the next.
    """

    __slots__ = ("_found", "_least", "_most", "_wanted")

    def __init__(self, starts: Ints, ends: Ints) -> None:
        """Intervals with `start < end`, at least one; ascending starts are found faster."""
        self._wanted = np.concatenate((starts, ends))
        self._least, self._most = int(starts.min()), int(ends.max())
        self._found: list[Places] = []

    def some(self, rows: Ints) -> Finder:
        """The same for some of the intervals."""
        count = len(self._wanted) >> 1
        return Finder(self._wanted[rows], self._wanted[rows + count])

    def places(self, series: Series | Bundle) -> Places:
        """In a series of two rows at least."""
        for found in self._found:
            if series.has_times_of(found.series):
                return found
        times, wanted = series.times, self._wanted
        is_inside = series.first_ns <= self._least and self._most <= series.last_ns
        at = wanted if is_inside else np.minimum(np.maximum(wanted, series.first_ns), series.last_ns)
        rows = np.maximum(times.searchsorted(at), 1)
        after = times[rows]
        parts = (after - at) / (after - times[rows - 1])
        found = Places(series, len(wanted) >> 1, wanted, is_inside, at, rows, after, parts)
        self._found.append(found)
        return found


def totals_around(totals: Floats | Columns, found: Places) -> tuple[Floats, Floats]:
    """At the begin and at the end of the segment of each moment."""
    return totals[found.rows - 1], totals[found.rows]


def differences(around: tuple[Floats, Floats], found: Places) -> Floats:
    """What totals grow by in each interval, interpolated, never below 0."""
    before, after = around
    at = np.maximum(after - (after - before) * found.parts, before)  # never below what the segment begins with
    grown: Floats = np.maximum(at[found.count :] - at[: found.count], 0.0)
    return grown


def covered_ns(series: Series | Bundle, found: Places) -> Ints:
    """How much of each interval lies between the first and the last row and in no hole."""
    length = found.ends - found.starts
    return length - series.holes.within(found.starts, found.ends) if len(series.holes) else length


def highest_within(series: Series | Bundle, found: Places, *, is_of_moment: bool) -> Floats:
    """The highest value of the samples that tell about each interval, NaN if there are none.

    A sample tells about the segment before it. `is_of_moment`: also about the one behind it, as memory in use does; of
    a gauge that is an average it tells nothing.
    """
    assert series.peaks is not None  # for mypy: asked of series that have it
    # The first sample after the start, to the first one at or after the end.
    starts, last = found.wanted[: found.count], found.rows[found.count :]
    first = found.rows[: found.count] + (found.times[: found.count] <= starts)
    if is_of_moment:
        first -= 1
    if found.is_inside and not len(series.holes):
        return series.peaks.highest(series.values, first, last)
    return _highest_of_some(series, found, first, last, is_of_moment=is_of_moment)


def _highest_of_some(series: Series | Bundle, found: Places, first: Ints, last: Ints, *, is_of_moment: bool) -> Floats:
    """The same where intervals may begin or end in a hole or outside of all samples."""
    assert series.peaks is not None  # for mypy: as above
    starts, ends = found.wanted[: found.count], found.wanted[found.count :]
    low, high = series.holes.around(found.at)
    cut = low < high
    last = np.where(ends == series.first_ns, 0, last - cut[found.count :])
    first = first + (cut[: found.count] | (starts > series.last_ns)) if is_of_moment else first
    first = np.where(starts < series.first_ns, 0, first)
    nothing = (ends < series.first_ns) | (last < first)
    first, last = np.where(nothing, 0, first), np.where(nothing, 0, last)
    highest = series.peaks.highest(series.values, first, last)
    highest[nothing] = np.nan
    return highest
