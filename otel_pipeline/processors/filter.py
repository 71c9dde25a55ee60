"""Processor `filter`: drops the spans, log records and metrics that match one of its conditions.

The conditions are a subset of OTTL, see `conditions/parser.py`. What the Collector drops inside a row - events of a
span, data points of a metric - cannot be dropped here; such conditions are refused at start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from otel_pipeline.conditions.parser import parse
from otel_pipeline.conditions.paths import Context as Paths
from otel_pipeline.conditions.settings import (
    DataPoints,
    LogCondition,
    LogResourceCondition,
    MetricCondition,
    MetricResourceCondition,
    SpanCondition,
    SpanEvents,
    SpanResourceCondition,
)
from otel_pipeline.contracts import Context, Settings
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from otel_pipeline.conditions.parser import Condition
    from otel_pipeline.wire.batch import Batch, Mask


class TraceFilters(Settings):
    """Conditions on traces."""

    resource: tuple[SpanResourceCondition, ...] = ()
    """Drop the spans of the resources that match."""
    span: tuple[SpanCondition, ...] = ()
    """Drop the spans that match."""
    spanevent: SpanEvents = ()
    """Refused: events of a span cannot be dropped."""


class LogFilters(Settings):
    """Conditions on logs."""

    resource: tuple[LogResourceCondition, ...] = ()
    """Drop the log records of the resources that match."""
    log_record: tuple[LogCondition, ...] = ()
    """Drop the log records that match."""


class MetricFilters(Settings):
    """Conditions on metrics."""

    resource: tuple[MetricResourceCondition, ...] = ()
    """Drop the metrics of the resources that match."""
    metric: tuple[MetricCondition, ...] = ()
    """Drop the metrics that match, with all their data points."""
    datapoint: DataPoints = ()
    """Refused: data points of a metric cannot be dropped."""


class FilterProcessor:
    """Drops each row that matches at least one condition; a row that cannot be judged stays."""

    class Config(Settings):
        """Settings of `filter`."""

        error_mode: Literal["ignore", "silent", "propagate"] = "ignore"
        """Accepted for the Collector's sake. No condition can fail here: what it cannot judge it does not match, and
        that is not logged, in each of the modes."""
        traces: TraceFilters = TraceFilters()
        """Conditions on spans."""
        logs: LogFilters = LogFilters()
        """Conditions on log records."""
        metrics: MetricFilters = MetricFilters()
        """Conditions on metrics."""
        trace_conditions: tuple[SpanCondition, ...] = ()
        """The same as traces.span."""
        log_conditions: tuple[LogCondition, ...] = ()
        """The same as logs.log_record."""
        metric_conditions: tuple[MetricCondition, ...] = ()
        """The same as metrics.metric."""

    def __init__(self, config: Config, context: Context) -> None:  # noqa: ARG002 - every component gets a context
        rows = {
            Signal.TRACES: [*config.traces.span, *config.trace_conditions],
            Signal.LOGS: [*config.logs.log_record, *config.log_conditions],
            Signal.METRICS: [*config.metrics.metric, *config.metric_conditions],
        }
        resources = {
            Signal.TRACES: config.traces.resource,
            Signal.LOGS: config.logs.resource,
            Signal.METRICS: config.metrics.resource,
        }
        self._conditions: Final[dict[Signal, list[Condition]]] = {
            signal: [
                *(parse(text, signal, Paths.RESOURCE) for text in resources[signal]),
                *(parse(text, signal) for text in rows[signal]),
            ]
            for signal in Signal
        }

    def attributes(self, signal: Signal) -> frozenset[str]:
        """The keys that its conditions read."""
        return frozenset[str]().union(*(condition.attributes for condition in self._conditions[signal]))

    def process(self, batch: Batch) -> None:
        """Drop what matches."""
        matching: Mask | None = None
        for condition in self._conditions[batch.signal]:
            mask = condition.mask(batch)
            matching = mask if matching is None else matching | mask
        if matching is not None and np.count_nonzero(matching):  # a third of the time of any()
            batch.drop(matching)
