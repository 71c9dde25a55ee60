"""Spans and log records from a gateway's files: OTLP JSON, one request a line, as its file exporter writes them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    service: str
    start_ns: int
    end_ns: int
    error: bool
    message: str
    attributes: Mapping[str, Any]
    events: Sequence[Event]
    links: Sequence[tuple[str, str]]

    def get(self, name: str) -> Any:
        return self.attributes.get(name)


@dataclass(frozen=True, slots=True)
class Record:
    """One log record."""

    service: str
    trace_id: str
    span_id: str
    body: Any
    event: str
    severity: str
    attributes: Mapping[str, Any]


def read_spans(file: Path) -> list[Span]:
    """Each span once: delivery is at least once."""
    found: dict[tuple[str, str], Span] = {}
    for resource, group in _groups(file, "resourceSpans", "scopeSpans"):
        for span in group.get("spans", ()):
            made = _span(span, str(resource.get("service.name", "")))
            found.setdefault((made.trace_id, made.span_id), made)
    return list(found.values())


def read_records(file: Path) -> list[Record]:
    return [
        Record(
            service=str(resource.get("service.name", "")),
            trace_id=record.get("traceId", "").lower(),
            span_id=record.get("spanId", "").lower(),
            body=_value(record.get("body", {})),
            event=record.get("eventName", ""),
            severity=record.get("severityText", ""),
            attributes=_attributes(record),
        )
        for resource, group in _groups(file, "resourceLogs", "scopeLogs")
        for record in group.get("logRecords", ())
    ]


@dataclass(frozen=True, slots=True)
class Trace:
    """The spans of one trace, in order of their start."""

    spans: Sequence[Span]

    @property
    def id(self) -> str:
        return self.spans[0].trace_id

    @property
    def roots(self) -> list[Span]:
        """Spans without a parent in the trace."""
        ids = {span.span_id for span in self.spans}
        return [span for span in self.spans if span.parent_id not in ids]

    def children(self, parent: Span) -> list[Span]:
        return [span for span in self.spans if span.parent_id == parent.span_id]

    def below(self, top: Span) -> Iterator[Span]:
        for child in self.children(top):
            yield child
            yield from self.below(child)

    def named(self, start: str) -> list[Span]:
        return [span for span in self.spans if span.name.startswith(start)]

    def parent(self, span: Span) -> Span | None:
        return next((each for each in self.spans if each.span_id == span.parent_id), None)

    def outline(self) -> str:
        """The tree as text, for messages of failing tests."""
        lines: list[str] = []

        def draw(span: Span, depth: int) -> None:
            told = {key: value for key, value in span.attributes.items() if "otel_pipeline" in key or "error" in key}
            lines.append(f"{'  ' * depth}{span.name} [{span.kind}, {span.service}]{' ERROR' * span.error} {told}")
            for child in self.children(span):
                draw(child, depth + 1)

        for root in self.roots:
            draw(root, 0)
        return "\n".join(lines)


def traces(spans: Iterable[Span]) -> list[Trace]:
    groups: defaultdict[str, list[Span]] = defaultdict(list)
    for span in spans:
        groups[span.trace_id].append(span)
    return [Trace(sorted(group, key=lambda span: span.start_ns)) for group in groups.values()]


def _groups(file: Path, resources: str, scopes: str) -> Iterator[tuple[dict[str, Any], Any]]:
    for line in file.read_text("utf-8").splitlines() if file.exists() else ():
        for group in json.loads(line).get(resources, ()):
            for scope in group.get(scopes, ()):
                yield _attributes(group.get("resource", {})), scope


def _span(span: Any, service: str) -> Span:
    status, kind = span.get("status", {}), span.get("kind", 0)
    return Span(
        trace_id=span["traceId"].lower(),
        span_id=span["spanId"].lower(),
        parent_id=span.get("parentSpanId", "").lower(),
        name=span.get("name", ""),
        kind=KINDS[kind] if isinstance(kind, int) else str(kind).removeprefix("SPAN_KIND_").lower(),
        service=service,
        start_ns=int(span.get("startTimeUnixNano", 0)),
        end_ns=int(span.get("endTimeUnixNano", 0)),
        error=status.get("code") in (2, "STATUS_CODE_ERROR"),
        message=status.get("message", ""),
        attributes=_attributes(span),
        events=[Event(event.get("name", ""), _attributes(event)) for event in span.get("events", ())],
        links=[(link["traceId"].lower(), link["spanId"].lower()) for link in span.get("links", ())],
    )


def _attributes(carrier: Any) -> dict[str, Any]:
    return {each["key"]: _value(each.get("value", {})) for each in carrier.get("attributes", ())}


def _value(value: Any) -> Any:
    for kind, content in value.items():
        if kind == "intValue":
            return int(content)
        if kind == "arrayValue":
            return [_value(each) for each in content.get("values", ())]
        if kind == "kvlistValue":
            return {each["key"]: _value(each.get("value", {})) for each in content.get("values", ())}
        return content
    return None
