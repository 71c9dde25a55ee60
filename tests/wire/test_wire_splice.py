"""The splicer copies what nobody touched byte for byte, and removes what became empty."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given

from otel_pipeline.wire import cells
from otel_pipeline.wire.batch import Batch, Constants
from otel_pipeline.wire.kernel import Kernel
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from tests.wire.messages import KEYS, Writer, delimited, padded, parsed, randoms, request_of, varint

EMPTY_SCOPE = delimited(2, delimited(1, delimited(1, b"idle")))
RESOURCE = delimited(1, delimited(1, delimited(1, b"a") + delimited(2, delimited(1, b"host"))))


def rows_in_bytes(batch: Batch) -> list[bytes]:
    """Each row's payload as it stands in the batch."""
    return [batch.data[start:end] for _, start, end in batch.rows[:, cells.AT : cells.END + 1].tolist()]


@pytest.mark.parametrize("signal", Signal)
@given(random=randoms)
def test_without_edits_the_bytes_are_the_same_object(kernel: Kernel, signal: Signal, random: Random) -> None:
    batch, _ = BatchReader(signal, KEYS, kernel).read([Writer(random, odd=True).request(signal)])
    assert batch.encode() is batch.data
    nobody = np.zeros(len(batch), np.bool_)
    batch.set("a", 1, nobody)
    batch.delete("a", nobody)
    batch.drop(nobody)
    assert batch.encode() is batch.data


@pytest.mark.parametrize("signal", Signal)
@given(random=randoms)
def test_rows_that_nobody_touched_are_copied(kernel: Kernel, signal: Signal, random: Random) -> None:
    reader = BatchReader(signal, KEYS, kernel)
    batch, _ = reader.read([Writer(random, odd=True).request(signal) for _ in range(2)])
    touched = np.array([random.random() < 0.3 for _ in range(len(batch))], np.bool_)
    dropped = np.array([random.random() < 0.3 for _ in range(len(batch))], np.bool_)
    batch.set("gpu.name", "H100", touched)
    batch.set_resource("host.name", "node")
    batch.drop(dropped)
    before = [
        None if edited else row
        for row, edited, gone in zip(rows_in_bytes(batch), touched, dropped, strict=True)
        if not gone
    ]
    again, (part,) = reader.read([bytes(batch.encode())])
    assert part.error is None
    after = rows_in_bytes(again)
    assert [row if old is not None else None for row, old in zip(after, before, strict=True)] == before


def test_scopes_and_groups_without_rows_left_go(kernel: Kernel) -> None:
    two = delimited(2, delimited(2, delimited(5, b"one")) + delimited(2, delimited(5, b"two")))
    other = delimited(2, delimited(2, delimited(5, b"three")))
    request = (
        delimited(1, RESOURCE + two + other + EMPTY_SCOPE) + delimited(1, RESOURCE + other) + delimited(1, RESOURCE)
    )
    for mask, kept in (
        ([True, True, False, False], delimited(1, RESOURCE + other + EMPTY_SCOPE) + delimited(1, RESOURCE + other)),
        ([False, False, True, False], delimited(1, RESOURCE + two + EMPTY_SCOPE) + delimited(1, RESOURCE + other)),
        ([False, False, False, True], delimited(1, RESOURCE + two + other + EMPTY_SCOPE)),
        ([True, True, True, True], b""),
    ):
        batch, _ = BatchReader(Signal.TRACES, (), kernel).read([request])
        assert batch.drop(np.array(mask)) == sum(mask)
        assert batch.encode() == kept + delimited(1, RESOURCE)  # what came without rows is none of our business


def test_all_rows_dropped_leave_an_empty_message(kernel: Kernel) -> None:
    batch, _ = BatchReader(Signal.TRACES, (), kernel).read([request_of(b"", b""), request_of(b"")])
    assert batch.drop(np.ones(3, np.bool_)) == 3
    batch.set_resource("a", 1)
    batch.set_name(Constants(np.zeros(3, np.int32), ["gone"]))
    assert batch.encode() == b""


