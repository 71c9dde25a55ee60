"""Exceptions that came as log records, for the spans they were raised in: OpenTelemetry is moving exceptions from span
events to logs, so that a failed span may say nothing itself. The record comes first as a rule, since a span is sent
when it is over.

Used by the logs' and the traces' half of `error_class`, on one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline.limits import (
    FAILURE_MESSAGE_CHARS_MAX,
    FAILURE_NAME_CHARS_MAX,
    LOGGED_EXCEPTION_CHARS_MAX,
    LOGGED_STACK_CHARS_MAX,
)
from otel_pipeline.wire import cells
from otel_pipeline.wire.batch import Strings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline.wire.batch import Batch, Ints, Mask

Told = tuple[str, str, str]
"""Type, message, stack trace."""
IDS: Final = (cells.TRACE_HI, cells.TRACE_LO, cells.SPAN_ID)


class LoggedExceptions:
    """The last exceptions that were logged, by trace and span; bounded in characters, the oldest go first."""

    def __init__(self, chars_max: int = LOGGED_EXCEPTION_CHARS_MAX) -> None:
        self._known: dict[tuple[int, ...], Told] = {}
        self._chars_max = chars_max
        self._chars = 0

    def remember(self, batch: Batch, rows: Ints, columns: Sequence[Strings]) -> None:
        """Remember the exceptions of those of these log records that belong to a span."""
        rows = rows[batch.rows[rows, cells.SPAN_ID] != 0]
        for row, ids in zip(rows.tolist(), batch.rows[rows][:, IDS].tolist(), strict=True):
            kind, message, stack = (column.at(row) or "" for column in columns)
            self._put(
                tuple(ids),
                (kind[:FAILURE_NAME_CHARS_MAX], message[:FAILURE_MESSAGE_CHARS_MAX], stack[:LOGGED_STACK_CHARS_MAX]),
            )

    def _put(self, key: tuple[int, ...], told: Told) -> None:
        if key in self._known:
            return  # the first is where it was raised
        self._known[key] = told
        self._chars += _size(told)
        while self._chars > self._chars_max:
            self._chars -= _size(self._known.pop(next(iter(self._known))))

    def completed(self, batch: Batch, rows: Ints, columns: tuple[Strings, Strings, Strings]) -> tuple[Strings, ...]:
        """The exception columns of spans, with what was logged where a failed span of `rows` tells no exception."""
        if not self._known:
            return columns
        silent = rows[~(_told(columns[0]) | _told(columns[1]))[rows]]
        found: list[tuple[int, Told]] = []
        for row, ids in zip(silent.tolist(), batch.rows[silent][:, IDS].tolist(), strict=True):
            told = self._known.get(tuple(ids))
            if told is not None:
                found.append((row, told))
        return tuple(_over(column, found, part) for part, column in enumerate(columns)) if found else columns


def _told(column: Strings) -> Mask:
    return column.where(bool)


def _over(column: Strings, found: Sequence[tuple[int, Told]], part: int) -> Strings:
    codes, values = column.codes.copy(), [*column.values]
    for row, told in found:
        codes[row] = len(values)
        values.append(told[part])
    return Strings(codes, values)


def _size(told: Told) -> int:
    return sum(map(len, told)) + 128
