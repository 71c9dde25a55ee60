"""The three signals: all that differs between traces, metrics and logs, so that nothing is written three times."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from otel_pipeline.wire import cells
from otel_pipeline.wire.schema import FIELDS_MAX, Message

if TYPE_CHECKING:
    from google.protobuf.message import Message as ProtobufMessage


@dataclass(frozen=True, slots=True)
class SignalSpec:
    """What the scanner, the servers and the clients must know of a signal."""

    word: str
    """As it stands in a configuration: traces, metrics, logs."""
    items: str
    """What is counted, as in the Collector's metric names: spans, metric_points, log_records."""
    service: str
    """The gRPC service that takes it."""
    path: str
    """The HTTP path that takes it."""
    rejected_field: str
    """The field of a partial success that counts rejected items."""
    row_message: Message
    attributes_field: int
    """Of the row's message; a metric has metadata, its attributes are with the points."""
    slots: bytes
    """For each field of the row's message the cell that keeps it, 0 for none."""
    request: type[ProtobufMessage]
    response: type[ProtobufMessage]


def _slots(cells_of: dict[int, int]) -> bytes:
    table = bytearray(FIELDS_MAX)
    for field, cell in cells_of.items():
        table[field] = cell
    return bytes(table)


_SPAN_SLOTS = _slots(
    {
        1: cells.TRACE_HI,
        2: cells.SPAN_ID,
        4: cells.PARENT_ID,
        5: cells.NAME_AT,
        6: cells.KIND,
        7: cells.TIME,
        8: cells.END_TIME,
        16: cells.FLAGS,
    }
)
_LOG_SLOTS = _slots(
    {
        1: cells.TIME,
        2: cells.KIND,
        3: cells.SEVERITY_TEXT_AT,
        8: cells.FLAGS,
        9: cells.TRACE_HI,
        10: cells.SPAN_ID,
        11: cells.END_TIME,
        12: cells.NAME_AT,
    }
)
_METRIC_SLOTS = _slots({1: cells.NAME_AT})


class Signal(Enum):
    """A kind of telemetry; `spec` has all that distinguishes it."""

    TRACES = SignalSpec(
        "traces",
        "spans",
        "opentelemetry.proto.collector.trace.v1.TraceService",
        "/v1/traces",
        "rejected_spans",
        Message.SPAN,
        9,
        _SPAN_SLOTS,
        trace_service_pb2.ExportTraceServiceRequest,
        trace_service_pb2.ExportTraceServiceResponse,
    )
    METRICS = SignalSpec(
        "metrics",
        "metric_points",
        "opentelemetry.proto.collector.metrics.v1.MetricsService",
        "/v1/metrics",
        "rejected_data_points",
        Message.METRIC,
        12,
        _METRIC_SLOTS,
        metrics_service_pb2.ExportMetricsServiceRequest,
        metrics_service_pb2.ExportMetricsServiceResponse,
    )
    LOGS = SignalSpec(
        "logs",
        "log_records",
        "opentelemetry.proto.collector.logs.v1.LogsService",
        "/v1/logs",
        "rejected_log_records",
        Message.LOG_RECORD,
        6,
        _LOG_SLOTS,
        logs_service_pb2.ExportLogsServiceRequest,
        logs_service_pb2.ExportLogsServiceResponse,
    )

    @property
    def word(self) -> str:
        """As in a configuration: traces, metrics, logs."""
        return self.value.word
