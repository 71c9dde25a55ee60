"""The highest value in any range of rows, for many ranges in one call, while rows are appended.

Rows are cut into blocks of 16. Kept are, for each row, the highest value from its block's begin to it and from it to
its block's end, and over whole blocks a table of the highest of the last 1, 2, 4, ... of them. A range over several
blocks is then four look-ups; one within a block is read row by row. Appending touches the last block and one column of
the table; a change further back is worked out from there on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otel_pipeline.gpu.together import Columns

Ints: TypeAlias = "NDArray[np.int64]"
Floats: TypeAlias = "NDArray[np.float64]"

_BLOCK: Final = 16
_SHIFT: Final = 4
_IN_BLOCK: Final = np.arange(_BLOCK)[:, None]


C = TypeVar("C", bound="Floats | Columns")


class Tables(NamedTuple, Generic[C]):
    """What the highest values are looked up in, each flat."""

    to_end: C
    from_begin: C
    table: C
    """Level by level, `blocks` in each."""
    blocks: int
    levels: Ints


class Peaks:
    """Beside a column of values that its owner keeps; the owner says from which row on they have changed."""

    __slots__ = ("_from_begin", "_levels", "_table", "_to_end", "tables")

    def __init__(self) -> None:
        self._from_begin: Floats = np.empty((0, _BLOCK))
        self._to_end: Floats = np.empty((0, _BLOCK))
        self._table: Floats = np.empty((0, 0))
        self._levels: Ints = np.empty(0, np.int64)
        """Of a number of blocks, the largest power of two in it."""
        self.tables = self._flat()
        """What `highest` reads."""

    @property
    def size_bytes(self) -> int:
        """Memory of the arrays."""
        return self._from_begin.nbytes + self._to_end.nbytes + self._table.nbytes + self._levels.nbytes

    def update(self, values: Floats, first: int, count: int) -> None:
        """`values` has `count` rows, as many as fit into the column behind them; those from `first` on are new."""
        self._fit(len(values))
        block = first >> _SHIFT
        blocks = (count + _BLOCK - 1) >> _SHIFT
        changed = np.full((blocks - block, _BLOCK), -np.inf)
        changed.reshape(-1)[: count - (block << _SHIFT)] = values[block << _SHIFT : count]
        np.maximum.accumulate(changed, axis=1, out=self._from_begin[block:blocks])
        np.maximum.accumulate(changed[:, ::-1], axis=1, out=self._to_end[block:blocks, ::-1])
        table = self._table
        table[0, block:blocks] = self._from_begin[block:blocks, -1]
        for level in range(1, len(table)):
            half, low = 1 << (level - 1), max(block, (1 << level) - 1)
            if low < blocks:
                before = table[level - 1, low - half : blocks - half]
                np.maximum(table[level - 1, low:blocks], before, out=table[level, low:blocks])

    def highest(self, values: Floats | Columns, first: Ints, last: Ints) -> Floats:
        """Of the rows `first` to `last`, both included, `first <= last`, for each pair; faster if `first` ascends."""
        return highest(self.tables, values, first, last)

    def _fit(self, rows: int) -> None:
        blocks = (rows + _BLOCK - 1) >> _SHIFT
        if blocks == len(self._from_begin):
            return
        kept = min(blocks, len(self._from_begin))
        from_begin, to_end = np.empty((blocks, _BLOCK)), np.empty((blocks, _BLOCK))
        from_begin[:kept], to_end[:kept] = self._from_begin[:kept], self._to_end[:kept]
        table = np.full((blocks.bit_length(), blocks), -np.inf)
        for level in range(len(table)):
            if level < len(self._table):
                table[level, :kept] = self._table[level, :kept]
        self._from_begin, self._to_end, self._table = from_begin, to_end, table
        self._levels = np.frexp(np.arange(blocks + 1))[1].astype(np.int64) - 1
        self.tables = self._flat()

    def _flat(self) -> Tables[Floats]:
        flat = self._to_end.reshape(-1), self._from_begin.reshape(-1), self._table.reshape(-1)
        return Tables(*flat, self._table.shape[1], self._levels)


def highest(tables: Tables[C], values: Floats | Columns, first: Ints, last: Ints) -> Floats:
    """See `Peaks.highest`."""
    between = (last >> _SHIFT) - (first >> _SHIFT)
    found = np.maximum(tables.to_end[first], tables.from_begin[last])
    over = (between > 1).nonzero()[0]
    if len(over):
        found[over] = np.maximum(found[over], _of_blocks(tables, over, first[over], last[over]))
    inside = (between == 0).nonzero()[0]
    if len(inside):
        # The highest of such a range's block may lie outside of the range: what was found is replaced.
        rows = np.minimum(first[inside] + _IN_BLOCK, last[inside])
        found[inside] = _some(values, inside)[rows].max(axis=0)
    return found


def _of_blocks(tables: Tables[C], which: Ints, first: Ints, last: Ints) -> Floats:
    """Of the blocks between those of `first` and `last`."""
    begin, end = (first >> _SHIFT) + 1, (last >> _SHIFT) - 1
    level = tables.levels[end - begin + 1]
    row = level * tables.blocks
    table = _some(tables.table, which)
    found: Floats = np.maximum(table[row + end], table[row + begin + (1 << level) - 1])
    return found


def _some(column: Floats | Columns, which: Ints) -> Floats | Columns:
    return column if isinstance(column, np.ndarray) else column.some(which)
