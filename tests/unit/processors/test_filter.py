"""The processor `filter` over all three signals."""

from __future__ import annotations

import re
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from pydantic import ValidationError

from otel_pipeline.processors.filter import FilterProcessor
from otel_pipeline.wire.batch import Batch
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import any_value

CONTEXT: Any = None  # it uses none of it
ROWS = {Signal.TRACES: "spans", Signal.LOGS: "log_records", Signal.METRICS: "metrics"}


def request(signal: Signal, *names: str, host: str = "a") -> bytes:
    """A row for each name; a log record has it as its event name; a metric has two data points."""
    message: Any = signal.value.request()
    group = getattr(message, message.DESCRIPTOR.fields[0].name).add()
    group.resource.CopyFrom(Resource(attributes=[KeyValue(key="host", value=any_value(host))]))
    scope = getattr(group, f"scope_{group.DESCRIPTOR.name.removeprefix('Resource').lower()}").add()
    for name in names:
        row = getattr(scope, ROWS[signal]).add()
        if signal is Signal.TRACES:
            row.name, row.trace_id, row.span_id = name, b"t" * 16, b"s" * 8
        elif signal is Signal.LOGS:
            row.event_name = name
        else:
            row.name = name
            row.gauge.data_points.add(as_int=1)
            row.gauge.data_points.add(as_int=2)
    body: bytes = message.SerializeToString()
    return body


def filtered(settings: dict[str, Any], signal: Signal, *bodies: bytes) -> Batch:
    processor = FilterProcessor(FilterProcessor.Config.model_validate(settings), CONTEXT)
    batch = BatchReader(signal, processor.attributes(signal)).read(list(bodies))[0]
    processor.process(batch)
    return batch


@pytest.mark.parametrize(
    ("signal", "settings"),
    [
        (Signal.TRACES, {"error_mode": "ignore", "traces": {"span": ['name == "b"', 'IsMatch(name, "^c")']}}),
        (Signal.TRACES, {"trace_conditions": ['span.name == "b"', 'span.name == "c"']}),
        (Signal.LOGS, {"logs": {"log_record": ['event_name == "b" or log.event_name == "c"']}}),
        (Signal.LOGS, {"log_conditions": ['log.event_name == "b"'], "logs": {"log_record": ['event_name == "c"']}}),
        (Signal.METRICS, {"metrics": {"metric": ['name == "b"', 'name == "c"']}}),
        (Signal.METRICS, {"metric_conditions": ['metric.name != "a"']}),
    ],
)
def test_a_row_that_matches_any_condition_is_dropped(signal: Signal, settings: dict[str, Any]) -> None:
    batch = filtered(settings, signal, request(signal, "a", "b", "c"))
    assert batch.keep.tolist() == [True, False, False]
    assert bytes(batch.encode()) == request(signal, "a")


@pytest.mark.parametrize(
    ("signal", "section"), [(Signal.TRACES, "traces"), (Signal.LOGS, "logs"), (Signal.METRICS, "metrics")]
)
def test_conditions_on_resources_drop_all_their_rows(signal: Signal, section: str) -> None:
    settings = {section: {"resource": ['attributes["host"] == "b"']}}
    batch = filtered(settings, signal, request(signal, "x", "y"), request(signal, "x", host="b"))
    assert batch.keep.tolist() == [True, True, False]


@pytest.mark.parametrize("signal", Signal)
def test_what_matches_nothing_passes_byte_by_byte(signal: Signal) -> None:
    body = request(signal, "a", "b")
    assert filtered({}, signal, body).encode() is body
    assert filtered({"traces": {"span": ["false"]}}, signal, body).encode() == body


def test_a_row_that_cannot_be_judged_stays() -> None:
    settings = {"error_mode": "propagate", "traces": {"span": ['not HasPrefix(attributes["none"], "x")']}}
    assert filtered(settings, Signal.TRACES, request(Signal.TRACES, "a")).keep.tolist() == [True]


def test_it_asks_for_the_columns_of_its_signal_only() -> None:
    config = {"traces": {"span": ['attributes["a"] == 1']}, "log_conditions": ['log.attributes["b"] == 1']}
    processor = FilterProcessor(FilterProcessor.Config.model_validate(config), CONTEXT)
    assert [sorted(processor.attributes(signal)) for signal in (Signal.TRACES, Signal.LOGS, Signal.METRICS)] == [
        ["a"],
        ["b"],
        [],
    ]


@pytest.mark.parametrize(
    ("settings", "place", "message"),
    [
        ({"traces": {"span": ["true", "name = 1"]}}, ("traces", "span", 1), "at character 6: =: nothing allowed"),
        (
            {"traces": {"spanevent": ['name == "a"']}},
            ("traces", "spanevent"),
            "events of a span cannot be dropped here",
        ),
        (
            {"metrics": {"datapoint": ["true"]}},
            ("metrics", "datapoint"),
            "data points of a metric cannot be dropped here",
        ),
        ({"metrics": {"metric": ['attributes["a"] == 1']}}, ("metrics", "metric", 0), "allowed for metrics are"),
        (
            {"traces": {"resource": ['name == "a"']}},
            ("traces", "resource", 0),
            'allowed for traces are attributes["key"]',
        ),
        ({"trace_conditions": [{"context": "span"}]}, ("trace_conditions", 0), "write the condition itself"),
        ({"error_mode": "panic"}, ("error_mode",), "'ignore', 'silent' or 'propagate'"),
        ({"profiles": {}}, ("profiles",), "Extra inputs are not permitted"),
    ],
)
def test_a_mistake_is_told_with_its_place(settings: dict[str, Any], place: tuple[str | int, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)) as caught:
        FilterProcessor.Config.model_validate(settings)
    assert [error["loc"] for error in caught.value.errors()] == [place]


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        FilterProcessor.Config.model_validate({"traces": {"span": ["a", "true", "b"]}, "metric_conditions": ["c"]})
    assert caught.value.error_count() == 3
