"""Random OTLP requests, written field by field as the descriptors of opentelemetry-proto say.

A plain one is what a serializer writes, in any order. An odd one has all that protobuf allows and nobody sends:
over-long varints and lengths, unknown fields of every wire type, groups, known fields with another wire type, singular
fields that stand twice. Whatever comes out is legal; `mutated` breaks it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from otel_pipeline.wire.signal import Signal

KEYS: Final = (
    "", "a", "gpu.name", "gpu.busy", "größe", "k" * 255, "exception.type", "exception.message", "exception.stacktrace",
)  # fmt: skip
"""The attributes that the tests ask for, and that many pairs have."""
OTHER_KEYS: Final = ("b", "gpu.namf", "exception.typo", "k" * 256, "http.request.method")
TEXTS: Final = (
    "",
    "x",
    "exception",
    "GET",
    "müde",
    "日本語のテキスト",
    "🦆" * 5,
    "\0",
    "a longer text " * 12,
    "\U0010ffff",
)
ID_SIZES: Final = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
DEPTH_MAX: Final = 9
_FIXED: Final = {FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64, FieldDescriptor.TYPE_DOUBLE}
_INTEGERS: Final = (0, 1, 2, 3, 127, 128, 300, 2**31 - 1, 2**31, 2**32 + 2, 2**63, 2**64 - 1)
_FLOATS: Final = (0.0, 1.5, -2.25, 1e300, float("inf"))

randoms = st.randoms(use_true_random=True)
"""What a `Writer` draws from: hypothesis chooses the seed. Choosing each number too would cost a hundred times more."""


class Writer:
    """Writes random messages. `invalid_ids` allows ids of a wrong length."""

    def __init__(self, random: Random, *, odd: bool = False, invalid_ids: bool = False) -> None:
        self._random = random
        self._odd = odd
        self._invalid_ids = invalid_ids

    def request(self, signal: Signal, groups_max: int = 2) -> bytes:
        """A request of a signal."""
        group = part_of(signal.value.request.DESCRIPTOR, 1)
        count = self._random.randint(0, groups_max)
        parts = [self._delimited(1, self._message(group, 1)) for _ in range(count)]
        return b"".join(self._with_oddities(parts))

    def row(self, signal: Signal) -> bytes:
        """A span, log record or metric, without its tag."""
        return self._message(part_of(signal.value.request.DESCRIPTOR, 1, 2, 2), 3)

    def _message(self, kind: Descriptor, depth: int) -> bytes:
        fields = list(kind.fields)
        if kind.name == "AnyValue":
            member = fields[0] if self._chance(0.4) else self._random.choice(fields)
            fields = [member] if self._chance(0.9) else []
        elif kind.name == "Metric":
            members = [field for field in fields if field.containing_oneof]
            fields = [field for field in fields if not field.containing_oneof] + self._random.sample(members, 1)
        parts: list[bytes] = []
        for field in fields:
            if depth >= DEPTH_MAX and field.message_type is not None:
                continue
            if field.is_repeated:
                count = self._random.choice((0, 1, 2, 3) if depth < 5 else (0, 0, 1))
            else:
                count = 1 if kind.name == "AnyValue" else self._random.choice((0, 1, 1))
                if self._odd and self._chance(0.03):
                    count = 2
            if kind.name == "KeyValue" and field.name in {"key", "value"} and count == 0:
                count = 1 if self._chance(0.9) else 0
            parts.extend(self._field(kind, field, depth) for _ in range(count))
        if self._chance(0.3):
            self._random.shuffle(parts)
        return b"".join(self._with_oddities(parts))

    def _field(self, kind: Descriptor, field: FieldDescriptor, depth: int) -> bytes:
        if field.message_type is not None:
            return self._delimited(field.number, self._message(field.message_type, depth + 1))
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._delimited(field.number, self._text(kind, field).encode())
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self._delimited(field.number, self._bytes(field))
        if field.is_repeated and self._chance(0.8):
            values = [self._number(field) for _ in range(self._random.randint(0, 3))]
            return self._delimited(field.number, b"".join(values))
        return self._tag(field.number, wire_type(field)) + self._number(field)

    def _text(self, kind: Descriptor, field: FieldDescriptor) -> str:
        if field.name == "key":
            return self._random.choice(KEYS if self._chance(0.8) else OTHER_KEYS)
        if kind.name == "Event" and field.name == "name" and self._chance(0.6):
            return "exception"
        return self._random.choice(TEXTS)

    def _bytes(self, field: FieldDescriptor) -> bytes:
        size = ID_SIZES.get(field.name, self._random.choice((0, 1, 5, 200)))
        if self._chance(0.1):
            size = 0
        elif self._invalid_ids and self._chance(0.1):
            size = self._random.choice((1, 7, 9, 15, 17))
        return self._random.randbytes(size)

    def _number(self, field: FieldDescriptor) -> bytes:
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            return struct.pack("<d", self._random.choice(_FLOATS))
        if field.type in _FIXED:
            return self._random.randbytes(8)
        if field.type == FieldDescriptor.TYPE_FIXED32:
            return self._random.randbytes(4)
        return self._varint(self._random.choice(_INTEGERS), 10)

    # -- what nobody sends ---------------------------------------------------------------------------------------------

    def _with_oddities(self, parts: list[bytes]) -> list[bytes]:
        if not self._odd:
            return parts
        for _ in range(self._random.choice((0, 0, 0, 1, 2))):
            parts.insert(self._random.randint(0, len(parts)), self._oddity(0))
        return parts

    def _oddity(self, depth: int) -> bytes:
        """An unknown field, or a known number with a wire type that is not its own."""
        number = self._random.choice((3, 9, 15, 17, 31, 32, 100, 2**29 - 1))
        makers: tuple[Callable[[], bytes], ...] = (
            lambda: self._tag(number, 0) + self._varint(self._random.choice(_INTEGERS), 10),
            lambda: self._tag(number, 1) + self._random.randbytes(8),
            lambda: self._tag(number, 5) + self._random.randbytes(4),
            lambda: self._delimited(self._random.choice((17, 31, 32, 2000)), self._random.randbytes(5)),
            lambda: self._group(number, depth),
        )
        return self._random.choice(makers)()

    def _group(self, number: int, depth: int) -> bytes:
        count = self._random.choice((0, 1, 2)) if depth < 3 else 0
        content = b"".join(self._oddity(depth + 1) for _ in range(count))
        return self._tag(number, 3) + content + self._tag(number, 4)

    # -- the encoding --------------------------------------------------------------------------------------------------

    def _delimited(self, number: int, payload: bytes) -> bytes:
        return self._tag(number, 2) + self._varint(len(payload), 5) + payload

    def _tag(self, number: int, wire: int) -> bytes:
        return self._varint(number << 3 | wire, 5)

    def _varint(self, value: int, size_max: int) -> bytes:
        encoded = varint(value)
        if self._odd and self._chance(0.05):
            return padded(encoded, self._random.randint(len(encoded), size_max))
        return encoded

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability


def part_of(message: Any, *numbers: int) -> Any:
    """The descriptor of a message inside a message, by the numbers of the fields on the way down."""
    for number in numbers:
        message = message.fields_by_number[number].message_type
    return message


def varint(value: int) -> bytes:
    """A number >= 0 as a varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def padded(encoded: bytes, size: int) -> bytes:
    """The same varint in more bytes than it needs."""
    missing = size - len(encoded)
    if missing <= 0:
        return encoded
    return encoded[:-1] + bytes([encoded[-1] | 128]) + b"\x80" * (missing - 1) + b"\0"


