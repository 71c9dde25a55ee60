"""A strict check of a FOCUS file as `focus.py` writes it, for what general validators let pass.

They accept a wrong value among right ones, a subcategory under the wrong category, dates without a zone, and never look
at sums. Here every record is looked at, and so are the splits: parts and ratios have to add up exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from otel_pipeline.ledger.focus_columns import (
    CHARGE_CATEGORIES,
    CHARGE_CLASSES,
    CHARGE_FREQUENCIES,
    COLUMNS,
    COSTS,
    DATES,
    DECIMALS,
    JSON_COLUMNS,
    MANDATORY,
    NOT_NULL,
    RECOMMENDED,
    SINCE_1_3,
    SPLIT,
    SUBCATEGORIES,
)
from otel_pipeline.ledger.money import CURRENCY
from otel_pipeline.ledger.tape import BUCKETS
from otel_pipeline.limits import FOCUS_MISTAKES_MAX

_DECIMAL: Final = re.compile(r"-?[0-9]+\.[0-9]+")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")
_OF_THE_PART: Final = frozenset(
    {*COSTS, *SPLIT, "ChargeDescription", "PricingQuantity", "x_Attempt", "x_Bucket", "x_Outcome"}
    - {"AllocatedMethodId"}
)
"""What may differ between the parts of one origin charge; all else is the origin's."""
_OF_A_WHOLE: Final = ("AllocatedMethodDetails", "x_OriginBilledCost", "x_OriginPricingQuantity")

Record = Mapping[str, str]


@dataclass(slots=True)
class _Split:
    """The parts of one origin charge so far."""

    first: Record
    cost: Decimal = Decimal(0)
    quantity: Decimal = Decimal(0)
    ratio: Decimal = Decimal(0)
    differing: set[str] = field(default_factory=set)


def mistakes(columns: Sequence[str], records: Iterable[Record]) -> list[str]:
    """What is wrong with the file, each with its row (the first below the head is 1); empty if all is right.

    At most FOCUS_MISTAKES_MAX of them.
    """
    found = list(_wrong_columns(columns))
    if any(column not in columns for column in (*MANDATORY, *SPLIT)):
        return found
    splits: dict[tuple[str, ...], _Split] = {}
    for number, record in enumerate(records, 1):
        own = [f"row {number}: {mistake}" for mistake in _wrong_record(record)]
        found += own
        if len(found) >= FOCUS_MISTAKES_MAX:
            return found[:FOCUS_MISTAKES_MAX]
        if not own and record["AllocatedMethodId"] and not record["ChargeClass"]:
            _add(splits, record)
    found += [mistake for one in splits.values() for mistake in _wrong_split(one)]
    return found[:FOCUS_MISTAKES_MAX]


def _wrong_columns(columns: Sequence[str]) -> Iterator[str]:
    for column in (*MANDATORY, *RECOMMENDED, *SINCE_1_3, *SPLIT):
        if column not in columns:
            yield f"the column {column} is missing"
    for column in columns:
        if column not in COLUMNS and not column.startswith("x_"):
            yield f"the column {column} is not of FOCUS; own columns begin with x_"
    own = [column.startswith("x_") for column in columns]
    if own != sorted(own):
        yield "own columns must stand behind those of FOCUS"
    if len(set(columns)) != len(columns):
        yield "a column stands twice"


def _wrong_record(record: Record) -> Iterator[str]:
    for column in sorted(NOT_NULL):
        if not record.get(column):
            yield f"{column} must not be null"
    for column in DECIMALS:
        if record.get(column) and not _DECIMAL.fullmatch(record[column]):
            yield f"{column} is {record[column]!r}; a decimal such as 1.0 is expected"
    for column in JSON_COLUMNS:
        if record.get(column) and not isinstance(_json(record[column]), dict):
            yield f"{column} is no JSON object"
    yield from _wrong_words(record)
    yield from _wrong_dates(record)
    yield from _wrong_part(record)


def _wrong_words(record: Record) -> Iterator[str]:
    for column, allowed in (
        ("ChargeCategory", CHARGE_CATEGORIES),
        ("ChargeClass", CHARGE_CLASSES),
        ("ChargeFrequency", CHARGE_FREQUENCIES),
        ("ServiceCategory", SUBCATEGORIES.keys()),
    ):
        value = record.get(column, "")
        if value not in allowed and (value or column not in NOT_NULL):
            yield f"{column} is {value!r}; one of {', '.join(sorted(filter(None, allowed)))}"
    below = SUBCATEGORIES.get(record["ServiceCategory"], frozenset())
    if below and record.get("ServiceSubcategory") and record["ServiceSubcategory"] not in below:
        yield f"ServiceSubcategory {record['ServiceSubcategory']!r} is not one of {record['ServiceCategory']}"
    if not CURRENCY.fullmatch(record["BillingCurrency"]):
        yield f"BillingCurrency is {record['BillingCurrency']!r}; a code of ISO 4217 such as USD is expected"
    if bool(record["PricingUnit"]) != bool(record["PricingQuantity"]):
        yield "PricingQuantity and PricingUnit are both given or both null"


