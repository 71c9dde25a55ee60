"""Likeness: rows have one number exactly if they say the same, in every variant, over batches."""

from __future__ import annotations

from random import Random
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_pipeline.wire.batch import Batch, Constants
from otel_pipeline.wire.kernel import Kernel
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import any_value
from tests.wire.messages import randoms

KEYS: Final = ("a", "b", "long.key")
SHOWN: Final = ("shown",)
FACTORS: Final = (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93)
NONE: Final = np.empty(0, np.int64)
VALUES: Final = [
    "",
    "x",
    "xy",
    "12345678",
    "123456789",
    "x" * 17,
    "x" * 16,
    1,
    -1,
    2**40,
    0,
    1.0,
    0.5,
    True,
    False,
    ["x"],
]


def read(rows: list[dict[str, Any]], kernel: Kernel, reader: BatchReader | None = None) -> Batch:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for row in rows:
        span = scope.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, kind=row.get("kind", 0))
        span.status.code = row.get("status", 0)
        for key, value in row.items():
            if key not in ("kind", "status"):
                span.attributes.add(key=key).value.CopyFrom(any_value(value))
    reader = reader or BatchReader(Signal.TRACES, (*KEYS, *SHOWN, "other"), kernel)
    return reader.read([request.SerializeToString()])[0]


def numbers(likeness: Any, batch: Batch, extra: Any = NONE, fresh_max: int = 100) -> Any:
    return batch.alike(likeness, (SHOWN, KEYS), np.zeros(1, np.int64), extra, fresh_max)


def said(row: dict[str, Any]) -> tuple[Any, ...]:
    told = [(key, type(row[key]).__name__, str(row[key])) for key in KEYS if key in row]
    return (*told, "shown" in row, row.get("kind", 0), row.get("status", 0))


ROWS: Final = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            **{key: st.sampled_from(VALUES) for key in KEYS},
            "shown": st.sampled_from(["p", "q"]),
            "other": st.sampled_from(VALUES),
            "kind": st.integers(0, 5),
            "status": st.integers(0, 2),
        },
    ),
    max_size=12,
)


@given(batches=st.lists(ROWS, min_size=1, max_size=3))
def test_rows_share_a_number_exactly_if_they_say_the_same(kernel: Kernel, batches: list[list[dict[str, Any]]]) -> None:
    likeness = kernel.likeness(256, FACTORS)
    known: dict[tuple[Any, ...], int] = {}
    for rows in batches:
        codes, fresh = numbers(likeness, read(rows, kernel))
        before = len(known)
        assert codes.tolist() == [known.setdefault(said(row), len(known)) for row in rows]
        assert [known[said(rows[row])] for row in fresh] == list(range(before, len(known)))


def test_what_was_edited_counts_as_it_reads(kernel: Kernel) -> None:
    likeness = kernel.likeness(256, FACTORS)
    batch = read([{"a": "x"}, {"a": "y"}, {"a": "x"}, {}], kernel)
    first = numbers(likeness, batch)[0].tolist()
    assert (first[0] == first[2], len(set(first))) == (True, 3)
    batch.set("a", Constants(np.array([-1, 0, 0, 1], np.int32), ["z", "w"]))
    after = numbers(likeness, batch)[0].tolist()
    assert after[0] == first[0]
    assert len({*after, *first}) == 6
    assert numbers(likeness, batch)[0].tolist() == after


def test_places_and_extras_set_rows_apart(kernel: Kernel) -> None:
    likeness = kernel.likeness(256, FACTORS)
    batch = read([{"a": "x"}, {"a": "x"}, {"a": "x"}], kernel)
    assert len(set(numbers(likeness, batch)[0].tolist())) == 1
    assert len(set(numbers(likeness, batch, np.array([0, 1, -5]))[0].tolist())) == 3
    elsewhere = batch.alike(likeness, (SHOWN, KEYS), np.array([7]), NONE, 100)
    assert elsewhere is not None
    assert elsewhere[1] == [0]


def test_too_many_new_ones_change_nothing(kernel: Kernel) -> None:
    likeness = kernel.likeness(8, FACTORS)
    assert numbers(likeness, read([{"a": "x"}], kernel))[1] == [0]
    many = read([{"a": f"v{number}"} for number in range(9)], kernel)
    assert numbers(likeness, many, fresh_max=4) is None
    assert numbers(likeness, many) is None
    assert numbers(likeness, read([{"a": "x"}, {"a": "v0"}], kernel))[0].tolist() == [0, 1]
    likeness.forget()
    assert numbers(likeness, read([{"a": "v0"}], kernel))[1] == [0]


@given(random=randoms, values=st.lists(st.sampled_from(VALUES) | st.floats() | st.integers(-(2**63), 2**63 - 1)))
def test_wholes_are_rounded_multiples(kernel: Kernel, random: Random, values: list[Any]) -> None:
    units = random.choice([1, 1000, 10**9])
    batch = read([{"a": value} for value in values] + [{}], kernel)
    found = batch.wholes(("a", "b"), (units, 1), 2.0**53)
    expected = []
    for value in values:
        scaled = float(value) * units if isinstance(value, int | float) else -1.0
        expected.append(round(scaled) if 0 <= scaled < 2**53 else -1)
    assert found.tolist() == [[*expected, -1], [-1] * (len(values) + 1)]


def test_wholes_are_those_after_edits(kernel: Kernel) -> None:
    batch = read([{"a": 1}, {"a": 2}, {}], kernel)
    batch.set_rows("a", np.array([1, 2]), np.array([2.5, -1.0]))
    assert batch.wholes(("a",), (1000,), 2.0**53).tolist() == [[1000, 2500, -1]]


@pytest.mark.parametrize("value", ["text", 7, 2.5, True, None])
def test_one_value_of_a_row(kernel: Kernel, value: Any) -> None:
    batch = read([{} if value is None else {"a": value}], kernel)
    assert batch.value("a", 0) == value
    assert batch.has("a", 0) is (value is not None)
    batch.set("a", "new")
    assert batch.value("a", 0) == "new"
    batch.delete("a")
    assert (batch.value("a", 0), batch.has("a", 0)) == (None, False)


def test_columns_are_made_for_what_occurs(kernel: Kernel) -> None:
    keys = tuple(f"key{number}" for number in range(50))
    reader = BatchReader(Signal.TRACES, keys, kernel)
    wide = [reader.read([request({key: "v"})])[0].rows.shape[1] for key in ("key3", "key3", "key9", "key3")]
    assert wide == [42, 42, 47, 47]
    batch = reader.read([request({"key9": "v", "key40": "w"})])[0]
    assert batch.having(keys) == ["key3", "key9", "key40"]
    assert [batch.value(key, 0) for key in ("key3", "key9", "key40", "key41")] == [None, "v", "w", None]
    batch.set("key41", "new")
    batch.set("key9", "other")
    found = ExportTraceServiceRequest.FromString(batch.encode()).resource_spans[0].scope_spans[0].spans[0]
    assert {pair.key: pair.value.string_value for pair in found.attributes} == {
        "key9": "other",
        "key40": "w",
        "key41": "new",
    }


def request(attributes: dict[str, Any]) -> bytes:
    made = ExportTraceServiceRequest()
    span = made.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8)
    for key, value in attributes.items():
        span.attributes.add(key=key).value.CopyFrom(any_value(value))
    return made.SerializeToString()
