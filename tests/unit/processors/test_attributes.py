"""The processor `attributes` over spans and log records."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics, ScopeMetrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from pydantic import ValidationError

from otel_pipeline.processors.attributes import AttributesProcessor
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import Value, any_value, python_value

CONTEXT: Any = None  # it uses none of it


def pairs(attributes: dict[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def processor(**settings: Any) -> AttributesProcessor:
    return AttributesProcessor(AttributesProcessor.Config.model_validate(settings), CONTEXT)


def spans(*rows: dict[str, Value], names: str = "", service: str = "worker") -> bytes:
    """A span for each dict of attributes; `names` has a letter for each."""
    built = [
        Span(trace_id=b"t" * 16, span_id=b"s" * 8, name=name, attributes=pairs(attributes))
        for attributes, name in zip(rows, names or "x" * len(rows), strict=True)
    ]
    resource = Resource(attributes=pairs({"service.name": service}))
    group = ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=built)])
    return ExportTraceServiceRequest(resource_spans=[group]).SerializeToString()


def after(changes: AttributesProcessor, body: bytes) -> list[dict[str, Value]]:
    """The attributes of each span when the processor has changed them."""
    batch = BatchReader(Signal.TRACES, changes.attributes(Signal.TRACES)).read([body])[0]
    changes.process(batch)
    request = ExportTraceServiceRequest.FromString(bytes(batch.encode()))
    found = [one for group in request.resource_spans for scope in group.scope_spans for one in scope.spans]
    return [{pair.key: python_value(pair.value) for pair in one.attributes} for one in found]


def matched(body: bytes, **settings: Any) -> list[bool]:
    """Which spans a processor with these settings changes."""
    changes = processor(actions=[{"key": "hit", "action": "upsert", "value": True}], **settings)
    return ["hit" in attributes for attributes in after(changes, body)]


def test_it_inserts_updates_upserts_and_deletes() -> None:
    changes = processor(
        actions=[
            {"key": "a", "action": "insert", "value": "new"},
            {"key": "b", "action": "update", "value": 2},
            {"key": "c", "action": "upsert", "value": False},
            {"key": "d", "action": "delete"},
        ]
    )
    assert after(changes, spans({"a": "old", "d": "x"}, {"b": 1, "c": True})) == [
        {"a": "old", "c": False},
        {"a": "new", "b": 2, "c": False},
    ]


def test_a_copy_keeps_the_type_and_leaves_rows_without_a_source_alone() -> None:
    rows: list[dict[str, Value]] = [{"from": value} for value in ("t", 1, 1.0, True, 2**62 + 1, 0.5, "t")]
    changes = processor(actions=[{"key": "to", "action": "upsert", "from_attribute": "from"}])
    found = [one.get("to") for one in after(changes, spans(*rows, {"to": "kept"}, {"from": ["list"]}))]
    assert [(type(one), one) for one in found] == [
        (str, "t"), (int, 1), (float, 1.0), (bool, True), (int, 2**62 + 1), (float, 0.5), (str, "t"),
        (str, "kept"), (type(None), None),
    ]  # fmt: skip


def test_a_copy_sees_what_was_set_before() -> None:
    changes = processor(
        actions=[
            {"key": "a", "action": "upsert", "value": 7},
            {"key": "b", "action": "insert", "from_attribute": "a"},
            {"key": "a", "action": "update", "value": "text"},
            {"key": "c", "action": "insert", "from_attribute": "a"},
        ]
    )
    assert after(changes, spans({"a": 1.5}, {}))[1] == {"a": "text", "b": 7, "c": "text"}


@pytest.mark.parametrize(("action", "expected"), [("insert", ["old", "v"]), ("update", ["v", None])])
def test_a_copy_heeds_what_is_there(action: str, expected: list[Value]) -> None:
    changes = processor(actions=[{"key": "to", "action": action, "from_attribute": "from"}])
    found = after(changes, spans({"from": "v", "to": "old"}, {"from": "v"}))
    assert [one.get("to") for one in found] == expected


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        ({"match_type": "strict", "span_names": ["a", "b"]}, [True, True, False]),
        ({"match_type": "regexp", "span_names": ["^[bc]$"]}, [False, True, True]),
        ({"match_type": "strict", "services": ["worker"]}, [True, True, True]),
        ({"match_type": "regexp", "services": ["api"]}, [False, False, False]),
        ({"match_type": "strict", "attributes": [{"key": "code", "value": 200}]}, [True, False, False]),
        ({"match_type": "regexp", "attributes": [{"key": "code", "value": "^5"}]}, [False, True, False]),
        ({"match_type": "strict", "attributes": [{"key": "code"}]}, [True, True, False]),
        ({"match_type": "strict", "resources": [{"key": "service.name", "value": "other"}]}, [False, False, False]),
        (
            {"match_type": "strict", "span_names": ["a", "b"], "attributes": [{"key": "code", "value": 503}]},
            [False, True, False],
        ),
        ({"match_type": "strict", "log_bodies": ["x"]}, [False, False, False]),
    ],
)
def test_include_chooses_and_exclude_leaves_out(include: dict[str, Any], expected: list[bool]) -> None:
    body = spans({"code": 200}, {"code": 503}, {}, names="abc")
    assert matched(body, include=include) == expected
    assert matched(body, exclude=include) == [not one for one in expected]


def test_exclude_takes_away_from_include() -> None:
    body = spans({}, {}, {}, names="abc")
    include = {"match_type": "strict", "span_names": ["a", "b"]}
    exclude = {"match_type": "strict", "span_names": ["b", "c"]}
    assert matched(body, include=include, exclude=exclude) == [True, False, False]


def test_log_records_have_attributes_and_bodies() -> None:
    changes = processor(
        actions=[{"key": "hit", "action": "insert", "value": 1}],
        include={"match_type": "regexp", "log_bodies": ["memory"], "log_severity_texts": ["^ERROR$"]},
    )
    records = [
        LogRecord(body=any_value("out of memory"), severity_text="ERROR"),
        LogRecord(body=any_value("out of memory"), severity_text="INFO"),
    ]
    body = ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])])
    batch = BatchReader(Signal.LOGS, changes.attributes(Signal.LOGS)).read([body.SerializeToString()])[0]
    changes.process(batch)
    assert batch.present("hit").tolist() == [True, False]


def test_metrics_are_neither_asked_for_columns_nor_changed() -> None:
    changes = processor(actions=[{"key": "a", "action": "upsert", "value": 1}])
    metrics = [Metric(name="gpu.power")]
    body = ExportMetricsServiceRequest(
        resource_metrics=[ResourceMetrics(scope_metrics=[ScopeMetrics(metrics=metrics)])]
    ).SerializeToString()
    batch = BatchReader(Signal.METRICS, changes.attributes(Signal.METRICS)).read([body])[0]
    changes.process(batch)
    assert batch.encode() == body
    assert Signal.METRICS not in AttributesProcessor.signals


def test_it_asks_for_every_key_it_needs() -> None:
    changes = processor(
        actions=[{"key": "a", "action": "upsert", "from_attribute": "b"}],
        exclude={"match_type": "strict", "attributes": [{"key": "c"}]},
    )
    assert changes.attributes(Signal.LOGS) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"actions": []}, "at least 1 item"),
        (
            {"actions": [{"key": "a", "action": "extract", "pattern": "x"}]},
            "hash, extract and convert do not exist here",
        ),
        ({"include": {"match_type": "strict"}}, "at least one is needed of services, span_names"),
        ({"include": {"span_names": ["a"]}}, "match_type"),
        ({"include": {"match_type": "regexp", "span_names": ["(?=a)"]}}, r"name: the pattern \(\?=a\): invalid"),
        ({"exclude": {"match_type": "regexp", "attributes": [{"key": "a", "value": 1}]}}, "put it in quotes"),
        ({"exclude": {"match_type": "strict", "libraries": [{"name": "a"}]}}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    complete = {"actions": [{"key": "a", "action": "delete"}], **settings}
    with pytest.raises(ValidationError, match=message):
        AttributesProcessor.Config.model_validate(complete)
