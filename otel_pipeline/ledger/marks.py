"""What is written on spans about their cost, and what is left of them for the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from otel_pipeline.ledger import spans
from otel_pipeline.ledger.catalogue import UNKNOWN_MONEY
from otel_pipeline.ledger.money import NANO
from otel_pipeline.ledger.plans import UNKNOWN
from otel_pipeline.ledger.records import VERDICT, Spans, encode
from otel_pipeline.wire import cells
from otel_pipeline.wire.batch import ABSENT, Constants, Strings

if TYPE_CHECKING:
    from collections.abc import Set

    from otel_pipeline.ledger.pricing import Priced
    from otel_pipeline.wire.batch import Batch, Codes, Ints

AMOUNT: Final = "otel_pipeline.cost.amount"
INCLUSIVE: Final = "otel_pipeline.cost.inclusive"
CURRENCY: Final = "otel_pipeline.cost.currency"
DELTA: Final = "otel_pipeline.cost.delta"
TEXTS: Final = {f"otel_pipeline.cost.{name}": VERDICT.index(name) for name in ("status", "basis", "price_id", "reason")}
"""Attribute -> place in a verdict."""
WRITTEN: Final = (AMOUNT, INCLUSIVE, CURRENCY, DELTA, *TEXTS)
ID_CELLS: Final = [cells.TRACE_HI, cells.TRACE_LO, cells.SPAN_ID, cells.PARENT_ID]


def write(batch: Batch, priced: Priced, inclusive: tuple[Ints, Ints], having: Set[str]) -> None:
    """Set the attributes; what is not known is not set. `inclusive` is what each row of the batch costs with all below
    it, and in which currency (a number; below 0: nothing, or not known).
    """
    sums, money = inclusive
    rows, nano, own = priced.looked.rows, priced.nano, priced.money
    live, local = distinct(priced.verdict)
    columns = list(zip(*(priced.catalogue.told[number] for number in live), strict=True))
    codes = np.full(len(batch), ABSENT, np.int32)
    codes[rows] = local
    for key, place_of in TEXTS.items() if columns else ():
        texts = columns[place_of]
        if any(texts):
            table = np.array([*(place if text else ABSENT for place, text in enumerate(texts)), ABSENT], np.int32)
            batch.set(key, Constants(codes if all(texts) else table[codes], texts))
    with_sum = ((money >= 0) & batch.keep).nonzero()[0]
    shown = money.copy()
    shown[rows] = np.where(own >= 0, own, money[rows])
    if (shown >= 0).any():
        batch.set(CURRENCY, Constants(shown.astype(np.int32), list(priced.catalogue.currencies)))
    with_amount = (own >= 0).nonzero()[0]
    batch.set_rows(AMOUNT, rows[with_amount], nano[with_amount] / NANO)
    batch.set_rows(INCLUSIVE, with_sum, sums[with_sum] / NANO)
    if priced.delta is not None:
        differs = priced.delta.nonzero()[0]
        batch.set_rows(DELTA, rows[differs], priced.delta[differs] / NANO)
    if AMOUNT in having:  # from a gateway before this one, which had a price
        unpriced = np.zeros(len(batch), np.bool_)
        unpriced[rows[own == UNKNOWN_MONEY]] = True
        batch.delete(AMOUNT, unpriced)
    if INCLUSIVE in having:
        batch.delete(INCLUSIVE, money < 0)


def record(batch: Batch, priced: Priced, having: Set[str]) -> bytes:
    """The rows that matter as the ledger takes them."""
    looked, catalogue = priced.looked, priced.catalogue
    rows = looked.rows
    trace_hi, trace_lo, span, parent = batch.rows[:, ID_CELLS].take(rows, axis=0).T
    facts, fact = distinct(looked.number)
    known = [catalogue.known[number] for number in facts]
    verdicts, verdict = distinct(priced.verdict)
    nothing = Strings(np.full(len(rows), ABSENT, np.int32), [])
    job, user = (
        Strings((column := batch.strings(key)).codes[rows], column.values) if key in having else nothing
        for key in (spans.JOB_ID, spans.USER)
    )
    reported_nano, reported_currency = priced.reported()
    fields, used = looked.fields, looked.used
    charged = priced.charged
    if not charged.any():
        fields, used = (), used[:0]
    elif not charged.all():
        used = np.where(charged, used, UNKNOWN)
    spans_left = Spans(
        facts=[one.fact for one in known],
        fact=fact,
        verdicts=[catalogue.told[number] for number in verdicts],
        verdict=verdict,
        trace_hi=trace_hi,
        trace_lo=trace_lo,
        span=span,
        parent=parent,
        start_ns=looked.start_ns,
        end_ns=looked.end_ns,
        nano=priced.nano,
        reported_nano=reported_nano,
        energy_mj=looked.energy_mj,
        job=job,
        user=user,
        reported_currency=reported_currency,
        fields=fields,
        used=used,
    )
    return encode(spans_left, (), [one.text for one in known])


def distinct(numbers: Ints) -> tuple[list[int], Codes]:
    """The distinct numbers >= 0, and for each its place among them; ABSENT stays."""
    tally = np.bincount(numbers + 1, minlength=1)
    tally[0] = 0
    live = tally.nonzero()[0]
    tally[live] = np.arange(len(live))
    tally[0] = ABSENT
    return (live - 1).tolist(), tally.astype(np.int32)[numbers + 1]
