"""Lineage: which span stands above which, within a batch and over batches, and what that means for costs.

A span ends after its children, so these arrive with it or before it. What they leave for a parent that is not there yet
is kept by the parent's id, in a table of two generations: when one is half full, the older one is forgotten. Of times
only the first, the last, and how much of it was used are kept: what comes later into a gap between is not counted.

Three things go up from a span to those above it: that it tells the use of a model (so that an outer span which tells
the same call is not charged again), the time in which it used GPUs (which is not the own time of those above), and what
it costs (which is part of what those above cost with all below them).

Compiled as `_lineage_c` with the types of `_lineage_c.pxd`; `kernel.py` chooses the variant.
"""

import numpy as np

MASK = 0xFFFFFFFFFFFFFFFF
SPREAD = 0x9E3779B97F4A7C15
"""Names with a C type: Cython makes Python objects of literals above 31 bits."""
SUM_MAX = 4000000000000000000
TIME_MAX = 4611686018427387904
WHOLE_MAX = 9007199254740992
"""What a double counts exactly: 104 days of one GPU."""
NOTHING = -1
MIXED = -2
"""In place of a currency: nothing costs anything; several currencies, or an amount that nobody knows."""
PROBES_MAX = 16
"""Beyond it a span is not found: no choice of ids makes a batch slow."""


