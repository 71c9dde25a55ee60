"""How much of a GPU a span had."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from otel_pipeline.ledger.price_rows import told_prices
from otel_pipeline.ledger.shares import UNTOLD, WHOLE, missing, parts_of, split, told
from otel_pipeline.wire.batch import Strings
from tests.support.ledger_records import price, prices


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("1/7", Fraction(1, 7)),
        ("0.142857", Fraction(1, 7)),
        ("0.143", Fraction(1, 7)),
        ("0.3333333333333333", Fraction(1, 3)),
        ("0.25", Fraction(1, 4)),
        ("0.333", Fraction(1, 3)),
        ("3/8", Fraction(3, 8)),
        ("1", Fraction(1)),
        ("0", Fraction(0)),
    ],
)
def test_a_share_is_a_part_of_the_whole(text: str, share: Fraction) -> None:
    assert parts_of(text) == share * WHOLE


@given(st.floats(0, 1).map(str))
def test_a_share_is_told_to_the_percent(text: str) -> None:
    parts = parts_of(text)
    assert parts == UNTOLD or abs(parts / WHOLE - float(text)) <= 0.00501
    assert "e" in text or parts != UNTOLD


@pytest.mark.parametrize("text", ["", "1.1", "2/1", "1/0", "-0.5", "nan", "half", "1e-3", "1/7/2", "0.5%"])
def test_what_is_no_share_is_not_told(text: str) -> None:
    assert parts_of(text) == UNTOLD


def test_shares_that_are_nearly_the_same_are_one() -> None:
    column = told(Strings(np.array([0, 1, 2, 3, -1], np.int32), ["0.501", "0.4999", "x", "0.75"]))
    assert column.tolist() == [360360, 360360, UNTOLD, 540540, UNTOLD]


def test_a_price_says_what_shares_are_for() -> None:
    parts = np.array([UNTOLD, WHOLE // 4, WHOLE // 2])
    assert split(price(), parts) == {}
    fixed = split(price(shares="fixed", share="0.75"), parts)
    assert (fixed["share"].tolist(), fixed["share_whole"]) == ([3, 1, 2], 4)
    seventh = split(price(shares="fixed", share="1/7"), parts)
    assert (seventh["share"].tolist(), seventh["share_whole"]) == ([4, 7, 14], 28)
    assert split(price(shares="weighted"), parts)["weight"].tolist() == [4, 1, 2]
    assert split(price(shares="weighted"), parts[:0]) == {}
    assert [missing(price(shares=each), parts) for each in ("equal", "fixed", "weighted")] == [0, 0, 1]
    assert missing(price(shares="weighted", share="1/2"), parts) == 0
    assert [prices(price(shares=each)).has_shares for each in ("equal", "fixed")] == [False, True]


def test_a_price_tells_its_energy_and_shares() -> None:
    row = price("0.12", basis="gpu_hour", energy_price="0.27", shares="fixed", share="1/7")
    assert told_prices(row) == "0.12 USD a gpu_hour and 0.27 a kilowatt_hour, shares: fixed 1/7"
    assert told_prices(price("1", shares="weighted")) == "1 USD a gpu_second, shares: weighted"


@pytest.mark.parametrize(
    ("row", "mistake"),
    [
        ({"share": "0.5"}, "share needs shares: fixed, or weighted"),
        ({"basis": "image", "shares": "fixed"}, "nobody shares a image"),
        ({"shares": "fixed", "share": "0"}, "must be a part of the GPU such as 1/4 or 0.25"),
        ({"shares": "fixed", "share": "3/2"}, "must be a part of the GPU"),
        ({"shares": "fixed", "share": "1/0"}, "must be a part of the GPU"),
        ({"shares": "fixed", "share": "some"}, "must be a part of the GPU"),
        ({"shares": "sm_util"}, "equal"),
    ],
)
def test_a_mistake_about_shares_is_told(row: dict[str, str], mistake: str) -> None:
    with pytest.raises(ValidationError, match=mistake):
        price(**row)
