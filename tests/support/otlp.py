"""Requests for tests, built with opentelemetry-proto."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_pipeline.wire.values import any_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_pipeline.wire.values import Value

START_NS = 1_795_294_144_000_000_000


def traces(
    names: Iterable[str] = ("job",),
    attributes: Mapping[str, Value] | None = None,
    service: str = "worker",
    first: int = 1,
) -> bytes:
    """A request with one span for each name; ids count from `first`."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = service
    scope = group.scope_spans.add()
    scope.scope.name = "tests"
    for number, name in enumerate(names, first):
        span = scope.spans.add(
            trace_id=number.to_bytes(16, "big"),
            span_id=number.to_bytes(8, "big"),
            name=name,
            kind=3,
            start_time_unix_nano=START_NS + number,
            end_time_unix_nano=START_NS + number + 1_000_000,
        )
        for key, value in (attributes or {}).items():
            span.attributes.add(key=key).value.CopyFrom(any_value(value))
    return request.SerializeToString()


def span_names(request: bytes | bytearray) -> list[str]:
    """The names of a request's spans, in order."""
    message = ExportTraceServiceRequest.FromString(bytes(request))
    return [span.name for group in message.resource_spans for scope in group.scope_spans for span in scope.spans]


def logs(bodies: Iterable[str] = ("hello",), service: str = "worker") -> bytes:
    """A request with one log record for each body."""
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add()
    group.resource.attributes.add(key="service.name").value.string_value = service
    scope = group.scope_logs.add()
    for body in bodies:
        record = scope.log_records.add(time_unix_nano=START_NS, severity_number=9)
        record.body.string_value = body
    return request.SerializeToString()


def metrics(points: Mapping[str, float] | None = None, service: str = "worker") -> bytes:
    """A request with one gauge of one point for each name."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.attributes.add(key="service.name").value.string_value = service
    scope = group.scope_metrics.add()
    for name, value in (points or {"queue.depth": 3.0}).items():
        scope.metrics.add(name=name).gauge.data_points.add(time_unix_nano=START_NS, as_double=value)
    return request.SerializeToString()
