"""Removes secrets from serialized OTLP requests, and opens only what may hold one.

Theory: the search over the raw bytes tells places. The walk follows the descriptors from the request downwards, skips
from length to length, and goes into those fields alone that have a place in them, until it arrives at a text, an
attribute or a value. Only that is decoded. What changed is encoded again and the lengths around it are fixed; all
other bytes are copied, fields of a later OTLP too. Without any change the request itself is returned.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_pipeline.errors import WireError
from otel_pipeline.limits import REDACTION_SAMPLE_BYTES
from otel_pipeline.secrets.messages import UNDECIDED
from otel_pipeline.wire.values import varint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.descriptor import Descriptor

    from otel_pipeline.secrets.messages import Cleaner
    from otel_pipeline.secrets.texts import Finder
    from otel_pipeline.wire.signal import Signal

Layout: TypeAlias = "dict[int, Any]"
"""By field number what stands there: a layout, KeyValue, AnyValue or TEXT; nothing for numbers and ids."""
TEXT: Final = "text"
_LENGTH: Final = 2
_VALUE_TAG: Final = b"\x12"
SPAN_BYTES_A_TAG: Final = 128
"""In telemetry the tag of an attribute's value comes every 40 bytes or so, in random bytes every 256."""
_FIXED: Final = {1: 8, 5: 4}
_SHIFT_MAX: Final = 63
_LEAVES: Final = {KeyValue.DESCRIPTOR.full_name: KeyValue, AnyValue.DESCRIPTOR.full_name: AnyValue}
_MARK: Final = AnyValue(string_value=f"[redacted:{UNDECIDED}]")


class RequestCleaner:
    """Cleans the requests of all signals. `count` hears of each removal, by kind."""

    def __init__(
        self, finder: Finder, cleaner: Cleaner, value_bytes_max: int, count: Callable[[str, int], None]
    ) -> None:
        self._finder = finder
        self._cleaner = cleaner
        self._value_bytes_max = value_bytes_max
        self._count = count

    def rewrite(self, signal: Signal, request: bytes) -> bytes:
        """The request without its secrets; the same object if there are none. Raises WireError for what is no OTLP."""
        places = self._finder.places(request)
        if places is None:
            return self._whole(signal, request)
        if len(request) > self._value_bytes_max:
            places = sorted([*places, *long_places(request, self._value_bytes_max)])
        if not places:
            return request
        try:
            changed = self._inside(request, (0, len(request)), layout(signal.value.request.DESCRIPTOR), places)
        except _Unusual:
            return self._whole(signal, request)
        return request if changed is None else changed

    def _whole(self, signal: Signal, request: bytes) -> bytes:
        """The same by decoding all of it: for a flood of places, and for what the walk does not read."""
        try:
            message = signal.value.request.FromString(request)
        except DecodeError:
            raise WireError("no protobuf message", 0) from None
        return bytes(message.SerializeToString()) if self._cleaner.message(message) else request

    def _inside(self, data: bytes, span: tuple[int, int], parts: Layout, places: list[int]) -> bytes | None:
        """A message whose parts are known, cleaned; None if nothing changed."""
        pieces: list[bytes] = []
        kept, end = span
        for tag, start, body, stop in _touched(data, span, places):
            part = parts.get(tag >> 3) if tag & 7 == _LENGTH else None
            if part is None:
                continue
            if isinstance(part, dict):
                new = self._inside(data, (body, stop), part, places)
            else:
                new = self._leaf(data[body:stop], part)
            if new is not None:
                pieces += [data[kept:start], varint(tag), varint(len(new)), new]
                kept = stop
        return b"".join([*pieces, data[kept:end]]) if pieces else None

    def _leaf(self, raw: bytes, part: Any) -> bytes | None:
        """A text, an attribute or a value, cleaned; None if nothing changed. One that cannot be decoded goes."""
        if part is TEXT:
            return self._text(raw)
        try:
            message = part.FromString(raw)
            return bytes(message.SerializeToString()) if self._cleaner.message(message) else None
        except (DecodeError, EncodeError, RecursionError, ValueError, TypeError):
            self._count(UNDECIDED, 1)
            mark = _MARK if part is AnyValue else KeyValue(key=UNDECIDED, value=_MARK)
            return bytes(mark.SerializeToString())

    def _text(self, raw: bytes) -> bytes | None:
        try:
            text, encoding = raw.decode(), "utf-8"
        except UnicodeDecodeError:
            text, encoding = raw.decode("latin-1"), "latin-1"  # comes back as it was, outside of what is found
        clean = self._cleaner.text(text)
        return None if clean is text else clean.encode(encoding)


def long_places(data: bytes, bytes_max: int) -> list[int]:
    """Places in what may be a value of more bytes. Such a value covers one of the places looked at, and around it there
    are few of the tags that stand in every attribute: none in text, some by chance in bytes."""
    step = max(bytes_max // 2, 1)
    size = min(step, REDACTION_SAMPLE_BYTES)
    few = size // SPAN_BYTES_A_TAG
    return [at for at in range(0, len(data) - 1, step) if data.count(_VALUE_TAG, at, at + size) <= few]


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


class _Unusual(Exception):
    """Bytes that the walk does not read: left to protobuf's own decoder."""


def _touched(data: bytes, span: tuple[int, int], places: list[int]) -> Iterator[tuple[int, int, int, int]]:
    """Of the fields of a message those with a place in them: tag, start, start of the value, end."""
    at, end = span
    index = bisect_left(places, at)
    while index < len(places) and places[index] < end:
        tag, start, body, at = _field_around(data, at, end, places[index])
        yield tag, start, body, at
        while index < len(places) and places[index] < at:
            index += 1


def _field_around(data: bytes, at: int, end: int, place: int) -> tuple[int, int, int, int]:
    """The first field that ends behind a place: tag, start, start of the value, end.

    This loop runs over every row of a batch: nearly all fields have a tag of one byte and a length of one or two.
    """
    try:
        while True:
            start = at
            if data[at] & 135 != _LENGTH:
                at = _any_field(data, start, end)[2]
            else:
                size = data[at + 1]
                if size < 128:
                    at += 2 + size
                elif data[at + 2] < 128:
                    at += 3 + (size & 127 | data[at + 2] << 7)
                else:
                    at = _any_field(data, start, end)[2]
            if at > place:
                break
    except IndexError:
        raise _Unusual from None
    tag, body, stop = _any_field(data, start, end)
    if stop > end:
        raise _Unusual
    return tag, start, body, stop


def _any_field(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Tag, start of the value and end of whatever field stands there."""
    tag, body = _varint(data, at, end)
    wire_type = tag & 7
    if wire_type == _LENGTH:
        size, body = _varint(data, body, end)
        return tag, body, body + size
    if wire_type == 0:
        return tag, body, _varint(data, body, end)[1]
    if wire_type in _FIXED:
        return tag, body, body + _FIXED[wire_type]
    raise _Unusual


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift <= _SHIFT_MAX:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise _Unusual
