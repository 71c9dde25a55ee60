"""The bounds of one request and of one batch."""

from __future__ import annotations

import pytest

from otel_pipeline.limits import NESTING_MAX, REQUEST_BYTES_MAX, ROWS_KEPT, ROWS_MAX
from otel_pipeline.wire.kernel import Kernel
from otel_pipeline.wire.scan import KEY_BYTES_MAX, BatchReader
from otel_pipeline.wire.signal import Signal
from tests.wire.messages import delimited, request_of

ROW, SCOPE, GROUP = b"\x12\x00", b"\x12\x00", b"\x0a\x00"


def rows(count: int) -> bytes:
    """A request with so many of the smallest rows."""
    return delimited(1, delimited(2, ROW * count))


@pytest.mark.parametrize(
    "make",
    [rows, lambda count: delimited(1, SCOPE * count), lambda count: GROUP * count],
    ids=["rows", "scopes", "groups"],
)
def test_a_request_with_too_many_parts_is_refused(kernel: Kernel, make: object) -> None:
    assert callable(make)
    reader = BatchReader(Signal.LOGS, (), kernel)
    batch, (part,) = reader.read([make(ROWS_MAX)])
    assert part.error is None
    assert max(len(batch.rows), len(batch.scopes), len(batch.groups)) == ROWS_MAX
    _, (part, other) = reader.read([make(ROWS_MAX + 1), request_of(b"")])
    assert part.error is not None
    assert part.error.reason == f"more than {ROWS_MAX} parts in one batch"
    assert not part.crowded_out
    assert other.error is None


def test_a_request_that_finds_no_room_is_told_apart_from_one_that_never_will(kernel: Kernel) -> None:
    reader = BatchReader(Signal.LOGS, (), kernel)
    batch, parts = reader.read([rows(ROWS_MAX - 5), rows(6), rows(5), b"\xff"])
    assert [part.error is None for part in parts] == [True, False, True, False]
    assert [part.crowded_out for part in parts] == [False, True, False, False]
    assert len(batch) == ROWS_MAX


def test_a_request_has_a_largest_size(kernel: Kernel) -> None:
    unknown = delimited(100, bytes(REQUEST_BYTES_MAX))
    _, (part, other) = BatchReader(Signal.LOGS, (), kernel).read([unknown, request_of(b"")])
    assert part.error is not None
    assert part.error.offset == 0
    assert str(REQUEST_BYTES_MAX) in part.error.reason
    assert other.error is None
    fits = delimited(100, bytes(REQUEST_BYTES_MAX - 6))
    assert len(fits) == REQUEST_BYTES_MAX
    assert BatchReader(Signal.LOGS, (), kernel).read([fits])[1][0].error is None


def test_nesting_has_protobufs_limit() -> None:
    assert NESTING_MAX == 100


def test_large_tables_are_given_back(kernel: Kernel) -> None:
    """A batch after a large one works on tables of the usual size."""
    reader = BatchReader(Signal.LOGS, (), kernel)
    assert len(reader.read([rows(2 * ROWS_KEPT)])[0]) == 2 * ROWS_KEPT
    assert len(reader.read([rows(3)])[0]) == 3


def test_a_key_that_the_scanner_could_not_find_is_a_mistake(kernel: Kernel) -> None:
    BatchReader(Signal.LOGS, ["k" * KEY_BYTES_MAX], kernel)
    with pytest.raises(ValueError, match="255 bytes"):
        BatchReader(Signal.LOGS, ["ü" * 128], kernel)


def test_only_parts_of_the_buffer_are_scanned(kernel: Kernel) -> None:
    scanner = kernel.scanner(int(Signal.LOGS.value.row_message), Signal.LOGS.value.slots, (b"a", b"b", b"c"))
    scanner.reset(rows(2))
    for start, end in ((-1, 3), (0, 1000), (5, 4)):
        with pytest.raises(ValueError, match="not a part"):
            scanner.add(start, end)
