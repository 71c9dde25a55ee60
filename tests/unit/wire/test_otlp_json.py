"""OTLP's JSON mapping; the ids in the names are the specification's rules."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from otel_pipeline.errors import WireError
from otel_pipeline.wire import otlp_json
from otel_pipeline.wire.responses import partial_success, rejected_items
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import any_value

# A line as the Collector's file exporter writes it: fields in the order of the .proto, ids in hex, enums as numbers,
# 64-bit numbers as strings, no blanks, no escapes that JSON does not need.
GOLDEN = (
    '{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"my.service"}}]},'
    '"scopeSpans":[{"scope":{"name":"my.library","version":"1.0.0"},"spans":[{'
    '"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","traceState":"a=b",'
    '"parentSpanId":"eee19b7ec3c1b173","name":"I\'m a sérver <span>","kind":2,'
    '"startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712661000000000","attributes":['
    '{"key":"a","value":{"intValue":"-9007199254740993"}},{"key":"b","value":{"doubleValue":1.5}},'
    '{"key":"c","value":{"boolValue":false}},{"key":"d","value":{"bytesValue":"AP8="}},'
    '{"key":"e","value":{"arrayValue":{"values":[{"stringValue":"x"},{}]}}}],"droppedAttributesCount":3,'
    '"events":[{"timeUnixNano":"1544712660300000000","name":"exception"}],'
    '"links":[{"traceId":"00000000000000000000000000000001","spanId":"0000000000000002"}],'
    '"status":{"message":"no","code":2}}]}],"schemaUrl":"https://opentelemetry.io/schemas/1.6.1"}]}'
)


def golden() -> ExportTraceServiceRequest:
    """The message of that line, built by hand."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add(schema_url="https://opentelemetry.io/schemas/1.6.1")
    group.resource.attributes.add(key="service.name").value.string_value = "my.service"
    scope = group.scope_spans.add()
    scope.scope.name, scope.scope.version = "my.library", "1.0.0"
    span = scope.spans.add(
        trace_id=bytes.fromhex("5b8efff798038103d269b633813fc60c"),
        span_id=bytes.fromhex("eee19b7ec3c1b174"),
        parent_span_id=bytes.fromhex("eee19b7ec3c1b173"),
        trace_state="a=b",
        name="I'm a sérver <span>",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=1544712660000000000,
        end_time_unix_nano=1544712661000000000,
        dropped_attributes_count=3,
    )
    values = {"a": -9007199254740993, "b": 1.5, "c": False, "d": b"\x00\xff", "e": ["x", None]}
    for key, value in values.items():
        span.attributes.add(key=key).value.CopyFrom(any_value(value))  # type: ignore[arg-type]  # a mix of types
    span.events.add(time_unix_nano=1544712660300000000, name="exception")
    span.links.add(trace_id=(1).to_bytes(16, "big"), span_id=(2).to_bytes(8, "big"))
    span.status.code, span.status.message = Status.STATUS_CODE_ERROR, "no"
    return request


def read(text: str | bytes, signal: Signal = Signal.TRACES) -> Any:
    body = text if isinstance(text, bytes) else text.encode()
    return signal.value.request.FromString(otlp_json.decode(signal, body))


def span_of(**fields: Any) -> Any:
    """What becomes of a span with these JSON fields."""
    return (
        read(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}))
        .resource_spans[0]
        .scope_spans[0]
        .spans[0]
    )


def test_J7_the_golden_line_is_written() -> None:
    assert otlp_json.encode(Signal.TRACES, golden().SerializeToString()) == GOLDEN


def test_J7_the_golden_line_is_read() -> None:
    assert read(GOLDEN) == golden()


@pytest.mark.parametrize("written", ["5B8EFFF798038103D269B633813FC60C", "5b8EFff798038103d269B633813fc60c"])
def test_J1_ids_are_hex_in_any_case(written: str) -> None:
    assert span_of(traceId=written).trace_id.hex() == written.lower()


def test_J1_ids_of_logs_links_and_exemplars_are_hex() -> None:
    ids = {"traceId": "0102" * 8, "spanId": "0a0b" * 4}
    record = read(json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [ids]}]}]}), Signal.LOGS)
    assert record.resource_logs[0].scope_logs[0].log_records[0].span_id.hex() == ids["spanId"]
    assert span_of(links=[ids]).links[0].trace_id.hex() == ids["traceId"]
    point = {"exemplars": [ids]}
    metric = read(
        json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"sum": {"dataPoints": [point]}}]}]}]}),
        Signal.METRICS,
    )
    exemplar = metric.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0].exemplars[0]
    assert exemplar.trace_id.hex() == ids["traceId"]


@pytest.mark.parametrize("written", ["W47/95gDgQPSabYzgT/GDA==", "5b8", "xyz", 12, [1], {}, True])
def test_J1_ids_that_are_no_hex_are_refused(written: object) -> None:
    with pytest.raises(WireError, match="traceId"):
        span_of(traceId=written)