def wire_type(field: FieldDescriptor) -> int:
    """How a single value of a field is encoded."""
    if field.message_type is not None or field.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}:
        return 2
    if field.type in _FIXED:
        return 1
    return 5 if field.type == FieldDescriptor.TYPE_FIXED32 else 0


def delimited(number: int, payload: bytes) -> bytes:
    """A length-delimited field as a serializer writes it."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def mutated(random: Random, request: bytes) -> bytes:
    """A request with a few bits or bytes changed, lost, repeated or put in."""
    body = bytearray(request)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        place = random.randint(0, len(body))
        size = random.choice((1, 1, 2, 8))
        change = random.randint(0, 5)
        if change == 0 and place < len(body):
            body[place] ^= 1 << random.randint(0, 7)
        elif change == 1 and place < len(body):
            body[place] = random.choice((0, 1, 2, 7, 8, 0x0A, 0x12, 0x4A, 0x7F, 0x80, 0xC0, 0xED, 0xFF))
        elif change == 2:
            del body[place : place + size]
        elif change == 3:
            body[place:place] = random.randbytes(size)
        elif change == 4:
            body[place:place] = body[place : place + 4 * size]
        else:
            del body[place:]
    return bytes(body)


def request_of(*rows: bytes) -> bytes:
    """A request with one group, without a Resource, with one scope and these serialized rows."""
    return delimited(1, delimited(2, b"".join(delimited(2, row) for row in rows)))


def parsed(signal: Signal, request: bytes) -> Any:
    """What protobuf reads; DecodeError if it is no message."""
    return signal.value.request.FromString(request)
