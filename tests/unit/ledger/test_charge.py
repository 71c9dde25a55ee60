"""What was used, at a price: every basis, what is unknown, and what is rounded."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.ledger.charge import Charge, Quantities, Status, charge, unpriced
from otel_pipeline.ledger.energy import consumed, energy_cost
from otel_pipeline.ledger.money import NANO, Money, formatted
from otel_pipeline.ledger.price_rows import Row
from tests.unit.ledger.conftest import PROPERTIES

VEO_LITE = {"basis": "video_second", "price": "0.05", "prices": {"1080p": "0.08"}}
TIERS = {"basis": "video_second", "prices": {"720p": "0.1", "1080p": "0.12", "4k": "0.3"}}
TOKENS = {
    "basis": "million_tokens",
    "prices": {"input": "2", "cached_input": "0.5", "output": "8", "image_output": "30"},
}


def charged(fields: dict[str, Any], **used: Any) -> Charge:
    return charge(Row.model_validate({"id": "row", **fields}), Quantities(**used))


def amount(fields: dict[str, Any], **used: Any) -> str:
    found = charged(fields, **used)
    assert found.nano is not None, found.reason
    assert sum(part for _, part in found.parts) == found.nano
    return formatted(found.nano)


def seconds(count: float) -> int:
    return round(count * NANO)


def test_v6_serverless_is_rounded_up_to_whole_seconds_and_tells_its_parts() -> None:
    found = charged(
        {"basis": "serverless_second", "price": "0.00031"},
        startup_ns=seconds(14.2),
        execution_ns=seconds(37.3),
        idle_ns=seconds(5),
    )
    assert {name: formatted(nano) for name, nano in found.parts} == {
        "startup": "0.004402000",
        "execution": "0.011563000",
        "idle": "0.001550000",
        "rounding": "0.000155000",
    }
    assert (found.nano, found.status, found.price_id) == (17_670_000, Status.FINAL, "row")


def test_v13_energy_at_a_tariff() -> None:
    assert amount({"basis": "kilowatt_hour", "price": "0.15"}, energy_mj=5_600_000) == "0.000233333"


def test_a_gpu_of_ones_own_costs_its_time_and_its_energy() -> None:
    bought = {"basis": "gpu_hour", "price": "0.36", "energy_price": "0.15"}
    found = charged(bought, gpu_ns=10 * NANO, energy_mj=5_600_000)
    assert found.parts == (("gpu", 1_000_000), ("energy", 233_333))
    assert charged(bought, gpu_ns=10 * NANO).reason == "the energy is unknown"


def test_v15_a_video_by_resolution_and_a_flat_one_whose_first_attempt_failed() -> None:
    assert amount(VEO_LITE, video_ns=seconds(8), resolution="1080p") == "0.640000000"
    flat = {"basis": "item", "price": "0.08"}
    attempts = [amount(flat, items=1, failed=True), amount(flat, items=1)]
    assert attempts == ["0.080000000", "0.080000000"]
    assert charged({**flat, "failed": "free"}, items=1, failed=True).status is Status.FREE


@pytest.mark.parametrize(
    ("fields", "used", "expected"),
    [
        ({"basis": "gpu_second", "price": "0.00016"}, {"gpu_ns": seconds(12.5)}, "0.002000000"),
        ({"basis": "gpu_hour", "price": "3.99"}, {"gpu_ns": seconds(60)}, "0.066500000"),
        ({"basis": "gpu_hour", "price": "1"}, {"gpu_ns": seconds(1)}, "0.000277778"),
        ({"basis": "image", "price": "0.003"}, {"images": 4}, "0.012000000"),
        ({"basis": "image", "price": "0.04", "input_image": "0.01"}, {"images": 1, "input_images": 2}, "0.060000000"),
        ({"basis": "thousand_characters", "price": "0.30"}, {"characters": 1234}, "0.370200000"),
        ({"basis": "thousand_characters", "price": "0.30", "round_up": "1"}, {"characters": 1234}, "0.600000000"),
        ({"basis": "audio_minute", "price": "0.006"}, {"audio_ns": seconds(90)}, "0.009000000"),
        ({"basis": "audio_minute", "price": "0.006", "round_up": "1"}, {"audio_ns": seconds(59.1)}, "0.006000000"),
        ({"basis": "audio_minute", "price": "0.006", "minimum": "10"}, {"audio_ns": seconds(2)}, "0.001000000"),
        ({"basis": "request", "price": "0.02"}, {}, "0.020000000"),
        ({"basis": "item", "price": "0.08"}, {"items": 0}, "0.000000000"),
        (TOKENS, {"input_tokens": 1_000_000, "output_tokens": 10}, "2.000080000"),
        (TOKENS, {"input_tokens": 1000, "cached_input_tokens": 400, "output_tokens": 0}, "0.001400000"),
        (TOKENS, {"input_tokens": 100, "cached_input_tokens": 900}, "0.000050000"),
        (TOKENS, {"output_tokens": 1290, "image_output_tokens": 1290}, "0.038700000"),
        (TOKENS, {"input_tokens": 100, "audio_input_tokens": 50}, "0.000200000"),
        (
            {"basis": "serverless_second", "prices": {"startup": "3", "execution": "2", "idle": "1"}},
            {"startup_ns": seconds(1), "execution_ns": seconds(2), "idle_ns": seconds(3.5)},
            "11.000000000",
        ),
    ],
)
def test_each_basis_has_its_unit(fields: dict[str, Any], used: dict[str, Any], expected: str) -> None:
    assert amount(fields, **used) == expected


@pytest.mark.parametrize(
    ("fields", "used", "expected"),
    [
        (TIERS, {"resolution": "720p"}, "0.100000000"),
        (TIERS, {"resolution": "1080P"}, "0.120000000"),
        (TIERS, {"resolution": "4K"}, "0.300000000"),
        (TIERS, {"resolution": "2160p"}, "0.300000000"),
        (TIERS, {"width": 3840, "height": 2160}, "0.300000000"),
        (TIERS, {"resolution": "720x1280"}, "0.100000000"),
        (TIERS, {"resolution": "960\u00d7540"}, "0.100000000"),
        (VEO_LITE, {}, "0.050000000"),
        (VEO_LITE, {"resolution": "1280x720"}, "0.050000000"),
        (
            {"basis": "video_second", "prices": {"768p": "0.08", "2k": "0.13"}},
            {"width": 1366, "height": 768},
            "0.080000000",
        ),
        ({"basis": "video_second", "prices": {"768p": "0.08", "2k": "0.13"}}, {"resolution": "1440p"}, "0.130000000"),
    ],
)
def test_a_second_of_video_costs_by_its_resolution(fields: dict[str, Any], used: dict[str, Any], expected: str) -> None:
    assert amount(fields, video_ns=seconds(1), **used) == expected


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ({"resolution": "1024x1024"}, "0.090000000"),
        ({"width": 2048, "height": 2048}, "0.120000000"),
        ({"resolution": "4k"}, "0.160000000"),
        ({"width": 640, "height": 480}, "0.080000000"),
    ],
)
def test_an_image_costs_by_its_long_side(used: dict[str, Any], expected: str) -> None:
    fields = {"basis": "image", "prices": {"1k": "0.08", "2k": "0.12", "4k": "0.16", "1024x1024": "0.09"}}
    assert amount(fields, images=1, **used) == expected


@pytest.mark.parametrize(
    ("fields", "used", "reason"),
    [
        (TIERS, {"video_ns": 1}, "row has no price for the resolution unknown, only for 720p, 1080p, 4k"),
        (
            TIERS,
            {"video_ns": 1, "resolution": "8k"},
            "row has no price for the resolution 8k, only for 720p, 1080p, 4k",
        ),
        (TIERS, {"resolution": "4k"}, "the length of the video is unknown"),
        ({"basis": "image", "price": "1"}, {}, "the number of images is unknown"),
        ({"basis": "image", "price": "1"}, {"images": -1}, "the number of images is negative"),
        ({"basis": "gpu_hour", "price": "1"}, {}, "the time on the GPU is unknown"),
        ({"basis": "serverless_second", "price": "1"}, {}, "the time of execution is unknown"),
        ({"basis": "million_tokens", "prices": {"input": "1"}}, {}, "the number of tokens is unknown"),
        ({"basis": "million_tokens", "prices": {"input": "1"}}, {"output_tokens": 1}, "row has no price for output"),
        ({"basis": "kilowatt_hour", "price": "1"}, {}, "the energy is unknown"),
        ({"basis": "reported"}, {}, "the provider reported no cost"),
        ({"basis": "reported"}, {"reported": Money(-1, "USD")}, "the reported cost is negative"),
    ],
)
def test_what_is_unknown_has_no_amount_but_a_reason(fields: dict[str, Any], used: dict[str, Any], reason: str) -> None:
    found = charged(fields, **used)
    assert (found.nano, found.status, found.reason) == (None, Status.UNPRICED, reason)


def test_a_reported_cost_keeps_its_amount_and_currency() -> None:
    found = charged({"basis": "reported"}, reported=Money(7, "EUR"))
    assert (found.nano, found.currency, found.status) == (7, "EUR", Status.FINAL)


def test_a_price_of_zero_is_free_and_nothing_else_is() -> None:
    assert charged({"basis": "request", "price": "0"}).status is Status.FREE
    assert charged({"basis": "item", "price": "1"}, items=0).status is Status.FINAL
    assert unpriced("no row").nano is None


@PROPERTIES
@given(st.decimals("0", "10", places=9), st.lists(st.integers(0, 10**13), min_size=3, max_size=3))
def test_parts_add_up_to_the_amount_and_it_is_the_exact_price_rounded(price: Any, times: list[int]) -> None:
    row = Row.model_validate({"id": "r", "basis": "serverless_second", "price": f"{price:f}"})
    found = charge(row, Quantities(startup_ns=times[0], execution_ns=times[1], idle_ns=times[2]))
    billed = -(-sum(times) // NANO)
    assert found.nano == round(Fraction(price) * billed * NANO) == sum(part for _, part in found.parts)


def test_energy_of_nothing_is_nothing() -> None:
    none = consumed([], 0, 0)
    assert (none.mj, none.coverage, energy_cost(none.mj, Fraction(1))) == (0, 0, 0)
