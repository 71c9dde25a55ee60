"""Amounts of many spans at once: rows of the price book as fractions of n$ by quantity, met with columns of quantities.

`charge.py` says what a call costs, one at a time and with all reasons; a plan is the same arithmetic laid out as whole
numbers, so that numpy does it for a batch: exact, rounded once. The tests hold the two against each other.

A price per unit is `parts` / `whole` n$. Quantities are whole: ns, mJ, counts.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
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
    from collections.abc import Sequence

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

FIELDS: Final = (
    "items", "images", "video_ns", "characters", "audio_ns", "requests", "energy_mj", "gpu_ns",
    "input_images", "input_tokens", "output_tokens",
    "cached_input_tokens", "cache_write_tokens", "image_input_tokens", "audio_input_tokens",
    "image_output_tokens", "audio_output_tokens",
)  # fmt: skip
"""The columns of quantities; names of `Quantities`. A column is -1 where nothing is known."""
UNKNOWN: Final = -1
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


@dataclass(frozen=True, slots=True)
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

    @property
    def is_large(self) -> bool:
        """Whether its products may leave 64 bits."""
        return max(self.parts) * self.whole * self.fine * len(self.parts) >= 2**62 or self.least + self.step >= 2**62


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
        return prices, PLACE["gpu_ns"]
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


def amounts(plans: Sequence[Plan], plan: Ints, quantities: Ints) -> tuple[Ints, Mask]:
    """n$ of each row, and which rows have an amount: those whose plan's quantities and prices are all known.

    `plan` is the number of each row's plan, `quantities` has a row each and a column for each of FIELDS.
    """
    if any(one.is_large for one in plans):
        kind: Any = np.object_
        quantities = quantities.astype(kind)
    else:
        kind = np.int64
    parts = np.array([one.parts for one in plans], kind)[plan]
    known, counted = _counted(plans, plan, quantities, parts)
    whole = np.array([one.whole for one in plans], kind)[plan]
    prices = np.maximum(parts, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        rough = (prices.astype(np.float64) * counted.astype(np.float64)).sum(1) / whole.astype(np.float64)
    known &= rough < NANO_MAX
    counted = np.where(known[:, None], counted, 0)
    nano = (prices * (counted // whole[:, None])).sum(1)
    rest = (prices * (counted % whole[:, None])).sum(1)
    nano = nano + rest // whole
    rest = rest % whole
    nano = nano + ((2 * rest > whole) | ((2 * rest == whole) & (nano % 2 == 1)))
    return np.where(known, nano, 0).astype(np.int64), known


def _counted(plans: Sequence[Plan], plan: Ints, quantities: Ints, parts: Ints) -> tuple[Mask, Ints]:
    """Which rows have all that their plan needs, and the quantities that are multiplied with its prices."""
    main = np.array([one.main for one in plans], np.int64)[plan]
    rows = np.arange(len(plan))
    counted = np.maximum(quantities, 0)
    by_tokens = main == UNKNOWN
    sides = [PLACE[side] for side in SPECIAL]
    known = np.where(by_tokens, (quantities[:, sides] >= 0).any(1), quantities[rows, main] >= 0).astype(np.bool_)
    if by_tokens.any():
        known &= ~(by_tokens & np.array([one.row.basis is Basis.REPORTED for one in plans], np.bool_)[plan])
        for side, kinds in SPECIAL.items():
            _take_out(counted, parts, PLACE[side], [PLACE[f"{kind}_tokens"] for kind in kinds])
            known &= ~(by_tokens & (parts[:, PLACE[side]] < 0) & (counted[:, PLACE[side]] > 0)).astype(np.bool_)
    known &= ~(~by_tokens & (parts[rows, main] < 0)).astype(np.bool_)
    if any(one.step or one.least or one.fine > 1 for one in plans):
        step, least, fine = (
            np.array([getattr(one, name) for one in plans], counted.dtype)[plan] for name in ("step", "least", "fine")
        )
        used = counted[rows, main] * fine
        used = np.where(step > 0, -(-used // np.maximum(step, 1)) * step, used)
        counted[rows, main] = np.where(by_tokens, counted[rows, main], np.maximum(used, least))
    return known, counted


def _take_out(counted: Ints, parts: Ints, side: int, kinds: Sequence[int]) -> None:
    """Of the tokens of one side, those of a kind that has a price of its own count there, and no longer here."""
    for kind in kinds:
        if counted[:, kind].any():
            own = np.where(parts[:, kind] >= 0, np.minimum(counted[:, kind], counted[:, side]), 0)
            counted[:, kind] = own
            counted[:, side] -= own


def why_not(plan: Plan, quantities: Sequence[int]) -> str:
    """Why there is no amount for these quantities, a column each: in words."""
    known: dict[str, Any] = {name: int(value) for name, value in zip(FIELDS, quantities, strict=True) if value >= 0}
    used = Quantities(resolution=plan.used.resolution, width=plan.used.width, height=plan.used.height, **known)
    return charge(plan.row, used).reason or "the amount is larger than can be kept"
