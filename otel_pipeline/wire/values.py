"""Attribute values between Python and protobuf, for the cold paths: once per distinct value, never once per span.

A value is a str, bool, int, float, bytes, a list of values, a dict of values, or None for an empty AnyValue.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import numpy as np
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Scalar: TypeAlias = str | bool | int | float
SettableT = TypeVar("SettableT", bound="Settable | None")
Settable: TypeAlias = Scalar | tuple[str, ...]
"""What can be written into a column: a tuple becomes an array."""
Value: TypeAlias = "str | bool | int | float | bytes | Sequence[Value] | Mapping[str, Value] | None"

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1


def in_64_bits(value: SettableT) -> SettableT | str:
    """The value itself; as text if it is a number that AnyValue has no room for."""
    if isinstance(value, int) and not INT_MIN <= value <= INT_MAX:
        return str(value)
    return value


def varint(value: int) -> bytes:
    """A number >= 0 as a protobuf varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field with its tag."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def any_value(value: Value) -> common_pb2.AnyValue:
    """A Python value as an AnyValue; numbers outside 64 bits become text."""
    member: dict[str, Any] = {}
    if isinstance(value, bool):
        member["bool_value"] = value
    elif isinstance(value, int):
        storable = in_64_bits(value)
        member["string_value" if isinstance(storable, str) else "int_value"] = storable
    elif isinstance(value, float):
        member["double_value"] = value
    elif isinstance(value, str):
        member["string_value"] = value
    elif isinstance(value, bytes):
        member["bytes_value"] = value
    elif value is None:
        pass
    elif hasattr(value, "items"):
        pairs = [common_pb2.KeyValue(key=key, value=any_value(inner)) for key, inner in value.items()]
        member["kvlist_value"] = common_pb2.KeyValueList(values=pairs)
    else:
        member["array_value"] = common_pb2.ArrayValue(values=[any_value(inner) for inner in value])
    return common_pb2.AnyValue(**member)


def python_value(value: common_pb2.AnyValue) -> Value:
    """An AnyValue as a Python value."""
    member = value.WhichOneof("value")
    if member is None:
        return None
    if member == "array_value":
        return [python_value(inner) for inner in value.array_value.values]
    if member == "kvlist_value":
        return {pair.key: python_value(pair.value) for pair in value.kvlist_value.values}
    plain: Value = getattr(value, member)
    return plain


@lru_cache(maxsize=1024)
def array_values(encoded: bytes) -> tuple[Value, ...]:
    """The values of a serialized ArrayValue; none if it is damaged."""
    try:
        return tuple(python_value(value) for value in common_pb2.ArrayValue.FromString(encoded).values)
    except DecodeError:
        return ()


@lru_cache(maxsize=8192)
def attribute_field(number: int, key: str, value: Settable, _kind: str) -> bytes:
    """A KeyValue as field `number` of its message; `_kind` names the type: 1, 1.0 and True differ in the cache."""
    return field(number, common_pb2.KeyValue(key=key, value=any_value(value)).SerializeToString())


@lru_cache(maxsize=1024)
def resource_attributes(payload: bytes) -> dict[str, Value]:
    """The attributes of a serialized Resource, not to be changed; of equal keys the first counts (as elsewhere)."""
    attributes: dict[str, Value] = {}
    for pair in Resource.FromString(payload).attributes:
        attributes.setdefault(pair.key, python_value(pair.value))
    return attributes


@lru_cache(maxsize=1024)
def scope_identity(payload: bytes) -> tuple[str, str]:
    """Name and version of a serialized InstrumentationScope."""
    scope = common_pb2.InstrumentationScope.FromString(payload)
    return scope.name, scope.version


class Fragments:
    """Serialized fields, end to end, by index."""

    __slots__ = ("_blobs", "_count", "_sizes")

    def __init__(self) -> None:
        self._blobs: list[bytes | bytearray] = []
        self._sizes: list[NDArray[np.int64]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, fields: Sequence[bytes]) -> None:
        """Append some fields."""
        self._blobs.extend(fields)
        self._sizes.append(np.fromiter(map(len, fields), np.int64, len(fields)))
        self._count += len(fields)

    def add_doubles(self, number: int, key: str, values: NDArray[np.float64]) -> None:
        """For each value append a KeyValue with a double as field `number`: alike but for the last eight bytes."""
        head = attribute_field(number, key, 0.5, "float")[:-8]
        blob = bytearray(head + bytes(8)) * len(values)
        np.ndarray(len(values), "<f8", blob, len(head), len(head) + 8)[:] = values
        self._append(blob, len(values), len(head) + 8)

    def add_ints(self, number: int, key: str, values: NDArray[np.int64], size: int) -> None:
        """The same with ints >= 0 whose varints have `size` bytes."""
        head = attribute_field(number, key, 1 << 7 * (size - 1), "int")[:-size]
        blob = bytearray(head + bytes(size)) * len(values)
        septets = (values >> np.arange(0, 7 * size, 7)[:, None]).astype(np.uint8) | 0x80
        septets[-1] &= 0x7F
        np.ndarray(septets.shape, np.uint8, blob, len(head), (1, len(head) + size))[:] = septets
        self._append(blob, len(values), len(head) + size)

    def _append(self, blob: bytearray, count: int, size: int) -> None:
        self._blobs.append(blob)
        self._sizes.append(np.full(count, size, np.int64))
        self._count += count

    def extend(self, other: Fragments) -> None:
        """Append those of another."""
        self._blobs.extend(other._blobs)
        self._sizes.extend(other._sizes)
        self._count += other._count

    def joined(self) -> tuple[bytes, NDArray[np.int64]]:
        """All of them in one, and their bounds: the i-th lies between bounds[i] and bounds[i + 1]."""
        bounds = np.zeros(self._count + 1, np.int64)
        if self._count:
            np.cumsum(np.concatenate(self._sizes), out=bounds[1:])
        return b"".join(self._blobs), bounds
