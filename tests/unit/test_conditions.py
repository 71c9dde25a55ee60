"""Conditions: what they mean, row by row, and what is refused with which message."""

from __future__ import annotations

import math
import operator
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics, ScopeMetrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from otel_pipeline import limits
from otel_pipeline.conditions.parser import parse
from otel_pipeline.conditions.paths import Context
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal

Row = tuple[Resource, InstrumentationScope, Span]
SECOND_NS = 1_000_000_000


def pairs(**values: Any) -> list[KeyValue]:
    """Attributes; a list becomes an array."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


def any_value(value: Any) -> AnyValue:
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[any_value(one) for one in value]))
    member = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value", bytes: "bytes_value"}
    return AnyValue(**{member[type(value)]: value})


def span(seconds: float = 0, status: Status | None = None, name: str = "", kind: Any = 0, **attributes: Any) -> Span:
    return Span(
        trace_id=b"t" * 16,
        span_id=b"s" * 8,
        name=name,
        kind=kind,
        start_time_unix_nano=SECOND_NS,
        end_time_unix_nano=SECOND_NS + round(seconds * SECOND_NS),
        status=status,
        attributes=pairs(**attributes),
    )


def request(rows: list[Row]) -> bytes:
    """Each span in a resource and scope of its own."""
    groups = [
        ResourceSpans(resource=resource, scope_spans=[ScopeSpans(scope=scope, spans=[one])])
        for resource, scope, one in rows
    ]
    return ExportTraceServiceRequest(resource_spans=groups).SerializeToString()


def holds(text: str, *spans: Span, resource: Resource | None = None, context: Context = Context.ROW) -> list[bool]:
    """What the condition says of each span."""
    condition = parse(text, Signal.TRACES, context)
    scope = InstrumentationScope(name="library")
    body = request([(resource or Resource(), scope, one) for one in spans])
    batch = BatchReader(Signal.TRACES, condition.attributes).read([body])[0]
    answer: list[bool] = condition.mask(batch).tolist()
    return answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name == "GET /health"', [True, False]),
        ('span.name != "GET /health"', [False, True]),
        ("kind == SPAN_KIND_SERVER", [True, False]),
        ("SPAN_KIND_CLIENT == kind", [False, True]),
        ("status.code == STATUS_CODE_ERROR", [False, True]),
        ('status.message == "no GPU"', [False, True]),
        ("duration < 0.5", [True, False]),
        ("2 <= duration", [False, True]),
        ('attributes["route"] == "/a\\"b"', [True, False]),
        ('span.attributes["route"] != "/x"', [True, True]),
        ('attributes["route"] < "/b"', [True, False]),
        ('attributes["code"] >= 500', [False, True]),
        ('attributes["code"] == 200.0', [True, False]),
        ('attributes["cached"] == true', [True, False]),
        ('attributes["route"] == nil', [False, True]),
        ('nil != attributes["list"]', [False, True]),
        ('resource.attributes["host"] == "a"', [True, True]),
        ('resource.attributes["slots"] > 3', [True, True]),
        ('resource.attributes["none"] == nil', [True, True]),
        ('instrumentation_scope.name == "library"', [True, True]),
        ('IsMatch(name, "^GET /h")', [True, False]),
        ('IsMatch(attributes["code"], "^2..$")', [True, False]),
        ('HasPrefix(name, "GET")', [True, False]),
        ('HasSuffix(name, "step")', [False, True]),
        ("true", [True, True]),
        ("not false", [True, True]),
        ('not name == "GET /health" and kind == 3', [False, True]),
        ('name == "GET /health" or kind == 3 and false', [True, False]),
        ('(name == "GET /health" or kind == 3) and not (false)', [True, True]),
    ],
)
def test_a_condition_means_what_it_means_to_the_collector(text: str, expected: list[bool]) -> None:
    health = span(0.1, name="GET /health", kind=2, route='/a"b', code=200, cached=True)
    step = span(3, Status(code=Status.STATUS_CODE_ERROR, message="no GPU"), name="step", kind=3, code=503, list=["x"])
    assert holds(text, health, step, resource=Resource(attributes=pairs(host="a", slots=4))) == expected


@pytest.mark.parametrize("function", ['HasPrefix(attributes["a"], "x")', 'IsMatch(attributes["a"], "x")'])
def test_a_row_without_a_text_to_test_matches_neither_the_function_nor_its_negation(function: str) -> None:
    array = span(a=["x"])
    assert holds(function, array) == [False]
    assert holds(f"not {function}", array) == [False]
    assert holds(f'not ({function} and name == "other")', array) == [True], "the rest decides"
    assert holds(f"{function} or kind == 0", array) == [True], "the rest decides"


def test_a_missing_attribute_never_matches_a_pattern() -> None:
    assert holds('not IsMatch(attributes["a"], ".*")', span()) == [True]


def test_a_condition_sees_what_an_earlier_processor_changed() -> None:
    condition = parse('attributes["a"] == "new" and attributes["b"] == nil', Signal.TRACES)
    batch = BatchReader(Signal.TRACES, condition.attributes).read(
        [request([(Resource(), InstrumentationScope(), span(b=1))])]
    )[0]
    batch.set("a", 5)
    batch.set("a", "new")
    batch.delete("b")
    assert condition.mask(batch).tolist() == [True]


def test_in_the_context_of_a_resource_its_attributes_need_no_prefix() -> None:
    resource = Resource(attributes=pairs(host="a"))
    assert holds('attributes["host"] == "a"', span(host="b"), resource=resource, context=Context.RESOURCE) == [True]


def test_a_string_can_hold_any_character() -> None:
    assert holds('name == "\\u00e9\\t\\n\\r\\\\\\""', span(name='é\t\n\r\\"')) == [True]


@pytest.mark.parametrize(
    ("value", "digits"), [(math.inf, "+Inf"), (-math.inf, "-Inf"), (1e22, "1" + "0" * 22), (0.5, "0.5")]
)
def test_a_pattern_sees_the_digits_that_the_collector_writes(value: float, digits: str) -> None:
    assert holds(f'IsMatch(attributes["a"], "^{re.escape(digits).replace(chr(92), chr(92) * 2)}$")', span(a=value)) == [
        True
    ]


@pytest.mark.parametrize(
    "text", ['attributes["a"] == 1', 'resource.attributes["a"] == nil', 'not IsMatch(name, "a")', "true"]
)
def test_an_empty_batch_has_an_empty_mask(text: str) -> None:
    condition = parse(text, Signal.TRACES)
    assert condition.mask(BatchReader(Signal.TRACES, condition.attributes).read([])[0]).tolist() == []


def test_long_texts_match_too() -> None:
    assert holds('IsMatch(name, "x$")', span(name="y" * limits.VERDICT_CHARS_MAX + "x"), span(name="y")) == [
        True,
        False,
    ]


def test_log_records_have_paths_of_their_own() -> None:
    text = (
        'log.body == "out of memory" and severity_number >= SEVERITY_NUMBER_ERROR and severity_text == "ERROR"'
        ' and event_name == "oom" and log.attributes["gpu"] == 1'
    )
    error: Any = 17  # SEVERITY_NUMBER_ERROR
    records = [
        LogRecord(
            body=any_value("out of memory"),
            severity_number=error,
            severity_text="ERROR",
            event_name="oom",
            attributes=pairs(gpu=1),
        ),
        LogRecord(body=any_value(["out of memory"]), severity_number=error - 8),
        LogRecord(),
    ]
    body = ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])]
    ).SerializeToString()
    batch = BatchReader(Signal.LOGS, ["gpu"]).read([body])[0]
    assert parse(text, Signal.LOGS).mask(batch).tolist() == [True, False, False]
    assert parse("body == nil", Signal.LOGS).mask(batch).tolist() == [False, False, True]
    assert parse('not IsMatch(body, "disk")', Signal.LOGS).mask(batch).tolist() == [True, False, True]


def test_metrics_have_a_name_and_a_resource() -> None:
    metrics = [Metric(name="gpu.power"), Metric(name="gpu.memory")]
    body = ExportMetricsServiceRequest(
        resource_metrics=[ResourceMetrics(scope_metrics=[ScopeMetrics(metrics=metrics)])]
    ).SerializeToString()
    batch = BatchReader(Signal.METRICS).read([body])[0]
    assert parse('IsMatch(metric.name, "power")', Signal.METRICS).mask(batch).tolist() == [True, False]


def test_it_names_the_attributes_of_rows_that_it_reads() -> None:
    condition = parse(
        'attributes["a"] == 1 or IsMatch(attributes["b"], "x") or resource.attributes["c"] == 1', Signal.TRACES
    )
    assert condition.attributes == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at character 1: the end: allowed are a path, a literal"),
        ('name == "a" and', "at character 16: the end"),
        ('name == "a" name', "at character 13: name: allowed are and, or"),
        ('(name == "a"', "at character 13: the end: here stands )"),
        ("name = 1", "at character 6: =: nothing allowed begins so"),
        ("name == 'a'", "strings stand in double quotes"),
        ("name", "at character 5: the end: allowed are =="),
        ("name == 5", "name is text: compare it with a string"),
        ('kind == "SERVER"', "kind is a number: compare it with a number"),
        ('"a" == "b"', "between one path and one literal"),
        ("name == status.message", "between one path and one literal"),
        ('attributes["a"] < nil', "nil can be compared with == and != only"),
        ("attributes[0] == 1", "at character 12: 0: allowed is one key in double quotes"),
        ('attributes["a"]["b"] == 1', "at character 16: [: allowed are =="),
        ("attributes == nil", 'allowed for traces are attributes["key"]'),
        ("body == nil", "at character 1: body: allowed for traces are"),
        ('log.attributes["a"] == 1', "allowed for traces are"),
        ('spanevent.name == "a"', "a spanevent is no row of its own here"),
        ("kind == SPAN_KIND_ROBOT", "at character 9: SPAN_KIND_ROBOT: allowed for traces are"),
        ("kind == 9223372036854775808", "integers have 64 bits"),
        ("kind == 0x01", "at character 9: 0"),
        ('name == "\\d"', "at character 10: \\d: the escapes are"),
        ('IsMatch(name, "(?=a)")', 'at character 15: the pattern "(?=a)": invalid perl operator: (?=; allowed is'),
        ('IsMatch(name, "\\ud800")', "the pattern is no valid Unicode"),
        ("IsMatch(name, name)", "IsMatch takes a string literal second"),
        ('IsMatch("a", "a")', "IsMatch takes a path with text first"),
        ('HasPrefix(kind, "a")', "HasPrefix takes a path with text first"),
        ("(" * 51 + "true" + ")" * 51, "at character 51: (: at most 50 levels"),
        ("not " * 51 + "true", "at most 50 levels"),
        ('name == "' + "a" * limits.CONDITION_CHARS_MAX + '"', "allowed are 16384"),
    ],
)
def test_a_mistake_is_refused_with_its_place_and_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text, Signal.TRACES)


@pytest.mark.parametrize("text", ['attributes["a"] == 1', 'datapoint.attributes["a"] == 1', "kind == 1"])
def test_a_condition_on_metrics_cannot_see_data_points(text: str) -> None:
    with pytest.raises(ValueError, match=r"at character 1: .*(no row of its own|allowed for metrics are)"):
        parse(text, Signal.METRICS)


def test_a_wide_condition_is_no_deep_one() -> None:
    assert holds(" or ".join(f'name == "{number}"' for number in range(500)), span(name="499")) == [True]


# -- the same as a loop over protobuf objects --------------------------------------------------------------------------

TEXTS = st.sampled_from(["", "a", "b", "ab", "ba", "1", "é", 'q"\\'])
INTEGERS = st.integers(-3, 3) | st.sampled_from([2**53, -(2**53)])
FLOATS = st.sampled_from([-1.5, 0.0, 0.25, 1.0, 1e20])
VALUES = TEXTS | INTEGERS | FLOATS | st.booleans() | st.lists(TEXTS, max_size=2) | st.just(b"a")
ATTRIBUTES = st.dictionaries(st.sampled_from(["k", "l"]), VALUES)
SPANS = st.builds(
    lambda name, kind, code, message, seconds, attributes: span(
        seconds, Status(code=code, message=message), name, kind, **attributes
    ),
    TEXTS, st.integers(0, 5), st.integers(0, 2), TEXTS, st.integers(0, 3), ATTRIBUTES,
)  # fmt: skip
RESOURCES = st.builds(lambda attributes: Resource(attributes=pairs(**attributes)), ATTRIBUTES)
ROWS = st.lists(st.tuples(RESOURCES, st.builds(InstrumentationScope, name=TEXTS), SPANS), min_size=1, max_size=6)

ANY_PATHS = st.sampled_from(['attributes["k"]', 'span.attributes["l"]', 'resource.attributes["k"]'])
TEXT_PATHS = st.sampled_from(["name", "span.name", "status.message", "instrumentation_scope.name"]) | ANY_PATHS
NUMBER_PATHS = st.sampled_from(["kind", "status.code", "duration"]) | ANY_PATHS
ORDERS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
EQUALITIES = st.sampled_from(["==", "!="])
COMPARISONS = (
    st.tuples(st.just("compare"), TEXT_PATHS, ORDERS, TEXTS)
    | st.tuples(st.just("compare"), NUMBER_PATHS, ORDERS, INTEGERS | FLOATS.filter(lambda value: value < 1e9))
    | st.tuples(st.just("compare"), ANY_PATHS, ORDERS, st.booleans())
    | st.tuples(st.just("compare"), ANY_PATHS | TEXT_PATHS | NUMBER_PATHS, EQUALITIES, st.none())
)
CALLS = st.tuples(st.sampled_from(["HasPrefix", "HasSuffix"]), TEXT_PATHS, TEXTS) | st.tuples(
    st.just("IsMatch"), TEXT_PATHS, st.sampled_from(["a", "^b", "b$", "^$", "[0-9]$", "^1$"])
)
TREES = st.recursive(
    COMPARISONS | CALLS | st.tuples(st.just("constant"), st.booleans()),
    lambda inner: (
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3))
        | st.tuples(st.just("not"), inner)
    ),
    max_leaves=8,
)


def written(tree: Any) -> str:
    """A tree as the text of a condition."""
    match tree:
        case "compare", path, sign, value:
            return f"{path} {sign} {literal(value)}"
        case "constant", value:
            return literal(value)
        case "not", inner:
            return f"not ({written(inner)})"
        case "and" | "or", inner:
            return f" {tree[0]} ".join(f"({written(one)})" for one in inner)
        case str(name), path, value:
            return f"{name}({path}, {literal(value)})"
    raise AssertionError


def literal(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if value is None:
        return "nil"
    return str(value).lower() if isinstance(value, bool) else str(value)


def verdict(tree: Any, row: Row) -> bool | None:
    """What a tree says of one span; None: it cannot be judged."""
    match tree:
        case "compare", path, sign, value:
            return compare(value_at(path, row), sign, value)
        case "constant", value:
            return bool(value)
        case "not", inner:
            answer = verdict(inner, row)
            return None if answer is None else not answer
        case "and" | "or", inner:
            decisive = tree[0] == "or"
            answers = [verdict(one, row) for one in inner]
            return decisive if decisive in answers else None if None in answers else not decisive
        case str(name), path, argument:
            return call(name, value_at(path, row), argument)
    raise AssertionError


def value_at(path: str, row: Row) -> Any:
    resource, scope, one = row
    if "attributes" in path:
        key = path[-3]
        attributes = resource.attributes if path.startswith("resource") else one.attributes
        found = [pair.value for pair in attributes if pair.key == key]
        return getattr(found[0], str(found[0].WhichOneof("value"))) if found else None
    return {
        "name": one.name,
        "span.name": one.name,
        "status.message": one.status.message,
        "instrumentation_scope.name": scope.name,
        "kind": one.kind,
        "status.code": one.status.code,
        "duration": (one.end_time_unix_nano - one.start_time_unix_nano) * 1e-9,
    }[path]


def compare(value: Any, sign: str, wanted: Any) -> bool:
    operators = {
        "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
    }  # fmt: skip
    numbers = isinstance(value, int | float) and isinstance(wanted, int | float)
    if numbers or (isinstance(value, str) and isinstance(wanted, str)) or (value is None and wanted is None):
        return bool(operators[sign](value, wanted))
    return sign == "!="


def call(name: str, value: Any, argument: str) -> bool | None:
    if name == "IsMatch":
        if value is None:
            return False
        if isinstance(value, int | float):
            assert math.isfinite(value)
            value = str(int(value)) if value == int(value) else str(value)
        return re.search(argument.replace("$", r"\Z"), value) is not None if isinstance(value, str) else None
    if not isinstance(value, str):
        return None
    return value.startswith(argument) if name == "HasPrefix" else value.endswith(argument)


@given(TREES, ROWS)
def test_a_mask_is_what_a_loop_over_the_spans_finds(tree: Any, rows: list[Row]) -> None:
    condition = parse(written(tree), Signal.TRACES)
    batch = BatchReader(Signal.TRACES, condition.attributes).read([request(rows)])[0]
    assert condition.mask(batch).tolist() == [verdict(tree, row) is True for row in rows]
