"""Spans of official instrumentations that stand for a job already: ours completes them and begins none beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind

PREFIX: Final = "opentelemetry.instrumentation."


@dataclass(frozen=True, slots=True)
class Adopted:
    """A span to hand to `job_start`, and the context above it."""

    span: Span
    parent: Context


def current(library: str, kind: SpanKind = SpanKind.CONSUMER) -> Adopted | None:
    """The current span, if the official instrumentation of this library began it for what is at hand."""
    ambient = context.get_current()
    span: Any = trace.get_current_span(ambient)
    scope = getattr(getattr(span, "instrumentation_scope", None), "name", "")
    if not span.is_recording() or span.kind is not kind or not scope.startswith(PREFIX + library):
        return None
    above = trace.NonRecordingSpan(span.parent or trace.INVALID_SPAN_CONTEXT)
    return Adopted(span, trace.set_span_in_context(above, ambient))
