"""Likeness: rows that say the same in some columns share a number, and keep it over batches.

So whatever is known of such rows is found by a look into an array: no value becomes text, and Python looks at what is
new only. What a row says is condensed to 128 bits with two random factors, which nobody outside knows; two rows that
differ share them by accident with a probability of 2**-128 or so.

Compiled as `_likeness_c` with the types of `_likeness_c.pxd`; `kernel.py` chooses the variant.
"""

import numpy as np

MASK = 0xFFFFFFFFFFFFFFFF
"""A name with a C type: Cython makes Python objects of literals above 31 bits."""


class Likeness:
    """Numbers below `numbers_max`. `factors` are two random odd numbers of 64 bits, `numbers_max` a power of two."""

    def __init__(self, numbers_max, factors):
        self.numbers_max = numbers_max
        self.mask = 4 * numbers_max - 1
        self.one, self.two = factors
        self.low = 0
        self.high = 0
        self.forget()

    def forget(self):
        """Give all numbers anew."""
        self.count = 0
        self.ones = memoryview(np.zeros(self.mask + 1, np.uint64))
        self.twos = memoryview(np.zeros(self.mask + 1, np.uint64))
        self.numbers = memoryview(np.full(self.mask + 1, -1, np.int32))

    def read(self, data, table, columns, names, places, extra, fresh_max):
        """The number of each row (int32), and the first row of each number that is new: the last numbers, in order.

        columns: cell of each attribute that is looked at (int64); names: a number for each, odd if its value matters,
        even if only whether it is there. places: a number for each group, extra: one for each row (or none at all),
        which set rows apart, too; so do the span kind and the status code.
        None if there are more than `fresh_max` new ones or no numbers are left: then nothing has changed.
        """
        rows = table.shape[0]
        found = np.empty(rows, np.int32)
        fresh = np.empty(fresh_max + 1, np.int64)
        taken = np.empty(fresh_max + 1, np.int64)
        cells = memoryview(table.reshape(-1))
        asked = (memoryview(columns), memoryview(names), memoryview(places), memoryview(extra))
        told = (memoryview(found), memoryview(fresh), memoryview(taken))
        added = self._read(
            data, table.shape[1], cells, asked[0], asked[1], asked[2], asked[3], told[0], told[1], told[2]
        )
        return None if added < 0 else (found, fresh[:added].tolist())

    def _read(self, buf, width, cells, columns, names, places, extra, found, fresh, taken):
        added = 0
        for row in range(found.shape[0]):
            base = row * width
            word = (places[cells[base + 4]] * 4096 + cells[base + 14] * 16 + cells[base + 20]) & MASK  # kind, status
            self._condense(buf, cells, base, columns, names, word, extra[row] & MASK if extra.shape[0] > 0 else 0)
            slot = self.low & self.mask
            while self.numbers[slot] >= 0 and (self.ones[slot] != self.low or self.twos[slot] != self.high):
                slot = (slot + 1) & self.mask
            if self.numbers[slot] < 0:
                if added >= fresh.shape[0] - 1 or self.count >= self.numbers_max:
                    self._take_back(taken, added)
                    return -1
                self.ones[slot] = self.low
                self.twos[slot] = self.high
                self.numbers[slot] = self.count
                self.count += 1
                fresh[added] = row
                taken[added] = slot
                added += 1
            found[row] = self.numbers[slot]
        return added

    def _condense(self, buf, cells, base, columns, names, first, second):
        """What a row says, as `low` and `high`, beginning with two words."""
        one = ((self.one ^ first) * self.one) & MASK
        two = ((self.two ^ second) * self.two) & MASK
        one ^= two >> 32
        two ^= one >> 29
        for place in range(columns.shape[0]):
            cell = base + columns[place]
            if cells[cell + 1] == 0:
                continue
            kind = cells[cell]
            word = (names[place] * 8) & MASK
            if names[place] & 1:
                word = word ^ kind
                if kind == 1 or kind > 4:
                    start = cells[cell + 3]
                    end = cells[cell + 4]
                    word = (word + (end - start) * 4096) & MASK
                    while end - start > 8:
                        tail = self._word(buf, start)
                        start += 8
                        one = ((one ^ tail) * self.one) & MASK
                        one ^= one >> 32
                        two = ((two ^ tail) * self.two) & MASK
                        two ^= two >> 29
                    tail = 0
                    while start < end:
                        end -= 1
                        tail = ((tail << 8) & MASK) | buf[end]
                else:
                    tail = cells[cell + 3] & MASK if kind != 0 else 0
                one = ((one ^ tail) * self.one) & MASK
                one ^= one >> 32
                two = ((two ^ tail) * self.two) & MASK
                two ^= two >> 29
            one = ((one ^ word) * self.one) & MASK
            one ^= one >> 32
            two = ((two ^ word) * self.two) & MASK
            two ^= two >> 29
        self.low = one
        self.high = two

    def _take_back(self, taken, added):
        self.count -= added
        for place in range(added):
            self.numbers[taken[place]] = -1

    def _word(self, buf, at):
        """Eight bytes as one number, which a compiler reads at once."""
        b0 = buf[at]
        b1 = buf[at + 1]
        b2 = buf[at + 2]
        b3 = buf[at + 3]
        b4 = buf[at + 4]
        b5 = buf[at + 5]
        b6 = buf[at + 6]
        b7 = buf[at + 7]
        return b0 | b1 << 8 | b2 << 16 | b3 << 24 | b4 << 32 | b5 << 40 | b6 << 48 | b7 << 56


def wholes(table, columns, units, units_max):
    """Numbers of some attributes as whole multiples of 1 / units: a row for each, int64 (columns, rows).

    -1 for what is negative, not below `units_max` (at most 2**53) or no number. `columns` are their cells, int64, and
    units float64. Halves go to the even neighbour.
    """
    rows = table.shape[0]
    found = np.empty((columns.shape[0], rows), np.int64)
    cells = table.reshape(-1)
    doubles = memoryview(cells.view(np.float64))
    _wholes(
        memoryview(cells), doubles, table.shape[1], memoryview(columns), memoryview(units), units_max, memoryview(found)
    )
    return found


def _wholes(cells, doubles, width, columns, units, units_max, found):
    for place in range(columns.shape[0]):
        unit = units[place]
        for row in range(found.shape[1]):
            cell = row * width + columns[place]
            kind = cells[cell]
            found[place, row] = -1
            if kind == 2 or kind == 3:
                value = cells[cell + 3]
                scaled = value * unit
                if value >= 0 and scaled < units_max:
                    found[place, row] = int(scaled)
            elif kind == 4:
                scaled = doubles[cell + 3] * unit
                if 0 <= scaled < units_max:
                    if scaled < 4503599627370496.0:  # 2**52: adding it leaves no room for a fraction
                        scaled = (scaled + 4503599627370496.0) - 4503599627370496.0
                    found[place, row] = int(scaled)
