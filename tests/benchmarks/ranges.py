"""Sets of span numbers as half-open ranges in ascending order: how processes tell each other what they saw."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Ranges = list[tuple[int, int]]
Flags = npt.NDArray[np.bool_]


def from_flags(flags: Flags) -> Ranges:
    """The indexes that are set."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def from_numbers(numbers: Iterable[int]) -> Ranges:
    """Non-negative numbers in any order; memory goes with the largest."""
    values = np.fromiter(numbers, dtype=np.int64)
    flags = np.zeros(int(values.max(initial=-1)) + 1, dtype=np.bool_)
    flags[values] = True
    return from_flags(flags)


def difference(ranges: Ranges, other: Ranges) -> Ranges:
    """What `other` lacks."""
    flags = np.zeros(max((stop for _, stop in ranges), default=0), dtype=np.bool_)
    for start, stop in ranges:
        flags[start:stop] = True
    for start, stop in other:
        flags[start:stop] = False
    return from_flags(flags)


def size(ranges: Ranges) -> int:
    """How many numbers."""
    return sum(stop - start for start, stop in ranges)
