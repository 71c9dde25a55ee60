"""Spans that worker code makes in a test: one SDK provider a process (the API allows one), emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_pipeline.worker import jobs
from otel_pipeline.worker.flow import this_flow
from otel_pipeline.worker.spans import JobAttributes


@cache
def _exporter() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(JobAttributes())  # type: ignore[arg-type]  # it has the shape
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


class Spans:
    """What was finished since the test began."""

    def all(self) -> list[ReadableSpan]:
        return list(_exporter().get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        found = self.named(name)
        assert len(found) == 1, f"{len(found)} spans {name!r} among {[span.name for span in self.all()]}"
        return found[0]

    def traces(self) -> set[int]:
        return {span.context.trace_id for span in self.all()}


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


@contextmanager
def recorded() -> Iterator[Spans]:
    """A clean slate: no spans, no ambient context, no open jobs; the observers are put back afterwards."""
    _exporter().clear()
    token = context.attach(Context())
    observers = (list(jobs.started), list(jobs.ended))
    jobs.open_jobs.clear()
    this_flow().job = None
    this_flow().loop_keys.clear()
    try:
        yield Spans()
    finally:
        jobs.started[:], jobs.ended[:] = observers
        jobs.open_jobs.clear()
        this_flow().job = None
        context.detach(token)
