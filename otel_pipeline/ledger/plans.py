"""Amounts of many spans at once: rows of the price book as fractions of n$ by quantity, met with columns of quantities.

`charge.py` says what a call costs, one at a time and with all reasons; a plan is the same arithmetic laid out as whole
numbers, so that a batch takes one call: exact, rounded once. The tests hold the two against each other.

A price per unit is `parts` / `whole` n$. Quantities are whole: ns, mJ, counts.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_pipeline.ledger.charge import Quantities, Status, Unknown, charge, tier_price
from otel_pipeline.ledger.energy import MJ_PER_KWH
from otel_pipeline.ledger.money import NANO
from otel_pipeline.ledger.price_book import rate_of
from otel_pipeline.ledger.price_rows import GPU_BASES, TIERED, Basis, Row
from otel_pipeline.wire.kernel import COMPILED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
_exact: Any = importlib.import_module("otel_pipeline.ledger._amounts_py")
_leaf: Any = importlib.import_module("otel_pipeline.ledger._amounts_c") if COMPILED else _exact

FIELDS: Final = (
    "items", "images", "video_ns", "characters", "audio_ns", "requests", "energy_mj", "gpu_ns",
    "input_images", "input_tokens", "output_tokens",
    "cached_input_tokens", "cache_write_tokens", "image_input_tokens", "audio_input_tokens",
    "image_output_tokens", "audio_output_tokens",
)  # fmt: skip
"""The columns of quantities; names of `Quantities`. A column is -1 where nothing is known."""
UNKNOWN: Final = -1
FINE_MAX: Final = 256
"""A quantity has 53 bits."""
PLACE: Final = {name: place for place, name in enumerate(FIELDS)}
SPECIAL: Final = {
    "input_tokens": ("cached_input", "cache_write", "image_input", "audio_input"),
    "output_tokens": ("image_output", "audio_output"),
}
"""Tokens that are counted in others, and have prices of their own in some rows."""
NANO_MAX: Final[int] = _exact.NANO_MAX
"""Of one span: four billion. Above it a sum of two could leave 64 bits."""
_MAIN: Final = {
    Basis.ITEM: ("items", Fraction(NANO)),
    Basis.IMAGE: ("images", Fraction(NANO)),
    Basis.VIDEO_SECOND: ("video_ns", Fraction(1)),
    Basis.THOUSAND_CHARACTERS: ("characters", Fraction(NANO, 1000)),
    Basis.AUDIO_MINUTE: ("audio_ns", Fraction(1, 60)),
    Basis.REQUEST: ("requests", Fraction(NANO)),
    Basis.KILOWATT_HOUR: ("energy_mj", Fraction(NANO, MJ_PER_KWH)),
}
"""What a basis counts, and n$ per whole unit of it at a price of 1."""
_MEASURE: Final = {"video_ns": NANO, "audio_ns": NANO, "characters": 1000}
"""Whole units in the one that `round_up` and `minimum` are told in."""


@dataclass(frozen=True)
class Plan:
    """What one price row makes of quantities, for one resolution.

    main:    the column that must be known; -1: any number of tokens
    parts:   [column] n$ per unit in parts of 1 / whole; -1: this row has no price for it
    step, least: round the main column up to multiples of, and to at least; in parts of 1 / fine
    """

    row: Row
    used: Quantities
    """With the resolution, and whether it failed."""
    status: Status
    main: int
    parts: tuple[int, ...]
    whole: int
    step: int = 0
    least: int = 0
    fine: int = 1

    @cached_property
    def is_large(self) -> bool:
        """Whether its products may leave 64 bits."""
        products = 2 * max(self.parts) * self.whole * len(self.parts)
        return products >= 2**62 or self.fine > FINE_MAX or self.least + self.step >= 2**61


def plan_of(row: Row, resolution: str = "", width: int = 0, height: int = 0, *, failed: bool = False) -> Plan:
    """The plan of a row. GPU rows are priced by the ns, without rounding: a worker's life is rounded, not its spans."""
    used = Quantities(resolution=resolution, width=width, height=height, failed=failed)
    if failed and row.failed == "free" and row.basis not in GPU_BASES:
        return Plan(row, used, Status.FREE, PLACE["requests"], (0,) * len(FIELDS), 1)
    prices, main = _prices(row, used)
    measured = row.basis in _MAIN and row.basis is not Basis.KILOWATT_HOUR
    unit = _MEASURE.get(FIELDS[main], 1)
    step = (row.round_up or Fraction(0)) * unit if measured else Fraction(0)
    least = (row.minimum or Fraction(0)) * unit if measured else Fraction(0)
    fine = lcm(step.denominator, least.denominator)
    exact = [(price or Fraction(0)) / (fine if place == main else 1) for place, price in enumerate(prices)]
    whole = lcm(*(price.denominator for price in exact))
    parts = tuple(
        -1 if prices[place] is None else price.numerator * (whole // price.denominator)
        for place, price in enumerate(exact)
    )
    status = Status.PROVISIONAL if row.basis in GPU_BASES or row.basis is Basis.KILOWATT_HOUR else Status.FINAL
    status = Status.FREE if row.free else status
    return Plan(row, used, status, main, parts, whole, int(step * fine), int(least * fine), fine)


def _prices(row: Row, used: Quantities) -> tuple[list[Fraction | None], int]:
    """n$ per unit of each column; None where the row has no price. And the main column."""
    prices: list[Fraction | None] = [Fraction(0)] * len(FIELDS)
    if row.basis in GPU_BASES:
        prices[PLACE["gpu_ns"]] = rate_of(row)
        prices[PLACE["energy_mj"]] = (row.tariff or 0) * Fraction(NANO, MJ_PER_KWH)
        return prices, PLACE["energy_mj" if row.tariff else "gpu_ns"]  # the time on a GPU is always known
    if row.basis is Basis.MILLION_TOKENS:
        for side, kinds in SPECIAL.items():
            for name, place in ((side, PLACE[side]), *((kind, PLACE[f"{kind}_tokens"]) for kind in kinds)):
                price = row.prices.get(name.removesuffix("_tokens"))
                if price is None and name == side:
                    price = row.price
                prices[place] = None if price is None else price * NANO / 1_000_000
        return prices, UNKNOWN
    if row.basis is Basis.REPORTED:
        return prices, UNKNOWN
    name, unit = _MAIN[row.basis]
    main = row.price
    if row.basis in TIERED:
        with suppress(Unknown):  # `why_not` tells
            main = tier_price(row, used)
    prices[PLACE[name]] = None if main is None else main * unit
    if row.input_image is not None:
        prices[PLACE["input_images"]] = row.input_image * NANO
    return prices, PLACE[name]


class PlanTable:
    """Plans as arrays, and what they make of quantities. `leaf` is the variant of the compiled leaf."""

    def __init__(self, leaf: Any = None) -> None:
        self._leaf = leaf or _leaf
        self.plans: list[Plan] = []
        self._parts = np.zeros((64, len(FIELDS)), np.int64)
        self._others = np.zeros((64, 6), np.int64)

    def add(self, plan: Plan) -> int:
        """Its place."""
        number = len(self.plans)
        self.plans.append(plan)
        if number >= len(self._parts):
            self._parts, self._others = (np.concatenate((each, each)) for each in (self._parts, self._others))
        if plan.is_large:
            self._others[number, 0] = _exact.HARD
        else:
            self._parts[number] = plan.parts
            self._others[number] = _others(plan)
        return number

    def amounts(self, plan: Ints, used: Ints, fields: Sequence[str] = FIELDS) -> tuple[Ints, Mask]:
        """n$ of each row, and which rows have an amount: those whose plan's quantities and prices are all known.

        `plan` is the place of each row's plan, -1 for none; `used` has a line for each of the fields, int64 (fields,
        rows), C-contiguous. A field without one is known of no row, but for `requests`: a span is one.
        """
        places = np.array([PLACE[name] for name in fields], np.int64)
        nano, known = self._leaf.amounts(plan, used, places, self._parts, self._others)
        hard = np.flatnonzero(known == _exact.NOT_TRIED)
        if len(hard):
            nano[hard], known[hard] = self._hard(plan[hard], used[:, hard], places)
        return nano, known == _exact.KNOWN

    def _hard(self, plan: Ints, used: Ints, places: Ints) -> tuple[list[int], list[int]]:
        """The same with Python's numbers."""
        live, local = np.unique(plan, return_inverse=True)
        plans = [self.plans[number] for number in live.tolist()]
        parts, others = (np.array([*each], object) for each in ([one.parts for one in plans], map(_others, plans)))
        nano, known = [0] * len(plan), [_exact.NOT_KNOWN] * len(plan)
        _exact.fill(local, used.astype(object), places, parts, others, [0] * len(FIELDS), nano, known)
        return nano, known


def _others(plan: Plan) -> tuple[int, ...]:
    kind = _exact.TOKENS if plan.row.basis is Basis.MILLION_TOKENS and plan.main == UNKNOWN else _exact.PLAIN
    return kind, plan.main, plan.whole, plan.step, plan.least, plan.fine


def why_not(plan: Plan, used: Mapping[str, int]) -> str:
    """Why there is no amount for these quantities, in words."""
    known: dict[str, Any] = {name: value for name, value in used.items() if value >= 0}
    told = Quantities(resolution=plan.used.resolution, width=plan.used.width, height=plan.used.height, **known)
    return charge(plan.row, told).reason or "the amount is larger than can be kept"
