"""Processor `span_metrics`: counts spans and errors and measures durations, like the Collector's spanmetrics connector.

Stands before sampling in a pipeline, so that the numbers are those of all spans. It changes nothing in a batch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Final, Literal

import numpy as np
from pydantic import Field, field_validator

from otel_pipeline.contracts import Context, Settings
from otel_pipeline.errors import ConfigError
from otel_pipeline.exposition.families import Exemplars
from otel_pipeline.exposition.label_columns import attribute_column, group_rows, resource_column
from otel_pipeline.exposition.names import label_name
from otel_pipeline.limits import EXPOSITION_SERIES_MAX, RECEIVED_BUCKETS_MAX, RECEIVED_LABELS_MAX
from otel_pipeline.settings import Duration
from otel_pipeline.wire.batch import Strings
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline.wire.batch import Batch, Ints

Column = Literal["service.name", "span.name", "span.kind", "status.code"]

KINDS: Final = [f"SPAN_KIND_{word}" for word in ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")]
STATUSES: Final = [f"STATUS_CODE_{word}" for word in ("UNSET", "OK", "ERROR")]
ERROR: Final = 2
BUCKETS_S: Final = (
    0.002, 0.004, 0.006, 0.008, 0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.4, 2.0, 5.0, 10.0, 15.0,
    30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
"""Those of the Collector, and beyond its 15 s what a generation of images or video takes."""

COLUMNS: Final[dict[Column, Callable[[Batch], Strings]]] = {
    "service.name": lambda batch: resource_column(batch, "service.name"),
    "span.name": lambda batch: batch.name(),
    "span.kind": lambda batch: _enumerated(batch.kind, KINDS),
    "status.code": lambda batch: _enumerated(batch.status_code, STATUSES),
}


class SpanMetricsProcessor:
    """Writes `<namespace>_calls_total`, `_errors_total` and `_duration_seconds` for the spans still in a batch."""

    class Config(Settings):
        """Settings of `span_metrics`."""

        class Dimension(Settings):
            """A label taken from an attribute."""

            name: Annotated[str, Field(min_length=1)]
            """Attribute of the span or, if it has none of this name, of its resource."""
            default: str = ""
            """The label's value where neither has it; empty: no label."""

        namespace: Annotated[str, Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")] = "traces_span_metrics"
        """The names of the metrics start with it."""
        buckets: Annotated[list[Duration], Field(min_length=1, max_length=RECEIVED_BUCKETS_MAX)] = Field(
            default=list(BUCKETS_S)
        )
        """Upper bounds of the duration histogram, ascending, such as 2ms or 1.5s."""
        dimensions: Annotated[list[Dimension], Field(max_length=RECEIVED_LABELS_MAX)] = Field(default=[])
        """Further labels. Never an id, a user or a file name: each value is a series of its own."""
        exclude_dimensions: list[Column] = Field(default=[])
        """Which of service.name, span.name, span.kind and status.code to leave out."""
        series_max: Annotated[int, Field(ge=1)] = EXPOSITION_SERIES_MAX
        """Series of each metric; all further ones share the series whose labels read `__overflow__`."""
        exemplars: bool = True
        """Remember in each bucket the trace of a span that fell into it, for OpenMetrics."""

        @field_validator("buckets")
        @classmethod
        def _ascend(cls, buckets: list[float]) -> list[float]:
            if any(low >= high for low, high in pairwise(buckets)):
                raise ValueError("must ascend: each bound above the one before")
            return buckets

    def __init__(self, config: Config, context: Context) -> None:
        self._exemplars = config.exemplars
        self._dimensions = config.dimensions
        self._columns = [column for name, column in COLUMNS.items() if name not in config.exclude_dimensions]
        names = [name for name in COLUMNS if name not in config.exclude_dimensions]
        labels = [label_name(name) for name in (*names, *(dimension.name for dimension in config.dimensions))]
        if not labels:
            raise ConfigError([f"{context.component_id}: exclude_dimensions leaves no label; leave one of them in"])
        metrics, prefix, most = context.exposition, config.namespace, config.series_max
        self._calls = metrics.counter(f"{prefix}_calls_total", "Spans.", labels, most)
        self._errors = metrics.counter(f"{prefix}_errors_total", "Spans with the status error.", labels, most)
        self._durations = metrics.histogram(
            f"{prefix}_duration_seconds", "Durations of spans.", labels, config.buckets, most
        )

    def attributes(self, signal: Signal) -> frozenset[str]:
        """The dimensions, for traces."""
        if signal is not Signal.TRACES:
            return frozenset()
        return frozenset(dimension.name for dimension in self._dimensions)

    def process(self, batch: Batch) -> None:
        """Count the kept spans."""
        if batch.signal is not Signal.TRACES or not batch.keep.any():
            return
        columns = [column(batch) for column in self._columns]
        columns += [attribute_column(batch, dimension.name, dimension.default) for dimension in self._dimensions]
        groups = group_rows(columns, batch.keep)
        self._calls.add(groups)
        failed = batch.status_code == ERROR
        if failed.any():
            self._errors.add(groups, failed.astype(np.float64))
        # Any span may be an exemplar: what SDKs export is sampled, though Python's does not say so in the flags.
        ids = Exemplars(lambda row: (batch.trace_id(row), batch.span_id(row))) if self._exemplars else None
        self._durations.observe(groups, batch.duration_s, ids)


def _enumerated(numbers: Ints, names: list[str]) -> Strings:
    """A column of enumerators; unknown ones read as the first."""
    codes = numbers.astype(np.int32)
    if codes.view(np.uint32).max() >= len(names):
        codes[codes.view(np.uint32) >= len(names)] = 0
    return Strings(codes, names)
