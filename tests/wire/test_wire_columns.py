"""Every column of a batch reads as protobuf says, for random requests of all signals, usual and odd ones."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given

from otel_pipeline.wire.kernel import Kernel
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from tests.wire.messages import KEYS, Writer, parsed, randoms
from tests.wire.oracle import check_columns, expected


@pytest.mark.parametrize("signal", Signal)
@given(random=randoms)
def test_columns_of_usual_requests(kernel: Kernel, signal: Signal, random: Random) -> None:
    check(kernel, signal, Writer(random).request(signal))


@pytest.mark.parametrize("signal", Signal)
@given(random=randoms)
def test_columns_of_odd_requests(kernel: Kernel, signal: Signal, random: Random) -> None:
    check(kernel, signal, Writer(random, odd=True, invalid_ids=True).request(signal))


def check(kernel: Kernel, signal: Signal, request: bytes) -> None:
    batch, parts = BatchReader(signal, KEYS, kernel).read([request])
    assert parts[0].error is None
    rows = expected(signal, parsed(signal, request))
    check_columns(batch, rows, KEYS)
    assert parts[0].items == sum(row.items for row in rows)
    assert parts[0].invalid == sum(row.items for row in rows if row.invalid)
