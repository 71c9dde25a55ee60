"""The example of docs/processors.md is real code, and it works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from tests.contract import example_processor
from tests.contract.example_processor import TeamProcessor

ROOT = Path(__file__).parents[2]
CONTEXT: Any = None  # it uses none of it


def span(**attributes: str) -> Span:
    pairs = [
        KeyValue(key=key.replace("_model", ".request.model"), value=AnyValue(string_value=value))
        for key, value in attributes.items()
    ]
    return Span(trace_id=b"t" * 16, span_id=b"s" * 8, attributes=pairs)


def request(*spans: Span) -> bytes:
    group = ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])
    return ExportTraceServiceRequest(resource_spans=[group]).SerializeToString()


def test_the_document_shows_the_code_that_is_tested() -> None:
    code = Path(example_processor.__file__).read_text(encoding="utf-8")
    assert f"```python\n{code}```" in (ROOT / "docs/processors.md").read_text(encoding="utf-8")


def test_it_sets_the_team_of_known_models_and_leaves_the_others_alone() -> None:
    processor = TeamProcessor(TeamProcessor.Config(teams={"flux": "images"}), CONTEXT)
    reader = BatchReader(Signal.TRACES, processor.attributes(Signal.TRACES))
    batch = reader.read(
        [request(span(gen_ai_model="flux"), span(gen_ai_model="wan"), span(), span(gen_ai_model="flux", team="x"))]
    )[0]
    processor.process(batch)
    assert bytes(batch.encode()) == request(
        span(gen_ai_model="flux", team="images"), span(gen_ai_model="wan"), span(), span(gen_ai_model="flux", team="x")
    )


@pytest.mark.parametrize("signal", [Signal.LOGS, Signal.METRICS])
def test_it_ignores_the_other_signals(signal: Signal) -> None:
    processor = TeamProcessor(TeamProcessor.Config(teams={}), CONTEXT)
    batch = BatchReader(signal, processor.attributes(signal)).read([b""])[0]
    processor.process(batch)
    assert batch.encode() == b""
