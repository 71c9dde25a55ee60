"""Dictionary encoding: equal codes mean equal values, whatever the input."""

from __future__ import annotations

import importlib
from random import Random
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.wire.kernel import Kernel, variants
from tests.wire.messages import randoms

SOURCE: Final = importlib.import_module("otel_pipeline.wire._codes_py")
TYPE, START, WIDTH = 0, 1, 3


def table_of(
    values: list[bytes | None], random: Random
) -> tuple[bytes, np.ndarray[tuple[int, int], np.dtype[np.int64]]]:
    """Values somewhere in a buffer, and a row table that points to them; None has another type."""
    data = bytearray(random.randbytes(random.randint(0, 20)))
    table = np.zeros((len(values), WIDTH), np.int64)
    for row, value in enumerate(values):
        table[row] = (1, len(data), len(data) + len(value)) if value is not None else (2, 0, 3)
        data += value or b""
        data += random.randbytes(random.randint(0, 3))
    return bytes(data), table


@given(
    values=st.lists(st.none() | st.binary(max_size=3) | st.sampled_from([b"GET", b"POST", b"x" * 40]), max_size=80),
    random=randoms,
)
def test_codes_are_those_of_a_dictionary(kernel: Kernel, values: list[bytes | None], random: Random) -> None:
    data, table = table_of(values, random)
    codes, distinct = kernel.encode(data, table, TYPE, 1, START)
    names: dict[bytes, int] = {}
    assert codes.tolist() == [-1 if value is None else names.setdefault(value, len(names)) for value in values]
    assert distinct == list(names)


def test_without_a_type_every_row_has_a_value(kernel: Kernel) -> None:
    data, table = table_of([b"a", b"", b"a", b""], Random(1))
    codes, distinct = kernel.encode(data, table, -1, 0, START)
    assert codes.tolist() == [0, 1, 0, 1]
    assert distinct == [b"a", b""]
    codes, distinct = kernel.encode(b"", np.empty((0, WIDTH), np.int64), -1, 0, START)
    assert (codes.tolist(), distinct) == ([], [])


def colliding(count: int, mask: int) -> list[bytes]:
    """Different values with the same place in the hash table."""
    found: list[bytes] = []
    number = 0
    while len(found) < count:
        value = number.to_bytes(3, "big")
        if SOURCE._hash(value, 0, 3) & mask == 5:
            found.append(value)
        number += 1
    return found


@pytest.mark.parametrize("count", [SOURCE.PROBES_MAX, SOURCE.PROBES_MAX + 1, 100])
def test_values_that_collide_are_still_told_apart(kernel: Kernel, count: int) -> None:
    """Behind PROBES_MAX a value may get several codes, but a code never several values, and the work is bounded."""
    values: list[bytes | None] = [*colliding(count, 511)] * 2
    data, table = table_of(values, Random(2))
    codes, distinct = kernel.encode(data, table, TYPE, 1, START)
    assert [distinct[code] for code in codes] == values
    assert len(distinct) == (count if count <= SOURCE.PROBES_MAX else 2 * count - SOURCE.PROBES_MAX)


@given(values=st.lists(st.none() | st.binary(max_size=2), max_size=200), random=randoms)
def test_variants_agree(values: list[bytes | None], random: Random) -> None:
    data, table = table_of(values, random)
    outcomes = [variant.encode(data, table, TYPE, 1, START) for variant in variants()]
    assert all(codes.tolist() == outcomes[0][0].tolist() and distinct == outcomes[0][1] for codes, distinct in outcomes)
