"""What GPUs did in exactly the time of each of many spans: arrays in, arrays out, a few numpy calls for each GPU.

For one span and one GPU, over [start, end):
- utilisation: mean over the time that is covered; the highest of the samples whose time overlaps the span.
- memory: the highest of the samples within, and of the two next to the span unless a gap lies between.
- energy: difference of the counter, interpolated at both ends; without a counter the integral of power.
- power: that energy over the time that it is known for. Power samples are not averaged where a counter exists.
- coverage: the least covered part of the span among the quantities that the GPU has. A gap of the counter counts as
  covered if the span contains all of it: what was used in it is known.
Over the GPUs of a span: energy, its error, power and memory are summed; utilisation is the mean over all covered time
and the highest of all; coverage is the mean.

`energy_error_j` bounds what is known, not what is missing. A counter is renewed in steps, and read now and then: what
is certain of the energy up to a moment is that it is at least the last value read before, and at most the first one
read when one step has passed. So a span within one step has a bound above its energy, and one that begins or ends in a
gap has a wide one. Where no later value exists the recent power stands in. For power samples it is assumed that power
lies between two neighbours, and that each tells about at most one second.

Spans of no length get the values of the moment and no energy. In the coarse part of a timeline (`series`) means and
highest values are those of 10 s at both ends; totals in between stay exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from otel_pipeline.gpu.energy import energy_of, power_of
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.gpu.reading import Finder, covered_ns, differences, highest_within, totals_around
from otel_pipeline.gpu.series import SECOND_NS
from otel_pipeline.gpu.together import Together

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otel_pipeline.gpu.series import Series
    from otel_pipeline.gpu.timeline import Gpu, Timelines
    from otel_pipeline.gpu.together import Bundle

Ints: TypeAlias = "NDArray[np.int64]"
Floats: TypeAlias = "NDArray[np.float64]"
Bools: TypeAlias = "NDArray[np.bool_]"
_Used: TypeAlias = "tuple[Series | Bundle, Bools | None]"
"""A series, and for which spans it was asked; None: for all."""

_START_BITS: Final = 44
"""Of a start in us, since the first one: 200 days."""


class Status(IntEnum):
    """How much of a span is known."""

    OK = 0
    PARTIAL = 1
    MISSING = 2


class Reason(IntEnum):
    """Why a span is not OK; of several the highest."""

    NONE = 0
    GAP = 1
    """Samples are too far apart."""
    RESET = 2
    """The energy counter began anew."""
    BEFORE = 3
    """The span begins before what is kept of the GPU."""
    LATE = 4
    """The span ends after the last sample."""
    NO_SAMPLES = 5
    """The GPU is known, but not two samples of it."""
    UNKNOWN_GPU = 6
    NO_GPU = 7
    """The span has no GPU."""
    INTERVAL = 8
    """The span ends before it begins."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Intervals [start, end) in ns since 1970, and for each its GPUs by number: `gpus[offsets[i] : offsets[i + 1]]`."""

    starts_ns: Ints
    ends_ns: Ints
    offsets: Ints
    """One more than there are spans."""
    gpus: Ints
    """From `Timelines.gpu`."""

    def __len__(self) -> int:
        return len(self.starts_ns)

    @classmethod
    def on_one_gpu(cls, starts_ns: Ints, ends_ns: Ints, gpus: Ints) -> Spans:
        """Spans with one GPU each."""
        return cls(starts_ns, ends_ns, np.arange(len(gpus) + 1), gpus)


@dataclass(frozen=True, slots=True)
class Joined:
    """One row a span; NaN where nothing is known."""

    utilization_mean: Floats
    """0 to 1."""
    utilization_max: Floats
    memory_max_bytes: Floats
    power_mean_w: Floats
    energy_j: Floats
    energy_error_j: Floats
    """The energy of the covered time is within this of `energy_j`."""
    coverage: Floats
    """0 to 1, and 1 only if nothing is missing."""
    status: NDArray[np.int8]
    reason: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Readiness:
    """One row a span."""

    ready: Bools
    """All GPUs of the span have samples from after its end."""
    until_ns: Ints
    """By our clock: when the samples that are missing have been taken. They are still to be sent. 0 if it is ready."""


@dataclass(slots=True)
class _Pairs:
    """One row for a span on one of its GPUs, sorted by GPU and start."""

    starts: Ints
    ends: Ints
    gpus: Ints
    columns: Floats
    """A row for each of `_COLUMNS`."""
    reason: NDArray[np.int8]


_COLUMNS: Final = 9
_BUSY, _BUSY_NS, _BUSIEST, _MEMORY, _POWER, _ENERGY, _ERROR, _COVERED, _KNOWN = range(_COLUMNS)
"""Integral of utilisation over ns and for how many it is known; the highest; bytes, W, J, J; covered ns; 1 if known."""
_UNKNOWN: Final = np.array([0, 0, *([np.nan] * 5), 0, 0])[:, None]