def test_J1_ids_in_attributes_are_only_text() -> None:
    span = span_of(attributes=[{"key": "traceId", "value": {"stringValue": "no hex"}}])
    assert span.attributes[0].value.string_value == "no hex"


@pytest.mark.parametrize("written", [3, "3", 3.0])
def test_J2_enums_are_numbers(written: object) -> None:
    assert span_of(kind=written).kind == 3


@pytest.mark.parametrize("written", ["SPAN_KIND_CLIENT", "", True, "--3", "²"])
def test_J2_names_of_enums_are_refused(written: object) -> None:
    with pytest.raises(WireError, match="no OTLP JSON"):
        span_of(kind=written)


def test_J2_enums_are_written_as_numbers() -> None:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    text = otlp_json.encode(Signal.METRICS, request.SerializeToString())
    assert '"sum":{"aggregationTemporality":2}' in text


def test_J3_unknown_fields_are_ignored_whatever_is_in_them() -> None:
    span = span_of(name="job", futureField={"kind": "NEW", "traceId": "no hex", "x": [[]]}, kind=2)
    assert (span.name, span.kind) == ("job", 2)


def test_J4_original_names_are_not_valid() -> None:
    span = span_of(trace_id="0102" * 8, start_time_unix_nano="5", name="job")
    assert (span.trace_id, span.start_time_unix_nano, span.name) == (b"", 0, "job")


@pytest.mark.parametrize("written", [1544712660000000001, "1544712660000000001"])
def test_J5_64_bit_numbers_come_as_strings_or_numbers(written: object) -> None:
    assert span_of(startTimeUnixNano=written).start_time_unix_nano == 1544712660000000001


@pytest.mark.parametrize("written", ["now", 1.5, -1, 1 << 64, [], {}])
def test_J5_what_is_no_such_number_is_refused(written: object) -> None:
    with pytest.raises(WireError):
        span_of(startTimeUnixNano=written)


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_J6_infinities_are_strings(value: float) -> None:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    metric.gauge.data_points.add(as_double=value)
    text = otlp_json.encode(Signal.METRICS, request.SerializeToString())
    assert f'"asDouble":"{"-" if value < 0 else ""}Infinity"' in text
    assert read(text, Signal.METRICS) == request


def test_J6_bytes_are_base64_and_null_is_the_default() -> None:
    span = span_of(name=None, kind=None, attributes=[{"key": "k", "value": {"bytesValue": "AP8="}}], traceId=None)
    assert span.attributes[0].value.bytes_value == b"\x00\xff"
    assert (span.name, span.kind, span.trace_id) == ("", 0, b"")


@pytest.mark.parametrize(
    ("body", "reason", "offset"),
    [
        (b"", "no JSON: Expecting value", 0),
        (b'{"a": }', "no JSON: Expecting value", 6),
        ('{"ä": }'.encode(), "no JSON: Expecting value", 7),
        (b'{"a": 1} x', "no JSON: Extra data", 9),
        (b'{"a": "\xff"}', "no JSON: .*utf-8", 7),
        (b"[]", "no JSON object", 0),
        (b'"text"', "no JSON object", 0),
        (b'{"a": ' + b"9" * 5000 + b"}", "no JSON: Exceeds the limit", 0),
        (b'{"a":' * 100_000, "no JSON: ", 0),
    ],
)
def test_what_is_no_json_is_refused_with_the_offset(body: bytes, reason: str, offset: int) -> None:
    with pytest.raises(WireError, match=reason) as caught:
        read(body)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    "text",
    [
        '{"resourceSpans": 5}',
        '{"resourceSpans": {"scopeSpans": []}}',
        '{"resourceSpans": [5]}',
        '{"resourceSpans": [null]}',
        '{"resourceSpans": [[{}]]}',
        '{"resourceSpans": [{"schemaUrl": "\\ud800"}]}',
        '{"resourceSpans": [{"schemaUrl": 5}]}',
        '{"resourceSpans": [{"scopeSpans": [{"spans": [{"kind": 1e400}]}]}]}',
    ],
)
def test_json_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(WireError, match="no OTLP JSON") as caught:
        read(text)
    assert len(str(caught.value)) < 300


def nested(levels: int) -> str:
    value = '{"arrayValue":{"values":[' * levels + "]}}" * levels
    return '{"resourceSpans":[{"resource":{"attributes":[{"key":"k","value":' + value + "}]}}]}"


def test_values_nested_too_deep_are_refused() -> None:
    read(nested(20))
    for levels in (60, 1_000):
        with pytest.raises(WireError, match="no OTLP JSON|no JSON"):
            read(nested(levels))


def test_a_reason_does_not_quote_the_whole_value() -> None:
    with pytest.raises(WireError) as caught:
        span_of(startTimeUnixNano="x" * 100_000)
    assert len(str(caught.value)) < 300


