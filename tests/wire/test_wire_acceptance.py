"""The scanner takes what protobuf takes and refuses what it refuses; both variants say the same of every input."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.errors import WireError
from otel_pipeline.wire.kernel import Kernel, variants
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from tests.wire.messages import KEYS, Writer, delimited, mutated, padded, parsed, randoms, request_of, varint
from tests.wire.oracle import accepts, check_columns, expected

DELIBERATE: Final = {
    "varint of more than 64 bits": "protobuf's C parser drops the bits of a varint's tenth byte above the 64th; Go's "
    "and Rust's refuse the message, so the next hop would refuse the whole batch",
    "field number 0": "protobuf's C parser overlooks it inside an unknown group; Go's and Rust's do not",
}
"""The reasons for which we refuse what protobuf's Python parser (upb) takes. We take nothing that it refuses."""

SPAN_NAME: Final = b"\x2a"
GOLDEN: Final = {signal: Writer(Random(7)).request(signal, groups_max=6) for signal in Signal}


def check(kernel: Kernel, signal: Signal, request: bytes) -> None:
    """We accept if protobuf does; then the columns are right, else the error points into the request."""
    batch, (part,) = BatchReader(signal, KEYS, kernel).read([request])
    if part.error is None:
        assert accepts(signal, request)
        check_columns(batch, expected(signal, parsed(signal, request)), KEYS)
        return
    assert isinstance(part.error, WireError)
    assert 0 <= part.error.offset <= len(request)
    assert len(batch) == 0
    if accepts(signal, request):
        assert part.error.reason in DELIBERATE, part.error


# -- random ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", Signal)
@given(request_bytes=st.binary(max_size=40))
def test_random_bytes(kernel: Kernel, signal: Signal, request_bytes: bytes) -> None:
    check(kernel, signal, request_bytes)


@pytest.mark.parametrize("signal", Signal)
@given(random=randoms)
def test_random_bytes_where_a_row_should_be(kernel: Kernel, signal: Signal, random: Random) -> None:
    check(kernel, signal, request_of(random.randbytes(random.randint(0, 12))))


@pytest.mark.parametrize("signal", Signal)
@given(random=randoms)
def test_mutated_requests(kernel: Kernel, signal: Signal, random: Random) -> None:
    check(kernel, signal, mutated(random, Writer(random, odd=True).request(signal)))


@pytest.mark.parametrize("signal", Signal)
@given(random=randoms)
def test_mutated_rows(kernel: Kernel, signal: Signal, random: Random) -> None:
    """The lengths around the row are right, so that the damage is met inside."""
    check(kernel, signal, request_of(mutated(random, Writer(random, odd=True).row(signal))))


@pytest.mark.parametrize("signal", Signal)
def test_every_cut_of_a_request(kernel: Kernel, signal: Signal) -> None:
    golden = GOLDEN[signal]
    assert len(golden) > 1000
    for end in range(len(golden)):
        check(kernel, signal, golden[:end])


@pytest.mark.parametrize("signal", Signal)
@given(random=randoms)
def test_variants_agree_to_the_byte(signal: Signal, random: Random) -> None:
    writer = Writer(random, odd=True, invalid_ids=True)
    request = mutated(random, writer.request(signal)) if random.random() < 0.5 else writer.request(signal)
    outcomes = []
    for variant in variants():
        batch, (part,) = BatchReader(signal, KEYS, variant).read([request])
        error = (part.error.reason, part.error.offset) if part.error else None
        outcomes.append((error, batch.data, batch.rows.tolist(), batch.scopes.tolist(), batch.groups.tolist()))
    assert all(outcome == outcomes[0] for outcome in outcomes)


# -- one by one --------------------------------------------------------------------------------------------------------


def _levels() -> Iterator[tuple[str, bytes]]:
    """The same odd bytes as a field of the request and of every message down to an attribute's value."""
    for name, odd in _oddities():
        yield f"{name} in request", odd
        yield f"{name} in group", delimited(1, odd)
        yield f"{name} in scope", delimited(1, delimited(2, odd))
        yield f"{name} in row", request_of(odd)
        yield f"{name} in resource", delimited(1, delimited(1, odd))
        yield f"{name} in attribute", request_of(delimited(9, odd))
        yield f"{name} in value", request_of(delimited(9, delimited(1, b"a") + delimited(2, odd)))
        yield f"{name} in event", request_of(delimited(11, odd))
        yield f"{name} in status", request_of(delimited(15, odd))


