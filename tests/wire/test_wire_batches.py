"""Several requests in one batch: each answers for itself alone."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given

from otel_pipeline.wire.kernel import Kernel
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from tests.wire.messages import KEYS, Writer, delimited, mutated, parsed, randoms, request_of, varint
from tests.wire.oracle import accepts, check_columns, expected

A_SPAN = request_of(delimited(5, b"fine"))
TEXT_A = delimited(1, b"a") + delimited(2, delimited(1, b"first"))
TEXT_B = delimited(1, b"a") + delimited(2, delimited(1, b"second"))


@pytest.mark.parametrize("signal", Signal)
@given(random=randoms)
def test_a_malformed_request_costs_the_others_nothing(kernel: Kernel, signal: Signal, random: Random) -> None:
    reader = BatchReader(signal, KEYS, kernel)
    writer = Writer(random, odd=random.random() < 0.5)
    requests = [writer.request(signal) for _ in range(random.randint(1, 4))]
    requests = [mutated(random, request) if random.random() < 0.3 else request for request in requests]
    alone = [reader.read([request])[1][0] for request in requests]
    batch, parts = reader.read(requests)
    good = [request for request, part in zip(requests, parts, strict=True) if part.error is None]
    check_columns(batch, [row for request in good for row in expected(signal, parsed(signal, request))], KEYS)
    for part, single in zip(parts, alone, strict=True):
        assert (part.items, part.invalid) == (single.items, single.invalid)
        assert str(part.error) == str(single.error)  # the offset counts from the request's own start


@pytest.mark.parametrize("signal", Signal)
def test_a_truncated_request_never_swallows_the_next(kernel: Kernel, signal: Signal) -> None:
    whole = Writer(Random(3)).request(signal, groups_max=3)
    reader = BatchReader(signal, KEYS, kernel)
    names = [row.name for row in expected(signal, parsed(signal, whole))]
    assert names
    for end in range(len(whole)):
        batch, (first, second) = reader.read([whole[:end], whole])
        assert second.error is None
        assert (first.error is None) == accepts(signal, whole[:end])
        assert [batch.name().at(row) for row in range(len(batch))][-len(names) :] == names


@pytest.mark.parametrize("signal", Signal)
def test_canonical_requests_are_joined_as_they_are(kernel: Kernel, signal: Signal) -> None:
    requests = [Writer(Random(seed)).request(signal) for seed in range(30)]
    requests = [request for request in requests if BatchReader(signal, KEYS, kernel).read([request])[0].data is request]
    assert len(requests) > 3
    batch, _ = BatchReader(signal, KEYS, kernel).read(requests)
    assert batch.data == b"".join(requests)
    assert batch.encode() is batch.data


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [
        (delimited(5, b"one") + delimited(5, b"two"), "name", "two"),
        (delimited(5, b"one") + delimited(5, b""), "name", ""),
        (delimited(15, delimited(2, b"one")) + delimited(15, delimited(2, b"two")), "status_message", "two"),
        (delimited(15, delimited(2, b"one") + delimited(2, b"two")), "status_message", "two"),
        (delimited(9, TEXT_A) + delimited(9, TEXT_B), "a", "first"),
        (delimited(9, delimited(1, b"b") + TEXT_A), "a", "first"),
        (delimited(9, TEXT_A + delimited(2, delimited(1, b"merged"))), "a", "merged"),
        (delimited(9, delimited(1, b"a") + delimited(2, delimited(1, b"x") + delimited(1, b"y"))), "a", "y"),
        (delimited(9, delimited(1, b"a") + delimited(2, delimited(1, b"x") + b"\x18\x05")), "a", None),
        (delimited(1, b"x" * 16) + delimited(1, b"y" * 16), "trace_id", b"y".hex() * 16),
        (delimited(1, b"x" * 16) + delimited(1, b""), "trace_id", "0" * 32),
        (delimited(1, b"too short") + delimited(1, b"y" * 16), "trace_id", b"y".hex() * 16),
        (delimited(2, b"x" * 8) + delimited(2, b"y" * 8), "span_id", b"y".hex() * 8),
    ],
)  # fmt: skip
def test_what_stands_twice_is_merged_as_protobuf_does(
    kernel: Kernel, row: bytes, column: str, value: str | None
) -> None:
    reader = BatchReader(Signal.TRACES, KEYS, kernel)
    odd = request_of(row)
    batch, parts = reader.read([A_SPAN, odd, A_SPAN])
    assert [(part.error, part.items, part.invalid) for part in parts] == [(None, 1, 0)] * 3
    check_columns(batch, [one for request in (A_SPAN, odd, A_SPAN) for one in _rows(request)], KEYS)
    read: Any = batch.strings(column).at if column in KEYS else getattr(batch, column)
    assert (read(1) if column in {*KEYS, "trace_id", "span_id"} else read().at(1)) == value
    assert batch.data[: len(A_SPAN)] == batch.data[-len(A_SPAN) :] == A_SPAN


def test_two_resources_or_scopes_of_one_group_are_merged(kernel: Kernel) -> None:
    attributes = delimited(1, TEXT_A), delimited(1, delimited(1, b"b") + delimited(2, delimited(1, b"x")))
    group = b"".join(delimited(1, attribute) for attribute in attributes)
    scope = delimited(1, delimited(1, b"one")) + delimited(1, delimited(2, b"1.0")) + delimited(2, b"")
    odd = delimited(1, group + delimited(2, scope))
    batch, _ = BatchReader(Signal.TRACES, (), kernel).read([A_SPAN, odd])
    check_columns(batch, [*_rows(A_SPAN), *_rows(odd)], ())
    assert batch.resources()[1] == [{}, {"a": "first", "b": "x"}]


def test_the_last_member_of_a_metrics_oneof_counts(kernel: Kernel) -> None:
    gauge, total = delimited(5, delimited(1, b"") * 3), delimited(7, delimited(1, b"") * 2)
    for metric in (gauge + total, total + gauge, gauge + gauge):
        request = request_of(metric)
        batch, (part,) = BatchReader(Signal.METRICS, (), kernel).read([request])
        assert (
            part.items
            == batch.items()
            == sum(row.items for row in expected(Signal.METRICS, parsed(Signal.METRICS, request)))
        )


def test_an_id_of_a_wrong_length_is_counted_and_marks_its_row(kernel: Kernel) -> None:
    bad = b"".join(delimited(2, row) for row in (delimited(1, b"short"), delimited(13, delimited(2, b"long" * 3)), b""))
    batch, parts = BatchReader(Signal.TRACES, (), kernel).read([A_SPAN, delimited(1, delimited(2, bad))])
    assert [(part.items, part.invalid) for part in parts] == [(1, 0), (3, 2)]
    assert batch.invalid.tolist() == [False, True, True, False]


def test_values_that_do_not_fit_are_cut_as_protobuf_does(kernel: Kernel) -> None:
    """An enum has 32 bits, a bool has one, whatever the varint says."""
    number = varint(2**32 + 2)
    span = (
        b"\x30"
        + number
        + delimited(15, b"\x18" + number)
        + delimited(9, delimited(1, b"a") + delimited(2, b"\x10\x07"))
    )
    request = request_of(span)
    batch, _ = BatchReader(Signal.TRACES, KEYS, kernel).read([request])
    check_columns(batch, _rows(request), KEYS)
    assert (batch.kind[0], batch.status_code[0], batch.numbers("a")[0]) == (2, 2, 1.0)


def test_a_batch_of_nothing(kernel: Kernel) -> None:
    for requests in ([], [b""], [b"", b""], [b"\xff"]):
        batch, parts = BatchReader(Signal.TRACES, KEYS, kernel).read(requests)
        assert len(parts) == len(requests)
        check_columns(batch, [], KEYS)
        assert batch.encode() == b""


def _rows(request: bytes) -> list[Any]:
    return list(expected(Signal.TRACES, parsed(Signal.TRACES, request)))
