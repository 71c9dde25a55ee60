"""Amounts of many spans at once: rows of the price book as fractions of n$ by quantity, met with columns of quantities.

`charge.py` says what a call costs, one at a time and with all reasons; a plan is the same arithmetic laid out as whole
numbers, so that numpy does it for a batch: exact, rounded once. The tests hold the two against each other.

A price per unit is `parts` / `whole` n$. Quantities are whole: ns, mJ, counts.
"""

from __future__ import annotations

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

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Exact = NDArray[Any]
"""Whole numbers: of 64 bits where they fit, else Python's."""

FIELDS: Final = (
    "items", "images", "video_ns", "characters", "audio_ns", "requests", "energy_mj", "gpu_ns",
    "input_images", "input_tokens", "output_tokens",
    "cached_input_tokens", "cache_write_tokens", "image_input_tokens", "audio_input_tokens",
    "image_output_tokens", "audio_output_tokens",
)  # fmt: skip
"""The columns of quantities; names of `Quantities`. A column is -1 where nothing is known."""
UNKNOWN: Final = -1
NO_COLUMN: Final = -2
PLACE: Final = {name: place for place, name in enumerate(FIELDS)}
SPECIAL: Final = {
    "input_tokens": ("cached_input", "cache_write", "image_input", "audio_input"),
    "output_tokens": ("image_output", "audio_output"),
}
"""Tokens that are counted in others, and have prices of their own in some rows."""
NANO_MAX: Final = 4 * 10**18
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
    def is_simple(self) -> bool:
        """Whether it counts one quantity as it is."""
        one_column = self.main >= 0 and self.row.energy_price is None
        return one_column and self.fine == 1 and not (self.step or self.least or self.is_large)

    @cached_property
    def is_large(self) -> bool:
        """Whether its products may leave 64 bits."""
        return (
            2 * max(self.parts) * self.whole * self.fine * len(self.parts) >= 2**62 or self.least + self.step >= 2**62
        )


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


