"""Plans do for many spans what `charge` does for one: the two agree on every amount and on every reason."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from otel_pipeline.ledger.charge import Quantities, Status, charge
from otel_pipeline.ledger.plans import FIELDS, PLACE, amounts, plan_of, why_not
from otel_pipeline.ledger.price_rows import CALL_BASES, NAMED, TIERED, Basis, Row

PRICES = st.integers(0, 10**7).map(lambda whole: f"{whole / 10**6:.6f}")
CALLS = sorted(CALL_BASES - {Basis.REPORTED})
RESOLUTIONS = st.sampled_from(["", "480p", "720p", "1080p", "4k", "1024x1024", "strange"])
COUNT = st.integers(-1, 10**12)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    basis = draw(st.sampled_from([*CALLS, Basis.KILOWATT_HOUR]))
    fields: dict[str, Any] = {"id": "row", "basis": basis, "failed": draw(st.sampled_from(["billed", "free"]))}
    if basis in TIERED:
        fields["prices"] = draw(st.dictionaries(st.sampled_from(["480p", "720p", "4k", "1024x1024"]), PRICES))
        fields["input_image"] = draw(st.none() | PRICES)
    if basis is Basis.MILLION_TOKENS:
        fields["prices"] = draw(st.dictionaries(st.sampled_from(sorted(NAMED[basis])), PRICES))
    fields["price"] = draw(PRICES if not fields.get("prices") else st.none() | PRICES)
    if basis is Basis.MILLION_TOKENS and fields["price"] is None:
        assume({"input", "output"} & fields["prices"].keys())
    if basis not in (Basis.MILLION_TOKENS, Basis.KILOWATT_HOUR):
        fields["round_up"] = draw(st.none() | st.sampled_from(["1", "0.5", "6", "0.333"]))
        fields["minimum"] = draw(st.none() | st.sampled_from(["0", "1", "2.25"]))
    return Row.model_validate(fields)


QUANTITIES = st.fixed_dictionaries(dict.fromkeys(FIELDS, COUNT))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(rows(), QUANTITIES, RESOLUTIONS, st.booleans()), min_size=1, max_size=4))
def test_each_row_gets_what_charge_says(asked: list[tuple[Row, dict[str, int], str, bool]]) -> None:
    plans = [plan_of(row, resolution, failed=failed) for row, _, resolution, failed in asked]
    table = np.array([[told[name] for name in FIELDS] for _, told, _, _ in asked], np.int64)
    table[:, PLACE["requests"]] = 1
    nano, known = amounts(plans, np.arange(len(asked)), table)
    for place, (row, told, resolution, failed) in enumerate(asked):
        used: dict[str, Any] = {name: value for name, value in told.items() if value >= 0 and name != "requests"}
        expected = charge(row, Quantities(resolution=resolution, failed=failed, **used))
        if expected.nano is None or expected.nano > 4 * 10**18:
            assert not known[place]
            assert (
                why_not(plans[place], dict(zip(FIELDS, table[place].tolist(), strict=True))) == expected.reason
                or expected.nano is not None
            )
        else:
            assert known[place]
            assert nano[place] == expected.nano
            assert plans[place].status == expected.status or expected.status is Status.FINAL


def row(**fields: Any) -> Row:
    return Row.model_validate({"id": "row", **fields})


def one(price: Row, **known: int) -> int | None:
    table = np.full((1, len(FIELDS)), -1, np.int64)
    for name, value in known.items():
        table[0, PLACE[name]] = value
    nano, is_known = amounts([plan_of(price)], np.zeros(1, np.int64), table)
    return int(nano[0]) if is_known[0] else None


@pytest.mark.parametrize(
    ("basis", "price", "hours", "nano"),
    [
        ("gpu_hour", "3.99", 1, 3_990_000_000),
        ("gpu_second", "0.001", 1, 3_600_000_000),
        ("serverless_second", "1", 2, 7_200 * 10**9),
    ],
)
def test_time_on_a_gpu_is_priced_by_the_nanosecond(basis: str, price: str, hours: int, nano: int) -> None:
    assert one(row(basis=basis, price=price, round_up="60"), gpu_ns=hours * 3600 * 10**9) == nano
    assert one(row(basis=basis, price=price), gpu_ns=1) == round(Fraction(nano, hours * 3600 * 10**9))
    assert one(row(basis=basis, price=price)) is None


def test_energy_is_priced_by_the_kilowatt_hour() -> None:
    assert one(row(basis="kilowatt_hour", price="0.15"), energy_mj=5_600_000) == 233_333


def test_energy_may_cost_beside_the_time_on_a_gpu() -> None:
    bought = row(basis="gpu_hour", price="0.36", energy_price="0.15")
    assert one(bought, gpu_ns=10**10, energy_mj=5_600_000) == 1_233_333
    assert one(bought, gpu_ns=10**10) is None
    assert why_not(plan_of(bought), {"gpu_ns": 10**10}) == "the energy is unknown"
    assert one(row(basis="gpu_hour", price="0.36", energy_price="0"), gpu_ns=10**10) == 1_000_000


def test_a_price_with_many_digits_stays_exact() -> None:
    price = row(basis="gpu_hour", price="3.123456789123456789123456789123")
    year_ns = 365 * 24 * 3600 * 10**9
    assert one(price, gpu_ns=year_ns) == round(Fraction("3.123456789123456789123456789123") * 8760 * 10**9)


@pytest.mark.parametrize("count", [10**18, 2**63 - 1])
def test_an_amount_that_is_too_large_is_none(count: int) -> None:
    assert one(row(basis="image", price="1000"), images=count) is None
    assert "larger" in why_not(plan_of(row(basis="image", price="1000")), {"images": count})


@example(3, 1, 1)
@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_tokens_of_a_kind_without_a_price_cost_what_the_others_do(count: int, cached: int, written: int) -> None:
    price = row(basis="million_tokens", prices={"input": "3", "cached_input": "1"})
    cached = min(cached, count)
    told = {"input_tokens": count, "cached_input_tokens": cached, "cache_write_tokens": written}
    assert one(price, **told) == 3000 * (count - cached) + 1000 * cached