def _wrong_dates(record: Record) -> Iterator[str]:
    wrong = [column for column in DATES if record[column] and not _is_date(record[column])]
    for column in wrong:
        yield f"{column} is {record[column]!r}; a time in UTC such as 2026-11-21T00:00:00Z is expected"
    if wrong or not all(record[column] for column in DATES):
        return
    for kind in ("BillingPeriod", "ChargePeriod"):
        if _sortable(record[f"{kind}Start"]) >= _sortable(record[f"{kind}End"]):
            yield f"{kind}End must be later than {kind}Start"
    start = _sortable(record["ChargePeriodStart"])
    if record["ChargeClass"]:
        if start >= _sortable(record["BillingPeriodStart"]):
            yield "ChargePeriodStart of a correction must lie before the billing period: within it nothing is invoiced"
    elif not _sortable(record["BillingPeriodStart"]) <= start < _sortable(record["BillingPeriodEnd"]):
        yield "ChargePeriodStart must lie within the billing period"


def _wrong_part(record: Record) -> Iterator[str]:
    """What of the split columns is wrong within one record."""
    if not record["AllocatedMethodId"]:
        for column in SPLIT:
            if record[column]:
                yield f"{column} must be null where AllocatedMethodId is"
        return
    bucket, resource = record.get("x_Bucket", ""), record["AllocatedResourceId"]
    if bucket and bucket not in BUCKETS:
        yield f"x_Bucket is {bucket!r}; one of {', '.join(BUCKETS)}"
    if bool(bucket) == bool(resource):
        yield "AllocatedResourceId must be null for the unallocated portion (x_Bucket), and only there"
    if not record["ResourceId"]:
        yield "ResourceId must not be null where a charge is split"
    if record["ChargeClass"]:
        for column in _OF_A_WHOLE:
            if record.get(column):
                yield f"{column} must be null in a correction: it is no part of a whole"
        return
    if not isinstance(_json(record["AllocatedMethodDetails"] or "{}"), dict):
        return
    if _ratio(record) is None:
        yield "AllocatedMethodDetails must have Elements, each with an AllocatedRatio between 0 and 1"


def _add(splits: dict[tuple[str, ...], _Split], record: Record) -> None:
    key = tuple(record[column] for column in ("ResourceId", "ChargePeriodStart", "ChargePeriodEnd", "BillingCurrency"))
    one = splits.setdefault(key, _Split(record))
    one.cost += Decimal(record["BilledCost"])
    one.quantity += Decimal(record["PricingQuantity"] or 0)
    one.ratio += _ratio(record) or 0
    one.differing |= {
        column for column in record if column not in _OF_THE_PART and record[column] != one.first.get(column)
    }


def _wrong_split(one: _Split) -> Iterator[str]:
    first = one.first
    where = f"split of {first['ResourceId']} at {first['ChargePeriodStart']}"
    for column in sorted(one.differing):
        yield f"{where}: {column} differs between the parts"
    for name, total, column in (
        ("BilledCost", one.cost, "x_OriginBilledCost"),
        ("PricingQuantity", one.quantity, "x_OriginPricingQuantity"),
    ):
        if not first.get(column):
            yield f"{where}: {column} must not be null"
        elif total != Decimal(first[column]):
            yield f"{where}: {name} adds up to {total}, not to {first[column]}"
    if one.ratio != 1:
        yield f"{where}: AllocatedRatio adds up to {one.ratio}, not to 1"


def _ratio(record: Record) -> Decimal | None:
    """The record's ratios together, or None if they are none."""
    details = _json(record["AllocatedMethodDetails"] or "{}")
    elements = details.get("Elements") if isinstance(details, dict) else None
    if not isinstance(elements, list) or not elements:
        return None
    total = Decimal(0)
    for element in elements:
        ratio = element.get("AllocatedRatio") if isinstance(element, dict) else None
        if not isinstance(ratio, Decimal) or not 0 <= ratio <= 1:
            return None
        total += ratio
    return total


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text[:19])
    except ValueError:
        return False
    return True


def _sortable(text: str) -> tuple[str, str]:
    """Seconds and decimals, which sort as they follow each other in time."""
    return text[:19], text[20:].rstrip("Z").ljust(9, "0")
