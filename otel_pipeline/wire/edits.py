"""The edits of a batch: recorded as columns of codes into lists of values, written by the splicer in one go."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from otel_pipeline.wire import cells
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import Fragments, any_value, attribute_field, in_64_bits
from otel_pipeline.wire.values import field as wire_field

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from otel_pipeline.wire.batch import Batch, Codes, Constants, Floats, Ints, Mask, Strings
    from otel_pipeline.wire.kernel import Kernel
    from otel_pipeline.wire.values import Scalar, Value

UNTOUCHED: Final = -1
DELETED: Final = -2
ROW_FIELDS: Final = {
    "name": (cells.NAME_AT, cells.NAME_AT + 2),
    "status": (cells.STATUS_AT, cells.STATUS_AT + 2),
    "body": (cells.BODY_AT, cells.BODY_AT + 2),
    "exception": (cells.EVENT_AT, cells.EVENT_END),
}
NAME_FIELD: Final = {Signal.TRACES: 5, Signal.METRICS: 1, Signal.LOGS: 12}
STATUS_FIELD: Final = 15
BODY_FIELD: Final = 5
EVENT_FIELD: Final = 11
RESOURCE_FIELD: Final = 1
_NO_NUMBER: Final = np.array([np.nan])
_VARINT_BEGINS: Final = 1 << np.arange(7, 63, 7)
"""The least numbers of two bytes, three, and so on."""
EXCEPTION_KEYS: Final = ("exception.type", "exception.message", "exception.stacktrace")


@dataclass(slots=True)
class Overlay:
    """One edited field: the cells where the old one stands, what each row gets, and the values as they will be read."""

    at_cell: int
    end_cell: int
    codes: Codes
    _values: list[Any] = field(default_factory=list)
    fragments: Fragments = field(default_factory=Fragments)
    _numbers: list[Floats | Ints] = field(default_factory=list)
    """What comes after `_values`: mostly nobody reads the numbers of many rows, then they never become a list."""

    @property
    def values(self) -> list[Any]:
        """By code."""
        for numbers in self._numbers:
            self._values.extend(numbers.tolist())
        self._numbers.clear()
        return self._values

    def numbers(self) -> Floats:
        """The same as numbers, NaN for what is none; one more at the end is NaN, too."""
        if self._values:
            return np.array([*(float(one) if isinstance(one, int | float) else np.nan for one in self.values), np.nan])
        return np.concatenate((*self._numbers, _NO_NUMBER))

    def put(self, codes: Codes, values: Sequence[Any], fields: Sequence[bytes], mask: Mask | None = None) -> None:
        """Give the rows (in `mask`) with a code >= 0 one of some values; `fields` are the same, serialized."""
        chosen = codes >= 0 if mask is None else mask & (codes >= 0)
        np.copyto(self.codes, codes + np.int32(len(self.fragments)), where=chosen)
        self.values.extend(values)
        self.fragments.add(fields)

    def put_one(self, value: Any, serialized: bytes, mask: Mask | None) -> None:
        """Give every row (in `mask`) the same value."""
        code = len(self.fragments)
        if mask is None:
            self.codes.fill(code)
        else:
            self.codes[mask] = code
        self.values.append(value)
        self.fragments.add([serialized])

    def put_doubles(self, number: int, key: str, values: Floats, mask: Mask | None) -> None:
        """Give each row (in `mask`) its own number."""
        chosen = values if mask is None else values[mask]
        self._number(slice(None) if mask is None else mask, chosen)
        self.fragments.add_doubles(number, key, chosen)

    def put_rows(self, number: int, key: str, rows: Ints, values: Floats | Ints) -> None:
        """Give each of some rows its own number; ints are >= 0."""
        if values.dtype != np.int64:
            self._number(rows, values)
            self.fragments.add_doubles(number, key, values.astype(np.float64, copy=False))
            return
        ints = values.astype(np.int64, copy=False)
        sizes = _varint_sizes(ints)
        for size in range(int(sizes.min()), int(sizes.max()) + 1):
            mine = (sizes == size).nonzero()[0]
            if len(mine):
                self._number(rows[mine], ints[mine])
                self.fragments.add_ints(number, key, ints[mine], size)

    def _number(self, rows: Ints | Mask | slice, values: Floats | Ints) -> None:
        code = len(self.fragments)
        self.codes[rows] = np.arange(code, code + len(values), dtype=np.int32)
        self._numbers.append(values.copy())

    def over(self, codes: Codes, values: list[str]) -> tuple[Codes, list[str]]:
        """A column of texts as it reads with this overlay; other values are absent."""
        texts = [value if isinstance(value, str) else "" for value in self.values]
        table = [index if isinstance(value, str) else -1 for index, value in enumerate(self.values, start=len(values))]
        edited = np.array([*table, -1], np.int32)[np.maximum(self.codes, -1)]
        return np.where(self.codes == UNTOUCHED, codes, edited), [*values, *texts]


class Edits:
    """What processors have changed in one batch. Reading goes through `over*`, so that a later processor sees it."""

    def __init__(self, signal: Signal, rows: int) -> None:
        self._signal = signal
        self._rows = rows
        self._overlays: dict[Hashable, Overlay] = {}
        self._resources: dict[int, dict[str, Scalar | None]] = {}
        self.keep: Mask = np.ones(rows, np.bool_)
        self.dropped = False

    def __bool__(self) -> bool:
        return bool(self._overlays or self._resources or self.dropped)

    # -- recording -----------------------------------------------------------------------------------------------------

    def set(self, name: tuple[str, str], column: int, value: Scalar | Constants | Floats, mask: Mask | None) -> None:
        """Set attribute `name[1]`, whose cells begin at `column`, in the rows of `mask` (None: all)."""
        if mask is not None and not mask.any():
            return
        number = self._signal.value.attributes_field
        if name not in self._overlays and mask is None and not isinstance(value, np.ndarray | str | bool | int | float):
            self._overlays[name] = _overlay_of(number, name[1], column, value)
            return
        overlay = self._overlay(name, column + cells.A_AT, column + cells.A_END)
        if isinstance(value, np.ndarray):
            overlay.put_doubles(number, name[1], value, mask)
            return
        if isinstance(value, str | bool | int | float):
            one = in_64_bits(value)
            overlay.put_one(one, attribute_field(number, name[1], one, type(one).__name__), mask)
            return
        codes, values = value.codes, [in_64_bits(one) for one in value.values]
        fields = [attribute_field(number, name[1], one, type(one).__name__) for one in values]
        overlay.put(codes, values, fields, mask)

    def set_rows(self, name: tuple[str, str], column: int, rows: Ints, values: Floats | Ints) -> None:
        """The same for some rows by their numbers, a number each."""
        if len(rows):
            overlay = self._overlay(name, column + cells.A_AT, column + cells.A_END)
            overlay.put_rows(self._signal.value.attributes_field, name[1], rows, values)

    def delete(self, name: tuple[str, str], column: int, mask: Mask) -> None:
        """Remove an attribute from the rows of `mask`."""
        if mask.any():
            self._overlay(name, column + cells.A_AT, column + cells.A_END).codes[mask] = DELETED

    def replace(self, name: str, codes: Codes, values: Sequence[Any]) -> None:
        """Replace the name, status or body of the rows with a code >= 0."""
        if name == "name":
            fields = [wire_field(NAME_FIELD[self._signal], str(value).encode()) for value in values]
        elif name == "status":
            fields = [
                wire_field(STATUS_FIELD, Status(code=code, message=message).SerializeToString())
                for code, message in values
            ]
        else:
            values = [in_64_bits(value) for value in values]
            fields = [wire_field(BODY_FIELD, any_value(value).SerializeToString()) for value in values]
        self._overlay(name, *ROW_FIELDS[name]).put(codes, values, fields)

    def set_exception(
        self, rows: Sequence[int], events: Sequence[bytes], texts: Sequence[tuple[str, str, str]]
    ) -> None:
        """Rewrite the exception events of some rows, one by one: each has its own time. `events` are the old fields."""
        codes = np.full(self._rows, UNTOUCHED, np.int32)
        codes[rows] = np.arange(len(rows), dtype=np.int32)
        fields = [_event(event, text) for event, text in zip(events, texts, strict=True)]
        self._overlay("exception", *ROW_FIELDS["exception"]).put(codes, texts, fields)

    def set_resource(self, index: int, key: str, value: Scalar | None) -> None:
        """Set (None: remove) an attribute of the distinct resource `index`."""
        self._resources.setdefault(index, {})[key] = None if value is None else in_64_bits(value)

    def drop(self, mask: Mask) -> None:
        """Drop the rows of `mask`."""
        self.keep &= ~mask
        self.dropped = self.dropped or bool(mask.any())

    def _overlay(self, name: Hashable, at_cell: int, end_cell: int) -> Overlay:
        overlay = self._overlays.get(name)
        if overlay is None:
            codes = np.empty(self._rows, np.int32)
            codes.fill(UNTOUCHED)
            overlay = self._overlays[name] = Overlay(at_cell, end_cell, codes)
        return overlay

    # -- reading -------------------------------------------------------------------------------------------------------

    def over(self, name: Hashable, column: Strings) -> Strings:
        """A string column with its edits."""
        overlay = self._overlays.get(name)
        if overlay is None:
            return column
        return type(column)(*overlay.over(column.codes, column.values))

    def untouched(self, name: Hashable, codes: Codes) -> Codes:
        """Codes of a column, without the rows that were edited."""
        overlay = self._overlays.get(name)
        return codes if overlay is None else np.where(overlay.codes == UNTOUCHED, codes, UNTOUCHED)

    def knows(self, name: Hashable) -> bool:
        """Whether a field was edited in some row."""
        return name in self._overlays

    def marks(self, name: Hashable) -> Ints | None:
        """A number for what each row's field was set to, the same for equal values as long as this process lives; 0 for
        those that were not edited. None if no row was.
        """
        overlay = self._overlays.get(name)
        if overlay is None:
            return None
        values = (tuple(value) if isinstance(value, list) else value for value in overlay.values)
        marks = [hash((name, type(value).__name__, value)) | 1 for value in values]
        return np.array([*marks, DELETED, 0], np.int64)[overlay.codes]

    def over_lists(
        self, name: Hashable, codes: Codes, values: list[tuple[Value, ...]]
    ) -> tuple[Codes, list[tuple[Value, ...]]]:
        """A column of arrays with its edits; a text counts as an array of one, other values are absent."""
        overlay = self._overlays.get(name)
        if overlay is None:
            return codes, values
        fitting = [isinstance(value, str | tuple | list) for value in overlay.values]
        table = [index if fits else UNTOUCHED for index, fits in enumerate(fitting, start=len(values))]
        edited = np.array([*table, UNTOUCHED], np.int32)[np.maximum(overlay.codes, UNTOUCHED)]
        lists = [
            ((value,) if isinstance(value, str) else tuple(value)) if fits else ()
            for value, fits in zip(overlay.values, fitting, strict=True)
        ]
        return np.where(overlay.codes == UNTOUCHED, codes, edited), [*values, *lists]

    def over_part(self, name: Hashable, part: int, column: Strings) -> Strings:
        """A string column with its edits, where what was set are tuples and the column is one part of them."""
        overlay = self._overlays.get(name)
        if overlay is None:
            return column
        parts = Overlay(0, 0, overlay.codes, [value[part] for value in overlay.values])
        return type(column)(*parts.over(column.codes, column.values))

    def value(self, name: Hashable, row: int) -> tuple[Any] | tuple[()]:
        """What one row's field was set to, None if it was deleted; nothing if it was not edited."""
        overlay = self._overlays.get(name)
        if overlay is None or overlay.codes[row] == UNTOUCHED:
            return ()
        return (overlay.values[overlay.codes[row]] if overlay.codes[row] >= 0 else None,)

    def text(self, name: Hashable, row: int) -> str | None:
        """What one row's edited attribute reads as, empty if it is no text; None if it was not edited."""
        edited = self.value(name, row)
        if not edited:
            return None
        return edited[0] if isinstance(edited[0], str) else ""

    def over_numbers(self, name: Hashable, values: Floats) -> Floats:
        """A number column with its edits; NaN where a text or nothing stands now."""
        overlay = self._overlays.get(name)
        if overlay is None:
            return values
        return np.where(overlay.codes == UNTOUCHED, values, overlay.numbers()[np.maximum(overlay.codes, -1)])

    def over_status_code(self, codes: Ints) -> Ints:
        """The status codes with their edits."""
        overlay = self._overlays.get("status")
        if overlay is None:
            return codes
        table = np.array([code for code, _ in overlay.values] + [0], np.int64)
        return np.where(overlay.codes == UNTOUCHED, codes, table[overlay.codes])

    def present(self, name: Hashable, mask: Mask) -> Mask:
        """Which rows have an attribute, edits included."""
        overlay = self._overlays.get(name)
        if overlay is None:
            return mask
        return np.where(overlay.codes == UNTOUCHED, mask, overlay.codes >= 0)

    def resource(self, index: int, attributes: dict[str, Value]) -> dict[str, Value]:
        """The attributes of a distinct resource with their edits."""
        changes = self._resources.get(index)
        if not changes:
            return attributes
        merged = {**attributes, **changes}
        return {key: value for key, value in merged.items() if key not in changes or value is not None}

    # -- writing -------------------------------------------------------------------------------------------------------

    def splice(self, batch: Batch, kernel: Kernel, keep: Mask, resource_codes: Codes, resources: list[bytes]) -> bytes:
        """The bytes of the rows in `keep` with all edits in place."""
        fragments = Fragments()
        codes = np.empty((len(self._overlays), self._rows), np.int32)
        for line, overlay in zip(codes, self._overlays.values(), strict=True):
            np.copyto(line, overlay.codes)
            np.add(line, np.int32(len(fragments)), out=line, where=line >= 0)
            fragments.extend(overlay.fragments)
        group_codes = np.full(len(batch.groups), UNTOUCHED, np.int32)
        for index, changes in self._resources.items():
            group_codes[resource_codes == index] = len(fragments)
            fragments.add([_resource(resources[index], tuple((k, v, type(v).__name__) for k, v in changes.items()))])
        at_cells = np.array([overlay.at_cell for overlay in self._overlays.values()], np.int64)
        end_cells = np.array([overlay.end_cell for overlay in self._overlays.values()], np.int64)
        splicer = kernel.splicer(batch.data, batch.rows, batch.scopes, batch.groups, *fragments.joined())
        spliced: bytes = splicer.splice(at_cells, end_cells, codes, keep.view(np.uint8), group_codes)
        return spliced