def amounts(plans: Sequence[Plan], plan: Ints, used: Ints, fields: Sequence[str] = FIELDS) -> tuple[Ints, Mask]:
    """n$ of each row, and which rows have an amount: those whose plan's quantities and prices are all known.

    `plan` is the number of each row's plan, `used` has a row each and a column for each of the fields; a field that has
    no column is known of no row, but for `requests`: a span is one.
    """
    if "requests" not in fields and any(one.main == PLACE["requests"] for one in plans):
        fields = (*fields, "requests")
        used = np.concatenate((used, np.ones((len(used), 1), np.int64)), axis=1)
    column = {name: place for place, name in enumerate(fields)}
    if all(one.is_simple for one in plans) and "input_images" not in column:
        return _simple(plans, plan, used, column)
    kind = np.object_ if any(one.is_large for one in plans) else np.int64
    places = [PLACE[name] for name in fields]
    parts: Exact = np.array([[one.parts[place] for place in places] for one in plans], kind)
    parts = parts.reshape(len(plans), len(fields))
    parts = parts.take(plan, axis=0)
    known, counted = _counted(plans, plan, used.astype(kind, copy=False), parts, column)
    whole = np.array([one.whole for one in plans], kind).take(plan)
    prices = np.maximum(parts, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        rough = (prices.astype(np.float64) * counted.astype(np.float64)).sum(1)
        known &= rough < NANO_MAX * whole.astype(np.float64)
    if not known.all():
        counted = np.where(known[:, None], counted, 0)
    return np.where(known, _rounded(prices, counted, whole[:, None]), 0).astype(np.int64), known


def _rounded(prices: Exact, counted: Exact, whole: Exact) -> Exact:
    """The sum of prices x counted / whole of each row, to the nearest whole number, a tie to the even one. In steps
    that stay within 64 bits where the result and prices x whole do.
    """
    units = counted // whole
    rest = (prices * (counted - units * whole)).sum(1)
    whole = whole[:, 0]
    more = rest // whole
    nano: Exact = (prices * units).sum(1) + more
    rest = 2 * (rest - more * whole)
    nano += (rest > whole) | ((rest == whole) & (nano % 2 == 1))
    return nano


def _simple(plans: Sequence[Plan], plan: Ints, used: Ints, column: Mapping[str, int]) -> tuple[Ints, Mask]:
    """The same where each price has one quantity: most batches."""
    if not column:
        return np.zeros(len(plan), np.int64), np.zeros(len(plan), np.bool_)
    mains = [column.get(FIELDS[one.main], NO_COLUMN) for one in plans]
    told = np.array([(main, one.parts[one.main], one.whole) for main, one in zip(mains, plans, strict=True)], np.int64)
    main, price, whole = (each[0] if len(plans) == 1 else each.take(plan) for each in told.T)
    quantity = used[:, max(mains[0], 0)] if len(plans) == 1 else used[np.arange(len(plan)), np.maximum(main, 0)]
    known = (quantity >= 0) & (main >= 0) & (price >= 0)
    known &= quantity * (price / whole) < NANO_MAX
    units = quantity // whole
    doubled = 2 * price * (quantity - units * whole)
    more, rest = doubled // (2 * whole), doubled % (2 * whole)
    nano = price * units + more
    nano += (rest > whole) | ((rest == whole) & (nano % 2 == 1))
    return np.where(known, nano, 0), known


def _counted(
    plans: Sequence[Plan], plan: Ints, used: Exact, parts: Exact, column: Mapping[str, int]
) -> tuple[Mask, Exact]:
    """Which rows have all that their plan needs, and the quantities that are multiplied with its prices."""
    mains = [column.get(FIELDS[one.main], NO_COLUMN) if one.main != UNKNOWN else UNKNOWN for one in plans]
    main = np.array(mains, np.int64).take(plan)
    rows = np.arange(len(plan))
    counted = np.maximum(used, 0)
    known = main >= 0
    has_main, main = known.copy(), np.maximum(main, 0)
    if len(column):
        known &= (used[rows, main] >= 0).astype(np.bool_) & (parts[rows, main] >= 0).astype(np.bool_)
    if UNKNOWN in mains:
        by_tokens = np.array([one.row.basis is Basis.MILLION_TOKENS for one in plans], np.bool_).take(plan)
        known |= _counted_tokens(by_tokens, used, counted, parts, column)
    if any(one.step or one.least or one.fine > 1 for one in plans) and len(column):
        step, least, fine = (
            np.array([getattr(one, name) for one in plans], counted.dtype)[plan] for name in ("step", "least", "fine")
        )
        exact = counted[rows, main] * fine
        exact = np.where(step > 0, -(-exact // np.maximum(step, 1)) * step, exact)
        counted[rows, main] = np.where(has_main, np.maximum(exact, least), counted[rows, main])
    return known, counted


def _counted_tokens(by_tokens: Mask, used: Exact, counted: Exact, parts: Exact, column: Mapping[str, int]) -> Mask:
    """Which rows have tokens, and a price for each that counts."""
    known = np.zeros(len(used), np.bool_)
    priced = by_tokens.copy()
    for side, kinds in SPECIAL.items():
        if side not in column:  # so its kinds, which are part of it, are not counted
            counted[:, [column[f"{kind}_tokens"] for kind in kinds if f"{kind}_tokens" in column]] = 0
            continue
        here = column[side]
        known |= (used[:, here] >= 0).astype(np.bool_)
        for kind in kinds:
            if f"{kind}_tokens" in column:
                _take_out(counted, parts, here, column[f"{kind}_tokens"])
        priced &= ~((parts[:, here] < 0) & (counted[:, here] > 0)).astype(np.bool_)
    return known & priced


def _take_out(counted: Exact, parts: Exact, side: int, kind: int) -> None:
    """Of the tokens of one side, those of a kind that has a price of its own count there, and no longer here."""
    own = np.where(parts[:, kind] >= 0, np.minimum(counted[:, kind], counted[:, side]), 0)
    counted[:, kind] = own
    counted[:, side] -= own


def why_not(plan: Plan, used: Mapping[str, int]) -> str:
    """Why there is no amount for these quantities, in words."""
    known: dict[str, Any] = {name: value for name, value in used.items() if value >= 0}
    told = Quantities(resolution=plan.used.resolution, width=plan.used.width, height=plan.used.height, **known)
    return charge(plan.row, told).reason or "the amount is larger than can be kept"
