"""Exact money: whole nano-units of a currency (n$ = 1e-9 $), rounding that is done once, splits that lose nothing.

Amounts are Python's integers: they are sums, and sums of rounded numbers stay exact. Prices are fractions, for 3.99 $
an hour is no whole number of n$ a second; an amount is rounded when a price has met its quantity, not before. Binary
floats never enter: a price comes as the text that the operator wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from otel_pipeline.limits import MONEY_DECIMALS_MAX, MONEY_DIGITS_MAX

NANO: Final = 10**9
CURRENCY: Final = re.compile(r"[A-Z]{3}")
_DECIMAL: Final = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?")


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in nano-units of one currency."""

    nano: int
    currency: str

    def __add__(self, other: Money) -> Money:
        """The sum; ValueError if the currencies differ."""
        if other.currency != self.currency:
            raise ValueError(f"{self.currency} and {other.currency} cannot be added")
        return Money(self.nano + other.nano, self.currency)

    def __neg__(self) -> Money:
        return Money(-self.nano, self.currency)

    def __str__(self) -> str:
        return f"{formatted(self.nano)} {self.currency}"


def by_currency(amounts: Iterable[Money]) -> dict[str, int]:
    """The sums in nano-units, a currency each: nothing is ever converted."""
    sums: dict[str, int] = {}
    for amount in amounts:
        sums[amount.currency] = sums.get(amount.currency, 0) + amount.nano
    return sums


def exact(text: str) -> Fraction:
    """The number that a plain decimal text such as 0.00031 says; ValueError for any other text."""
    found = _DECIMAL.fullmatch(text) if len(text) <= MONEY_DIGITS_MAX + MONEY_DECIMALS_MAX + 2 else None
    if not found or len(found[2]) > MONEY_DIGITS_MAX or len(found[3] or "") > MONEY_DECIMALS_MAX:
        raise ValueError(
            f"must be a plain decimal number such as 0.08, with at most {MONEY_DIGITS_MAX} digits before "
            f"and {MONEY_DECIMALS_MAX} behind the point"
        )
    return Fraction(text)


def nano(text: str) -> int:
    """A decimal text as nano-units; ValueError if it is finer than one."""
    value = exact(text) * NANO
    if value.denominator != 1:
        raise ValueError("must have at most 9 decimals")
    return value.numerator


def decimal(value: Fraction) -> str:
    """A fraction that `exact` made, as the shortest decimal text."""
    whole, rest = divmod(value.numerator, value.denominator)
    digits = ""
    while rest and len(digits) < MONEY_DECIMALS_MAX:
        digit, rest = divmod(rest * 10, value.denominator)
        digits += str(digit)
    return f"{whole}.{digits}" if digits else str(whole)


def formatted(amount: int) -> str:
    """Nano-units as a decimal with all nine decimals: 25000000 is 0.025000000."""
    whole, part = divmod(abs(amount), NANO)
    return f"{'-' if amount < 0 else ''}{whole}.{part:09d}"


def rounded(numerator: int, denominator: int) -> int:
    """The quotient as the nearest whole number, a tie to the even one; the denominator is positive."""
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1))


def split(total: int, weights: Sequence[int]) -> list[int]:
    """Parts of the total in proportion to the weights (>= 0), with exactly the total as their sum.

    Largest remainder: each part is its exact share rounded down, or one more; ties go to whoever stands first.
    If all weights are 0 the parts are equal. Without weights nobody can take the total: ValueError unless it is 0.
    """
    if not weights:
        if total:
            raise ValueError("there is nobody to split the amount among")
        return []
    whole = sum(weights)
    shares = list(weights) if whole else [1] * len(weights)
    whole = whole or len(shares)
    size = abs(total)
    parts = [size * share // whole for share in shares]
    order = sorted(range(len(shares)), key=lambda index: -(size * shares[index] % whole))
    for index in order[: size - sum(parts)]:
        parts[index] += 1
    return parts if total >= 0 else [-part for part in parts]


def split_named(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """The same with names; ties go by name, so that the order of the mapping does not matter."""
    names = sorted(weights)
    return dict(zip(names, split(total, [weights[name] for name in names]), strict=True))
