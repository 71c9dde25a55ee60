"""Columns that are written by the numbers of their rows, and arrays that are read as a column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import ArrayValue

from otel_pipeline.wire.batch import Constants
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import python_value
from tests.support.otlp import traces

if TYPE_CHECKING:
    from otel_pipeline.wire.batch import Batch

EDGES = sorted({0, 1, 2**63 - 1, *(2**bits + more for bits in range(7, 63) for more in (-1, 0, 1))})


def read(count: int, **attributes: object) -> Batch:
    request = traces([f"span {number}" for number in range(count)], attributes)  # type: ignore[arg-type]
    return BatchReader(Signal.TRACES, ("number", "ids")).read([request])[0]


def told(batch: Batch, key: str) -> list[object]:
    request = ExportTraceServiceRequest.FromString(bytes(batch.encode()))
    found = []
    for span in request.resource_spans[0].scope_spans[0].spans:
        values = [python_value(pair.value) for pair in span.attributes if pair.key == key]
        assert len(values) <= 1
        found.append(values[0] if values else None)
    return found


def test_whole_numbers_of_all_lengths_arrive_as_they_are() -> None:
    batch = read(len(EDGES))
    batch.set_rows("number", np.arange(len(EDGES)), np.array(EDGES, np.int64))
    assert told(batch, "number") == EDGES
    canonical = bytes(batch.encode())
    assert ExportTraceServiceRequest.FromString(canonical).SerializeToString() == canonical


@pytest.mark.parametrize("values", [np.array([2.5, -1.0]), np.array([7, 300])])
def test_only_the_rows_named_are_set(values: np.ndarray) -> None:
    batch = read(4, number=1)
    batch.set_rows("number", np.array([3, 1]), values)
    assert told(batch, "number") == [1, values[1], 1, values[0]]
    assert batch.numbers("number").tolist() == [1, values[1], 1, values[0]]


@pytest.mark.parametrize("is_read_between", [False, True])
def test_numbers_and_texts_set_one_after_the_other_are_read_and_written_in_that_order(*, is_read_between: bool) -> None:
    batch = read(5, number=1)
    values = np.array([2.5, 3.5, 4.5])
    batch.set_rows("number", np.array([0, 1, 2]), values)
    values[:] = 0.0  # whoever set them may use the array again
    if is_read_between:
        assert batch.numbers("number").tolist() == [2.5, 3.5, 4.5, 1, 1]
    batch.set("number", "text", np.array([False, True, False, False, False]))
    batch.set_rows("number", np.array([2, 3]), np.array([7, 300]))
    assert batch.strings("number").at(1) == "text"
    assert [batch.edits.text(("attribute", "number"), row) for row in range(5)] == ["", "text", "", "", None]
    np.testing.assert_equal(batch.numbers("number"), [2.5, np.nan, 7, 300, 1])
    assert told(batch, "number") == [2.5, "text", 7, 300, 1]


def test_no_rows_is_no_edit() -> None:
    batch = read(2)
    batch.set_rows("number", np.empty(0, np.int64), np.empty(0))
    assert not batch.edits


def test_arrays_are_a_column_of_distinct_values() -> None:
    batch = read(3, ids=["a", "b"])
    codes, values = batch.arrays("ids")
    assert codes.tolist() == [0, 0, 0]
    assert [python_value(one) for one in ArrayValue.FromString(values[0]).values] == ["a", "b"]
    batch.set("ids", Constants(np.array([-1, 0, -1], np.int32), ["text"]))
    assert batch.arrays("ids")[0].tolist() == [0, -1, 0]
    assert read(1, ids="text").arrays("ids")[0].tolist() == [-1]
