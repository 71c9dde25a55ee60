"""The processor `resource` over all three signals."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from pydantic import ValidationError

from otel_pipeline.processors.resource import ResourceProcessor
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import Value, any_value, python_value

CONTEXT: Any = None  # it uses none of it


def request(signal: Signal, *resources: dict[str, Value]) -> bytes:
    """One row in each resource."""
    message: Any = signal.value.request()
    for attributes in resources:
        group = getattr(message, message.DESCRIPTOR.fields[0].name).add()
        pairs = [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]
        group.resource.CopyFrom(Resource(attributes=pairs))
        scope = getattr(group, f"scope_{group.DESCRIPTOR.name.removeprefix('Resource').lower()}").add()
        rows = {Signal.TRACES: "spans", Signal.LOGS: "log_records", Signal.METRICS: "metrics"}[signal]
        row = getattr(scope, rows).add()
        if signal is Signal.TRACES:
            row.trace_id, row.span_id = b"t" * 16, b"s" * 8
    body: bytes = message.SerializeToString()
    return body


def resources(signal: Signal, body: bytes) -> list[dict[str, Value]]:
    """The attributes of each resource in a request."""
    message: Any = signal.value.request.FromString(body)
    groups = getattr(message, message.DESCRIPTOR.fields[0].name)
    return [{pair.key: python_value(pair.value) for pair in group.resource.attributes} for group in groups]


def processed(actions: list[dict[str, Any]], *before: dict[str, Value], signal: Signal = Signal.TRACES) -> Any:
    processor = ResourceProcessor(ResourceProcessor.Config.model_validate({"attributes": actions}), CONTEXT)
    batch = BatchReader(signal, processor.attributes(signal)).read([request(signal, *before)])[0]
    processor.process(batch)
    return resources(signal, bytes(batch.encode()))


@pytest.mark.parametrize("signal", Signal)
def test_it_changes_the_resources_of_every_signal(signal: Signal) -> None:
    actions: list[dict[str, Any]] = [
        {"key": "a", "action": "insert", "value": "new"},
        {"key": "b", "action": "update", "value": 2},
        {"key": "c", "action": "upsert", "value": 0.5},
        {"key": "d", "action": "DELETE"},
    ]
    assert processed(actions, {"a": "old", "d": "x"}, {"b": 1, "c": True}, {}, signal=signal) == [
        {"a": "old", "c": 0.5},
        {"a": "new", "b": 2, "c": 0.5},
        {"a": "new", "c": 0.5},
    ]


def test_it_copies_what_another_attribute_of_the_same_resource_holds() -> None:
    actions = [{"key": "cluster", "action": "upsert", "from_attribute": "k8s.cluster.name"}]
    before: list[dict[str, Value]] = [
        {"k8s.cluster.name": "one"},
        {"k8s.cluster.name": 2, "cluster": "x"},
        {"cluster": "y"},
    ]
    assert [one.get("cluster") for one in processed(actions, *before)] == ["one", 2, "y"]


@pytest.mark.parametrize(("action", "expected"), [("insert", ["one", "x"]), ("update", [None, "two"])])
def test_a_copy_heeds_what_is_there(action: str, expected: list[str | None]) -> None:
    actions = [{"key": "to", "action": action, "from_attribute": "from"}]
    assert [one.get("to") for one in processed(actions, {"from": "one"}, {"from": "two", "to": "x"})] == expected


def test_actions_follow_one_another() -> None:
    actions = [
        {"key": "a", "action": "upsert", "value": "x"},
        {"key": "b", "action": "insert", "from_attribute": "a"},
        {"key": "a", "action": "delete"},
    ]
    assert processed(actions, {}) == [{"b": "x"}]


def test_arrays_are_not_copied() -> None:
    actions = [{"key": "b", "action": "insert", "from_attribute": "a"}]
    assert processed(actions, {"a": ["x"]}) == [{"a": ["x"]}]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"key": "a", "action": "hash"}, "allowed are insert, update, upsert, delete"),
        ({"key": "a", "action": 1}, "allowed are insert, update, upsert, delete"),
        ({"key": "a", "action": "insert"}, "insert takes either value or from_attribute"),
        ({"key": "a", "action": "insert", "value": 1, "from_attribute": "b"}, "either value or from_attribute"),
        ({"key": "a", "action": "delete", "value": 1}, "delete takes neither"),
        ({"key": "a", "action": "insert", "value": [1]}, "allowed are text, an integer"),
        ({"key": "a", "action": "insert", "value": 2**63}, "integers have 64 bits"),
        ({"key": "", "action": "delete"}, "at least 1 character"),
        ({"key": "a", "action": "insert", "from_context": "b"}, "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_action_is_refused(action: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ResourceProcessor.Config.model_validate({"attributes": [action]})
