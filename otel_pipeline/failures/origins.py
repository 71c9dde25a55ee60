"""Which failures stand for themselves: an exception passes through the spans around it, and into the log, and is one
failure all the same. A span, or a log record in it, whose child failed in the same way before is a consequence.

Children end before their parents, so that the child comes first as a rule. Where it does not, both stand. A failure
that tells nothing but a status is a consequence of none and has none: its parent will know more.

Used by the logs' and the traces' half of `error_class`, on one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from otel_pipeline.limits import FAILURE_ORIGINS_KEPT
from otel_pipeline.wire import cells
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline.wire.batch import Batch, Ints, Mask

IDS: Final = [cells.TRACE_HI, cells.TRACE_LO, cells.SPAN_ID]
IDS_AND_PARENT: Final = [*IDS, cells.PARENT_ID]
Key = tuple[int, int, int]


class Origins:
    """Remembers failed spans and the parents of failed spans; bounded, the oldest go first."""

    def __init__(self, kept: int = FAILURE_ORIGINS_KEPT) -> None:
        self._kept = kept
        self._failed: dict[Key, str] = {}
        """Spans that failed, with the class."""
        self._caused: dict[Key, str] = {}
        """Spans with a child that failed, with the class of the child's failure."""

    def standing(self, batch: Batch, rows: Ints, classes: Sequence[str], tells: Mask) -> Mask:
        """Which of the failed rows stand for themselves; `classes` and `tells` (whether a row has more than a status)
        are by place in `rows`.
        """
        if batch.signal is Signal.LOGS:
            return self._records(batch.rows[rows][:, IDS].tolist(), classes)
        standing = np.ones(len(rows), np.bool_)
        table = batch.rows[rows][:, IDS_AND_PARENT].tolist()
        for place in np.argsort(batch.end_time[rows], kind="stable").tolist():
            high, low, span, parent = table[place]
            name = classes[place]
            key = (high, low, span)
            if self._caused.get(key) == name:
                standing[place] = False
            elif not tells[place]:
                continue
            self._failed[key] = name
            if parent:
                self._caused[high, low, parent] = name
        self._forget()
        return standing

    def _records(self, table: list[list[int]], classes: Sequence[str]) -> Mask:
        return np.array(
            [
                not span or name not in {self._failed.get((high, low, span)), self._caused.get((high, low, span))}
                for (high, low, span), name in zip(table, classes, strict=True)
            ],
            np.bool_,
        )

    def _forget(self) -> None:
        for known in (self._failed, self._caused):
            while len(known) > self._kept:
                del known[next(iter(known))]
