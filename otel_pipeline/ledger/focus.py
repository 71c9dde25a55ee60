"""The ledger as a FOCUS file: what a GPU cost in a period is the origin charge, and each span's part an allocated one.

The rules of split costs (FOCUS 1.3 on) are the law of allocation.py in other words: summable columns of the allocated
charges add up to those of the origin charge, ratios to 1, all else is as in the origin charge; the unallocated portion
(idle and its kin, x_Bucket says which) has rows of its own whose AllocatedResourceId is null. The origin charge itself
is not in the file, or it would count twice; its sums stand in x_OriginBilledCost and x_OriginPricingQuantity.

What late spans and new prices change in a month that was billed are rows of ChargeClass Correction: billed in a later
month, of the time when it was used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Final

from otel_pipeline.ledger.allocation import Allocation, Mode
from otel_pipeline.ledger.cells import csv_line
from otel_pipeline.ledger.charge import Charge
from otel_pipeline.ledger.focus_columns import COLUMNS, COSTS
from otel_pipeline.ledger.money import NANO, Money, formatted, split
from otel_pipeline.ledger.tape import BUCKETS

Record = dict[str, str]
"""A row of the file; an empty text is null."""
SAME: Final = tuple(
    column
    for column in COLUMNS
    if column
    not in {
        *COSTS, "PricingQuantity", "AllocatedMethodDetails", "ChargeClass", "ChargeDescription", "BillingPeriodStart",
        "BillingPeriodEnd", "x_OriginBilledCost", "x_OriginPricingQuantity", "x_PriceId",
    }
)  # fmt: skip
"""What tells whose cost a row is, and when: a correction and the rows that it corrects have the same."""
OF_THE_ORIGIN: Final = frozenset({"AllocatedMethodDetails", "x_OriginBilledCost", "x_OriginPricingQuantity"})
"""What a correction does not say: it is no part of a whole."""
RATIO_PARTS: Final = 10**12
"""Ratios have twelve decimals and add up to exactly 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the operator says of the account that pays, and of who is paid."""

    id: str
    name: str = ""
    provider: str
    """Who sells: in ProviderName and ServiceProviderName."""
    host: str = ""
    """Whose machines it runs on, if not the provider's."""
    invoice_issuer: str = ""
    service: str = "GPU"
    service_category: str = "Compute"
    service_subcategory: str = "Virtual Machines"
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What is known of a span beyond its cost: name, and tags such as tenant, workflow, job."""

    name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


NO_LABELS: Final = Labels()


def allocated(
    account: Account,
    allocation: Allocation,
    *,
    mode: Mode,
    labels: Mapping[str, Labels] | None = None,
    tags: Mapping[str, str] | None = None,
    price_id: str = "",
) -> Iterator[Record]:
    """A record for each span and each bucket that cost something, by period; `labels` by span id, `tags` of the GPU."""
    by_period = _parts(allocation)
    cuts = allocation.cuts.tolist()
    for period, total in enumerate(allocation.totals):
        parts = by_period.get(period, [])
        amounts = [nano for nano, _, _ in parts]
        quantity = allocation.paid_by_period[period] if parts else 0
        quantities = split(quantity, amounts)
        ratios = split(RATIO_PARTS if parts else 0, amounts)
        base = _base(account, allocation.currency, cuts[period], cuts[period + 1])
        base |= {
            "AllocatedMethodId": f"otel-pipeline-{mode}",
            "ResourceId": allocation.gpu,
            "ResourceName": allocation.gpu,
            "ResourceType": "GPU",
            "Tags": _json(tags or {}),
            "PricingUnit": "Seconds",
            "x_OriginBilledCost": formatted(total),
            "x_OriginPricingQuantity": formatted(quantity),
            "x_PriceId": price_id,
        }
        for (nano, row, bucket), amount, ratio in zip(parts, quantities, ratios, strict=True):
            yield (
                base
                | _costs(nano)
                | {"PricingQuantity": formatted(amount)}
                | _ratio(ratio, amount)
                | (_span(allocation, row, labels or {}) if row >= 0 else _unallocated(bucket))
            )


def corrected(before: Iterable[Record], after: Iterable[Record], billing_ns: int) -> Iterator[Record]:
    """What must be added to the rows `before` to get those `after`, as corrections that are billed in the month of
    `billing_ns`. Rows are the same if all but amounts, prices and descriptions is.
    """
    rows: dict[tuple[str, ...], Record] = {}
    sums: dict[tuple[str, ...], list[int]] = {}
    for sign, records in ((-1, before), (1, after)):
        for record in records:
            key = tuple(record.get(column, "") for column in SAME)
            rows[key] = record
            one = sums.setdefault(key, [0, 0])
            one[0] += sign * _nano(record["BilledCost"])
            one[1] += sign * _nano(record.get("PricingQuantity", ""))
    billed = _billing(billing_ns)
    for key, (nano, quantity) in sums.items():
        if nano or quantity:
            yield (
                {column: text for column, text in rows[key].items() if column not in OF_THE_ORIGIN}
                | _costs(nano)
                | billed
                | {
                    "ChargeClass": "Correction",
                    "ChargeDescription": f"Correction: {rows[key]['ChargeDescription']}",
                    "PricingQuantity": formatted(quantity),
                }
            )


def called(
    account: Account,
    charge: Charge,
    start_ns: int,
    end_ns: int,
    *,
    span: str,
    quantity_nano: int,
    unit: str,
    labels: Labels,
) -> Record:
    """The record of one paid call; `quantity_nano` is in 1e-9 of the unit, such as Images, Seconds or Tokens.

    ValueError if the call has no price: what is unknown must not stand in a bill.
    """
    if charge.nano is None:
        raise ValueError(f"a call without a price has no place in a bill: {charge.reason}")
    return (
        _base(account, charge.currency, start_ns, end_ns)
        | _costs(charge.nano)
        | {
            "ChargeDescription": labels.name,
            "PricingQuantity": formatted(quantity_nano),
            "PricingUnit": unit,
            "ResourceId": span,
            "ResourceName": labels.name,
            "ResourceType": "Call",
            "Tags": _json(labels.tags),
            "x_PriceId": charge.price_id,
        }
    )


def origin(
    account: Account,
    money: Money,
    start_ns: int,
    end_ns: int,
    *,
    gpu: str,
    paid_ns: int,
    tags: Mapping[str, str] | None = None,
    price_id: str = "",
) -> Record:
    """What a GPU cost in a period, whole: for a file that tells no parts."""
    return (
        _base(account, money.currency, start_ns, end_ns)
        | _costs(money.nano)
        | {
            "ChargeDescription": "GPU time",
            "PricingQuantity": formatted(paid_ns),
            "PricingUnit": "Seconds",
            "ResourceId": gpu,
            "ResourceName": gpu,
            "ResourceType": "GPU",
            "Tags": _json(tags or {}),
            "x_PriceId": price_id,
        }
    )


def write(records: Iterable[Record], file: IO[str]) -> int:
    """Writes the records as CSV with a head; returns how many."""
    file.write(csv_line(COLUMNS))
    count = 0
    for count, record in enumerate(records, 1):  # noqa: B007  the count is the answer
        file.write(csv_line([record.get(column, "") for column in COLUMNS]))
    return count


def _parts(allocation: Allocation) -> dict[int, list[tuple[int, int, int]]]:
    """n$, row (-1 for none) and bucket (-1 for none) of all that cost something, by period."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    for row, period, nano in zip(
        allocation.row.tolist(), allocation.period.tolist(), allocation.nano.tolist(), strict=True
    ):
        if nano:
            found.setdefault(period, []).append((nano, row, -1))
    for period, amounts in enumerate(allocation.buckets):
        found.setdefault(period, []).extend((nano, -1, bucket) for bucket, nano in enumerate(amounts) if nano)
    return found


