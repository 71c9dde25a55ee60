"""Reads spans from OTLP JSON lines: one ExportTraceServiceRequest each, as the Collector's file exporter writes. Pure.

The file is foreign: a line that is no such request is skipped and counted, never an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

SPANS_READ_MAX: Final = 200_000
"""About 200 MB in memory; what comes after is counted only."""


@dataclass(frozen=True, slots=True)
class Span:
    """What the tree shows of a span; ids are lower-case hex, `parent_id` is empty for a root."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    start_ns: int
    end_ns: int
    failed: bool
    reason: str
    attributes: Mapping[str, str]
    links: int


@dataclass(frozen=True, slots=True)
class Reading:
    """The spans of a file in file order, and what was left out."""

    spans: tuple[Span, ...]
    repeated: int
    left_out: int
    lines_skipped: int


def read(lines: Iterable[str]) -> Reading:
    """Each span once, the first of a kind: delivery is at least once, so repetitions are expected."""
    spans: dict[tuple[str, str], Span] = {}
    repeated = left_out = lines_skipped = 0
    for line in filter(str.strip, lines):
        try:
            found = list(_spans(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            lines_skipped += 1
            continue
        for span in found:
            if (span.trace_id, span.span_id) in spans:
                repeated += 1
            elif len(spans) >= SPANS_READ_MAX:
                left_out += 1
            else:
                spans[span.trace_id, span.span_id] = span
    return Reading(tuple(spans.values()), repeated, left_out, lines_skipped)


def _spans(request: Any) -> Iterator[Span]:
    for resource_spans in request["resourceSpans"]:
        resource = _attributes(resource_spans.get("resource", {}))
        for scope_spans in resource_spans.get("scopeSpans", ()):
            for span in scope_spans.get("spans", ()):
                yield _span(span, resource.get("service.name", "unknown_service"))


def _span(span: Any, service: str) -> Span:
    status = span.get("status", {})
    start_ns = int(span.get("startTimeUnixNano", 0))
    return Span(
        trace_id=span["traceId"].lower(),
        span_id=span["spanId"].lower(),
        parent_id=span.get("parentSpanId", "").lower(),
        name=str(span.get("name", "")),
        service=service,
        start_ns=start_ns,
        end_ns=max(start_ns, int(span.get("endTimeUnixNano", 0))),
        failed=status.get("code") in (2, "STATUS_CODE_ERROR"),
        reason=_exception(span) or str(status.get("message", "")),
        attributes=_attributes(span),
        links=len(span.get("links", ())),
    )


def _exception(span: Any) -> str:
    """The first exception event as `type: message`, or nothing."""
    for event in span.get("events", ()):
        if event.get("name") == "exception":
            attributes = _attributes(event)
            return f"{attributes.get('exception.type', 'exception')}: {attributes.get('exception.message', '')}"
    return ""


def _attributes(carrier: Any) -> dict[str, str]:
    return {str(each["key"]): _text(each.get("value", {})) for each in carrier.get("attributes", ())}


def _text(value: Any) -> str:
    """An AnyValue as text; nested ones as their JSON."""
    kind, content = next(iter(value.items()), ("stringValue", ""))
    if kind == "boolValue":
        return str(content).lower()
    return json.dumps(content) if kind in ("arrayValue", "kvlistValue") else str(content)
