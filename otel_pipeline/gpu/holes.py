"""Stretches of a timeline about which nothing is known: gaps between samples, and counters that began anew.

Pure: int64 ns in, int64 ns out. Holes are open intervals between two samples, sorted, and do not overlap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ints: TypeAlias = "NDArray[np.int64]"
Floats: TypeAlias = "NDArray[np.float64]"

_NO_INTS: Ints = np.empty(0, np.int64)
_NO_FLOATS: Floats = np.empty(0, np.float64)


class Holes:
    """Sorted holes, each with a weight, and how much of them lies before any moment."""

    __slots__ = ("_length", "_weight", "ends", "starts", "weights")

    def __init__(self) -> None:
        self._set(_NO_INTS, _NO_INTS, _NO_FLOATS)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def end_ns(self) -> int:
        """End of the last one; the begin of time if there is none."""
        return int(self.ends[-1]) if len(self.ends) else -(2**62)

    @property
    def size_bytes(self) -> int:
        """Memory of the arrays."""
        return sum(each.nbytes for each in (self.starts, self.ends, self.weights, self._length, self._weight))

    def replace_after(self, at_ns: int, starts: Ints, ends: Ints, weights: Floats | None = None) -> None:
        """Forget the holes that end after a moment, and append these, which start at or after it."""
        keep = int(np.searchsorted(self.ends, at_ns, side="right"))
        if keep == len(self) and not len(starts):
            return
        new = np.zeros(len(starts)) if weights is None else weights
        self._set(
            np.concatenate((self.starts[:keep], starts)),
            np.concatenate((self.ends[:keep], ends)),
            np.concatenate((self.weights[:keep], new)),
        )

    def forget_before(self, at_ns: int) -> None:
        """Forget the holes that end at or before a moment."""
        first = int(np.searchsorted(self.ends, at_ns, side="right"))
        if first:
            self._set(self.starts[first:].copy(), self.ends[first:].copy(), self.weights[first:].copy())

    def within(self, starts_ns: Ints, ends_ns: Ints) -> Ints:
        """How many ns of holes lie in each of these intervals."""
        if not len(self):
            return np.zeros(len(starts_ns), np.int64)
        return self._before(ends_ns) - self._before(starts_ns)

    def weight_within(self, starts_ns: Ints, ends_ns: Ints) -> Floats:
        """Sum of the weights of the holes that share time with each of these intervals."""
        if not len(self):
            return np.zeros(len(starts_ns))
        first = np.searchsorted(self.ends, starts_ns, side="right")
        last = np.searchsorted(self.starts, ends_ns, side="left")
        found: Floats = self._weight[np.maximum(last, first)] - self._weight[first]
        return found

    def around(self, at_ns: Ints) -> tuple[Ints, Ints]:
        """Start and end of the hole that a moment lies in; the moment twice if it lies in none or at an edge."""
        if not len(self):
            return at_ns, at_ns
        index = np.maximum(np.searchsorted(self.starts, at_ns, side="left") - 1, 0)
        inside = (self.starts[index] < at_ns) & (at_ns < self.ends[index])
        return np.where(inside, self.starts[index], at_ns), np.where(inside, self.ends[index], at_ns)

    def _before(self, at_ns: Ints) -> Ints:
        count = np.searchsorted(self.starts, at_ns, side="left")
        last = np.maximum(count - 1, 0)
        beyond = np.maximum(self.ends[last] - at_ns, 0)
        found: Ints = self._length[count] - np.where(count > 0, beyond, 0)
        return found

    def _set(self, starts: Ints, ends: Ints, weights: Floats) -> None:
        self.starts, self.ends, self.weights = starts, ends, weights
        self._length: Ints = np.concatenate((_ZERO, np.cumsum(ends - starts)))
        self._weight: Floats = np.concatenate((_ZERO_FLOAT, np.cumsum(weights)))


_ZERO: Ints = np.zeros(1, np.int64)
_ZERO_FLOAT: Floats = np.zeros(1)
