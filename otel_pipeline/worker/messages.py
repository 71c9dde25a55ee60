"""The producing side of a queue: one `send <queue>` span, and the context that goes with the message.

Where the context goes is the adapter's: a framework's header place, or for Redis a key beside the queue. The job's
fields that travel as baggage are read from the message already here, so that they are known wherever the job goes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry import baggage, context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from otel_pipeline import __version__
from otel_pipeline.worker import identity, names
from otel_pipeline.worker.flow import error_name
from otel_pipeline.worker.redaction import error_text
from otel_pipeline.worker.settings import settings

KEY_PREFIX: Final = "otelp:ctx:"
"""Of the Redis keys that hold the context of a queue's elements."""
HEADERS_MAX: Final = 32
"""Fields of a carrier that are read: traceparent, tracestate, baggage, correlation id and what propagators add."""

_tracer: Final = trace.get_tracer("otel_pipeline.worker", __version__)


@dataclass(frozen=True, slots=True)
class Send:
    """A message on its way into a queue."""

    span: Span
    headers: dict[str, str]
    """What the consumer needs: `traceparent`, `baggage` ..."""
    token: Any


def send_start(
    system: str, destination: str, message: object = None, message_id: str | None = None, *, attach: bool = True
) -> Send:
    """Begins the span and makes it current, unless several begin at once; `message` as for `job_start`."""
    known = identity.fields(message, destination)
    identifier = identity.job_id(message, known) or message_id
    ambient = context.get_current()
    carried: dict[str, AttributeValue] = {**known, **({names.JOB_ID: identifier} if identifier else {})}
    # As in `job_start`: that of the request, else what the message calls it, else the job's id.
    correlation = baggage.get_baggage(names.CORRELATION_ID, ambient) or known.get(names.CORRELATION_ID) or identifier
    if correlation:
        carried[names.CORRELATION_ID] = str(correlation)
    for key in settings().baggage:
        if key in carried:
            ambient = baggage.set_baggage(key, str(carried[key]), ambient)
    described = {
        names.MESSAGING_SYSTEM: system,
        names.MESSAGING_DESTINATION: destination,
        names.MESSAGING_OPERATION: "send",
        names.MESSAGING_OPERATION_TYPE: "send",
        **({names.MESSAGING_MESSAGE_ID: message_id or identifier} if message_id or identifier else {}),
        **carried,
    }
    span = _tracer.start_span(f"send {destination}", ambient, SpanKind.PRODUCER, described)
    within = trace.set_span_in_context(span, ambient)
    headers: dict[str, str] = {}
    propagate.inject(headers, within)
    return Send(span, headers, context.attach(within) if attach else None)


def send_end(send: Send | None, error: BaseException | None = None) -> None:
    """Ends the span and makes current again what was before it."""
    if send is None:
        return
    if error is not None:
        send.span.record_exception(error)
        send.span.set_attribute(names.ERROR_TYPE, error_name(error))
        send.span.set_status(Status(StatusCode.ERROR, error_text(error)))
    send.span.end()
    if send.token is not None:
        context.detach(send.token)


def extract(headers: Mapping[str, Any] | None) -> Context | None:
    """The context that came with a message, or None if there is none. Values may be text or bytes."""
    if not headers:
        return None
    text = {
        _text(key).lower(): _text(value)
        for key, value in list(headers.items())[:HEADERS_MAX]
        if isinstance(value, str | bytes)
    }
    found = propagate.extract(text, Context())
    return found if trace.get_current_span(found).get_span_context().is_valid else None


def element_key(element: bytes) -> str:
    """The Redis key beside a queue that holds the context of this element."""
    return KEY_PREFIX + hashlib.sha256(element).hexdigest()[:32]


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