def join(timelines: Timelines, spans: Spans) -> Joined:
    """What is known now, ready or not."""
    lengths = np.diff(spans.offsets)
    of_span = None if (lengths == 1).all() else np.repeat(np.arange(len(spans)), lengths)
    order, pairs = _pairs(spans, of_span)
    for found in _together(timelines, pairs):
        _join_gpu(found.gpu(), pairs, slice(found.begin, found.end))
    if of_span is None:
        columns, reason = _sorted_back(pairs, order)
    else:
        columns, reason = _summed(pairs, of_span[order], len(spans))
    return _joined(spans, lengths, columns, reason)


def ready(timelines: Timelines, spans: Spans) -> Readiness:
    """Which spans need not wait: all live series of their GPUs reach an interval beyond the end."""
    numbers, codes = np.unique(spans.gpus, return_inverse=True)
    known_until, lags, offsets = np.zeros((3, len(numbers)), np.int64)
    for row, number in enumerate(numbers.tolist()):
        gpu = timelines.numbered(number)
        lags[row] = SECOND_NS
        if gpu is not None:
            lags[row], offsets[row] = gpu.lag_ns, gpu.host.offset.estimate_ns or 0
            known_until[row] = gpu.watermark_ns - gpu.lag_ns
    of_span = np.repeat(np.arange(len(spans)), np.diff(spans.offsets))
    ends = spans.ends_ns[of_span]
    late = ends > known_until[codes]
    until = np.zeros(len(spans), np.int64)
    np.maximum.at(until, of_span[late], (ends + (lags + offsets)[codes])[late])
    is_ready = np.ones(len(spans), np.bool_)
    is_ready[of_span[late]] = False
    return Readiness(is_ready, until)


def _pairs(spans: Spans, of_span: Ints | None) -> tuple[Ints, _Pairs]:
    """`of_span`: the span of each pair; None: each span has one."""
    starts = spans.starts_ns if of_span is None else spans.starts_ns[of_span]
    ends = spans.ends_ns if of_span is None else spans.ends_ns[of_span]
    order = _by_gpu_and_start(spans.gpus, starts)
    starts, ends = starts[order], ends[order]
    columns = np.empty((_COLUMNS, len(order)))
    columns[:] = _UNKNOWN
    reason = np.full(len(order), Reason.UNKNOWN_GPU, np.int8)
    return order, _Pairs(starts, np.maximum(ends, starts + 1), spans.gpus[order], columns, reason)


def _by_gpu_and_start(gpus: Ints, starts: Ints) -> Ints:
    """Searches in about ascending order are twice as fast: the starts are taken as whole us, in one sort."""
    if not len(gpus):
        return gpus
    low = int(gpus.min())
    if int(gpus.max()) - low >= 1 << (63 - _START_BITS):
        return np.lexsort((starts, gpus))
    since = np.minimum((starts - starts.min()) >> 10, (1 << _START_BITS) - 1)
    return np.argsort(((gpus - low) << _START_BITS) | since)


def _together(timelines: Timelines, pairs: _Pairs) -> list[Together]:
    """The GPUs one after the other, those in one that can be read as one."""
    found: list[Together] = []
    if not len(pairs.gpus):
        return found
    least_ns, most_ns = int(pairs.starts.min()), int(pairs.ends.max())
    edges = np.flatnonzero(np.diff(pairs.gpus)) + 1
    for begin, end in pairwise([0, *edges.tolist(), len(pairs.gpus)]):
        gpu = timelines.numbered(int(pairs.gpus[begin]))
        if not found or not found[-1].take(gpu, end, least_ns, most_ns):
            found.append(Together(gpu, begin, end))
    return found


def _join_gpu(gpu: Gpu | Together | None, pairs: _Pairs, rows: slice) -> None:
    """Fill in the rows of one GPU, or of several together."""
    if gpu is None:
        return
    starts, ends, columns = pairs.starts[rows], pairs.ends[rows], pairs.columns[:, rows]
    finder = Finder(starts, ends)
    least = ends - starts
    used: list[_Used] = []
    busy = gpu.settled(Quantity.UTILIZATION)
    if busy is not None:
        found = finder.places(busy)
        covered = covered_ns(busy, found)
        columns[_BUSY] = differences(totals_around(busy.totals, found), found)
        columns[_BUSY_NS] = covered
        columns[_BUSIEST] = highest_within(busy, found, is_of_moment=False)
        least = np.minimum(least, covered)
        used.append((busy, None))
    memory = gpu.settled(Quantity.MEMORY_USED)
    if memory is not None:
        found = finder.places(memory)
        columns[_MEMORY] = highest_within(memory, found, is_of_moment=True)
        least = np.minimum(least, covered_ns(memory, found))
        used.append((memory, None))
    least = _join_energy(gpu, finder, columns, used, least)
    if not used:
        pairs.reason[rows] = Reason.NO_SAMPLES
        return
    columns[_COVERED] = least
    columns[_KNOWN] = (columns[_BUSIEST] >= 0) | (columns[_MEMORY] >= 0) | (columns[_ENERGY] >= 0)
    pairs.reason[rows] = _reasons(used, starts, ends, least)


