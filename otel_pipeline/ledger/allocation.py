"""Whose cost is it? The sweep line that splits what a GPU was paid among the spans that used it, and idle.

The law, for every GPU g and period p, exact in nano-units of the currency (n$):

    sum of self costs of all spans on g in p  +  sum of the buckets of g in p  =  what g was paid in p

The algorithm, for one GPU:
1. A span claims the GPU during its self time only (self_time.py), so nested spans never pay twice.
2. All starts and ends of self time, changes of the price and of the GPU's state, and the bounds of periods cut time
   into segments. Within a segment nothing changes.
3. A segment costs C = price * length. Nobody there: C goes to the bucket of the GPU's state (tape.py). Else C is split
   among those who are there, by the mode:
       equal     1/n each. For a price that is due as soon as anybody is there this is the Shapley value of each.
       weighted  w / sum of w, such as utilisation by process; if all weights are 0, 1/n
       fixed     the share of each (a MIG slice, a time slice), what is left is idle; shares that exceed 1 shrink to it
4. Exact shares are summed by span and period. Only then is rounded, once: the period's total to whole n$, a tie to the
   even one, and the parts by largest remainder, ties by start of the span, span id, attempt, and buckets last.

Totals of periods: the bill is rounded at the bounds of the periods, counted from the `anchor`, and a period's total is
the difference of two. So however a time is cut into periods, their totals add up to the same. Without an anchor it is
the start of the first period, whose total is then simply its rounded cost. A span's parts over several periods may
differ from its part of the whole by less than 1 n$ for each period, for each is rounded; totals and sums never do.

Exact means integers: C is counted in parts of a n$ so small that prices and the splits by 1, 2 ... n (or by sums of
weights) come out whole. Where such numbers exceed 64 bits the same arrays hold Python's integers: slower, as exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from math import lcm

import numpy as np

from otel_pipeline.ledger.claims import ClaimTable, Ints
from otel_pipeline.ledger.money import rounded
from otel_pipeline.ledger.self_time import cut, self_pieces
from otel_pipeline.ledger.tape import BUCKETS, IDLE, Exact, Tape, exact_type
from otel_pipeline.limits import LEDGER_CELLS_MAX, LEDGER_FINE_BITS_MAX


class Mode(StrEnum):
    """How those who are on a GPU at the same time share its cost."""

    EQUAL = "equal"
    WEIGHTED = "weighted"
    FIXED = "fixed"


@dataclass(frozen=True, eq=False)
class Allocation:
    """The cost of one GPU over periods, cell by cell: a cell is a row of the claim table in a period.

    cuts:     bounds of the periods in ns, one more than periods
    row, period, nano, self_ns, paid_ns, shared_max: [cell], by row and period; what it costs in n$, its self time and
              how much of it is paid for, and how many claims were there at once at most
    buckets:  [period][bucket] n$, in the order of BUCKETS
    totals:   [period] n$
    paid_by_period: [period] ns that are paid for
    """

    gpu: str
    currency: str
    table: ClaimTable
    cuts: Ints
    row: Ints
    period: Ints
    nano: Exact
    self_ns: Ints
    paid_ns: Ints
    shared_max: Ints
    buckets: Sequence[Sequence[int]]
    totals: Sequence[int]
    paid_by_period: Sequence[int]

    def by_row(self) -> dict[int, int]:
        """n$ of each row that has self time, over all periods."""
        sums: dict[int, int] = {}
        for row, nano in zip(self.row.tolist(), self.nano.tolist(), strict=True):
            sums[row] = sums.get(row, 0) + nano
        return sums

    def by_bucket(self) -> dict[str, int]:
        """n$ of each bucket over all periods."""
        return {name: sum(period[index] for period in self.buckets) for index, name in enumerate(BUCKETS)}

    def deviations(self) -> list[int]:
        """The periods in which the law does not hold: none, or something is broken."""
        sums = np.array([sum(buckets) for buckets in self.buckets], dtype=self.nano.dtype)
        np.add.at(sums, self.period, self.nano)
        return np.flatnonzero(sums != np.array(self.totals, dtype=sums.dtype)).tolist()


def allocate(
    tape: Tape, table: ClaimTable, cuts: Sequence[int], mode: Mode = Mode.EQUAL, anchor_ns: int | None = None
) -> Allocation:
    """Splits what the tape's GPU was paid in the periods between the cuts (ns, ascending, two or more).

    The result depends on nothing but the arguments. ValueError if the cuts are none or the cells would be too many.
    """
    bounds = np.array(cuts, dtype=np.int64)
    if len(bounds) < 2 or not (bounds[1:] > bounds[:-1]).all():
        raise ValueError("periods need two or more bounds, each later than the one before")
    sweep = _Sweep(tape, table, bounds, mode)
    cells, periods, self_ns, paid_ns, shared_max, parts = sweep.cells()
    spare = sweep.spare()
    spent = np.flatnonzero(spare)
    totals = sweep.totals(int(bounds[0]) if anchor_ns is None else anchor_ns)
    nano = _apportioned(
        np.concatenate([parts, spare[spent]]),
        sweep.unit,
        np.concatenate([periods, spent // len(BUCKETS)]),
        totals,
        np.concatenate([_tie_order(table, cells), len(table) + spent]),
    )
    buckets = np.zeros(len(spare), dtype=nano.dtype)
    buckets[spent] = nano[len(cells) :]
    return Allocation(
        gpu=tape.gpu,
        currency=tape.currency,
        table=table,
        cuts=bounds,
        row=cells,
        period=periods,
        nano=nano[: len(cells)],
        self_ns=self_ns,
        paid_ns=paid_ns,
        shared_max=shared_max,
        buckets=buckets.reshape(-1, len(BUCKETS)).tolist(),
        totals=totals,
        paid_by_period=sweep.paid_ns(),
    )


class _Sweep:
    """The segments of one GPU and what each costs. Amounts are in parts of a n$, `unit` of which make one: [period]."""

    def __init__(self, tape: Tape, table: ClaimTable, bounds: Ints, mode: Mode) -> None:
        self._tape = tape
        rows = table.rows_of_gpu.get(tape.gpu, np.zeros(0, dtype=np.int64))
        start = np.maximum(table.start[rows], bounds[0])
        end = np.minimum(table.end[rows], bounds[-1])
        inside = start < end
        self._rows, start, end = rows[inside], start[inside], end[inside]
        steps, step_times, step_weights = _weight_steps(table, self._rows, mode)
        points = np.unique(np.concatenate([bounds, start, end, step_times, np.array(tape.points(), dtype=np.int64)]))
        points = points[(points >= bounds[0]) & (points <= bounds[-1])]
        self._points, self._bounds = points, np.searchsorted(points, bounds)
        width = len(points)
        span = table.span[self._rows]
        row, first, last = self_pieces(
            span, table.parent, np.searchsorted(points, start), np.searchsorted(points, end), width
        )
        if mode is Mode.WEIGHTED:
            at = np.searchsorted(points, np.minimum(step_times, points[-1]))
            axis = row * width
            which, starts, ends, self._weight = _by_weight(axis + first, axis + last, steps * width + at, step_weights)
            row = row[which]
            first, last = starts - row * width, ends - row * width
        else:
            self._weight = np.ones(len(row), np.int64) if mode is Mode.EQUAL else table.share[self._rows][row]
        self._row, self._first, self._last = row, first, last
        self._count = self._active(np.ones(len(row), dtype=np.int64))
        self._whole = table.share_whole if mode is Mode.FIXED else 0
        self._price(tape)

    def cells(self) -> tuple[Ints, Ints, Ints, Ints, Ints, Exact]:
        """Row of the table, period, self time, paid time, the most claims at once, and the amount of each cell."""
        which, first, last = cut(self._first, self._last, self._bounds)
        period = np.searchsorted(self._bounds, first, side="right") - 1
        row = self._rows[self._row[which]]
        key = row * len(self._bounds) + period
        heads = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else key
        if len(heads) > LEDGER_CELLS_MAX:
            raise ValueError(f"{len(heads)} claims in periods are too many; at most {LEDGER_CELLS_MAX}")
        shared, alone = _prefix(self._per_weight), _prefix(self._per_head)
        amount = self._weight[which] * (shared[last] - shared[first]) + (alone[last] - alone[first])
        if not len(key):
            return row, period, row, row, row, amount
        paid = _prefix(np.where(self._paid, np.diff(self._points), 0))
        most = np.maximum.reduceat(np.append(self._count, 0), np.stack([first, last], axis=1).reshape(-1))[::2]
        return (
            row[heads],
            period[heads],
            np.add.reduceat(self._points[last] - self._points[first], heads),
            np.add.reduceat(paid[last] - paid[first], heads),
            np.maximum.reduceat(most, heads),
            np.add.reduceat(amount, heads),
        )

    def spare(self) -> Exact:
        """[period * buckets + bucket] amounts that are nobody's."""
        kinds = len(BUCKETS)
        state = np.where(self._count == 0, self._tape.state_of(self._points), IDLE)
        spare = np.zeros((len(self._bounds) - 1) * kinds, dtype=self._left.dtype)
        np.add.at(spare, self._period * kinds + state, self._left)
        return spare

    def paid_ns(self) -> list[int]:
        """[period] ns that are paid for."""
        paid = _prefix(np.where(self._paid, np.diff(self._points), 0))[self._bounds]
        return [int(ns) for ns in np.diff(paid)]

    def totals(self, anchor_ns: int) -> list[int]:
        """[period] n$ that were paid."""
        unit = self._tape.unit()
        at = int(self._points[0])
        before = self._tape.bill(anchor_ns, at) if anchor_ns <= at else -self._tape.bill(at, anchor_ns)
        offset = before.numerator * (unit // before.denominator)
        bill = [rounded(offset + int(paid), unit) for paid in _prefix(self._cost)[self._bounds]]
        return [later - earlier for earlier, later in pairwise(bill)]

    def _price(self, tape: Tape) -> None:
        """Sets what each segment costs, what of it each weight and head takes, and what is left."""
        self._paid, rate = tape.paid_and_rate(self._points)
        length = np.diff(self._points)
        largest = int(rate.max()) * int(self._points[-1] - self._points[0])
        kind = exact_type(largest)
        self._cost = rate.astype(kind) * length.astype(kind)
        self._period = np.searchsorted(self._bounds, np.arange(len(length)), side="right") - 1
        weight = self._active(self._weight)
        divisor = np.maximum(weight, self._whole)
        by_head = (self._count > 0) & (divisor == 0)
        divisor = np.where(by_head, self._count, divisor)
        split = (self._count > 0) & self._paid
        fine = _finest(self._period[split], divisor[split], len(self._bounds) - 1)
        units = [tape.unit() * one for one in fine]
        self.unit = np.array(units, dtype=exact_type(max(units)))
        kind = exact_type(largest * max(fine))
        cost = self._cost.astype(kind) * np.array(fine, dtype=kind)[self._period]
        part = np.where(split, cost // np.where(split, divisor, 1).astype(kind), 0)
        self._per_weight = np.where(by_head, 0, part)
        self._per_head = np.where(by_head, part, 0)
        taken = weight.astype(kind) * self._per_weight + self._count.astype(kind) * self._per_head
        self._left = cost - taken

    def _active(self, size: Ints) -> Ints:
        """The sum of the sizes of the pieces that are there, segment by segment."""
        change = np.zeros(len(self._points), dtype=np.int64)
        np.add.at(change, self._first, size)
        np.subtract.at(change, self._last, size)
        return np.cumsum(change)[:-1]


def _finest(period: Ints, divisor: Ints, periods: int) -> list[int]:
    """[period] the smallest number that all divisors of the period's segments divide.

    By period, for the least common multiple of all sums of weights of a day has thousands of digits.
    """
    fine = [1] * periods
    width = int(divisor.max(initial=0)) + 1
    for key in np.unique(period * width + divisor).tolist():
        index = key // width
        fine[index] = lcm(fine[index], key % width)
        if fine[index].bit_length() > LEDGER_FINE_BITS_MAX:
            raise ValueError("too many different weights at once: take coarser weights or shorter periods")
    return fine


def _weight_steps(table: ClaimTable, rows: Ints, mode: Mode) -> tuple[Ints, Ints, Ints]:
    """Place in `rows`, time and weight of each step of the rows' weights; nothing where weights don't count."""
    if mode is not Mode.WEIGHTED or not len(rows):
        none = np.zeros(0, dtype=np.int64)
        return none, none, none
    count = table.weight_steps[rows]
    begin = (np.cumsum(table.weight_steps) - table.weight_steps)[rows]
    which = np.repeat(np.arange(len(rows)), count)
    step = begin[which] + np.arange(len(which)) - (np.cumsum(count) - count)[which]
    first = np.concatenate([[True], which[1:] != which[:-1]])
    time = np.where(first, np.minimum(table.weight_from[step], table.start[rows][which]), table.weight_from[step])
    return which, time, table.weight[step]


def _by_weight(starts: Ints, ends: Ints, steps: Ints, weights: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Which interval, start, end and weight of each part, after the intervals were cut where their weight changes."""
    which, starts, ends = cut(starts, ends, steps)
    return which, starts, ends, weights[np.searchsorted(steps, starts, side="right") - 1]


def _apportioned(parts: Exact, unit: Exact, period: Ints, totals: Sequence[int], ties: Ints) -> Exact:
    """Whole n$ for each part, with the period's total as their sum: largest remainder, ties by the lowest in `ties`."""
    kind = exact_type(max(totals))
    units = unit[period]
    parts = parts.astype(object) if units.dtype == np.object_ else parts
    whole, rest = (parts // units).astype(kind), parts % units
    given = np.zeros(len(totals), dtype=kind)
    np.add.at(given, period, whole)
    missing = np.array(totals, dtype=kind) - given
    order = np.argsort(ties, kind="stable")
    order = order[np.argsort(-rest[order], kind="stable")]
    order = order[np.argsort(period[order], kind="stable")]
    sizes = np.bincount(period, minlength=len(totals))
    place = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[period[order]]
    whole[order] += (place < missing[period[order]]).astype(np.int64)
    # A bill whose bounds lie just between two n$ may be one less than the parts rounded down: the largest takes it.
    for odd in np.flatnonzero(missing < 0).tolist():
        own = order[period[order] == odd]
        whole[own[np.argmax(whole[own])]] += missing[odd]
    return whole


def _tie_order(table: ClaimTable, rows: Ints) -> Ints:
    """For each row a number by start, span id and attempt."""
    order = np.lexsort((table.attempt, table.span, table.start))
    place = np.empty(len(table), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place[rows]


def _prefix(values: Exact) -> Exact:
    """Sums of the values before each place; one longer than the values."""
    sums = np.zeros(len(values) + 1, dtype=values.dtype)
    np.cumsum(values, out=sums[1:])
    return sums
