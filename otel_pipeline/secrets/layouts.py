"""Where strings stand in the messages of OTLP, worked out from the descriptors.

By it the sieve walks over the bytes, and the rewriter goes down to what it changes.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

Layout: TypeAlias = "dict[int, Any]"
"""By field number what stands there: a layout, KeyValue, AnyValue or TEXT; nothing for numbers and ids."""
TEXT: Final = "text"
_LEAVES: Final = {KeyValue.DESCRIPTOR.full_name: KeyValue, AnyValue.DESCRIPTOR.full_name: AnyValue}
_CODES: Final[dict[Any, int]] = {TEXT: 1, KeyValue: 2, AnyValue: 3}
_MESSAGES: Final = 4
"""Codes of the table: see `wire/_sieve_py.py`."""
_FIELDS_MAX: Final = 64


@cache
def layout(descriptor: Descriptor) -> Layout:
    """The texts in a type of message, and the messages that lead to some."""
    parts: Layout = {}
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            parts[field.number] = TEXT
        elif field.message_type is not None:
            part = _LEAVES.get(field.message_type.full_name) or layout(field.message_type)
            if part:
                parts[field.number] = part
    return parts


def of(signal: Signal) -> Layout:
    """The layout of a signal's requests."""
    return layout(signal.value.request.DESCRIPTOR)


@cache
def table() -> tuple[bytes, dict[Signal, int]]:
    """All layouts as one table for the sieve, and the message that each signal's requests are; `WIDTH` parts each."""
    numbers: dict[int, int] = {}
    rows: list[bytearray] = []

    def number(parts: Layout) -> int:
        if id(parts) not in numbers:
            numbers[id(parts)] = len(rows)
            row = bytearray(_FIELDS_MAX)
            rows.append(row)
            for field, part in parts.items():
                row[field] = number(part) + _MESSAGES if isinstance(part, dict) else _CODES[part]
        return numbers[id(parts)]

    roots = {signal: number(of(signal)) for signal in Signal}
    return b"".join(rows), roots


WIDTH: Final = _FIELDS_MAX
