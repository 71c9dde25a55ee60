"""A batch in columns: what processors read, and the edits they record until `encode` writes them.

One row is a span, a log record or a metric; one column a property. Numbers come as numpy arrays; strings come
dictionary- encoded (`Strings`): a code a row and the list of distinct values, so that a processor decides once per
distinct value. What an earlier processor changed, a later one reads. Nothing here looks at single spans in Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from otel_pipeline.wire import cells
from otel_pipeline.wire.edits import Edits
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import Scalar, Settable, Value, array_values, resource_attributes, scope_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otel_pipeline.wire.kernel import Kernel

Mask: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]
Codes: TypeAlias = NDArray[np.int32]
Floats: TypeAlias = NDArray[np.float64]
How: TypeAlias = Literal["insert", "update", "upsert"]

ABSENT: Final = -1
_NAME_MAX: Final = 2**56 - 1
_SPREAD: Final = 6364136223846793005
"""Odd: what is multiplied with it differs if it did before."""


@dataclass(frozen=True, slots=True)
class Strings:
    """A string column: `values[codes[row]]`; a code of -1 means that the row has no string there."""

    codes: Codes
    values: list[str]

    def where(self, test: Callable[[str], bool]) -> Mask:
        """The rows whose value passes; the test runs once per distinct value, an absent value fails."""
        verdicts = np.array([*map(test, self.values), False], np.bool_)
        return verdicts.take(self.codes, mode="wrap")

    def at(self, row: int) -> str | None:
        """The value of one row."""
        code = int(self.codes[row])
        return None if code == ABSENT else self.values[code]


@dataclass(frozen=True, slots=True)
class Constants:
    """A column to write: `values[codes[row]]` in each row with a code >= 0; the other rows stay as they are."""

    codes: Codes
    values: Sequence[Settable]


class Batch:
    """The rows of one or several requests of one signal, and the edits recorded so far."""

    def __init__(
        self, signal: Signal, data: bytes, tables: tuple[Ints, Ints, Ints], columns: dict[str, int], kernel: Kernel
    ) -> None:
        self.signal: Final = signal
        self.data: Final = data
        self.rows, self.scopes, self.groups = tables
        self._columns: Final = columns
        self._kernel: Final = kernel
        self._strings: dict[int, Strings] = {}
        self._resource_codes: Codes | None = None
        self._resources: list[bytes] = []
        self.edits: Final = Edits(signal, len(self.rows))
        self.released = False
        """Whether its rows were parked before: they cannot be parked again."""
        self.records: Final[list[tuple[str, bytes]]] = []
        self.parked: Final[list[tuple[bytes, int, bytes]]] = []
        """Requests, their items, and notes: what the processor that runs has set aside."""

    def __len__(self) -> int:
        return len(self.rows)

    # -- what is there -------------------------------------------------------------------------------------------------

    @property
    def keep(self) -> Mask:
        """The rows that no processor has dropped."""
        return self.edits.keep

    def items(self, mask: Mask | None = None) -> int:
        """Spans, log records or data points in the kept rows, or in those of `mask`."""
        chosen = self.keep if mask is None else mask
        if self.signal is Signal.METRICS:
            return int(self.rows[chosen, cells.POINTS].sum())
        return int(np.count_nonzero(chosen))

    @property
    def invalid(self) -> Mask:
        """The rows with an id of a wrong length, which other receivers would refuse the whole batch for."""
        return np.not_equal(self.rows[:, cells.INVALID], 0)

    @property
    def kind(self) -> Ints:
        """Span kind; severity number of a log record."""
        return self.rows[:, cells.KIND]

    @property
    def time(self) -> NDArray[np.uint64]:
        """Start of a span, time of a log record: ns since 1970."""
        return self.rows[:, cells.TIME].view(np.uint64)

    @property
    def end_time(self) -> NDArray[np.uint64]:
        """End of a span, observed time of a log record: ns since 1970."""
        return self.rows[:, cells.END_TIME].view(np.uint64)

    @property
    def duration_s(self) -> Floats:
        """Duration of each span in seconds; 0 where the end lies before the start."""
        start, end = self.time, self.end_time
        duration_s: Floats = np.where(end > start, end - start, np.uint64(0)) * 1e-9
        return duration_s

    @property
    def status_code(self) -> Ints:
        """0 unset, 1 ok, 2 error; 0 for what is no span."""
        if self.signal is not Signal.TRACES:
            return np.zeros(len(self), np.int64)
        return self.edits.over_status_code(self.rows[:, cells.STATUS_CODE])

    @property
    def flags(self) -> Ints:
        """The W3C trace flags and OTLP's own bits."""
        return self.rows[:, cells.FLAGS]

    def trace_id(self, row: int) -> str:
        """Hex; all zeros if the row has none."""
        high, low = (int(self.rows[row, cell]) & 0xFFFFFFFFFFFFFFFF for cell in (cells.TRACE_HI, cells.TRACE_LO))
        return f"{high:016x}{low:016x}"

    def span_id(self, row: int) -> str:
        """Hex; all zeros if the row has none."""
        return f"{int(self.rows[row, cells.SPAN_ID]) & 0xFFFFFFFFFFFFFFFF:016x}"

    def ids(self, rows: Ints) -> Ints:
        """A row each for some rows: the halves of the trace id, and the span id."""
        found: Ints = self.rows[rows, cells.TRACE_HI : cells.SPAN_ID + 1]
        return found

    # -- strings and numbers -------------------------------------------------------------------------------------------

    def name(self) -> Strings:
        """Name of the span or metric, event name of a log record."""
        return self.edits.over("name", self._range(cells.NAME_AT + 1))

    def status_message(self) -> Strings:
        """Description of the span's status, empty if none."""
        return self.edits.over_part("status", 1, self._range_of(Signal.TRACES, cells.STATUS_MESSAGE))

    def severity_text(self) -> Strings:
        """Severity text of a log record, empty if none."""
        return self._range_of(Signal.LOGS, cells.SEVERITY_TEXT_AT + 1)

    def body(self) -> Strings:
        """Body of a log record, where it is a string."""
        return self.edits.over("body", self._range_of(Signal.LOGS, cells.BODY_A, cells.BODY_TYPE))

    def exception(self) -> tuple[Strings, Strings, Strings]:
        """Type, message and stack trace of each span's first exception event; empty where there is none."""
        kind, message, stack = (
            self.edits.over_part("exception", part, self._range_of(Signal.TRACES, cells.EXCEPTION + 2 * part))
            for part in range(3)
        )
        return kind, message, stack

    def strings(self, key: str) -> Strings:
        """The string values of an attribute that was asked for when the reader was built."""
        column = self._column(key)
        return self.edits.over(("attribute", key), self._range(column + cells.A_A, column))

    def numbers(self, key: str) -> Floats:
        """The int, double and bool values of an attribute as float64; NaN where there is none."""
        column = self._column(key)
        kinds = self.rows[:, column]
        raw = self.rows[:, column + cells.A_A]
        values = np.full(len(self), np.nan)
        whole = (kinds == cells.T_INT) | (kinds == cells.T_BOOL)
        values[whole] = raw[whole]
        double = kinds == cells.T_DOUBLE
        values[double] = np.ascontiguousarray(raw).view(np.float64)[double]
        return self.edits.over_numbers(("attribute", key), values)

    def present(self, key: str) -> Mask:
        """The rows that have the attribute, whatever its type."""
        column = self._column(key)
        return self.edits.present(("attribute", key), self.rows[:, column + cells.A_AT] != 0)

    def having(self, keys: Iterable[str]) -> list[str]:
        """Those of some attributes that may be there: the others are in no row, and nobody has set them."""
        columns = self._columns
        return [key for key in keys if columns[key] != cells.WIDTH or (self.edits and self._is_edited(key))]

    def wholes(self, keys: Sequence[str], units: Sequence[int], units_max: float) -> Ints:
        """Numbers of some attributes as whole multiples of 1 / units, a line for each: int64 (keys, rows). -1 for what
        is negative, not below `units_max` or no number.
        """
        found: Ints = self._kernel.wholes(self.rows, self._cells(keys), np.array(units, np.float64), units_max)
        for line, key in enumerate(keys):
            if self._is_edited(key):
                with np.errstate(over="ignore", invalid="ignore"):
                    scaled = np.rint(self.numbers(key) * units[line])
                    good = (scaled >= 0) & (scaled < units_max)
                found[line] = np.where(good, scaled, -1)
        return found

    def alike(
        self, likeness: Any, looked: tuple[Sequence[str], Sequence[str]], places: Ints, extra: Ints, fresh_max: int
    ) -> tuple[Codes, list[int]] | None:
        """A number for each row, the same for rows that say the same, and the first row of each number that is new.

        Looked at are whether the first of `looked` are there, and the values of the second, edits included; span kind
        and status; a number of each distinct resource, `places`, and one of each row, `extra`, or none. None if there
        are more than `fresh_max` new ones, or no numbers are left. `likeness` is the kernel's; it keeps the numbers
        over batches.
        """
        shown, keys = looked
        for name in ("status", *(("attribute", key) for key in (*shown, *keys))):
            marks = self.edits.marks(name)
            if marks is not None:
                extra = extra * _SPREAD + marks if len(extra) else marks
        told = [(key, 0) for key in self.having(shown)] + [(key, 1) for key in self.having(keys)]
        names = np.array([(hash(key) & _NAME_MAX) * 2 + by_value for key, by_value in told], np.int64)
        columns = np.array([self._column(key) for key, _ in told], np.int64)
        groups = places[self._resource_of_groups()]
        found: tuple[Codes, list[int]] | None
        found = likeness.read(self.data, self.rows, columns, names, groups, extra, fresh_max)
        return found

    def has(self, key: str, row: int) -> bool:
        """Whether one row has the attribute, whatever its type."""
        edited = self.edits.value(("attribute", key), row)
        return edited[0] is not None if edited else bool(self.rows[row, self._column(key) + cells.A_AT])

    def value(self, key: str, row: int) -> Scalar | None:
        """The text or number of one row's attribute; None for what is neither. For columns see `strings`, `numbers`."""
        edited = self.edits.value(("attribute", key), row)
        if edited:
            return edited[0] if isinstance(edited[0], str | int | float) else None
        kind, _, _, start, end = self.rows[row, self._column(key) :][: cells.ATTRIBUTE].tolist()
        if kind == cells.T_STRING:
            return self.data[start:end].decode()
        if kind == cells.T_DOUBLE:
            return float(np.int64(start).view(np.float64))
        return start if kind in (cells.T_INT, cells.T_BOOL) else None

    def _is_edited(self, key: str) -> bool:
        return self.edits.knows(("attribute", key))

    def _cells(self, keys: Sequence[str]) -> Ints:
        return np.array([self._column(key) for key in keys], np.int64)

    def lists(self, key: str) -> tuple[Codes, list[tuple[Value, ...]]]:
        """The array values of an attribute as a column, edits included; a text counts as an array of one."""
        codes, encoded = self.arrays(key)
        values = [*map(array_values, encoded)]
        if (codes == ABSENT).any():
            texts = self._range(self._column(key) + cells.A_A, self._column(key))
            codes = np.where((codes == ABSENT) & (texts.codes >= 0), texts.codes + np.int32(len(values)), codes)
            values += [(text,) for text in texts.values]
        return self.edits.over_lists(("attribute", key), codes, values)

    def raw(self, key: str, row: int) -> bytes:
        """The bytes of one row's array, kvlist, bytes or string value; empty for numbers and absent ones."""
        column = self._column(key)
        edited = self.edits.text(("attribute", key), row)
        if edited is not None:
            return edited.encode()
        if int(self.rows[row, column]) not in (1, 5, 6, 7):
            return b""
        return self.data[self.rows[row, column + cells.A_A] : self.rows[row, column + cells.A_B]]

    def arrays(self, key: str) -> tuple[Codes, list[bytes]]:
        """The array values of an attribute as a column: serialized ArrayValues. Edited ones are absent."""
        column = self._column(key)
        codes, values = self._kernel.encode(self.data, self.rows, column, cells.T_ARRAY, column + cells.A_A)
        return self.edits.untouched(("attribute", key), codes), values

    def integer(self, key: str, row: int) -> int | None:
        """The int value of one row in all its 64 bits, as it came; None if it is no int."""
        column = self._column(key)
        return int(self.rows[row, column + cells.A_A]) if self.rows[row, column] == cells.T_INT else None

    def _column(self, key: str) -> int:
        try:
            return self._columns[key]
        except KeyError:
            raise KeyError(f"attribute {key!r} was not asked for: name it in the processor's `attributes`") from None

    def _range(self, start_cell: int, type_cell: int = -1) -> Strings:
        cached = self._strings.get(start_cell)
        if cached is None:
            codes, values = self._kernel.encode(self.data, self.rows, type_cell, cells.T_STRING, start_cell)
            cached = self._strings[start_cell] = Strings(codes, [value.decode() for value in values])
        return cached

    def _range_of(self, signal: Signal, start_cell: int, type_cell: int = -1) -> Strings:
        """A column that only one signal has: its cells mean something else in the others."""
        if self.signal is signal:
            return self._range(start_cell, type_cell)
        return Strings(np.full(len(self), 0 if type_cell < 0 else ABSENT, np.int32), [""])

    def _only(self, signal: Signal, what: str) -> None:
        if self.signal is not signal:
            raise ValueError(f"{self.signal.word} have no {what}: {signal.word} have")

    # -- resources and scopes ------------------------------------------------------------------------------------------

    def resources(self) -> tuple[Codes, list[dict[str, Value]]]:
        """For each row the index of its resource, and the attributes of each distinct resource, edits included."""
        attributes = self.distinct_resources()
        return self._resource_of_groups()[self.rows[:, cells.GROUP]], attributes

    def distinct_resources(self) -> list[dict[str, Value]]:
        """The attributes of each distinct resource, edits included."""
        self._resource_of_groups()
        return [
            self.edits.resource(index, resource_attributes(payload)) for index, payload in enumerate(self._resources)
        ]

    def resource_of(self, row: int) -> int:
        """The index of one row's resource."""
        return int(self._resource_of_groups()[self.rows[row, cells.GROUP]])

    def _resource_of_groups(self) -> Codes:
        """Which of the distinct resources each group has."""
        if self._resource_codes is None:
            self._resource_codes, self._resources = self._kernel.encode(
                self.data, self.groups, -1, 0, cells.G_INNER_AT + 1
            )
        return self._resource_codes

    def resource_strings(self, key: str) -> Strings:
        """A resource attribute as a column; values that are no strings are absent."""
        codes, resources = self.resources()
        values = [attributes.get(key) for attributes in resources]
        table = [index if isinstance(value, str) else ABSENT for index, value in enumerate(values)]
        return Strings(
            np.array([*table, ABSENT], np.int32)[codes],
            [value if isinstance(value, str) else "" for value in values],
        )

    def scope_names(self) -> Strings:
        """The name of each row's instrumentation scope."""
        codes, payloads = self._kernel.encode(self.data, self.scopes, -1, 0, cells.S_INNER_AT + 1)
        return Strings(codes[self.rows[:, cells.SCOPE]], [scope_identity(payload)[0] for payload in payloads])

    # -- edits ---------------------------------------------------------------------------------------------------------

    def set(self, key: str, value: Scalar | Constants | Floats, where: Mask | None = None, how: How = "upsert") -> None:
        """Set an attribute of the rows in `where` (default: all) to one value, a column of values, or a float64 a row.

        `insert` only where it is absent, `update` only where it is there. The key must have been asked for.
        """
        mask = where
        if how != "upsert":
            fitting = self.present(key) == (how == "update")
            mask = fitting if where is None else where & fitting
        self.edits.set(("attribute", key), self._column(key), value, mask)

    def set_rows(self, key: str, rows: Ints, values: Floats | Ints) -> None:
        """Set an attribute of some rows, by their numbers: float64, or int64 >= 0, one for each of them."""
        self.edits.set_rows(("attribute", key), self._column(key), rows, values)

    def delete(self, key: str, where: Mask | None = None) -> None:
        """Remove an attribute from the rows in `where` (default: all)."""
        mask = self.present(key) if where is None else self.present(key) & where
        self.edits.delete(("attribute", key), self._column(key), mask)

    def set_name(self, value: Constants) -> None:
        """Replace the name of the span or metric, the event name of a log record."""
        self.edits.replace("name", value.codes, value.values)

    def set_status(self, codes: Codes, statuses: Sequence[tuple[int, str]]) -> None:
        """Replace the status of the rows with a code >= 0 by statuses[code]: status code and description."""
        self._only(Signal.TRACES, "status")
        self.edits.replace("status", codes, statuses)

    def set_body(self, value: Constants) -> None:
        """Replace the body of log records."""
        self._only(Signal.LOGS, "body")
        self.edits.replace("body", value.codes, value.values)

    def set_exception(self, codes: Codes, exceptions: Sequence[tuple[str, str, str]]) -> None:
        """Replace type, message and stack trace in the first exception event of the rows with a code >= 0.

        An empty string leaves that one as it is; rows without such an event are left alone.
        """
        self._only(Signal.TRACES, "exception")
        places = self.rows[:, (cells.EVENT_AT, cells.EVENT_END)]
        chosen = np.flatnonzero((codes >= 0) & (places[:, 0] != 0)).tolist()
        kind, message, stack = self.exception()
        texts = [
            (new[0] or kind.at(row) or "", new[1] or message.at(row) or "", new[2] or stack.at(row) or "")
            for row, new in ((row, exceptions[codes[row]]) for row in chosen)
        ]
        self.edits.set_exception(chosen, [self.data[at:end] for at, end in places[chosen].tolist()], texts)

    def set_resource(self, key: str, value: Scalar, how: How = "upsert") -> None:
        """Set an attribute of every resource."""
        for index, attributes in enumerate(self.resources()[1]):
            if how == "upsert" or (key in attributes) == (how == "update"):
                self.edits.set_resource(index, key, value)

    def delete_resource(self, key: str) -> None:
        """Remove an attribute from every resource."""
        for index, attributes in enumerate(self.resources()[1]):
            if key in attributes:
                self.edits.set_resource(index, key, None)

    def drop(self, mask: Mask) -> int:
        """Drop rows; returns how many items went."""
        gone = mask & self.keep
        items = self.items(gone)
        self.edits.drop(gone)
        return items

    def record(self, book: str, record: bytes) -> None:
        """Leave a record for a book (contracts.Book); it is committed together with this batch."""
        self.records.append((book, record))

    def park(self, mask: Mask, note: bytes = b"") -> int:
        """Set rows aside as they are now: durable, but out of this batch, until the processor that does this releases
        them (contracts.Parker); returns how many items. `note` is what it will want to know of them by then.
        """
        chosen = mask & self.keep
        items = self.items(chosen)
        if items and not self.released:
            self.parked.append((self._encoded(chosen), items, note))
            self.edits.drop(chosen)
            return items
        return 0

    def encode(self) -> bytes:
        """The batch as one request, edits in place; the bytes as they came if there are none."""
        return self._encoded(self.keep) if self.edits else self.data

    def excerpt(self, mask: Mask) -> bytes:
        """The kept rows of `mask` as a request, edits in place: for a reader that wants more columns of a few rows."""
        return self._encoded(mask & self.keep)

    def _encoded(self, keep: Mask) -> bytes:
        resources = self._resource_codes if self._resource_codes is not None else np.empty(0, np.int32)
        return self.edits.splice(self, self._kernel, keep, resources, self._resources)
