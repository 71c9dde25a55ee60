"""A span processor that tells every span which job it belongs to, so that a gateway, which sees no trees, can too."""

from __future__ import annotations

from typing import Any

from opentelemetry import baggage
from opentelemetry.context import Context

from otel_pipeline.worker import names
from otel_pipeline.worker.flow import touch
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import current_job


class JobAttributes:
    """Has the shape of an SDK `SpanProcessor`, whose module a worker's start must not import."""

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        _describe(span, parent_context)

    def _on_ending(self, span: Any) -> None:
        pass

    def on_end(self, span: Any) -> None:  # noqa: ARG002  the SDK's signature
        _ended()

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002  the SDK's signature
        return True


@hook("spans.describe")
def _describe(span: Any, parent_context: Context | None) -> None:
    job = current_job(parent_context)
    if job is not None:
        known: Any = job.fields
        touch()
    else:
        known = baggage.get_all(parent_context)
        if not known:
            return
    found = {key: known[key] for key in names.CARRIED if key in known}
    if found:
        span.set_attributes({**found, **{key: span.attributes[key] for key in found if key in span.attributes}})


@hook("spans.ended")
def _ended() -> None:
    """A job that was settled lasts until the last of its spans is over."""
    touch()