def _oddities() -> Iterator[tuple[str, bytes]]:
    for size in range(1, 12):
        yield f"varint of {size} bytes", varint(8 << 3) + padded(b"\x01", size)
        yield f"tag of {size} bytes", padded(varint(8 << 3), size) + b"\x01"
        yield f"length of {size} bytes", varint(24 << 3 | 2) + padded(b"\x01", size) + b"x"
    for last in (0x01, 0x02, 0x7F, 0x80):
        yield f"varint that ends with {last}", varint(8 << 3) + b"\xff" * 9 + bytes([last])
    for tag in (0, 1, 2, 3, 4, 5, 6, 7):
        yield f"field number 0, wire type {tag}", bytes([tag, 0, 0, 0, 0, 0, 0, 0, 0])
        yield f"wire type {tag}", varint(24 << 3 | tag) + b"\x01" * 8
    for tag_bytes in (
        b"\xf8\xff\xff\xff\x0f",
        b"\xf8\xff\xff\xff\x10",
        b"\xf8\xff\xff\xff\x7f",
        b"\xf8\xff\xff\xff\xff\x01",
    ):
        yield f"tag {tag_bytes.hex()}", tag_bytes + b"\x01"
    start, end, other = varint(20 << 3 | 3), varint(20 << 3 | 4), varint(21 << 3 | 4)
    yield from {
        "group": start + end,
        "nested group": start + varint(33 << 3 | 3) + b"\x08\x01" + varint(33 << 3 | 4) + end,
        "unterminated group": start,
        "mismatched group": start + other,
        "crossed groups": start + varint(21 << 3 | 3) + end + other,
        "lonely end of group": end,
        "known field as group": b"\x0b\x0c",
        "group with string": start + delimited(5, b"\xff") + end,
    }.items()
    for size in (1, 2, 127, 2**31 - 1, 2**31, 2**32, 2**63, 2**64 - 1):
        yield f"length {size} beyond the end", varint(24 << 3 | 2) + varint(size)
        yield f"length {size} of field 1 beyond the end", b"\x0a" + varint(size)
    for wire in (0, 1, 2, 5):
        for number in range(1, 17):
            yield f"field {number} with wire type {wire}", varint(number << 3 | wire) + (b"\x04" + b"\x00" * 7)


@pytest.mark.parametrize("signal", Signal)
def test_odd_bytes_at_every_level(kernel: Kernel, signal: Signal) -> None:
    for name, request in _levels():
        try:
            check(kernel, signal, request)
        except AssertionError as error:
            raise AssertionError(f"{name}: {request.hex()}") from error


@pytest.mark.parametrize(
    "text",
    [
        b"\x80", b"\xc0\x80", b"\xc1\xbf", b"\xc2", b"\xc2\x7f", b"\xdf\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf",
        b"\xe0\xa0\x80", b"\xed\x9f\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xef\xbf\xbf", b"\xf0\x80\x80\x80",
        b"\xf0\x90\x80\x80", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff", b"\xe2\x82",
        b"\xf0\x9f\xa6",
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [0, 1, 7, 15, 16, 17, 40])
def test_utf8_is_checked_in_each_string(kernel: Kernel, text: bytes, before: int) -> None:
    for value in (b"x" * before + text, b"x" * before + text + b"y" * 20):
        field = delimited(2, value)
        for signal, request in (
            (Signal.TRACES, request_of(SPAN_NAME + varint(len(value)) + value)),
            (Signal.TRACES, request_of(delimited(3, value))),
            (Signal.TRACES, request_of(delimited(9, delimited(1, value)))),
            (Signal.TRACES, request_of(delimited(9, delimited(2, delimited(1, value))))),
            (Signal.TRACES, request_of(delimited(9, delimited(2, delimited(5, delimited(1, delimited(1, value))))))),
            (Signal.TRACES, request_of(delimited(11, field))),
            (Signal.TRACES, request_of(delimited(13, delimited(3, value)))),
            (Signal.TRACES, request_of(delimited(15, field))),
            (Signal.TRACES, delimited(1, delimited(3, value))),
            (Signal.TRACES, delimited(1, delimited(1, delimited(3, delimited(3, value))))),
            (Signal.TRACES, delimited(1, delimited(2, delimited(1, field)))),
            (Signal.TRACES, delimited(1, delimited(2, delimited(3, value)))),
            (Signal.LOGS, request_of(delimited(3, value))),
            (Signal.LOGS, request_of(delimited(5, delimited(1, value)))),
            (Signal.LOGS, request_of(delimited(12, value))),
            (Signal.METRICS, request_of(delimited(1, value) + field + delimited(3, value))),
        ):
            check(kernel, signal, request)


@pytest.mark.parametrize("levels", range(44, 54))
def test_nesting_ends_where_protobufs_does(kernel: Kernel, levels: int) -> None:
    value = b""
    for level in range(levels):
        value = delimited(5 + level % 2, delimited(1, value if level % 2 == 0 else delimited(2, value)))
    for signal, request in (
        (Signal.TRACES, request_of(delimited(9, delimited(2, value)))),
        (Signal.TRACES, request_of(delimited(11, delimited(3, delimited(2, value))))),
        (Signal.TRACES, delimited(1, delimited(1, delimited(1, delimited(2, value))))),
        (Signal.LOGS, request_of(delimited(5, value))),
        (Signal.METRICS, request_of(delimited(5, delimited(1, delimited(7, delimited(2, value)))))),
    ):
        check(kernel, signal, request)


@pytest.mark.parametrize("levels", range(94, 103))
def test_nesting_of_groups_ends_where_protobufs_does(kernel: Kernel, levels: int) -> None:
    groups = varint(20 << 3 | 3) * levels + varint(20 << 3 | 4) * levels
    for request in (groups, delimited(1, groups), request_of(groups), request_of(delimited(9, delimited(2, groups)))):
        for signal in Signal:
            check(kernel, signal, request)


@pytest.mark.parametrize("field", [6, 7])
@pytest.mark.parametrize("size", range(18))
def test_packed_fields_of_every_size(kernel: Kernel, field: int, size: int) -> None:
    """A histogram's counts and bounds; an exponential histogram's counts are varints, which may be cut."""
    for byte in (b"\x00", b"\x7f", b"\x80"):
        histogram = delimited(9, delimited(1, delimited(field, byte * size)))
        exponential = delimited(10, delimited(1, delimited(8 + field % 2, delimited(2, byte * size))))
        check(kernel, Signal.METRICS, request_of(histogram))
        check(kernel, Signal.METRICS, request_of(exponential))
