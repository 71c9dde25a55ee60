"""GPUs that are sampled together, read as one: where an agent samples all GPUs of a host, their rows have the same
times. What is worked out of times then holds for all of them, and only the values are looked up GPU by GPU.

It is for the plain case: all that is asked lies within the samples, with no hole from its begin on. GPUs for which that
does not hold are read one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from otel_pipeline.gpu.holes import Holes
from otel_pipeline.gpu.peaks import Tables, highest
from otel_pipeline.gpu.quantities import Quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otel_pipeline.gpu.series import Series
    from otel_pipeline.gpu.timeline import Gpu

Ints: TypeAlias = "NDArray[np.int64]"
Floats: TypeAlias = "NDArray[np.float64]"

_SeriesOfGpu: TypeAlias = "list[Series | None]"
"""By quantity."""

_QUANTITIES: Final = tuple(Quantity)
NO_HOLES: Final = Holes()
_MARGIN_ROWS: Final = 2
"""Before the row of a moment the one before it is read, too."""


class Columns:
    """One column of several series; rows are asked for by interval, and intervals are sorted by GPU."""

    __slots__ = ("_cuts", "_parts")

    def __init__(self, parts: Sequence[Floats], cuts: Sequence[int]) -> None:
        """The intervals `cuts[i]` to `cuts[i + 1]` are those of `parts[i]`."""
        self._parts = parts
        self._cuts = cuts

    def __getitem__(self, rows: Ints) -> Floats:
        """A value for each row; the last axis are the intervals, or twice these."""
        begin = 0
        found = np.empty(rows.shape)
        if rows.size == self._cuts[-1]:
            for part, end in zip(self._parts, self._cuts[1:], strict=True):
                found[begin:end] = part[rows[begin:end]]
                begin = end
            return found
        asked, values = (each.reshape(-1, self._cuts[-1]) for each in (rows, found))
        for part, end in zip(self._parts, self._cuts[1:], strict=True):
            values[:, begin:end] = part[asked[:, begin:end]]
            begin = end
        return found

    def some(self, which: Ints) -> Columns:
        """The same for some of the intervals, ascending."""
        return Columns(self._parts, which.searchsorted(self._cuts).tolist())


class Peaks:
    """As `peaks.Peaks`, of several series."""

    __slots__ = ("_tables",)

    def __init__(self, members: list[Tables[Floats]], cuts: list[int]) -> None:
        self._tables = Tables(
            Columns([one.to_end for one in members], cuts),
            Columns([one.from_begin for one in members], cuts),
            Columns([one.table for one in members], cuts),
            members[0].blocks,
            members[0].levels,
        )

    def highest(self, values: Floats | Columns, first: Ints, last: Ints) -> Floats:
        """As of one series."""
        return highest(self._tables, values, first, last)


class Bundle:
    """Series of one quantity, one for each of several GPUs; reads as a `Series` does."""

    __slots__ = ("_cuts", "_members", "count", "gaps", "holes", "is_counter", "is_dead", "stale_ns", "times")

    def __init__(self, members: list[Series], cuts: list[int]) -> None:
        self._members = members
        self._cuts = cuts
        self.count = members[0].count
        self.times = members[0].times
        self.stale_ns = members[0].stale_ns
        self.is_counter = members[0].is_counter
        self.is_dead = members[0].is_dead
        self.holes = self.gaps = NO_HOLES

    @property
    def first_ns(self) -> int:
        """Time of the oldest row."""
        return self._members[0].first_ns

    @property
    def last_ns(self) -> int:
        """Time of the newest row."""
        return self._members[0].last_ns

    @property
    def totals(self) -> Columns:
        """As of one series."""
        return Columns([one.totals for one in self._members], self._cuts)

    @property
    def values(self) -> Columns:
        """As of one series."""
        return Columns([one.values for one in self._members], self._cuts)

    @property
    def sways(self) -> Columns:
        """As of one series."""
        return Columns([one.sways for one in self._members], self._cuts)

    @property
    def peaks(self) -> Peaks | None:
        """As of one series."""
        found = [one.peaks.tables for one in self._members if one.peaks is not None]
        return Peaks(found, self._cuts) if found else None

    def has_times_of(self, other: Series | Bundle) -> bool:
        """Whether the rows of both have the same times."""
        return isinstance(other, Bundle) and self._members[0].has_times_of(other._members[0])


class Together:
    """GPUs whose intervals follow each other; GPUs are taken up one after the other while they fit."""

    def __init__(self, gpu: Gpu | None, begin: int, end: int) -> None:
        """The intervals `begin` to `end` are those of the first GPU."""
        self.begin, self.end = begin, end
        self._gpus = [gpu]
        self._cuts = [0, end - begin]
        self._series: list[_SeriesOfGpu] = []
        """By GPU and quantity; none as long as it is not known whether others fit."""
        self._is_plain = True

    def take(self, gpu: Gpu | None, end: int, least_ns: int, most_ns: int) -> bool:
        """Whether the next GPU fits, the intervals to `end` being its; `least_ns`, `most_ns`: of all intervals."""
        if gpu is None or self._gpus[0] is None or not self._is_plain:
            return False
        if not self._series:
            self._series.append([self._gpus[0].settled(quantity) for quantity in _QUANTITIES])
            self._is_plain = _are_around(self._series[0], least_ns, most_ns) and _are_whole(self._series[0], least_ns)
        series = [gpu.settled(quantity) for quantity in _QUANTITIES]
        if not (self._is_plain and _are_whole(series, least_ns) and _alike(self._series[0], series, least_ns)):
            return False
        self._gpus.append(gpu)
        self._series.append(series)
        self._cuts.append(end - self.begin)
        self.end = end
        return True

    def gpu(self) -> Gpu | Together | None:
        """What is to be read: the GPU, if it is alone."""
        return self if len(self._gpus) > 1 else self._gpus[0]

    def settled(self, quantity: Quantity) -> Bundle | None:
        """As of one GPU."""
        members = [one for one in (series[quantity] for series in self._series) if one is not None]
        return Bundle(members, self._cuts) if members else None


def _are_around(found: _SeriesOfGpu, least_ns: int, most_ns: int) -> bool:
    """Whether there are samples from the first moment to a step beyond the last."""
    return all(one is None or (one.first_ns <= least_ns and most_ns + one.stale_ns <= one.last_ns) for one in found)


def _are_whole(found: _SeriesOfGpu, least_ns: int) -> bool:
    """Whether there is no hole after a moment."""
    return all(one is None or (one.holes.end_ns <= least_ns and one.gaps.end_ns <= least_ns) for one in found)


def _alike(found: _SeriesOfGpu, others: _SeriesOfGpu, least_ns: int) -> bool:
    """Whether two GPUs have the same quantities, with the same times in the same rows: those that are read for moments
    from `least_ns` on. Both begin by then, if one does.
    """
    compared: tuple[Series, Series] | None = None
    for one, other in zip(found, others, strict=True):
        if one is None or other is None:
            if one is not other:
                return False
            continue
        if (one.count, one.room, one.stale_ns, one.is_dead) != (other.count, other.room, other.stale_ns, other.is_dead):
            return False
        if compared and one.has_times_of(compared[0]) and other.has_times_of(compared[1]):
            continue
        begin = max(int(one.times.searchsorted(least_ns)) - _MARGIN_ROWS, 0)
        if not (one.times[begin:] == other.times[begin:]).all():
            return False
        compared = compared or (one, other)
    return True
