"""Number data points of one metric, in bulk: times and values as arrays, attributes once for each distinct set.

The kernel counts points but has no columns for them, so this walks the bytes of the few metrics that are asked for. A
metric of an agent holds hundreds of points that differ in their time and value only, both of a fixed width: bytes of
one length, end to end. Such a run is a matrix; two of its columns of eight bytes are the arrays, and what is left of a
row names its series. Whatever is not of this shape is read by protobuf, point by point: the results are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from google.protobuf.message import DecodeError
from opentelemetry.proto.metrics.v1 import metrics_pb2

from otel_pipeline.errors import WireError
from otel_pipeline.limits import GPU_POINTS_COMPARED_BYTES_MAX, GPU_POINTS_SERIES_MAX, GPU_POINTS_SINGLE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Key: TypeAlias = "tuple[tuple[str, str | int], ...]"
Arrays: TypeAlias = "tuple[NDArray[np.uint64], NDArray[np.float64]]"

RUN_MIN: Final = 16
"""Points of one length from which on a matrix costs less than protobuf."""
SERIES_MAX: Final = 64
"""Distinct sets of attributes in one run, before protobuf is cheaper than comparing all rows with each."""

# Wire types, and the numbers of the fields that are read.
_VARINT, _FIXED64, _BYTES = 0, 1, 2
_WIDTHS: Final = {_FIXED64: 8, 5: 4}
_UNIT, _GAUGE, _SUM = 3, 5, 7
_POINTS, _TEMPORALITY = 1, 2
_START, _TIME, _DOUBLE, _INT = 2, 3, 4, 6
NO_VALUE: Final = metrics_pb2.DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
DELTA: Final = metrics_pb2.AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


@dataclass(frozen=True, slots=True)
class Series:
    """The points of one set of attributes, in their order."""

    attributes: dict[str, str | int]
    """Texts and whole numbers; others are left out."""
    times_ns: NDArray[np.uint64]
    values: NDArray[np.float64]
    """NaN where a point has none."""


@dataclass(frozen=True, slots=True)
class Points:
    """What a metric holds."""

    unit: str
    is_delta: bool
    series: list[Series] | None
    """None: they would cost more than the budget has."""


@dataclass(slots=True)
class Budget:
    """What reading the points of one batch may cost; no sampler comes near, somebody else's metrics may."""

    singles: int = GPU_POINTS_SINGLE_MAX
    """Points that are read one by one."""
    series: int = GPU_POINTS_SERIES_MAX
    """Series of runs."""
    compared_bytes: int = GPU_POINTS_COMPARED_BYTES_MAX
    """Bytes of runs that are compared, once for each series in them."""


def read_points(metric: bytes, count: int, budget: Budget) -> Points | None:
    """The points of a serialized Metric, so many, by their attributes; None if it is no gauge and no sum. Raises
    WireError.
    """
    unit, data = b"", None
    for number, wire, start, end in _fields(metric):
        if number == _UNIT and wire == _BYTES:
            unit = metric[start:end]
        elif number in (_GAUGE, _SUM) and wire == _BYTES:
            data = metric[start:end]
    if data is None:
        return None
    try:
        found = _in_bulk(data, budget)
        if found is None and count <= budget.singles:
            budget.singles -= count
            found = _one_by_one(data)
    except DecodeError as error:
        raise WireError("no data points", 0) from error
    temporality, series = found or (0, None)
    return Points(unit.decode(errors="replace"), temporality == DELTA, series)


# -- in bulk -----------------------------------------------------------------------------------------------------------


def _in_bulk(data: bytes, budget: Budget) -> tuple[int, list[Series]] | None:
    """Temporality and series of a Gauge or Sum that is made of runs; None if it is not."""
    series: dict[Key, list[Arrays]] = {}
    temporality = at = 0
    while at < len(data):
        number, wire, start, end = _field(data, at)
        if number == _TEMPORALITY and wire == _VARINT:
            temporality = _varint(data, start)[0]
        elif number == _POINTS and wire == _BYTES:
            stride = end - at
            count = _run_length(data, at, start - at, stride)
            table = np.frombuffer(data, np.uint8, count * stride, at).reshape(count, stride)[:, start - at :]
            if count < RUN_MIN or not _split(table, series, budget):
                return None
            end = at + count * stride
        at = end
    return temporality, [_joined(key, arrays) for key, arrays in series.items()]


