"""Dictionary encoding: turns a column of byte ranges into small integers and the list of distinct values.

Compiled as `_codes_c` with the types of `_codes_c.pxd`; `kernel.py` chooses the variant.
"""

import numpy as np

PROBES_MAX = 32
"""A value is compared with so many others at most; behind that it counts as a new one, so that no input costs n * n."""

# Names with a C type: Cython makes Python objects of literals above 31 bits.
UINT32_MAX = 0xFFFFFFFF
FNV_BASIS = 2166136261


def encode(data, table, type_cell, wanted, start_cell):
    """Codes (int32, one a row; -1 where the type cell is not `wanted`) and the distinct values (bytes).

    `table` is the int64 row table, `start_cell` the cell of the value's first offset; its end is in the next cell.
    Without a type cell (-1) every row has a value. Equal values nearly always share a code; equal codes always mean
    equal values.
    """
    cells = table.reshape(-1)
    rows = table.shape[0]
    width = table.shape[1]
    buf = data
    size = 16
    while size < 2 * rows:
        size *= 2
    codes = np.full(rows, -1, np.int32)
    slots = np.full(size, -1, np.int32)
    firsts = np.empty(2 * rows + 2, np.int64)
    count = _fill(buf, cells, rows, width, type_cell, wanted, start_cell, codes, slots, size - 1, firsts)
    return codes, [data[firsts[2 * i] : firsts[2 * i + 1]] for i in range(count)]


def _fill(buf, cells, rows, width, type_cell, wanted, start_cell, codes, slots, mask, firsts):
    count = 0
    last = -1
    for row in range(rows):
        base = row * width
        if type_cell >= 0 and cells[base + type_cell] != wanted:
            continue
        start = cells[base + start_cell]
        end = cells[base + start_cell + 1]
        if last >= 0 and _same(buf, start, end, firsts[2 * last], firsts[2 * last + 1]):
            codes[row] = last
            continue
        slot = _hash(buf, start, end) & mask
        probes = 0
        while slots[slot] >= 0 and probes < PROBES_MAX:
            last = slots[slot]
            if _same(buf, start, end, firsts[2 * last], firsts[2 * last + 1]):
                break
            slot = (slot + 1) & mask
            probes += 1
        if slots[slot] < 0 or probes == PROBES_MAX:
            last = count
            firsts[2 * count] = start
            firsts[2 * count + 1] = end
            count += 1
            if slots[slot] < 0:
                slots[slot] = last
        codes[row] = last
    return count


def _same(buf, start, end, other, other_end):
    size = end - start
    if other_end - other != size:
        return False
    i = 0
    while i < size and buf[start + i] == buf[other + i]:
        i += 1
    return i == size


def _hash(buf, start, end):
    """FNV-1a, 32 bits."""
    value = FNV_BASIS
    for i in range(start, end):
        value = ((value ^ buf[i]) * 16777619) & UINT32_MAX
    return value
