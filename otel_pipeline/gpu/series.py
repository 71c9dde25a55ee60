"""Samples of one quantity of one GPU: sorted columns with running totals, so that any interval is a difference.

Row i is a sample; its segment is the time since row i - 1, that is (times[i - 1], times[i]].
A gauge tells about the time before its sample (NVML averages over the past period), so its value holds in the whole
segment: total[i] = total[i - 1] + value[i] * length. A counter's total is its value, continued over restarts. Within a
segment totals are interpolated linearly, which for a gauge is the same thing. A hole is a segment about which nothing
is known: totals stay level there. For a gauge that is a gap: samples further apart than 2.5 times the median of the 15
spacings before. For a counter it is a decrease (the driver was loaded anew). A counter's gap is no hole, as what it
counted is known afterwards, only not when; gaps are kept beside for that.

Totals are worked out late, once before they are read, from the first changed row on.
When the columns are full, rows older than the fine part become one row in 10 s: totals there stay exact, holes too,
values become the highest of the 10 s. Such rows are settled: what arrives late for their time is refused. Beyond the
coarse part the oldest rows are forgotten.

Pure and unlocked: one thread at a time. Times are int64 ns since 1970, strictly ascending.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import numpy as np

from otel_pipeline.gpu.holes import Holes
from otel_pipeline.gpu.peaks import Peaks
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.limits import (
    GPU_BREAKS_MAX,
    GPU_COARSE_S,
    GPU_FINE_S,
    GPU_INTERVAL_S_MAX,
    GPU_ROWS_COARSE,
    GPU_ROWS_FINE,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otel_pipeline.gpu.together import Bundle

Ints: TypeAlias = "NDArray[np.int64]"
Floats: TypeAlias = "NDArray[np.float64]"
S = TypeVar("S", bound=np.generic)

SECOND_NS: Final = 1_000_000_000
COUNTER_STEP_NS: Final = 100_000_000
"""Drivers renew the energy counter about ten times a second: a value is up to this much older than its time."""
_FINE_NS: Final = GPU_FINE_S * SECOND_NS
_COARSE_NS: Final = GPU_COARSE_S * SECOND_NS
_INTERVAL_NS_MAX: Final = GPU_INTERVAL_S_MAX * SECOND_NS
_SPACINGS: Final = 15
_WINDOW: Final = np.arange(_SPACINGS)
_ROWS_FIRST: Final = 256
NEVER_NS: Final = -(2**62)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many rows a series keeps; 16 fine ones at least."""

    fine: int = GPU_ROWS_FINE
    coarse: int = GPU_ROWS_COARSE


@dataclass(slots=True)
class Added:
    """What became of samples."""

    kept: int = 0
    duplicate: int = 0
    late: int = 0


