"""Arrays of attributes as columns, and the quick look at which attributes there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from otel_pipeline.wire.batch import Constants
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import array_values
from tests.support.otlp import traces

if TYPE_CHECKING:
    from otel_pipeline.wire.batch import Batch
    from otel_pipeline.wire.values import Value

KEYS = frozenset({"ids", "other"})


def batch(*values: Value) -> Batch:
    """A span for each value of the attribute `ids`; None: it has none."""
    told = [
        traces(["a"], {} if value is None else {"ids": value}, first=index + 1) for index, value in enumerate(values)
    ]
    return BatchReader(Signal.TRACES, KEYS).read([b"".join(told)])[0]


def read(of: Batch) -> list[tuple[Value, ...] | None]:
    codes, values = of.lists("ids")
    return [None if code < 0 else values[code] for code in codes.tolist()]


def test_arrays_and_texts_are_lists() -> None:
    assert read(batch(["a", "b"], "c", None, 7, [], ["a", "b"])) == [("a", "b"), ("c",), None, None, (), ("a", "b")]


def test_what_was_set_reads_as_set() -> None:
    one = batch(["a"], "b", None, ["d"])
    one.set("ids", Constants(np.array([-1, 0, 1, 2], np.int32), [("x", "y"), "z", 5]))
    assert read(one) == [("a",), ("x", "y"), ("z",), None]
    one.delete("ids", np.array([True, False, False, False]))
    assert read(one) == [None, ("x", "y"), ("z",), None]


@pytest.mark.parametrize("encoded", [b"\xff", b"\x0a\x7f"])
def test_a_damaged_array_is_empty(encoded: bytes) -> None:
    assert array_values(encoded) == ()


def test_a_look_tells_which_attributes_there_are() -> None:
    assert batch(None, "x").having(["other", "ids"]) == ["ids"]
    assert batch(None, None).having(["other", "ids"]) == []


def test_a_look_sees_what_was_set() -> None:
    one = batch(None)
    one.set("other", 1)
    assert one.having(["other", "ids"]) == ["other"]