@pytest.mark.parametrize("place", range(3))
def test_a_resource_is_set_wherever_it_stands(kernel: Kernel, place: int) -> None:
    """Before the scopes, after them, or nowhere."""
    scope = delimited(2, delimited(2, delimited(5, b"one")))
    unknown = delimited(100, b"kept")
    parts = [[RESOURCE, unknown, scope, scope], [scope, unknown, scope, RESOURCE], [unknown, scope, scope]][place]
    for edits_a_row in (False, True):
        batch, _ = BatchReader(Signal.TRACES, ["n"], kernel).read([delimited(1, b"".join(parts))])
        batch.set_resource("b", 1)
        if edits_a_row:
            batch.set("n", 1)
        encoded = bytes(batch.encode())
        (group,) = parsed(Signal.TRACES, encoded).resource_spans
        assert {pair.key for pair in group.resource.attributes} == ({"b"} if place == 2 else {"a", "b"})
        assert [len(span.attributes) for one in group.scope_spans for span in one.spans] == [edits_a_row] * 2
        assert unknown in encoded


def test_one_resource_edit_reaches_every_group_that_has_it(kernel: Kernel) -> None:
    scope = delimited(2, delimited(2, b""))
    groups = delimited(1, RESOURCE + scope) * 2 + delimited(1, scope) + delimited(1, delimited(1, b"") + scope)
    batch, _ = BatchReader(Signal.TRACES, (), kernel).read([groups])
    codes, resources = batch.resources()
    assert codes.tolist() == [0, 0, 1, 1]
    assert resources == [{"a": "host"}, {}]
    batch.set_resource("a", "new", "update")
    batch.delete_resource("absent")
    assert batch.resources()[1] == [{"a": "new"}, {}]
    assert batch.resource_strings("a").codes.tolist() == [0, 0, -1, -1]
    again = parsed(Signal.TRACES, bytes(batch.encode()))
    values = [[pair.value.string_value for pair in group.resource.attributes] for group in again.resource_spans]
    assert values == [["new"], ["new"], [], []]


@pytest.mark.parametrize("size", range(1, 6))
def test_overlong_tags_and_lengths_around_an_edit(kernel: Kernel, size: int) -> None:
    def odd(number: int, payload: bytes) -> bytes:
        return padded(varint(number << 3 | 2), size) + padded(varint(len(payload)), size) + payload

    pair = odd(9, odd(1, b"a") + odd(2, odd(1, b"old")))
    request = odd(1, odd(1, b"") + odd(2, odd(1, odd(1, b"scope")) + odd(2, odd(5, b"name") + pair) + odd(2, b"")))
    batch, _ = BatchReader(Signal.TRACES, ["a", "b"], kernel).read([request])
    batch.set("a", "new", np.array([True, False]))
    batch.set("b", 1, np.array([False, True]))
    batch.set_resource("c", 1)
    message = parsed(Signal.TRACES, bytes(batch.encode()))
    (group,) = message.resource_spans
    first, second = group.scope_spans[0].spans
    assert (first.name, first.attributes[0].value.string_value) == ("name", "new")
    assert second.attributes[0].value.int_value == 1
    assert group.scope_spans[0].scope.name == "scope"
    assert group.resource.attributes[0].key == "c"


@pytest.mark.parametrize("size", [0, 1, 90, 100, 126, 127, 128, 16_000, 16_383, 16_384, 70_000])
def test_lengths_grow_and_shrink_over_the_borders_of_a_varint(kernel: Kernel, size: int) -> None:
    for old, new in ((b"x" * size, "n"), (b"o", "y" * size)):
        pair = delimited(9, delimited(1, b"a") + delimited(2, delimited(1, old)))
        batch, _ = BatchReader(Signal.TRACES, ["a"], kernel).read([request_of(pair, delimited(5, b"after"))])
        batch.set("a", new, np.array([True, False]))
        wanted = delimited(9, delimited(1, b"a") + delimited(2, delimited(1, new.encode())))
        assert batch.encode() == request_of(wanted, delimited(5, b"after"))
