"""A sampler's reading as a serialized ExportMetricsServiceRequest, with one data point for each sample.

Messages with many points are put together here from bytes: the attributes of a series are encoded once, a point is then
a number, a time and these. The names and attributes are those of `nvml/conventions.py`.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric, NumberDataPoint

from otel_pipeline import __version__
from otel_pipeline.nvml.conventions import SCOPE, SENT_TIME, Kind, metrics
from otel_pipeline.worker.process import resource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline.nvml.conventions import Instrument, Points, Value
    from otel_pipeline.nvml.samples import Reading

CUMULATIVE: Final = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_DATA_POINTS: Final = b"\x0a"
"""Field 1 of Gauge and Sum."""
_GAUGE: Final = struct.Struct("<BQBd")
_GAUGE_INT: Final = struct.Struct("<BQBq")
_SUM: Final = struct.Struct("<BQBQBd")
_SUM_INT: Final = struct.Struct("<BQBQBq")
_START, _TIME, _DOUBLE, _INT = (
    field << 3 | 1
    for field in (
        NumberDataPoint.START_TIME_UNIX_NANO_FIELD_NUMBER,
        NumberDataPoint.TIME_UNIX_NANO_FIELD_NUMBER,
        NumberDataPoint.AS_DOUBLE_FIELD_NUMBER,
        NumberDataPoint.AS_INT_FIELD_NUMBER,
    )
)
"""Keys of fields of eight bytes."""


def host_attributes(environment: Mapping[str, str] | None = None, root: Path | None = None) -> dict[str, Value]:
    """What tells this host: the same attributes as on the spans of its workers, as both are joined by them. On a rented
    pod `host.id` is the pod's id; in Kubernetes `k8s.node.name` is told if the environment has it.
    """
    found = resource.read(os.environ if environment is None else environment, Path("/") if root is None else root)
    return {
        key: value
        for key, value in found.items()
        if isinstance(value, str | int) and key not in {resource.GPU_IDS, resource.GPU_COUNT}
    }


def to_request(reading: Reading, attributes: Mapping[str, Value]) -> bytes:
    """The request; `attributes` are the resource's, to which the time of the reading is added as the sender's clock."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    for key, value in (*attributes.items(), (SENT_TIME, reading.taken_unix_nano)):
        _put(group.resource.attributes.add(), key, value)
    scope = group.scope_metrics.add()
    scope.scope.name, scope.scope.version = SCOPE, __version__
    for instrument, points in metrics(reading).items():
        scope.metrics.append(_metric(instrument, points))
    return request.SerializeToString()


def _metric(instrument: Instrument, points: list[Points]) -> Metric:
    metric = Metric(name=instrument.name, unit=instrument.unit, description=instrument.text)
    encoded = b"".join(map(_encoded, points))
    if instrument.kind is Kind.GAUGE:
        metric.gauge.MergeFromString(encoded)
    else:
        metric.sum.MergeFromString(encoded)
        metric.sum.aggregation_temporality = CUMULATIVE
        metric.sum.is_monotonic = instrument.kind is Kind.COUNTER
    return metric


def _encoded(points: Points) -> bytes:
    """Points as the repeated first field of Gauge and Sum. Whole numbers stay whole."""
    message = NumberDataPoint()
    for key, value in points.attributes:
        _put(message.attributes.add(), key, value)
    attributes = message.SerializeToString()
    start = points.started_unix_nano
    broken, whole = (_SUM, _SUM_INT) if start else (_GAUGE, _GAUGE_INT)
    head = _DATA_POINTS + _varint(broken.size + len(attributes))
    before = (_START, start) if start else ()
    pieces = []
    for time_ns, number in zip(points.times_unix_nano, points.values, strict=True):
        is_whole = isinstance(number, int)
        packed = (whole if is_whole else broken).pack(*before, _TIME, time_ns, _INT if is_whole else _DOUBLE, number)
        pieces += [head, packed, attributes]
    return b"".join(pieces)


def _put(pair: KeyValue, key: str, value: Value) -> None:
    pair.key = key
    if isinstance(value, int):
        pair.value.int_value = value
    else:
        pair.value.string_value = value


def _varint(number: int) -> bytes:
    """A length of at most a few kilobytes."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
