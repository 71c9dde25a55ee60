"""Exporter `prometheus`: metrics on an HTTP port for Prometheus to scrape.

Shows what processors derived from spans and logs, and the metrics that came in over OTLP. Text format 0.0.4, or
OpenMetrics 1.0 with exemplars for who asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from pydantic import Field, field_validator

from otel_pipeline.contracts import Context, Settings
from otel_pipeline.errors import Refused
from otel_pipeline.exposition.families import label_allowed
from otel_pipeline.exposition.names import with_namespace
from otel_pipeline.exposition.page import ANY_TEXT, page
from otel_pipeline.exposition.received import ReceivedMetrics, Translation
from otel_pipeline.limits import EXPOSITION_SERIES_MAX, RECEIVED_SERIES_MAX, REQUEST_BYTES_MAX
from otel_pipeline.settings import Duration, Endpoint
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import Metric

PATH: Final = "/metrics"


class ResourceToTelemetry(Settings):
    """What becomes of resource attributes."""

    enabled: bool = False
    """Make each of them a label of every series, instead of `target_info` alone."""


class PrometheusExporter:
    """Keeps the latest point of each received series and answers scrapes."""

    class Config(Settings):
        """Settings of `prometheus`."""

        without_effect: ClassVar[dict[str, str]] = {
            "send_timestamps": "with timestamps Prometheus would mark no series stale; samples count from the scrape",
        }

        endpoint: Endpoint = "127.0.0.1:8889"
        """host:port to listen on; an empty host is every interface."""
        namespace: str = ""
        """Put before every name on this endpoint."""
        const_labels: dict[str, str] = Field(default={}, examples=[{"region": "eu-1"}])
        """Labels that every series gets, unless it has one of that name."""
        metric_expiration: Duration = 300.0
        """How long a received series is shown after its last point."""
        enable_open_metrics: bool = True
        """Offer OpenMetrics, which carries exemplars; without, text alone."""
        resource_to_telemetry_conversion: ResourceToTelemetry = ResourceToTelemetry()
        """What becomes of resource attributes."""
        add_metric_suffixes: bool = True
        """Append unit and `_total` to received names. Without, a received counter has no type."""
        series_max: Annotated[int, Field(ge=1)] = EXPOSITION_SERIES_MAX
        """Series of one received metric; points of further ones are refused and counted."""
        series_all_max: Annotated[int, Field(ge=1)] = RECEIVED_SERIES_MAX
        """Series of all received metrics together."""

        @field_validator("const_labels")
        @classmethod
        def _are_labels(cls, labels: dict[str, str]) -> dict[str, str]:
            for name in labels:
                if not label_allowed(name):
                    raise ValueError(
                        f"{name!r} is no label name; allowed: letters, digits and _, not __ or a digit first"
                    )
            return labels

    def __init__(self, config: Config, context: Context) -> None:
        self.request_bytes_max: Final = REQUEST_BYTES_MAX
        self.endpoint: str = config.endpoint
        self.paths: dict[str, Callable[[str], tuple[str, bytes]]] = {PATH: self.render}
        self._config = config
        self._exposition = context.exposition
        self._received = ReceivedMetrics(
            context.exposition,
            context.clock,
            translation=Translation(
                config.namespace, config.add_metric_suffixes, config.resource_to_telemetry_conversion.enabled
            ),
            expiration_s=config.metric_expiration,
            series_max=config.series_max,
            series_all_max=config.series_all_max,
        )

    def deliver(self, signal: Signal, request: bytes) -> int:
        """Store the points; returns how many can never be shown."""
        if signal is not Signal.METRICS:
            raise Refused(f"a prometheus exporter takes metrics, not {signal.word}")
        try:
            decoded = ExportMetricsServiceRequest.FromString(request)
        except DecodeError as error:
            raise Refused("no ExportMetricsServiceRequest") from error
        return self._received.take(decoded)

    def close(self) -> None:
        """Nothing to give up: who serves the port closes it."""

    def render(self, accept: str) -> tuple[str, bytes]:
        """Content type and body for an Accept header."""
        metrics = self._own() + self._received.collect()
        for metric in metrics:
            _label(metric, self._config.const_labels)
        return page(metrics, accept if self._config.enable_open_metrics else ANY_TEXT)

    def _own(self) -> list[Metric]:
        metrics = self._exposition.collect()
        if self._config.namespace:
            for metric in metrics:
                metric.name = with_namespace(self._config.namespace, metric.name)
                metric.samples = [
                    sample._replace(name=with_namespace(self._config.namespace, sample.name))
                    for sample in metric.samples
                ]
        return metrics


def _label(metric: Metric, labels: dict[str, str]) -> None:
    if labels:
        metric.samples = [sample._replace(labels={**labels, **sample.labels}) for sample in metric.samples]
