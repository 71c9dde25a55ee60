"""From string columns to label combinations: the work that all metrics with the same labels share, once per batch.

Each row's codes become one integer in mixed radix; counting those tells which combinations occur. From there on a
Python call is made per distinct combination, never per row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from otel_pipeline.exposition.names import label_text
from otel_pipeline.limits import LABEL_KEYS_DENSE_MAX
from otel_pipeline.wire.batch import ABSENT, Strings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otel_pipeline.wire.batch import Batch, Codes, Ints, Mask

KEYS_MAX: Final = 2**62
"""Above this a mixed-radix key could leave 64 bits."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows by label combination: `labels[group[i]]` are the label values of row `rows[i]` (of row i if `rows` is None).

    The same combination may stand in `labels` twice, since equal values may have two codes.
    """

    labels: list[tuple[str, ...]]
    group: Ints
    counts: Ints
    """How many rows each combination has."""
    rows: Ints | None = None

    def where(self, kept: Mask) -> Groups:
        """Without the rows that are false in `kept`, which has an entry for each of `group`."""
        live, group, counts = np.unique(self.group[kept], return_inverse=True, return_counts=True)
        rows = np.flatnonzero(kept) if self.rows is None else self.rows[kept]
        return Groups([self.labels[index] for index in live.tolist()], group, counts, rows)


def one(*labels: str) -> Groups:
    """A single row, for what does not come from a batch."""
    return Groups([labels], np.zeros(1, np.int64), np.ones(1, np.int64))


def group_rows(columns: Sequence[Strings], mask: Mask | None = None) -> Groups:
    """The rows of `mask` (default: all) by their values in `columns`, at least one; an absent value reads as empty."""
    rows = None if mask is None or np.count_nonzero(mask) == len(mask) else np.flatnonzero(mask)
    codes = [column.codes if rows is None else column.codes[rows] for column in columns]
    radices = [len(column.values) + 1 for column in columns]
    size = math.prod(radices)
    if size <= LABEL_KEYS_DENSE_MAX:
        keys = _keys(codes, radices, np.int32)
        tally = np.bincount(keys, minlength=size)
        distinct = tally.nonzero()[0]
        counts: Ints = tally.take(distinct)
        tally[distinct] = np.arange(len(distinct))
        group: Ints = tally.take(keys)
        digits: Sequence[NDArray[np.integer[Any]]] = np.unravel_index(distinct, radices)
    else:
        keys = _keys(codes, radices, np.int64) if size <= KEYS_MAX else _sorted_keys(codes)
        _, example, group, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        digits = [column_codes[example] + 1 for column_codes in codes]
    texts = [
        map(["", *column.values].__getitem__, digit.tolist()) for column, digit in zip(columns, digits, strict=True)
    ]
    return Groups(list(zip(*texts, strict=True)), group, counts, rows)


def _keys(codes: Sequence[Codes], radices: Sequence[int], kind: type[np.int32 | np.int64]) -> NDArray[np.integer[Any]]:
    """The codes of each row, one higher each, as digits of a number; an absent value is the digit 0."""
    keys: NDArray[np.integer[Any]] = codes[0].astype(kind)
    ones = 1
    for column_codes, radix in zip(codes[1:], radices[1:], strict=True):
        keys *= radix
        keys += column_codes
        ones = ones * radix + 1
    keys += ones
    return keys


def _sorted_keys(codes: Sequence[Codes]) -> Ints:
    """Another such number for columns with so many values that the product would leave 64 bits."""
    keys: Ints = codes[0].astype(np.int64)
    for column_codes in codes[1:]:
        _, keys = np.unique(keys, return_inverse=True)
        keys = (keys << 32) + column_codes + 1
    return keys


def attribute_column(batch: Batch, key: str, default: str = "") -> Strings:
    """An attribute of the rows as text, else of their resources, else the default. The key must have been asked for.

    A bool reads as 1 or 0: `Batch.numbers` does not tell them apart.
    """
    text = batch.strings(key)
    codes, values = text.codes, text.values
    rest = codes == ABSENT
    if not rest.any():
        return text
    numbers = batch.numbers(key)
    known = rest & ~np.isnan(numbers)
    if known.any():
        distinct, inverse = np.unique(numbers[known], return_inverse=True)
        codes = codes.copy()
        codes[known] = inverse + len(values)
        values = [*values, *(_number_text(number) for number in distinct.tolist())]
        rest = codes == ABSENT
    resource = resource_column(batch, key, default)
    return Strings(np.where(rest, resource.codes + len(values), codes).astype(np.int32), [*values, *resource.values])


def resource_column(batch: Batch, key: str, default: str = "") -> Strings:
    """A resource attribute as text, whatever its type, else the default."""
    codes, resources = batch.resources()
    return Strings(codes, [label_text(attributes.get(key, default)) for attributes in resources])


def _number_text(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)
