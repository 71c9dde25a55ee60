"""Exact money: texts in, whole nano-units, splits that lose nothing."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.ledger.money import Money, by_currency, decimal, exact, formatted, nano, rounded, split, split_named
from tests.unit.ledger.conftest import PROPERTIES


@pytest.mark.parametrize(
    ("text", "amount"), [("0", 0), ("0.025", 25_000_000), ("-1.5", -1_500_000_000), ("0.000000001", 1)]
)
def test_a_decimal_text_is_whole_nano_units(text: str, amount: int) -> None:
    assert nano(text) == amount


@pytest.mark.parametrize(
    "text", ["", "1e3", "1,5", ".5", "5.", "+1", "NaN", "0x10", " 1", "1" * 13, "0." + "1" * 31, "\u0661"]
)
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="plain decimal number"):
        exact(text)


def test_an_amount_finer_than_nano_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 9 decimals"):
        nano("0.0000000001")


@pytest.mark.parametrize(
    ("amount", "text"),
    [(25_000_000, "0.025000000"), (-5_000_000, "-0.005000000"), (0, "0.000000000"), (10**20, "100000000000.000000000")],
)
def test_an_amount_has_nine_decimals(amount: int, text: str) -> None:
    assert formatted(amount) == text
    assert nano(text) == amount


@PROPERTIES
@given(st.decimals(0, 10**9, places=12))
def test_a_price_is_told_as_it_was_written(price: object) -> None:
    text = f"{price:f}"
    assert exact(decimal(exact(text))) == exact(text)


@pytest.mark.parametrize(
    ("numerator", "denominator", "whole"),
    [(1, 2, 0), (3, 2, 2), (5, 2, 2), (-1, 2, 0), (-3, 2, -2), (7, 3, 2), (8, 3, 3), (-7, 3, -2)],
)
def test_a_tie_is_rounded_to_even(numerator: int, denominator: int, whole: int) -> None:
    assert rounded(numerator, denominator) == whole == round(Fraction(numerator, denominator))


@PROPERTIES
@given(st.integers(-(10**20), 10**20), st.lists(st.integers(0, 10**12), min_size=1, max_size=8))
def test_a_split_adds_up_and_is_less_than_one_unit_off(total: int, weights: list[int]) -> None:
    parts = split(total, weights)
    assert sum(parts) == total
    shares = weights if any(weights) else [1] * len(weights)
    assert all(abs(part - Fraction(total * share, sum(shares))) < 1 for part, share in zip(parts, shares, strict=True))


def test_of_equal_remainders_the_first_wins_and_names_go_by_the_alphabet() -> None:
    assert split(10, [1, 1, 1]) == [4, 3, 3]
    assert split_named(10, {"c": 1, "a": 1, "b": 1}) == {"a": 4, "b": 3, "c": 3}


def test_nobody_can_take_nothing_only() -> None:
    assert split(0, []) == []
    with pytest.raises(ValueError, match="nobody"):
        split(1, [])


def test_currencies_are_kept_apart() -> None:
    amounts = [Money(1, "USD"), Money(2, "EUR"), Money(3, "USD")]
    assert by_currency(amounts) == {"USD": 4, "EUR": 2}
    assert str(amounts[0] + -amounts[2]) == "-0.000000002 USD"
    with pytest.raises(ValueError, match="EUR and USD cannot be added"):
        amounts[1] + amounts[0]