def _run_length(data: bytes, at: int, head: int, stride: int) -> int:
    """How many points of this length follow one another. Looks at twice as many as there are, never at all."""
    count, window = 1, RUN_MIN
    expected = np.frombuffer(data, np.uint8, head, at)
    while (room := min(window, (len(data) - at) // stride - count)) > 0:
        table = np.frombuffer(data, np.uint8, room * stride, at + count * stride).reshape(room, stride)
        same = (table[:, :head] == expected).all(axis=1)
        if not same.all():
            return count + int(np.argmin(same))
        count += room
        window = 2 * count
    return count


def _split(table: NDArray[np.uint8], series: dict[Key, list[Arrays]], budget: Budget) -> bool:
    """Add a run, a point in each row, to its series; False if its points are not of the shape."""
    seen: set[Key] = set()
    while len(seen) < SERIES_MAX and budget.series and table.size <= budget.compared_bytes:
        budget.series -= 1
        budget.compared_bytes -= table.size
        first = table[0]
        sample = first.tobytes()
        places = _places(sample)
        if places is None:
            return False
        equal = table == first
        for place in places.values():
            equal[:, place : place + 8] = True
        same = equal.all(axis=1)
        rows = table[same]
        point = metrics_pb2.NumberDataPoint.FromString(sample)
        key = _key(point)
        if key in seen:  # one series in two layouts: their order would be lost
            return False
        seen.add(key)
        member = _DOUBLE if _DOUBLE in places else _INT
        values = _column(rows, places[member], "<f8" if member == _DOUBLE else "<i8").astype(np.float64)
        if point.flags & NO_VALUE:
            values[:] = np.nan
        series.setdefault(key, []).append((_column(rows, places[_TIME], "<u8"), values))
        table = table[~same]
        if not len(table):
            return True
    return False


def _joined(key: Key, arrays: list[Arrays]) -> Series:
    times_ns, values = arrays[0] if len(arrays) == 1 else (np.concatenate(each) for each in zip(*arrays, strict=True))
    return Series(dict(key), times_ns, values)


def _column(rows: NDArray[np.uint8], place: int, kind: str) -> NDArray[Any]:
    return np.ascontiguousarray(rows[:, place : place + 8]).view(kind).ravel()


def _places(point: bytes) -> dict[int, int] | None:
    """Where start, time and value of a point stand; None if one stands twice, or time or value is absent."""
    places: dict[int, int] = {}
    for number, wire, start, _ in _fields(point):
        if number in (_START, _TIME, _DOUBLE, _INT) and wire == _FIXED64:
            if number in places:
                return None
            places[number] = start
    return places if _TIME in places and (_DOUBLE in places) != (_INT in places) else None


# -- one by one --------------------------------------------------------------------------------------------------------


def _one_by_one(data: bytes) -> tuple[int, list[Series]]:
    """The same for any shape. A Gauge is read as a Sum without a temporality."""
    message = metrics_pb2.Sum.FromString(data)
    series: dict[Key, tuple[list[int], list[float]]] = {}
    for point in message.data_points:
        times_ns, values = series.setdefault(_key(point), ([], []))
        times_ns.append(point.time_unix_nano)
        values.append(_value(point))
    return message.aggregation_temporality, [
        Series(dict(key), np.array(times_ns, np.uint64), np.array(values, np.float64))
        for key, (times_ns, values) in series.items()
    ]


def _value(point: metrics_pb2.NumberDataPoint) -> float:
    member = None if point.flags & NO_VALUE else point.WhichOneof("value")
    if member is None:
        return math.nan
    return float(point.as_int if member == "as_int" else point.as_double)


def _key(point: metrics_pb2.NumberDataPoint) -> Key:
    """The texts and whole numbers among the attributes; of equal keys the first counts, as elsewhere."""
    found: dict[str, str | int] = {}
    for pair in point.attributes:
        member = pair.value.WhichOneof("value")
        if member == "string_value":
            found.setdefault(pair.key, pair.value.string_value)
        elif member == "int_value":
            found.setdefault(pair.key, pair.value.int_value)
    return tuple(found.items())


# -- bytes -------------------------------------------------------------------------------------------------------------


def _fields(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, start and end of the payload of each field of a message. Raises WireError."""
    at = 0
    while at < len(data):
        number, wire, start, end = _field(data, at)
        yield number, wire, start, end
        at = end


def _field(data: bytes, at: int) -> tuple[int, int, int, int]:
    tag, start = _varint(data, at)
    wire = tag & 7
    if wire == _VARINT:
        end = _varint(data, start)[1]
    elif wire == _BYTES:
        length, start = _varint(data, start)
        end = start + length
    elif wire in _WIDTHS:
        end = start + _WIDTHS[wire]
    else:
        raise WireError(f"wire type {wire}", at)
    if end > len(data):
        raise WireError("a field that is cut off", at)
    return tag >> 3, wire, start, end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise WireError("a varint without an end", at)