def test_what_is_no_protobuf_cannot_be_written() -> None:
    with pytest.raises(WireError, match="no protobuf message"):
        otlp_json.encode(Signal.TRACES, b"\x0a\xff")


# -- against protobuf --------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=8),
    st.none(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=6,
)
U64 = st.integers(0, 2**64 - 1)
IDS = st.sampled_from([b"", bytes(16)]) | st.binary(min_size=16, max_size=16)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Signal, Any]:
    """A request of any signal with what differs between JSON and protobuf."""
    signal = draw(st.sampled_from(list(Signal)))
    request: Any = signal.value.request()
    if isinstance(request, ExportTraceServiceRequest):
        holder: Any = request.resource_spans.add()
        row: Any = holder.scope_spans.add().spans.add(
            trace_id=draw(IDS), parent_span_id=draw(st.binary(max_size=8)), kind=draw(st.integers(0, 9))
        )
        row.links.add(trace_id=draw(IDS))
        row.start_time_unix_nano, row.status.code = draw(U64), draw(st.integers(0, 5))
    elif isinstance(request, ExportLogsServiceRequest):
        holder = request.resource_logs.add()
        row = holder.scope_logs.add().log_records.add(span_id=draw(st.binary(max_size=8)), time_unix_nano=draw(U64))
        row.severity_number = draw(st.integers(0, 24))
        row.body.CopyFrom(any_value(draw(VALUES)))
    else:
        holder = request.resource_metrics.add()
        metric = holder.scope_metrics.add().metrics.add(name=draw(st.text("abc", max_size=3)))
        row = metric.histogram.data_points.add(count=draw(U64), bucket_counts=draw(st.lists(U64, max_size=3)))
        row.exemplars.add(as_int=draw(st.integers(-(2**63), 2**63 - 1)), trace_id=draw(IDS))
        metric.histogram.aggregation_temporality = draw(st.integers(0, 2))
    row.attributes.add(key=draw(st.text("abc", max_size=3))).value.CopyFrom(any_value(draw(VALUES)))
    return signal, request


@given(requests())
def test_what_is_written_reads_back_as_the_same_message(pair: tuple[Signal, Any]) -> None:
    signal, request = pair
    text = otlp_json.encode(signal, request.SerializeToString())
    assert "\n" not in text
    assert read(text, signal) == request


@given(requests())
def test_all_but_ids_and_enums_is_written_as_protobuf_writes_it(pair: tuple[Signal, Any]) -> None:
    signal, request = pair
    ours = json.loads(otlp_json.encode(signal, request.SerializeToString()))
    theirs = json_format.MessageToDict(request, use_integers_for_enums=True)

    def same(left: Any, right: Any) -> None:
        assert type(left) is type(right)
        if isinstance(left, dict):
            assert left.keys() == right.keys()
            for key in left.keys() - otlp_json.ID_KEYS:
                same(left[key], right[key])
        elif isinstance(left, list):
            assert len(left) == len(right)
            for one, other in zip(left, right, strict=True):
                same(one, other)
        else:
            assert left == right

    same(ours, theirs)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["resourceSpans", "resource", "scopeSpans", "spans", "traceId", "kind", "attributes", "value"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(JUNK)
def test_any_json_is_a_request_or_a_wire_error(tree: Any) -> None:
    for text in (json.dumps(tree), json.dumps({"resourceSpans": tree})):
        try:
            found = read(text)
        except WireError:
            continue
        again = read(otlp_json.encode(Signal.TRACES, found.SerializeToString()))
        assert again.SerializeToString(deterministic=True) == found.SerializeToString(deterministic=True)


# -- responses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", list(Signal))
def test_a_partial_success_is_read_from_json_and_protobuf(signal: Signal) -> None:
    response = partial_success(signal, 7, "why")
    assert rejected_items(signal, response.SerializeToString()) == (7, "why")
    text = json_format.MessageToJson(response).encode()
    assert rejected_items(signal, otlp_json.decode_response(signal, text)) == (7, "why")


@pytest.mark.parametrize("signal", list(Signal))
def test_G6_H6_an_answer_stays_small_whatever_there_is_to_say(signal: Signal) -> None:
    response = partial_success(signal, 7, "why " * 2_000_000)
    assert response.ByteSize() < 2_000
    assert rejected_items(signal, response.SerializeToString())[0] == 7


def test_X3_a_response_that_cannot_be_read_says_nothing() -> None:
    assert rejected_items(Signal.TRACES, b"\x0a\xff") == (0, "")
    assert rejected_items(Signal.TRACES, b"") == (0, "")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"5", b'{"partialSuccess": 5}', b"[" * 100_000])
def test_a_json_response_of_another_shape_is_a_wire_error(body: bytes) -> None:
    with pytest.raises(WireError):
        otlp_json.decode_response(Signal.TRACES, body)
