"""What protobuf says is in a request: the rows in order, and every column of a `Batch`, computed the slow way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from otel_pipeline.wire.batch import Batch
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import Value, python_value

EXCEPTION_KEYS: Final = ("exception.type", "exception.message", "exception.stacktrace")


@dataclass
class Row:
    """The properties of one row; what its signal does not have keeps its default."""

    name: str
    resource: dict[str, Value]
    scope_name: str
    attributes: dict[str, AnyValue]
    invalid: bool
    items: int = 1
    kind: int = 0
    time: int = 0
    end_time: int = 0
    flags: int = 0
    trace_id: str = "0" * 32
    span_id: str = "0" * 16
    status_code: int = 0
    status_message: str = ""
    severity_text: str = ""
    body: str | None = None
    exception: list[str] = field(default_factory=lambda: ["", "", ""])


def accepts(signal: Signal, request: bytes) -> bool:
    """Whether protobuf takes these bytes."""
    try:
        signal.value.request.FromString(request)
    except DecodeError:
        return False
    return True


def numbered(message: Any, number: int) -> Any:
    """A field by its number."""
    return getattr(message, message.DESCRIPTOR.fields_by_number[number].name)


def rows_of(request: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Group, scope and row messages of a parsed request, in order."""
    for group in numbered(request, 1):
        for scope in numbered(group, 2):
            for row in numbered(scope, 2):
                yield group, scope, row


def expected(signal: Signal, request: Any) -> list[Row]:
    """The rows of a parsed request."""
    readers = {Signal.TRACES: _span, Signal.LOGS: _log_record, Signal.METRICS: _metric}
    found = []
    for group, scope, message in rows_of(request):
        row = Row(
            name=message.event_name if signal is Signal.LOGS else message.name,
            resource={key: python_value(value) for key, value in first_of_equal(group.resource.attributes).items()},
            scope_name=scope.scope.name,
            attributes=first_of_equal(numbered(message, signal.value.attributes_field)),
            invalid=_has_invalid_id(message),
        )
        readers[signal](message, row)
        found.append(row)
    return found


def first_of_equal(pairs: Iterable[Any]) -> dict[str, AnyValue]:
    """Attributes by key; of equal keys the first counts."""
    attributes: dict[str, AnyValue] = {}
    for pair in pairs:
        attributes.setdefault(pair.key, pair.value)
    return attributes


def _span(span: Any, row: Row) -> None:
    row.kind, row.time, row.end_time = span.kind, span.start_time_unix_nano, span.end_time_unix_nano
    row.flags, row.trace_id, row.span_id = span.flags, _id(span.trace_id, 16), _id(span.span_id, 8)
    row.status_code, row.status_message = span.status.code, span.status.message
    for event in span.events:
        if event.name == "exception":
            texts = [pair for pair in event.attributes if pair.value.WhichOneof("value") == "string_value"]
            found = first_of_equal(texts)
            row.exception = [found[key].string_value if key in found else "" for key in EXCEPTION_KEYS]
            break


def _log_record(record: Any, row: Row) -> None:
    row.kind, row.time, row.end_time = record.severity_number, record.time_unix_nano, record.observed_time_unix_nano
    row.flags, row.trace_id, row.span_id = record.flags, _id(record.trace_id, 16), _id(record.span_id, 8)
    row.severity_text = record.severity_text
    row.body = record.body.string_value if record.body.WhichOneof("value") == "string_value" else None


def _metric(metric: Any, row: Row) -> None:
    member = metric.WhichOneof("data")
    row.items = len(getattr(metric, member).data_points) if member else 0


def _id(value: bytes, size: int) -> str:
    return value.hex() if len(value) == size else "0" * 2 * size


def _has_invalid_id(message: Any) -> bool:
    for descriptor, value in message.ListFields():
        if descriptor.name in {"trace_id", "span_id", "parent_span_id"}:
            if len(value) != (16 if descriptor.name == "trace_id" else 8):
                return True
        elif descriptor.message_type is not None and any(
            _has_invalid_id(one) for one in (value if descriptor.is_repeated else [value])
        ):
            return True
    return False


# -- comparison --------------------------------------------------------------------------------------------------------


def check_columns(batch: Batch, rows: list[Row], keys: Iterable[str]) -> None:
    """Every column of the batch reads as protobuf says."""
    places = range(len(rows))
    assert len(batch) == len(rows)
    for name in ("name", "severity_text", "status_message", "body"):
        column = getattr(batch, name)()
        assert [column.at(row) for row in places] == [getattr(row, name) for row in rows], name
    for name in ("kind", "time", "end_time", "flags", "status_code", "invalid"):
        assert getattr(batch, name).tolist() == [getattr(row, name) for row in rows], name
    if batch.signal is not Signal.METRICS:
        assert [batch.trace_id(row) for row in places] == [row.trace_id for row in rows]
        assert [batch.span_id(row) for row in places] == [row.span_id for row in rows]
    parts = batch.exception()
    assert [[part.at(row) for part in parts] for row in places] == [row.exception for row in rows]
    assert batch.duration_s.tolist() == [max(0, row.end_time - row.time) * 1e-9 for row in rows]
    assert batch.items() == sum(row.items for row in rows)
    codes, resources = batch.resources()
    assert [same_or_nan(resources[code]) for code in codes] == [same_or_nan(row.resource) for row in rows]
    assert [batch.scope_names().at(row) for row in places] == [row.scope_name for row in rows]
    for key in keys:
        check_attribute(batch, key, [row.attributes.get(key) for row in rows])


def check_attribute(batch: Batch, key: str, values: list[AnyValue | None]) -> None:
    """All that a batch says of one attribute."""
    texts = batch.strings(key)
    members = [value.WhichOneof("value") if value is not None else None for value in values]
    assert batch.present(key).tolist() == [value is not None for value in values]
    assert [texts.at(row) for row in range(len(values))] == [
        value.string_value if value is not None and member == "string_value" else None
        for value, member in zip(values, members, strict=True)
    ]
    numbers = [
        float(getattr(value, member)) if member in {"int_value", "double_value", "bool_value"} else math.nan
        for value, member in zip(values, members, strict=True)
    ]
    np.testing.assert_array_equal(batch.numbers(key), numbers)
    for row, (value, member) in enumerate(zip(values, members, strict=True)):
        raw = batch.raw(key, row)
        if value is None or member not in {"string_value", "bytes_value", "array_value", "kvlist_value"}:
            assert raw == b""
        elif member == "string_value":
            assert raw == value.string_value.encode()
        elif member == "bytes_value":
            assert raw == value.bytes_value
        else:
            assert type(getattr(value, member)).FromString(raw) == getattr(value, member)


def same_or_nan(value: object) -> str:
    """A text that is equal for equal values, NaN included."""
    return repr(sorted(value.items())) if isinstance(value, dict) else repr(value)
