"""The processor `span_metrics`: which spans count, under which labels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from pydantic import ValidationError

from otel_pipeline.errors import ConfigError
from otel_pipeline.exposition.families import OVERFLOW, Exposition
from otel_pipeline.processors.span_metrics import SpanMetricsProcessor
from otel_pipeline.wire.batch import Batch
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import Value, any_value

PREFIX = "traces_span_metrics"
MS = 1_000_000


def pairs(attributes: dict[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def span(
    name: str = "job",
    *,
    ms: int = 3,
    kind: int = 2,
    status: int = 0,
    number: int = 1,
    attributes: dict[str, Value] | None = None,
) -> Span:
    return Span(
        trace_id=number.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        name=name,
        kind=kind,  # type: ignore[arg-type]  # unknown ones, too
        start_time_unix_nano=10**18,
        end_time_unix_nano=10**18 + ms * MS,
        status=Status(code=status) if status else None,  # type: ignore[arg-type]
        attributes=pairs(attributes or {}),
    )


class Bench:
    """A processor and what it has written."""

    def __init__(self, **settings: Any) -> None:
        self.exposition = Exposition(lambda: 1000.0)
        context: Any = SimpleNamespace(component_id="span_metrics", exposition=self.exposition)
        self.processor = SpanMetricsProcessor(SpanMetricsProcessor.Config.model_validate(settings), context)
        self.reader = BatchReader(Signal.TRACES, self.processor.attributes(Signal.TRACES))

    def read(self, *spans: Span, resource: dict[str, Value] | None = None) -> Batch:
        group = ResourceSpans(
            resource=Resource(attributes=pairs({"service.name": "worker"} if resource is None else resource)),
            scope_spans=[ScopeSpans(spans=spans)],
        )
        return self.reader.read([ExportTraceServiceRequest(resource_spans=[group]).SerializeToString()])[0]

    def process(self, *spans: Span, resource: dict[str, Value] | None = None) -> None:
        self.processor.process(self.read(*spans, resource=resource))

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        """The values of a sample by its label values in order of the labels' names."""
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for metric in self.exposition.collect()
            for sample in metric.samples
            if sample.name == f"{PREFIX}_{name}"
        }


def test_calls_errors_and_durations_by_the_collectors_labels() -> None:
    bench = Bench()
    bench.process(span(ms=3), span(ms=5, status=2), span(ms=700, status=2), span("put", kind=3, status=1))
    job = ("worker", "SPAN_KIND_SERVER", "job")
    assert bench.counted("calls_total") == {
        (*job, "STATUS_CODE_UNSET"): 1,
        (*job, "STATUS_CODE_ERROR"): 2,
        ("worker", "SPAN_KIND_CLIENT", "put", "STATUS_CODE_OK"): 1,
    }
    assert bench.counted("errors_total") == {(*job, "STATUS_CODE_ERROR"): 2}
    assert bench.counted("duration_seconds_sum")[*job, "STATUS_CODE_ERROR"] == pytest.approx(0.705)
    buckets = bench.counted("duration_seconds_bucket")
    errors = [
        buckets[le, "worker", "SPAN_KIND_SERVER", "job", "STATUS_CODE_ERROR"]
        for le in ("0.004", "0.006", "0.4", "0.8", "+Inf")
    ]
    assert errors == [0, 1, 1, 2, 2]
    first = bench.exposition.collect()[0].samples[0]
    assert set(first.labels) == {"service_name", "span_name", "span_kind", "status_code"}


def test_dropped_spans_do_not_count() -> None:
    bench = Bench()
    batch = bench.read(span("kept"), span("dropped"))
    batch.drop(batch.name().where(lambda name: name == "dropped"))
    bench.processor.process(batch)
    batch.drop(np.ones(2, np.bool_))
    bench.processor.process(batch)
    assert {labels[2] for labels in bench.counted("calls_total")} == {"kept"}
    assert sum(bench.counted("calls_total").values()) == 1