class Series:
    """See the module's text. `times`, `values` and `totals` are views of `count` rows; read them after `settle`."""

    def __init__(self, quantity: Quantity, sizes: Sizes) -> None:
        self.quantity = quantity
        self.is_counter = quantity is Quantity.ENERGY
        self.count = 0
        self.stale_ns = COUNTER_STEP_NS if self.is_counter else 0
        self.interval_ns = 0
        """Between the newest samples; 0 until there are two."""
        self.holes = Holes()
        self.gaps = Holes() if self.is_counter else self.holes
        self.peaks = Peaks() if quantity in {Quantity.UTILIZATION, Quantity.MEMORY_USED} else None
        self.is_dead = self.is_counter
        """A counter that has never counted: some drivers have one that stays 0."""
        self._sizes = sizes
        self._rows_added = 0
        self._settled = 0
        """Rows that are coarse and final."""
        self._floor_ns = NEVER_NS
        """Samples up to this time are refused."""
        self._changed = 0
        """The first row whose totals are to be worked out."""
        self._rewritten = 0
        """How often rows other than the newest have changed."""
        self._twin: tuple[Series, int, int] | None = None
        self._twin_rows = 0
        self._breaks: list[int] = []
        self._times: Ints = np.empty(0, np.int64)
        self._values: Floats = np.empty(0)
        self._totals: Floats | None = None if quantity is Quantity.MEMORY_USED else np.empty(0)
        self._sways: Floats | None = np.empty(0) if quantity is Quantity.POWER else None

    @property
    def times(self) -> Ints:
        """Ascending, in ns."""
        return self._times[: self.count]

    @property
    def values(self) -> Floats:
        """As they came; in settled rows the highest of their stretch, for a counter its last."""
        return self._values[: self.count]

    @property
    def totals(self) -> Floats:
        """Integral over time, in the unit times ns; for a counter what it has counted, in its unit. Not for memory."""
        assert self._totals is not None  # for mypy: the join asks only those that have it
        return self._totals[: self.count]

    @property
    def sways(self) -> Floats:
        """Sum of |value - value before| * length up to each row, of power: how far its integral may be off."""
        assert self._sways is not None  # for mypy: as above
        return self._sways[: self.count]

    @property
    def first_ns(self) -> int:
        """Time of the oldest row. Ask only if there is one."""
        return int(self._times[0])

    @property
    def last_ns(self) -> int:
        """Time of the newest row. Ask only if there is one."""
        return int(self._times[self.count - 1])

    @property
    def room(self) -> int:
        """How many rows fit in as it is."""
        return len(self._times)

    @property
    def size_bytes(self) -> int:
        """Memory of the columns and what belongs to them."""
        columns = [self._times.nbytes, self._values.nbytes, self.holes.size_bytes]
        columns += [each.nbytes for each in (self._totals, self._sways) if each is not None]
        columns += [self.gaps.size_bytes] if self.is_counter else []
        return sum(columns) + (self.peaks.size_bytes if self.peaks else 0)

    def has_times_of(self, other: Series | Bundle) -> bool:
        """Whether the rows of both have the same times; rows that were found equal are not compared again."""
        if (
            not isinstance(other, Series)
            or self.count != other.count
            or self._times[self.count - 1] != other._times[self.count - 1]
        ):
            return False
        if self._twin != (other, self._rewritten, other._rewritten):
            self._twin, self._twin_rows = (other, self._rewritten, other._rewritten), 0
        rows = slice(self._twin_rows, self.count)
        if self._twin_rows == self.count:
            return True
        if not np.array_equal(self._times[rows], other._times[rows]):
            self._twin = None
            return False
        self._twin_rows = self.count
        return True

    # -- samples in ----------------------------------------------------------------------------------------------------

    def add(self, times: Ints, values: Floats) -> Added:
        """Merge samples, in any order; of several with one time the first counts."""
        total, before = Added(), self._rows_added
        fresh = times > self._floor_ns
        if not fresh.all():
            times, values = times[fresh], values[fresh]
            total.late = len(fresh) - len(times)
        times, values = _ascending(times, values)
        step = self._sizes.fine >> 4  # what making room gives at least
        for begin in range(0, len(times), step):
            total.late += self._merge(times[begin : begin + step], values[begin : begin + step])
        total.kept = self._rows_added - before
        total.duplicate = len(fresh) - total.late - total.kept
        return total

    def close(self, at_ns: int) -> None:
        """Another source goes on after this time, that of the last row: the segment around it is a hole."""
        self._breaks = [*self._breaks[1 - GPU_BREAKS_MAX :], at_ns]
        self._floor_ns = max(self._floor_ns, at_ns)

    def _merge(self, times: Ints, values: Floats) -> int:
        """Returns how many came too late after all, as making room has settled their time."""
        given = len(times)
        self._reserve(given)
        fresh = int(np.searchsorted(times, self._floor_ns, side="right"))
        times, values = times[fresh:], values[fresh:]
        if not len(times):
            return given
        first = self.count if not self.count or times[0] > self.last_ns else int(np.searchsorted(self.times, times[0]))
        if first < self.count:
            self._rewritten += 1
            times = np.concatenate((self._times[first : self.count], times))
            values = np.concatenate((self._values[first : self.count], values))
            times, values = _ascending(times, values)
        count = first + len(times)
        if count > self.count:
            self._times[first:count] = times
            self._values[first:count] = values
            self._changed = min(self._changed, first)
            self._rows_added += count - self.count
            self.count = count
            self.is_dead = self.is_dead and not values.any()
        return fresh

    # -- totals --------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Bring totals, holes and the interval up to date with the samples."""
        if self._changed >= self.count:
            return
        begin = max(self._settled, 1)  # the first row with a segment that may still change
        first = max(self._changed - (2 if self.is_counter else 0), begin)  # what a reset may hide shows on both sides
        if first <= begin + _SPACINGS:
            first = begin  # what stands there are the spacings that the first ones are judged by
        if self._totals is not None and not self._settled and first == 1:
            self._totals[0] = self._values[0] if self.is_counter else 0.0
        if self._sways is not None and not self._settled and first == 1:
            self._sways[0] = 0.0
        if first < self.count:
            self._settle_from(first, begin)
        if self.peaks is not None:
            self.peaks.update(self._values, min(self._changed, first), self.count)
        self._changed = self.count

    def _settle_from(self, first: int, begin: int) -> None:
        rows = slice(first, self.count)
        times = self._times[first - 1 : self.count]
        lengths = np.diff(times)
        known = max(begin, first - _SPACINGS)
        spacings = lengths if known == first else np.diff(self._times[known - 1 : self.count])
        intervals = np.minimum(_medians(spacings, first - known), _INTERVAL_NS_MAX)
        self.interval_ns = int(intervals[-1])
        gaps = 2 * lengths > 5 * intervals[:-1]
        torn = self._torn(times)
        if self.is_counter:
            self._count_on(first, torn, gaps, lengths)
            return
        holes = gaps if torn is None else gaps | torn
        self.holes.replace_after(int(times[0]), times[:-1][holes], times[1:][holes])
        for column, amounts in (
            (self._totals, self._values[rows]),
            (self._sways, None if self._sways is None else np.abs(np.diff(self._values[first - 1 : self.count]))),
        ):
            if column is not None and amounts is not None:
                column[rows] = _running(column[first - 1], np.where(holes, 0.0, amounts * lengths))

    def _count_on(self, first: int, torn: NDArray[np.bool_] | None, gaps: NDArray[np.bool_], lengths: Ints) -> None:
        assert self._totals is not None  # for mypy: a counter has totals
        times, values = self._times[first - 1 : self.count], self._values[first - 1 : self.count]
        steps = np.diff(values)
        anew = steps < 0 if torn is None else (steps < 0) | torn
        ahead = self._totals[first - 1] - values[0]
        if anew.any():
            ahead = ahead + np.cumsum(np.where(anew, -steps, 0.0))
        continued = np.concatenate((self._totals[first - 1 : first], values[1:] + ahead))
        self._totals[first : self.count] = np.maximum.accumulate(continued)[1:]
        rates = np.where(anew, 0.0, steps) / lengths
        around = np.maximum(np.concatenate(([0.0], rates[:-1])), np.concatenate((rates[1:], [0.0])))
        self.holes.replace_after(int(times[0]), times[:-1][anew], times[1:][anew], around[anew] * self.stale_ns)
        gaps = gaps & ~anew
        self.gaps.replace_after(int(times[0]), times[:-1][gaps], times[1:][gaps])

    def _torn(self, times: Ints) -> NDArray[np.bool_] | None:
        if not self._breaks:
            return None
        return np.diff(np.searchsorted(np.asarray(self._breaks, np.int64), times)) > 0

    # -- room ----------------------------------------------------------------------------------------------------------

    def forget_until(self, at_ns: int) -> None:
        """Drop the rows up to a time; samples of that time are refused from now on."""
        self._floor_ns = max(self._floor_ns, at_ns)
        self._forget(int(np.searchsorted(self.times, at_ns, side="right")))
        self._resize(max(self.count, _ROWS_FIRST))

    def _reserve(self, extra: int) -> None:
        """Make room for so many more rows, a sixteenth of the fine ones at most."""
        if self.count + extra <= len(self._times):
            return
        self._thin_out()
        room, rows_max = len(self._times), self._sizes.fine + self._sizes.coarse
        if self.count + extra > room - (room >> 3) and room < rows_max:
            self._resize(min(max(room + (room >> 2), self.count + extra, _ROWS_FIRST), rows_max))
        if self.count + extra > len(self._times):  # holes everywhere: nothing could be made coarse
            self._forget(max(self.count + extra - len(self._times), self._sizes.fine >> 3))

    def _thin_out(self) -> None:
        """Rows before the newest seven eighths of the fine ones become coarse; the oldest coarse ones go."""
        if not self.count:
            return
        self.settle()
        old = int(np.searchsorted(self.times, self.last_ns - _FINE_NS))
        fine = self._sizes.fine - (self._sizes.fine >> 3)
        cut = max(self.count - fine, old, self._settled)
        if cut < self.count:  # a stretch that is not over yet would be cut in two rows
            whole = int(np.searchsorted(self.times, self._times[cut] // _COARSE_NS * _COARSE_NS))
            cut = whole if 2 * (cut - whole) <= cut - self._settled else cut
        if cut > self._settled:
            self._coarsen(cut)
        self._forget(max(self._settled - self._sizes.coarse, 0))

    def _coarsen(self, cut: int) -> None:
        begin = self._settled
        times = self._times[begin:cut]
        windows = times // _COARSE_NS
        last = np.empty(len(times), np.bool_)
        last[:-1] = windows[1:] != windows[:-1]
        last[-1] = True
        for holes in (self.holes, self.gaps) if self.is_counter else (self.holes,):
            last |= np.isin(times, holes.starts) | np.isin(times, holes.ends)
        kept = np.flatnonzero(last)
        groups = np.concatenate(([0], kept[:-1] + 1))
        values = self._values[begin:cut]
        merged = values[kept] if self.is_counter else np.maximum.reduceat(values, groups)
        self._values[begin : begin + len(kept)] = merged
        for column in (self._times, self._totals, self._sways):
            if column is not None:
                column[begin : begin + len(kept)] = column[begin:cut][kept]
        self._close_up(begin + len(kept), cut)
        self._settled = begin + len(kept)
        self._floor_ns = int(self._times[self._settled - 1])

    def _forget(self, rows: int) -> None:
        """Drop the oldest rows."""
        rows = min(rows, self.count)
        if rows <= 0:
            return
        self.settle()
        self._floor_ns = max(self._floor_ns, int(self._times[rows - 1]))
        self._close_up(0, rows)
        # The row that is now the first keeps its total; it counts as settled, for what lay before it is gone.
        self._settled = min(max(self._settled - rows, 1), self.count)
        if self.count:
            self._floor_ns = max(self._floor_ns, int(self._times[self._settled - 1]))
        self.holes.forget_before(self.first_ns if self.count else self._floor_ns)
        self.gaps.forget_before(self.first_ns if self.count else self._floor_ns)

    def _close_up(self, to: int, begin: int) -> None:
        """Move the rows from `begin` on to the place `to`, in a settled series."""
        count = to + self.count - begin
        self._rewritten += 1
        for column in (self._times, self._values, self._totals, self._sways):
            if column is not None:
                column[to:count] = column[begin : self.count].copy()
        self.count = self._changed = count
        if self.peaks is not None and count:
            self.peaks.update(self._values, 0, count)

    def _resize(self, rows: int) -> None:
        self._times = _resized(self._times, self.count, rows)
        self._values = _resized(self._values, self.count, rows)
        self._totals = None if self._totals is None else _resized(self._totals, self.count, rows)
        self._sways = None if self._sways is None else _resized(self._sways, self.count, rows)
        if self.peaks is not None and self.count:
            self.settle()
            self.peaks.update(self._values, self.count - 1, self.count)


def _ascending(times: Ints, values: Floats) -> tuple[Ints, Floats]:
    """Sorted; of several with one time the first."""
    if len(times) < 2 or (times[1:] > times[:-1]).all():
        return times, values
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    first = np.concatenate(([True], times[1:] != times[:-1]))
    return times[first], values[first]


def _medians(spacings: Ints, begin: int) -> Ints:
    """For each spacing from `begin` on, and for the next to come, the median of the 15 before it; for the first ones of
    the first 15.
    """
    count, middle = len(spacings), _SPACINGS // 2
    early = np.sort(spacings[:_SPACINGS])
    found = np.full(count - begin + 1, early[(len(early) - 1) // 2])
    row = max(begin, _SPACINGS)
    if row <= count:
        windows = spacings[np.arange(row - _SPACINGS, count - _SPACINGS + 1)[:, None] + _WINDOW]
        windows.partition(middle, axis=1)
        found[row - begin :] = windows[:, middle]
    return found


def _running(start: float, amounts: Floats) -> Floats:
    """Sums one after the other from `start` on: the same bits whatever the stretches they came in."""
    found: Floats = np.cumsum(np.concatenate(([start], amounts)))[1:]
    return found


def _resized(column: NDArray[S], count: int, rows: int) -> NDArray[S]:
    found = np.empty(rows, column.dtype)
    found[:count] = column[:count]
    return found