def _overlay_of(number: int, key: str, column: int, value: Constants) -> Overlay:
    """The first edit of an attribute, of all rows."""
    codes = np.maximum(value.codes, UNTOUCHED, dtype=np.int32)
    values = [in_64_bits(one) for one in value.values]
    overlay = Overlay(column + cells.A_AT, column + cells.A_END, codes, values)
    overlay.fragments.add([attribute_field(number, key, one, type(one).__name__) for one in values])
    return overlay


def _varint_sizes(values: Ints) -> Ints:
    """Bytes of the varint of each, all >= 0."""
    sizes: Ints = _VARINT_BEGINS.searchsorted(values, side="right") + 1
    return sizes


@lru_cache(maxsize=1024)
def _resource(payload: bytes, changes: tuple[tuple[str, Scalar | None, str], ...]) -> bytes:
    """A Resource field with some attributes set or (None) removed; the types keep 1, 1.0, True apart in the cache."""
    resource = Resource.FromString(payload)
    for key, value, _ in changes:
        places = [index for index, pair in enumerate(resource.attributes) if pair.key == key]
        for place in reversed(places if value is None else places[1:]):
            del resource.attributes[place]
        if value is not None and places:
            resource.attributes[places[0]].CopyFrom(KeyValue(key=key, value=any_value(value)))
        elif value is not None:
            resource.attributes.add(key=key).value.CopyFrom(any_value(value))
    return wire_field(RESOURCE_FIELD, resource.SerializeToString())


def _event(event_field: bytes, texts: tuple[str, str, str]) -> bytes:
    """An exception event's field with its texts replaced or added; an empty one stays as it was."""
    event = Span.FromString(event_field).events[0]
    for key, text in zip(EXCEPTION_KEYS, texts, strict=True):
        if text:
            pairs = [pair for pair in event.attributes if pair.key == key] or [event.attributes.add(key=key)]
            for pair in pairs:
                pair.value.string_value = text
    return wire_field(EVENT_FIELD, event.SerializeToString())
