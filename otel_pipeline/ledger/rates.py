"""What times cost at a rate, many at once: the amount of a span before its allocation is known."""

from __future__ import annotations

from fractions import Fraction

from otel_pipeline.ledger.claims import Ints
from otel_pipeline.ledger.tape import Exact, exact_type


def amounts(rate: Fraction, ns: Ints) -> Exact:
    """n$ of each time (ns, >= 0) at a rate in n$ per ns (>= 0): the nearest whole number, a tie to the even one."""
    kind = exact_type(max(int(ns.max(initial=1)) * rate.numerator, 2 * rate.denominator))
    product = ns.astype(kind) * rate.numerator
    whole, rest = product // rate.denominator, product % rate.denominator
    up = (2 * rest > rate.denominator) | ((2 * rest == rate.denominator) & (whole % 2 == 1))
    nano: Exact = whole + up.astype(kind)
    return nano