def test_what_an_earlier_processor_changed_counts() -> None:
    bench = Bench()
    batch = bench.read(span())
    batch.set_status(np.zeros(1, np.int32), [(2, "late")])
    batch.set_resource("service.name", "renamed")
    bench.processor.process(batch)
    assert list(bench.counted("errors_total")) == [("renamed", "SPAN_KIND_SERVER", "job", "STATUS_CODE_ERROR")]


def test_unknown_kinds_and_a_missing_service() -> None:
    bench = Bench()
    bench.process(span(kind=77), span(kind=0), resource={})
    assert bench.counted("calls_total") == {("", "SPAN_KIND_UNSPECIFIED", "job", "STATUS_CODE_UNSET"): 2}


def test_a_dimension_comes_from_the_span_else_from_the_resource_else_from_the_default() -> None:
    bench = Bench(
        dimensions=[{"name": "gpu.model", "default": "none"}, {"name": "zone"}],
        exclude_dimensions=["service.name", "span.name", "span.kind", "status.code"],
    )
    bench.process(span(attributes={"gpu.model": "H100"}), span(attributes={"zone": "b"}), resource={"zone": "a"})
    bench.process(
        span(attributes={"gpu.model": 4090}),
        span(attributes={"gpu.model": 0.5}),
        resource={"gpu.model": "L4", "zone": 7},
    )
    assert bench.counted("calls_total") == {
        ("H100", "a"): 1,
        ("none", "b"): 1,
        ("4090", "7"): 1,
        ("0.5", "7"): 1,
    }
    assert bench.processor.attributes(Signal.TRACES) == {"gpu.model", "zone"}


def test_other_signals_are_none_of_its_business() -> None:
    bench = Bench(dimensions=[{"name": "zone"}])
    assert bench.processor.attributes(Signal.LOGS) == frozenset()
    bench.processor.process(BatchReader(Signal.LOGS).read([b""])[0])
    assert bench.exposition.collect() == []


def test_exemplars_carry_the_ids_unless_switched_off() -> None:
    for wanted in (True, False):
        bench = Bench(exemplars=wanted)
        bench.process(span(number=9))
        found = [s.exemplar.labels for m in bench.exposition.collect() for s in m.samples if s.exemplar]
        assert found == ([{"trace_id": f"{9:032x}", "span_id": f"{9:016x}"}] if wanted else [])


def test_series_are_capped() -> None:
    bench = Bench(series_max=3)
    for half in range(2):
        bench.process(*(span(str(number)) for number in range(half * 5, half * 5 + 5)))
    calls = bench.counted("calls_total")
    assert len(calls) == 4
    assert calls[(OVERFLOW,) * 4] == 7


def test_two_pipelines_share_the_metrics() -> None:
    bench = Bench()
    context: Any = SimpleNamespace(component_id="span_metrics/2", exposition=bench.exposition)
    SpanMetricsProcessor(SpanMetricsProcessor.Config(), context).process(bench.read(span()))
    bench.process(span())
    assert sum(bench.counted("calls_total").values()) == 2


def test_buckets_may_be_durations_as_the_collector_writes_them() -> None:
    bench = Bench(buckets=["2ms", "1.5s", 60.0])
    bench.process(span())
    assert [labels[0] for labels in bench.counted("duration_seconds_bucket")] == ["0.002", "1.5", "60.0", "+Inf"]


@pytest.mark.parametrize(
    "settings",
    [
        {"buckets": []},
        {"buckets": ["2s", "1s"]},
        {"namespace": "no-name"},
        {"exclude_dimensions": ["span.nmae"]},
        {"dimensions": [{"name": ""}]},
        {"series_max": 0},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SpanMetricsProcessor.Config.model_validate(settings)


def test_labels_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="stands twice"):
        Bench(dimensions=[{"name": "span_name"}])
    with pytest.raises(ConfigError, match="leaves no label"):
        Bench(exclude_dimensions=["service.name", "span.name", "span.kind", "status.code"])
