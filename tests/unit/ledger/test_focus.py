"""What the ledger writes as FOCUS passes the strict check, and the check finds what other checks let pass."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given

from otel_pipeline.ledger import focus_check
from otel_pipeline.ledger.allocation import Mode, allocate
from otel_pipeline.ledger.charge import Quantities, charge, unpriced
from otel_pipeline.ledger.claims import Claim, claim_table
from otel_pipeline.ledger.corrections import reallocated
from otel_pipeline.ledger.focus import Account, Labels, Record, allocated, called, corrected, write
from otel_pipeline.ledger.focus_check import mistakes
from otel_pipeline.ledger.focus_columns import COLUMNS
from otel_pipeline.ledger.money import NANO
from otel_pipeline.ledger.price_rows import Row, moment_ns
from otel_pipeline.ledger.tape import Billed, Tape
from tests.unit.ledger.conftest import PROPERTIES
from tests.unit.ledger.strategies import Day, days

START = moment_ns("2026-12-31T23:59:00")
MINUTE = 60 * NANO
ACCOUNT = Account(id="acc-1", provider="RunPod", region="EU-RO-1")
TAPE = Tape("GPU-1", [(0, Fraction("3.99") / 3600)], [Billed(START, START + 3 * MINUTE)])
CLAIMS = [
    Claim("t1/a", "GPU-1", START, START + 30 * NANO, job="J", outcome="error"),
    Claim("t1/b", "GPU-1", START + 10 * NANO, START + 100 * NANO, job="J", attempt=2),
]
CUTS = [START, START + MINUTE, START + 2 * MINUTE]


def records(**options: Any) -> list[Record]:
    found = allocate(TAPE, claim_table(CLAIMS), CUTS)
    return [dict.fromkeys(COLUMNS, "") | one for one in allocated(ACCOUNT, found, mode=Mode.EQUAL, **options)]


def test_the_parts_of_a_gpu_period_pass_the_check() -> None:
    written = io.StringIO()
    assert write(records(), written) == 4
    read = list(csv.DictReader(io.StringIO(written.getvalue())))
    assert read == records()
    assert not mistakes(list(read[0]), read)


def test_a_record_tells_whose_cost_it_is_and_when() -> None:
    labels = {"t1/a": Labels(name="sample", tags={"tenant": "x"})}
    first, second, *_, idle = records(labels=labels, tags={"pool": "p"}, price_id="row-1")
    assert (first["AllocatedResourceId"], first["AllocatedResourceName"]) == ("t1/a", "sample")
    assert json.loads(first["AllocatedTags"]) == {"attempt": "1", "job": "J", "outcome": "error", "tenant": "x"}
    assert (first["Tags"], first["x_PriceId"], first["x_Outcome"]) == ('{"pool": "p"}', "row-1", "error")
    assert (first["BillingPeriodStart"], first["BillingPeriodEnd"]) == ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z")
    assert (first["ChargePeriodStart"], first["ChargePeriodEnd"]) == ("2026-12-31T23:59:00Z", "2027-01-01T00:00:00Z")
    assert first["BilledCost"] == first["ListCost"] == "0.022166667"
    assert second["AllocatedResourceId"] == "t1/b"
    assert (idle["AllocatedResourceId"], idle["x_Bucket"]) == ("", "idle")


def test_ratios_and_quantities_add_up_exactly() -> None:
    first_minute = [one for one in records() if one["ChargePeriodStart"] == "2026-12-31T23:59:00Z"]
    elements = [json.loads(one["AllocatedMethodDetails"], parse_float=Decimal)["Elements"][0] for one in first_minute]
    assert sum(element["AllocatedRatio"] for element in elements) == 1
    assert sum(element["UsageQuantity"] for element in elements) == 60
    assert sum(Decimal(one["PricingQuantity"]) for one in first_minute) == 60


@PROPERTIES
@given(days())
def test_whatever_was_allocated_passes_the_check(day: Day) -> None:
    found = allocate(day.tapes[0], claim_table(day.claims, day.links), day.cuts, day.mode)
    rows = [dict.fromkeys(COLUMNS, "") | one for one in allocated(ACCOUNT, found, mode=day.mode)]
    assert not mistakes(COLUMNS, rows)
    assert sum(Decimal(one["BilledCost"]) for one in rows) * NANO == sum(found.totals)


def corrections() -> list[Record]:
    """B arrives late."""
    before = allocate(TAPE, claim_table(CLAIMS[:1]), CUTS)
    after, _ = reallocated(before, TAPE, CLAIMS[:1], CLAIMS[1:])
    rows = [list(allocated(ACCOUNT, one, mode=Mode.EQUAL)) for one in (before, after)]
    return [dict.fromkeys(COLUMNS, "") | one for one in corrected(*rows, moment_ns("2027-01-09"))]


def test_corrections_pass_the_check_and_add_up_to_nothing() -> None:
    rows = corrections()
    assert {one["ChargeClass"] for one in rows} == {"Correction"}
    assert {one["AllocatedResourceId"] or one["x_Bucket"] for one in rows} == {"t1/a", "t1/b", "idle"}
    for column in ("BilledCost", "PricingQuantity"):
        assert sum(Decimal(one[column]) for one in rows) == 0
    late = [one for one in rows if one["ChargePeriodStart"] < "2027"]
    assert not mistakes(COLUMNS, late)


def test_a_correction_is_billed_later_than_it_was_used() -> None:
    first, *_ = corrections()
    assert (first["ChargePeriodStart"], first["ChargePeriodEnd"]) == ("2026-12-31T23:59:00Z", "2027-01-01T00:00:00Z")
    assert (first["BillingPeriodStart"], first["BillingPeriodEnd"]) == ("2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z")


def test_what_stayed_the_same_has_no_correction() -> None:
    assert list(corrected(records(), records(), START)) == []


@pytest.mark.parametrize(
    ("column", "value", "mistake"),
    [
        ("BillingPeriodStart", "2026-12-01T00:00:00Z", "ChargePeriodStart of a correction must lie before the billing"),
        ("x_OriginBilledCost", "1.0", "x_OriginBilledCost must be null in a correction"),
        ("AllocatedMethodDetails", "{}", "AllocatedMethodDetails must be null in a correction"),
        ("AllocatedResourceId", "", "AllocatedResourceId must be null for the unallocated portion"),
        ("BilledCost", "-1", "BilledCost is '-1'; a decimal such as 1.0 is expected"),
    ],
)
def test_a_wrong_correction_is_found(column: str, value: str, mistake: str) -> None:
    first, *_ = corrections()
    assert mistakes(COLUMNS, [first | {column: value}])[0].startswith(f"row 1: {mistake}")


def test_a_name_that_is_a_formula_is_written_as_a_text() -> None:
    written = io.StringIO()
    write([dict.fromkeys(COLUMNS, "") | {"AllocatedResourceName": "=1+1", "BilledCost": "-0.5"}], written)
    (row,) = csv.DictReader(io.StringIO(written.getvalue()))
    assert (row["AllocatedResourceName"], row["BilledCost"]) == ("'=1+1", "-0.5")


def test_a_paid_call_passes_the_check() -> None:
    account = Account(
        id="a",
        provider="fal",
        service="FLUX",
        service_category="AI and Machine Learning",
        service_subcategory="Generative AI",
    )
    paid = charge(Row.model_validate({"id": "r", "basis": "image", "price": "0.003"}), Quantities(images=2))
    one = called(
        account,
        paid,
        START,
        START + NANO + 5,
        span="t/s",
        quantity_nano=2 * NANO,
        unit="Images",
        labels=Labels(name="flux"),
    )
    assert (one["BilledCost"], one["PricingQuantity"], one["PricingUnit"]) == ("0.006000000", "2.000000000", "Images")
    assert one["ChargePeriodEnd"] == "2026-12-31T23:59:01.000000005Z"
    assert not mistakes(COLUMNS, [dict.fromkeys(COLUMNS, "") | one])


def test_a_call_without_a_price_has_no_record() -> None:
    with pytest.raises(ValueError, match="no place in a bill: no row"):
        called(ACCOUNT, unpriced("no row"), 0, 1, span="s", quantity_nano=1, unit="Images", labels=Labels())


@pytest.mark.parametrize(
    ("column", "value", "mistake"),
    [
        ("BilledCost", "1", "BilledCost is '1'; a decimal such as 1.0 is expected"),
        ("BilledCost", "1e-3", "BilledCost is '1e-3'; a decimal such as 1.0 is expected"),
        ("BilledCost", "", "BilledCost must not be null"),
        ("ProviderName", "", "ProviderName must not be null"),
        ("HostProviderName", "", "HostProviderName must not be null"),
        ("BillingCurrency", "usd", "BillingCurrency is 'usd'; a code of ISO 4217 such as USD is expected"),
        ("ChargeCategory", "usage", "ChargeCategory is 'usage'; one of Adjustment, Credit, Purchase, Tax, Usage"),
        ("ChargeClass", "Late", "ChargeClass is 'Late'; one of Correction"),
        ("ChargeFrequency", "Daily", "ChargeFrequency is 'Daily'; one of One-Time, Recurring, Usage-Based"),
        ("ServiceSubcategory", "Generative AI", "ServiceSubcategory 'Generative AI' is not one of Compute"),
        ("ChargePeriodStart", "2026-12-31 23:59:00", "ChargePeriodStart is '2026-12-31 23:59:00'; a time in UTC"),
        ("ChargePeriodStart", "2026-02-30T00:00:00Z", "ChargePeriodStart is '2026-02-30T00:00:00Z'; a time in UTC"),
        ("ChargePeriodEnd", "2026-12-31T23:59:00Z", "ChargePeriodEnd must be later than ChargePeriodStart"),
        ("ChargePeriodEnd", "2026-12-31T23:58:59.9Z", "ChargePeriodEnd must be later than ChargePeriodStart"),
        ("BillingPeriodEnd", "2026-12-31T23:59:00Z", "ChargePeriodStart must lie within the billing period"),
        ("PricingUnit", "", "PricingQuantity and PricingUnit are both given or both null"),
        ("Tags", "[]", "Tags is no JSON object"),
        ("AllocatedTags", "{", "AllocatedTags is no JSON object"),
        ("AllocatedMethodDetails", "{}", "AllocatedMethodDetails must have Elements"),
        (
            "AllocatedMethodDetails",
            '{"Elements": [{"AllocatedRatio": 2.0}]}',
            "AllocatedMethodDetails must have Elements",
        ),
        ("AllocatedMethodDetails", '{"Elements": [1]}', "AllocatedMethodDetails must have Elements"),
        ("AllocatedResourceId", "", "AllocatedResourceId must be null for the unallocated portion"),
        ("x_Bucket", "idle", "AllocatedResourceId must be null for the unallocated portion"),
        ("x_Bucket", "warm", "x_Bucket is 'warm'; one of idle, startup, tail, rounding, unobserved"),
        ("ResourceId", "", "ResourceId must not be null where a charge is split"),
        ("AllocatedMethodId", "", "AllocatedMethodDetails must be null where AllocatedMethodId is"),
    ],
)
def test_one_wrong_value_among_right_ones_is_found(column: str, value: str, mistake: str) -> None:
    rows = records()
    rows[0] = rows[0] | {column: value}
    assert mistakes(COLUMNS, rows)[0].startswith(f"row 1: {mistake}")


@pytest.mark.parametrize(
    ("column", "value", "mistake"),
    [
        ("BilledCost", "0.022166666", "BilledCost adds up to 0.066499999, not to 0.066500000"),
        ("PricingQuantity", "1.0", "PricingQuantity adds up to "),
        ("ServiceName", "Other", "ServiceName differs between the parts"),
        ("x_OriginBilledCost", "1.0", "x_OriginBilledCost differs between the parts"),
        ("AllocatedMethodDetails", '{"Elements": [{"AllocatedRatio": 0.5}]}', "AllocatedRatio adds up to "),
    ],
)
def test_a_split_that_does_not_add_up_is_found(column: str, value: str, mistake: str) -> None:
    rows = records()
    rows[0] = rows[0] | {column: value}
    assert mistakes(COLUMNS, rows)[0].startswith(f"split of GPU-1 at 2026-12-31T23:59:00Z: {mistake}")


def test_a_split_without_its_origin_is_found() -> None:
    rows = [one | {"x_OriginBilledCost": "", "x_OriginPricingQuantity": ""} for one in records()[:2]]
    assert any("x_OriginBilledCost must not be null" in mistake for mistake in mistakes(COLUMNS, rows))


@pytest.mark.parametrize(
    ("columns", "mistake"),
    [
        ([one for one in COLUMNS if one != "BilledCost"], "the column BilledCost is missing"),
        ([*COLUMNS, "Colour"], "the column Colour is not of FOCUS; own columns begin with x_"),
        (["x_Own", *COLUMNS], "own columns must stand behind those of FOCUS"),
        ([*COLUMNS, "x_Bucket"], "a column stands twice"),
    ],
)
def test_wrong_columns_are_found(columns: list[str], mistake: str) -> None:
    assert mistake in mistakes(columns, records())


def test_not_more_than_a_number_of_mistakes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(focus_check, "FOCUS_MISTAKES_MAX", 3)
    assert len(mistakes(COLUMNS, [one | {"BilledCost": "", "ListCost": ""} for one in records()])) == 3
