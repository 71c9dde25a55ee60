"""Spans of official instrumentations that stand for a job already: ours completes them and begins none beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind


@dataclass(frozen=True, slots=True)
class Adopted:
    """A span to hand to `job_start`, and the context above it."""

    span: Span
    parent: Context


def current(scope: str, kind: SpanKind = SpanKind.CONSUMER) -> Adopted | None:
    """The current span, if the instrumentation whose scope begins like this began it for what is at hand."""
    ambient = context.get_current()
    span: Any = trace.get_current_span(ambient)
    its_scope = getattr(getattr(span, "instrumentation_scope", None), "name", "")
    if not span.is_recording() or span.kind is not kind or not its_scope.startswith(scope):
        return None
    above = trace.NonRecordingSpan(span.parent or trace.INVALID_SPAN_CONTEXT)
    return Adopted(span, trace.set_span_in_context(above, ambient))