class Lineage:
    """`slots` parents in each generation, a power of two; `depth_max` spans above one are looked at."""

    def __init__(self, slots, depth_max):
        self.slots = slots
        self.depth_max = depth_max
        self.young = 0
        self.count = 0
        self.count_before = 0
        # Of spans that are not there yet; the second half is the other generation.
        self.ids = memoryview(np.zeros(2 * slots, np.uint64))
        self.models = memoryview(np.zeros(2 * slots, np.int64))
        self.firsts = memoryview(np.zeros(2 * slots, np.int64))
        self.lasts = memoryview(np.zeros(2 * slots, np.int64))
        self.used = memoryview(np.zeros(2 * slots, np.int64))
        self.sums = memoryview(np.zeros(2 * slots, np.int64))
        self.currencies = memoryview(np.full(2 * slots, NOTHING, np.int64))
        self._resize(512)

    def _resize(self, rows):
        self.rows_max = rows
        self.index_kept = np.empty(4 * rows, np.int32)
        self.index = memoryview(self.index_kept)
        self.parents = memoryview(np.empty(rows, np.int32))
        self.waiting = memoryview(np.empty(rows, np.int64))
        self.row_firsts = memoryview(np.zeros(rows, np.int64))
        self.row_lasts = memoryview(np.zeros(rows, np.int64))

    # -- who is above --------------------------------------------------------------------------------------------------

    def read(self, table):
        """Look at the ids and times of a batch's rows: start and end of each (int64, ns; at most TIME_MAX, and the end
        not before the start), and whether something was left for some of them by earlier batches.
        """
        rows = table.shape[0]
        size = 64
        while size < rows:
            size *= 2
        if size > self.rows_max:
            self._resize(size)
        self.index_mask = 4 * size - 1
        self.index_kept[: 4 * size] = -1
        if 2 * self.count > self.slots:
            self._turn()
        self.rows = rows
        self.starts_kept = np.empty(rows, np.int64)
        self.ends_kept = np.empty(rows, np.int64)
        self.starts = memoryview(self.starts_kept)
        self.ends = memoryview(self.ends_kept)
        self.awaits = False
        self._link(memoryview(table.reshape(-1)), table.shape[1])
        return self.starts_kept, self.ends_kept, self.awaits

    def _link(self, cells, width):
        self.cells = cells
        self.width = width
        for row in range(self.rows):
            slot = self._place(cells[row * width + 8] & MASK, cells[row * width + 9] & MASK)
            if slot >= 0 and self.index[slot] < 0:
                self.index[slot] = row
        for row in range(self.rows):
            above = -1
            slot = -1
            base = row * width
            trace = cells[base + 8] & MASK
            parent = cells[base + 10] & MASK
            if parent != 0:
                slot = self._place(trace, parent)
                if slot >= 0 and self.index[slot] != row:
                    above = self.index[slot]
            self.parents[row] = above
            self.waiting[row] = -1
            if self.count + self.count_before > 0:
                self.waiting[row] = self._find(self._key(trace, cells[base + 9] & MASK))
                if self.waiting[row] >= 0:
                    self.awaits = True
            self.starts[row] = self._time(cells[base + 15] & MASK)
            self.ends[row] = max(self._time(cells[base + 16] & MASK), self.starts[row])

    def _time(self, time_ns):
        return time_ns if time_ns < TIME_MAX else TIME_MAX

    def mattering(self, flags, mask, keep):
        """The rows (uint8) that have one of the flags of `mask`, and all above them, as far as they are kept (uint8). A
        row that is not kept may be parked, and come later: those above it matter all the same.
        """
        found = np.zeros(self.rows, np.uint8)
        self._mattering(memoryview(flags), mask, memoryview(keep), memoryview(found))
        return found

    def _mattering(self, flags, mask, keep, found):
        for row in range(self.rows):
            if flags[row] & mask:
                found[row] = keep[row]
                self._above(row, keep, found)

    def _above(self, row, keep, found):
        for _step in range(self.depth_max):
            row = self.parents[row]
            if row < 0 or found[row]:
                return
            found[row] = keep[row]

    def _place(self, trace, span):
        """Where the row of a span stands in the index, or would stand; -1 if the search takes too long."""
        home = self._spread(trace, span)
        for probe in range(PROBES_MAX):
            slot = (home + probe) & self.index_mask
            row = self.index[slot]
            if row < 0:
                return slot
            base = row * self.width
            if self.cells[base + 9] & MASK == span and self.cells[base + 8] & MASK == trace:
                return slot
        return -1

    def _spread(self, trace, span):
        mixed = ((span ^ trace) * SPREAD) & MASK
        return mixed >> 32

    def _key(self, trace, span):
        key = span ^ ((trace * SPREAD) & MASK)
        return key if key != 0 else 1

    # -- what was left for later batches -------------------------------------------------------------------------------

    def _turn(self):
        self.young = self.slots - self.young
        self.count_before = self.count
        self.count = 0
        for slot in range(self.young, self.young + self.slots):
            self.ids[slot] = 0

    def _find(self, key):
        """Where something is kept for a span; -1 if nothing is."""
        home = self._spread(0, key)
        for turn in range(2):
            start = self.young if turn == 0 else self.slots - self.young
            for probe in range(PROBES_MAX):
                slot = start + ((home + probe) & (self.slots - 1))
                if self.ids[slot] == key:
                    return slot
                if self.ids[slot] == 0:
                    break
        return -1

    def _keep(self, row):
        """Where to keep something for the parent of a row, which is in no batch so far; -1 if it has none."""
        base = row * self.width
        parent = self.cells[base + 10] & MASK
        if parent == 0:
            return -1
        key = self._key(self.cells[base + 8] & MASK, parent)
        slot = self._find(key)
        if slot >= 0:
            return slot
        home = self._spread(0, key)
        for probe in range(PROBES_MAX):
            slot = self.young + ((home + probe) & (self.slots - 1))
            if self.ids[slot] == 0:
                self.count += 1
                self.ids[slot] = key
                self._clear(slot)
                return slot
        return -1

    def _clear(self, slot):
        self.models[slot] = 0
        self.used[slot] = 0
        self.sums[slot] = 0
        self.currencies[slot] = NOTHING

    # -- what goes up --------------------------------------------------------------------------------------------------

    def outer(self, called, telling, models):
        """Which calls (uint8) are told by a span below them, too. `telling` (uint8) are those that say what they used;
        a model is a number (int64), and a call of none (0) is of any.
        """
        found = np.zeros(self.rows, np.uint8)
        self._outer(memoryview(called), memoryview(telling), memoryview(models), memoryview(found))
        return found

    def _outer(self, called, telling, models, found):
        for row in range(self.rows):
            slot = self.waiting[row]
            if slot >= 0 and self.models[slot] != 0:
                if called[row] and (models[row] == self.models[slot] or models[row] == 0):
                    found[row] = 1
                self._tell(row, self.models[slot], called, models, found)
            if telling[row] and models[row] != 0:
                self._tell(row, models[row], called, models, found)

    def _tell(self, row, model, called, models, found):
        for _step in range(self.depth_max):
            above = self.parents[row]
            if above < 0:
                slot = self._keep(row)
                if slot >= 0:
                    self.models[slot] = model
                return
            if called[above] and (models[above] == model or models[above] == 0):
                found[above] = 1
            row = above

    def own(self, order, gpus, sizes):
        """For how long (int64, ns times GPUs) each row used its GPUs, and how much of that is its own: those below it
        did not use them, too. -1 for both where it is too long to be counted.

        `order` are the rows that use GPUs, by start. `gpus` is a number for the set of GPUs of each row, -1 for none,
        and `sizes` how many they are; all int64. Time that several of those below use is counted once.
        """
        whole = np.zeros(self.rows, np.int64)
        below = np.zeros(self.rows, np.int64)
        sets = gpus.copy()
        self._whole(memoryview(sets), memoryview(sizes), memoryview(whole))
        self._below(memoryview(order), memoryview(sets), memoryview(sizes), memoryview(below))
        return whole, np.where(whole < 0, whole, whole - below)

    def _whole(self, gpus, sizes, whole):
        for row in range(self.rows):
            if gpus[row] >= 0 and sizes[row] > 0:
                if self.ends[row] - self.starts[row] > WHOLE_MAX // sizes[row]:
                    whole[row] = -1
                    gpus[row] = -1
                else:
                    whole[row] = (self.ends[row] - self.starts[row]) * sizes[row]

    def _below(self, order, gpus, sizes, found):
        for row in range(self.rows):
            self.row_firsts[row] = 0
            self.row_lasts[row] = 0
            slot = self.waiting[row]
            if slot < 0 or self.used[slot] == 0:
                continue
            if gpus[row] >= 0:
                self.row_firsts[row] = self.firsts[slot]
                self.row_lasts[row] = self.lasts[slot]
                found[row] = min(self.used[slot], self.ends[row] - self.starts[row]) * sizes[row]
            else:
                self._hand_on(row, slot)
        for place in range(order.shape[0]):
            if gpus[order[place]] >= 0:
                self._cover(order[place], gpus, sizes, found)

    def _hand_on(self, row, slot):
        """What is below a row that uses no GPU itself goes on to its parent, if that comes later, too."""
        for _step in range(self.depth_max):
            above = self.parents[row]
            if above < 0:
                kept = self._keep(row)
                if kept < 0:
                    return
                both = 0
                if self.used[kept] != 0:  # where the two overlap, the same time may be used in both
                    both = min(self.lasts[slot], self.lasts[kept]) - max(self.firsts[slot], self.firsts[kept])
                more = max(self.used[slot] - max(both, 0), 0)
                if self.used[kept] == 0 or self.firsts[slot] < self.firsts[kept]:
                    self.firsts[kept] = self.firsts[slot]
                if self.used[kept] == 0 or self.lasts[slot] > self.lasts[kept]:
                    self.lasts[kept] = self.lasts[slot]
                self.used[kept] += more
                return
            row = above

    def _cover(self, row, gpus, sizes, found):
        start = self.starts[row]
        end = self.ends[row]
        own = gpus[row]
        size = sizes[row]
        for _step in range(self.depth_max):
            above = self.parents[row]
            if above < 0:
                slot = self._keep(row)
                if slot >= 0:
                    self._extend(slot, start, end)
                return
            row = above
            if gpus[row] < 0:
                continue
            first = max(start, self.starts[row])
            last = min(end, self.ends[row])
            if first < last:
                if gpus[row] == own:
                    fresh = self._fresh(row, first, last)
                else:
                    fresh = last - first
                whole = (self.ends[row] - self.starts[row]) * sizes[row]
                found[row] = min(found[row] + fresh * min(size, sizes[row]), whole)
            if gpus[row] == own and self.starts[row] <= start and end <= self.ends[row]:
                return  # its own time covers this in all above it

    def _fresh(self, row, first, last):
        """How much of the time was not used below the row so far; from now on it is."""
        if self.row_lasts[row] == 0:
            self.row_firsts[row] = first
            self.row_lasts[row] = last
            return last - first
        fresh = 0
        if first < self.row_firsts[row]:
            fresh = min(last, self.row_firsts[row]) - first
            self.row_firsts[row] = first
        if last > self.row_lasts[row]:
            fresh += last - max(first, self.row_lasts[row])
            self.row_lasts[row] = last
        return fresh

    def _extend(self, slot, start, end):
        if self.used[slot] == 0:
            self.firsts[slot] = start
            self.lasts[slot] = end
            self.used[slot] = end - start
            return
        if start < self.firsts[slot]:
            self.used[slot] += min(end, self.firsts[slot]) - start
            self.firsts[slot] = start
        if end > self.lasts[slot]:
            self.used[slot] += end - max(start, self.lasts[slot])
            self.lasts[slot] = end

    def totals(self, nano, currencies):
        """What each row costs with all below it (int64, n$), and in which currency (int64; NOTHING, MIXED).

        `nano` and `currencies` say what it costs itself. To be asked once a batch, at last.
        """
        sums = np.zeros(self.rows, np.int64)
        found = np.full(self.rows, NOTHING, np.int64)
        self._totals(memoryview(nano), memoryview(currencies), memoryview(sums), memoryview(found))
        return sums, found

    def _totals(self, nano, currencies, sums, found):
        for row in range(self.rows):
            if currencies[row] != NOTHING:
                self._add(row, nano[row], currencies[row], sums, found)
            slot = self.waiting[row]
            if slot >= 0 and self.currencies[slot] != NOTHING:
                self._add(row, self.sums[slot], self.currencies[slot], sums, found)
        for row in range(self.rows):
            slot = self.waiting[row]
            if slot >= 0:
                self._clear(slot)

    def _add(self, row, nano, currency, sums, found):
        for _step in range(self.depth_max):
            if found[row] == NOTHING:
                found[row] = currency
                sums[row] = nano
            elif found[row] != currency or sums[row] > SUM_MAX - nano:
                found[row] = MIXED
            else:
                sums[row] += nano
            above = self.parents[row]
            if above < 0:
                slot = self._keep(row)
                if slot < 0:
                    return
                if self.currencies[slot] == NOTHING:
                    self.currencies[slot] = currency
                    self.sums[slot] = nano
                elif self.currencies[slot] != currency or self.sums[slot] > SUM_MAX - nano:
                    self.currencies[slot] = MIXED
                else:
                    self.sums[slot] += nano
                return
            row = above