def _base(account: Account, currency: str, start_ns: int, end_ns: int) -> Record:
    return {
        "BillingAccountId": account.id,
        "BillingAccountName": account.name,
        "BillingCurrency": currency,
        **_billing(start_ns),
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _date(start_ns),
        "ChargePeriodEnd": _date(end_ns),
        "InvoiceIssuerName": account.invoice_issuer or account.provider,
        "ProviderName": account.provider,
        "PublisherName": account.provider,
        "ServiceProviderName": account.provider,
        "HostProviderName": account.host or account.provider,
        "RegionId": account.region,
        "ServiceCategory": account.service_category,
        "ServiceName": account.service,
        "ServiceSubcategory": account.service_subcategory,
    }


def month_ns(at_ns: int) -> int:
    """When the month (UTC) of a time begins."""
    month = datetime.fromtimestamp(at_ns // NANO, tz=UTC).replace(day=1, hour=0, minute=0, second=0)
    return int(month.timestamp()) * NANO


def _billing(at_ns: int) -> Record:
    """Its month is the billing period."""
    start = month_ns(at_ns)
    return {"BillingPeriodStart": _date(start), "BillingPeriodEnd": _date(month_ns(start + 32 * 86_400 * NANO))}


def _nano(text: str) -> int:
    """The reverse of `formatted`; 0 of an empty text."""
    return int(text.replace(".", "")) if text else 0


def _date(at_ns: int) -> str:
    """UTC with as many decimals as are needed."""
    seconds, rest = divmod(at_ns, NANO)
    text = datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}{f'.{rest:09d}'.rstrip('0') if rest else ''}Z"


def _costs(nano: int) -> Record:
    """The same in all four: there are no discounts that the price does not have in it."""
    return dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), formatted(nano))


def _ratio(ratio: int, amount_ns: int) -> Record:
    element = {
        "AllocatedRatio": _Number(ratio, RATIO_PARTS),
        "UsageUnit": "Seconds",
        "UsageQuantity": _Number(amount_ns, NANO),
    }
    told = ", ".join(
        f'"{key}": {json.dumps(value) if isinstance(value, str) else value}' for key, value in element.items()
    )
    return {"AllocatedMethodDetails": f'{{"Elements": [{{{told}}}]}}'}


@dataclass(frozen=True, slots=True)
class _Number:
    """A decimal that JSON gets as it is, without a detour by binary floats."""

    parts: int
    whole: int

    def __str__(self) -> str:
        digits = len(str(self.whole)) - 1
        return f"{self.parts // self.whole}.{self.parts % self.whole:0{digits}d}"


def _span(allocation: Allocation, row: int, labels: Mapping[str, Labels]) -> Record:
    table = allocation.table
    span = table.spans[int(table.span[row])]
    own = labels.get(span, NO_LABELS)
    outcome, attempt, job = table.outcome[row], int(table.attempt[row]), table.job[row]
    tags = {"attempt": str(attempt), "outcome": outcome} | ({"job": job} if job else {}) | dict(own.tags)
    return {
        "AllocatedResourceId": span,
        "AllocatedResourceName": own.name,
        "AllocatedTags": _json(tags),
        "ChargeDescription": f"GPU time of {own.name or span}",
        "x_Attempt": str(attempt),
        "x_Outcome": outcome,
    }


def _unallocated(bucket: int) -> Record:
    return {"ChargeDescription": f"GPU time of nobody: {BUCKETS[bucket]}", "x_Bucket": BUCKETS[bucket]}


def _json(tags: Mapping[str, str]) -> str:
    return json.dumps(dict(sorted(tags.items())), ensure_ascii=False)
