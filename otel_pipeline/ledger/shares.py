"""How much of a GPU a span had: what it or its process tells, in parts of WHOLE, and what a price row makes of it.

By itself nobody tells it, and spans that are there at once pay alike. A price row may say that they pay by weight, such
as utilisation, or for fixed parts of the GPU, such as time slices, and what nobody has is idle.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from otel_pipeline.ledger.price_rows import Shares
from otel_pipeline.limits import LEDGER_WEIGHT_MAX

if TYPE_CHECKING:
    from otel_pipeline.ledger.claims import Ints
    from otel_pipeline.ledger.price_rows import Row
    from otel_pipeline.wire.batch import Strings

KEY: Final = "otel_pipeline.gpu.share"
"""Attribute of a span or its resource: a number from 0 to 1, or a text such as 1/7."""
WHOLE: Final = 720_720
"""The smallest number that halves, thirds ... sixteenths make whole parts of; sevenths are slices of a GPU (MIG)."""
UNTOLD: Final = -1
PARTS_MAX: Final = 16
NEAR: Final = Fraction(1, 2000)
"""0.143 is a seventh; what is near no such part is rounded to whole percents, so that there are not many."""
_TOLD: Final = re.compile(r"(\d{1,6})(?:/(\d{1,6})|(\.\d{1,20}))?")


def parts_of(text: str) -> int:
    """The share that a text tells; UNTOLD if it tells none between 0 and 1."""
    found = _TOLD.fullmatch(text)
    if not found or (found[2] and not int(found[2])):
        return UNTOLD
    share = Fraction(text)
    if share > 1:
        return UNTOLD
    simple = share.limit_denominator(PARTS_MAX)
    return round((simple if abs(simple - share) <= NEAR else Fraction(round(share * 100), 100)) * WHOLE)


def told(column: Strings) -> Ints:
    """The parts that each row of a column of texts tells; UNTOLD where there are none."""
    return np.array([*map(parts_of, column.values), UNTOLD], np.int64)[column.codes]


def missing(row: Row, parts: Ints) -> int:
    """How many claims tell no weight though they should: as many count as if they had all of the GPU."""
    return int(np.count_nonzero(parts == UNTOLD)) if row.shares is Shares.WEIGHTED and row.share is None else 0


def split(row: Row, parts: Ints) -> dict[str, Any]:
    """The columns of a claim table that tell how claims with these parts share a GPU at this row's price. Who tells
    none has what the row says, else all of it.
    """
    if row.shares is Shares.EQUAL or not len(parts):
        return {}
    usual = WHOLE if row.share is None else round(Fraction(row.share) * WHOLE)
    had = np.where(parts == UNTOLD, usual, parts)
    if row.shares is Shares.FIXED:
        common = int(np.gcd(np.gcd.reduce(had), WHOLE))
        return {"share": had // common, "share_whole": WHOLE // common}
    weight = (had * LEDGER_WEIGHT_MAX + WHOLE // 2) // WHOLE
    return {"weight": weight // max(int(np.gcd.reduce(weight)), 1)}
