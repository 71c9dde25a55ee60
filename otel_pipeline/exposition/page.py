"""The page that a scraper gets: text format 0.0.4, or OpenMetrics 1.0 for who asks for it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from otel_pipeline.exposition.families import sample_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import Metric

ANY_TEXT: Final = ""
"""An Accept header that never asks for OpenMetrics."""


def page(metrics: Sequence[Metric], accept: str) -> tuple[str, bytes]:
    """Content type and body for an Accept header. The metrics may be changed on the way."""
    encode, content_type = choose_encoder(accept)
    if content_type.startswith("application/openmetrics-text"):
        _untype_clashing_counters(metrics)
    return content_type, encode(_Snapshot(metrics))


class _Snapshot(Collector):
    """What the encoders ask for metrics."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _untype_clashing_counters(metrics: Sequence[Metric]) -> None:
    """Let a counter `x_total` stand beside a gauge `x`: to OpenMetrics both are `x`, so the counter loses its type."""
    claims = Counter(name for metric in metrics for name in _claimed(metric))
    for metric in metrics:
        if metric.type == "counter" and any(claims[name] > 1 for name in _claimed(metric)):
            metric.name, metric.type, metric.unit = f"{metric.name}_total", "unknown", ""
            metric.samples = [sample._replace(exemplar=None) for sample in metric.samples]


def _claimed(metric: Metric) -> set[str]:
    """The names that OpenMetrics lets no other family have."""
    if metric.type == "counter":
        return {metric.name, f"{metric.name}_total", f"{metric.name}_created"}
    return sample_names(metric.name, metric.type)
