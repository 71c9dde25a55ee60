"""The kernel's table of messages is that of opentelemetry-proto, field for field."""

from __future__ import annotations

from typing import Any, Final

import pytest
from google.protobuf.descriptor import FieldDescriptor

from otel_pipeline.wire import schema
from otel_pipeline.wire.schema import FIELDS_MAX, KINDS, Message
from otel_pipeline.wire.signal import Signal
from tests.wire.messages import part_of, wire_type

NAMES: Final = {
    "AnyValue": Message.ANY_VALUE,
    "KeyValue": Message.KEY_VALUE,
    "ArrayValue": Message.ARRAY,
    "KeyValueList": Message.KVLIST,
    "InstrumentationScope": Message.SCOPE,
    "Resource": Message.RESOURCE,
    "EntityRef": Message.ENTITY_REF,
    "Status": Message.STATUS,
    "Event": Message.EVENT,
    "Link": Message.LINK,
    "Span": Message.SPAN,
    "LogRecord": Message.LOG_RECORD,
    "Metric": Message.METRIC,
    "Gauge": Message.GAUGE,
    "Sum": Message.SUM,
    "Histogram": Message.HISTOGRAM,
    "ExponentialHistogram": Message.EXP_HISTOGRAM,
    "Summary": Message.SUMMARY,
    "Exemplar": Message.EXEMPLAR,
    "Buckets": Message.BUCKETS,
    "ValueAtQuantile": Message.QUANTILE,
    "NumberDataPoint": Message.NUMBER_POINT,
    "HistogramDataPoint": Message.HISTOGRAM_POINT,
    "ExponentialHistogramDataPoint": Message.EXP_HISTOGRAM_POINT,
    "SummaryDataPoint": Message.SUMMARY_POINT,
}
WALKED_BY_CODE: Final = (
    "Export",
    "ResourceSpans",
    "ResourceLogs",
    "ResourceMetrics",
    "ScopeSpans",
    "ScopeLogs",
    "ScopeM",
)


def _descriptors() -> dict[str, Any]:
    found: dict[str, Any] = {}
    waiting: list[Any] = [signal.value.request.DESCRIPTOR for signal in Signal]
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name not in found:
            found[descriptor.full_name] = descriptor
            waiting.extend(field.message_type for field in descriptor.fields if field.message_type is not None)
    return {descriptor.name: descriptor for descriptor in found.values()}


DESCRIPTORS: Final = _descriptors()


def test_every_message_is_in_the_table() -> None:
    others = {name for name in DESCRIPTORS if name not in NAMES}
    assert all(name.startswith(WALKED_BY_CODE) for name in others)
    assert set(NAMES.values()) == set(Message)


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_those_of_the_descriptor(name: str) -> None:
    kinds = KINDS[NAMES[name] * FIELDS_MAX : (NAMES[name] + 1) * FIELDS_MAX]
    expected = {field.number: _kind(field) for field in DESCRIPTORS[name].fields}
    assert {number: kind for number, kind in enumerate(kinds) if kind} == expected


@pytest.mark.parametrize("signal", Signal)
def test_containers_have_the_numbers_that_the_kernel_takes_for_granted(signal: Signal) -> None:
    request = signal.value.request.DESCRIPTOR
    group, scope, row = (part_of(request, *path) for path in ((1,), (1, 2), (1, 2, 2)))
    assert [field.number for field in request.fields] == [1]
    assert {field.number: field.name.split("_")[0] for field in group.fields} == {
        1: "resource",
        2: "scope",
        3: "schema",
    }
    assert sorted(field.number for field in scope.fields) == [1, 2, 3]
    assert NAMES[row.name] == signal.value.row_message
    assert part_of(row, signal.value.attributes_field).name == "KeyValue"


@pytest.mark.parametrize("signal", Signal)
def test_the_service_is_the_one_of_the_protocol(signal: Signal) -> None:
    file = signal.value.request.DESCRIPTOR.file
    assert signal.value.service in {service.full_name for service in file.services_by_name.values()}
    partial_success = part_of(signal.value.response.DESCRIPTOR, 1)
    assert signal.value.rejected_field in {field.name for field in partial_success.fields}


def _kind(field: FieldDescriptor) -> int:
    if field.message_type is not None:
        return (schema.REPEATED if field.is_repeated else schema.SINGULAR) + NAMES[field.message_type.name]
    if field.name == "trace_id":
        return schema.TRACE_ID
    if field.name in {"span_id", "parent_span_id"}:
        return schema.SPAN_ID
    if field.type == FieldDescriptor.TYPE_STRING:
        return schema.STRING
    wire = wire_type(field)
    if field.is_repeated:
        return {1: schema.PACKED_FIXED64, 0: schema.PACKED_VARINT}[wire]
    return {0: schema.VARINT, 1: schema.FIXED64, 5: schema.FIXED32, 2: schema.BYTES}[wire]
