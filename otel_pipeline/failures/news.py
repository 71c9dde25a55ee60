"""New and returned error groups as log records, for whoever watches logs: alerts, chat bots, incident tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otel_pipeline.wire.values import any_value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_pipeline.failures.occurrences import Group
    from otel_pipeline.wire.values import Scalar

WARN: Final = 13
SCOPE: Final = "otel_pipeline.error_class"


@dataclass(frozen=True, slots=True)
class News:
    """A group that nobody has seen before, or one that was resolved and has come again."""

    event: Literal["new", "regressed"]
    group: Group
    service: str
    trace_id: str
    """Hex, empty if there is none; as is the next."""
    span_id: str
    time_ns: int


def request_of(news: Iterable[News]) -> bytes:
    """A request with one event a piece, linked to the span in which it was seen."""
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add()
    group.resource.attributes.add(key="service.name").value.string_value = "otel-pipeline"
    scope = group.scope_logs.add()
    scope.scope.name = SCOPE
    for one in news:
        record = scope.log_records.add(
            time_unix_nano=one.time_ns,
            observed_time_unix_nano=one.time_ns,
            severity_number=WARN,
            severity_text="WARN",
            event_name=f"otel_pipeline.error_group.{one.event}",
            trace_id=bytes.fromhex(one.trace_id),
            span_id=bytes.fromhex(one.span_id),
        )
        what = one.group
        told = f"{what.exception_type} {what.message}".strip()
        record.body.string_value = f"{one.event} failure {what.name} in {one.service}: {told}"
        attributes: dict[str, Scalar] = {
            "otel_pipeline.error.class": what.name,
            "otel_pipeline.error.rule": what.rule,
            "otel_pipeline.error.fingerprint": what.fingerprint,
            "otel_pipeline.error.retryable": what.retryable,
            "otel_pipeline.error.fault": what.fault,
            "otel_pipeline.error.service": one.service,
            "error.type": what.exception_type,
        }
        for key, value in attributes.items():
            if value != "":
                record.attributes.add(key=key).value.CopyFrom(any_value(value))
    return request.SerializeToString()