def _join_energy(gpu: Gpu | Together, finder: Finder, columns: Floats, used: list[_Used], least: Ints) -> Ints:
    """From the counter; where that knows nothing, or there is none, from power. Returns the least that is covered."""
    counter = gpu.settled(Quantity.ENERGY)
    power = gpu.settled(Quantity.POWER)
    if counter is not None and not counter.is_dead:
        energy, error, known, covered = energy_of(counter, finder.places(counter))
    elif power is not None:
        energy, error, known = power_of(power, finder.places(power))
        covered, counter, power = known, power, None
    else:
        return least
    unknown = known == 0
    counted = None
    if unknown.any():
        rest = unknown.nonzero()[0]
        if power is not None:
            energy[rest], error[rest], known[rest] = power_of(power, finder.some(rest).places(power))
            covered[rest] = known[rest]
            counted = ~unknown | (known == 0)
            used.append((power, ~counted))
            unknown = known == 0
        energy[unknown] = error[unknown] = np.nan
    used.append((counter, counted))
    columns[_ENERGY] = energy
    columns[_ERROR] = error
    columns[_POWER] = energy * SECOND_NS / np.maximum(known, 1)
    return np.minimum(least, covered)


def _reasons(used: list[_Used], starts: Ints, ends: Ints, covered: Ints) -> NDArray[np.int8]:
    found = np.zeros(len(starts), np.int8)
    lacking = (covered < ends - starts).nonzero()[0]
    if len(lacking):
        begin, end = starts[lacking], ends[lacking]
        reasons = np.full(len(lacking), Reason.GAP, np.int8)
        for series, mask in used:
            was = np.zeros(len(lacking), np.int8)
            if series.is_counter:
                was[series.holes.within(begin, end) > 0] = Reason.RESET
            was[begin < series.first_ns] = Reason.BEFORE
            was[end > series.last_ns] = Reason.LATE
            reasons = np.maximum(reasons, was if mask is None else was * mask[lacking])
        found[lacking] = reasons
    return found


def _sorted_back(pairs: _Pairs, order: Ints) -> tuple[Floats, NDArray[np.int8]]:
    """One GPU a span: the pairs are the spans."""
    columns, reason = np.empty_like(pairs.columns), np.empty_like(pairs.reason)
    for row, values in enumerate(pairs.columns):
        columns[row][order] = values
    reason[order] = pairs.reason
    return columns, reason


def _summed(pairs: _Pairs, of_span: Ints, count: int) -> tuple[Floats, NDArray[np.int8]]:
    """Several GPUs a span: their sums, or the highest."""
    columns = np.empty((_COLUMNS, count))
    for row, values in enumerate(pairs.columns):
        known = np.bincount(of_span, values >= 0, count) > 0
        columns[row] = np.where(known, np.bincount(of_span, np.nan_to_num(values), count), _UNKNOWN[row])
    columns[_BUSIEST] = np.nan
    np.fmax.at(columns[_BUSIEST], of_span, pairs.columns[_BUSIEST])
    reason = np.zeros(count, np.int8)
    np.maximum.at(reason, of_span, pairs.reason)
    return columns, reason


def _joined(spans: Spans, gpus: Ints, columns: Floats, reason: NDArray[np.int8]) -> Joined:
    """`gpus`: how many each span has. Columns are by span now."""
    lengths = spans.ends_ns - spans.starts_ns
    wanted = np.maximum(lengths, 1) * np.maximum(gpus, 1)
    reason[gpus == 0] = Reason.NO_GPU
    wrong = lengths < 0
    reason[wrong] = Reason.INTERVAL
    missing = wrong | (columns[_KNOWN] == 0)
    if missing.any():
        columns[_BUSIEST:, missing] = np.nan
        columns[_COVERED, missing] = 0.0
    if not lengths.all():
        columns[_ENERGY, (lengths == 0) & ~missing] *= 0.0
    mean = columns[_BUSY] / np.where(columns[_BUSY_NS] > 0, columns[_BUSY_NS], np.nan)
    status = np.where(columns[_COVERED] < wanted, np.int8(Status.PARTIAL), np.int8(Status.OK))
    status[missing] = Status.MISSING
    return Joined(
        utilization_mean=np.minimum(mean, columns[_BUSIEST]),
        utilization_max=columns[_BUSIEST],
        memory_max_bytes=columns[_MEMORY],
        power_mean_w=columns[_POWER],
        energy_j=columns[_ENERGY],
        energy_error_j=columns[_ERROR],
        coverage=columns[_COVERED] / wanted,
        status=status,
        reason=reason,
    )
