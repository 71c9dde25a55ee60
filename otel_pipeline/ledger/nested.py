"""The same call told by two spans: one of a framework, and below it one of the client's library that it uses.

Both carry the same usage, so one of them must not be charged: the outer one, for what is below is closer to the
provider. A span ends after its children, so its children arrive with it or before it. The parents of charged calls are
remembered, by (id, model); a call that is such a parent, and of the same model or of none, is not charged again. What
stands between the two hands the memory on to its own parent.

The memory is a table of fixed size in which each id has one place; a collision forgets the older one. What arrives in
another order, or through another gateway, is charged twice: nothing can tell here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

import numpy as np

from otel_pipeline.limits import LEDGER_NESTED_DEPTH_MAX, LEDGER_NESTED_SLOTS
from otel_pipeline.wire import cells

if TYPE_CHECKING:
    from otel_pipeline.wire.batch import Batch, Ints, Mask, Strings

_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)
_SHIFT: Final = np.uint64(64 - (LEDGER_NESTED_SLOTS.bit_length() - 1))


class Nested:
    """Remembers the spans above charged calls, over batches."""

    def __init__(self) -> None:
        self._ids = np.zeros(LEDGER_NESTED_SLOTS, np.int64)
        self._models = np.zeros(LEDGER_NESTED_SLOTS, np.int64)
        self.is_empty = True

    def outer(self, batch: Batch, calls: Mask, model: Strings) -> Mask:
        """Which of the calls were told by a span below them; remembers what stands above the others."""
        ids, parents = batch.rows[:, cells.SPAN_ID], batch.rows[:, cells.PARENT_ID]
        models = np.array([*map(_number, model.values), 0], np.int64)[model.codes]
        places = _places(ids)
        self._remember(parents[calls], models[calls])
        known = np.zeros(len(batch), np.bool_)
        for _ in range(LEDGER_NESTED_DEPTH_MAX):
            found = (self._ids[places] == ids) & (ids != 0)
            fresh = found & ~known
            if not fresh.any():
                break
            known |= fresh
            self._remember(parents[fresh], self._models[places[fresh]])
        below = self._models[places]
        outer: Mask = known & calls & ((models == below) | (models == 0))
        return outer

    def _remember(self, parents: Ints, models: Ints) -> None:
        above = parents != 0
        self.is_empty = self.is_empty and not above.any()
        places = _places(parents[above])
        self._ids[places] = parents[above]
        self._models[places] = models[above]


def _places(ids: Ints) -> Ints:
    """The place of each id in the table."""
    spread: Ints = (ids.astype(np.uint64) * _SPREAD >> _SHIFT).astype(np.int64)
    return spread


def _number(model: str) -> int:
    return crc32(model.encode(errors="replace")) + 1 if model else 0
