"""Whether a thread or task is at work on a web request: what it pops or gets is part of its answer, not a new job.

The current span may be any below the request's own: FastAPI begins some itself, and so do programs.
"""

from __future__ import annotations

from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from otel_pipeline.worker.guard import hook

OPEN_MAX: Final = 10_000
"""Requests open at once; of more, the oldest are told by their own span only."""

_open: Final[dict[int, int]] = {}
"""By trace: the span of the request that this process answers."""


@hook("serving.began")
def began(span: Any) -> None:
    """A span begins."""
    if span.kind is SpanKind.SERVER:
        if len(_open) >= OPEN_MAX:
            _open.pop(next(iter(_open)), None)
        _open[span.context.trace_id] = span.context.span_id


@hook("serving.ended")
def ended(span: Any) -> None:
    """A span is over."""
    if span.kind is SpanKind.SERVER and _open.get(span.context.trace_id) == span.context.span_id:
        del _open[span.context.trace_id]


def in_a_request() -> bool:
    span = trace.get_current_span()
    if not span.is_recording():
        return False
    return getattr(span, "kind", None) is SpanKind.SERVER or span.get_span_context().trace_id in _open
