"""Amounts of many times at once are those of each by itself."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.ledger.rates import amounts
from tests.unit.ledger.conftest import PROPERTIES


@PROPERTIES
@given(st.fractions(0, 10**12, max_denominator=10**13), st.lists(st.integers(0, 2**62), max_size=6))
def test_each_amount_is_the_exact_one_rounded(rate: Fraction, times: list[int]) -> None:
    found = amounts(rate, np.array(times, dtype=np.int64))
    assert found.tolist() == [round(rate * ns) for ns in times]


@pytest.mark.parametrize(("ns", "nano"), [(1, 0), (2, 1), (3, 2), (5, 2), (7, 4)])
def test_a_tie_goes_to_the_even_amount(ns: int, nano: int) -> None:
    assert amounts(Fraction(1, 2), np.array([ns])).tolist() == [nano]
