"""What the spans of a batch cost: where what is known of them meets what they used. Columns in, columns out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from otel_pipeline.ledger.catalogue import CHARGED, IS_REPORTED
from otel_pipeline.ledger.charge import Status
from otel_pipeline.ledger.offers import NO_QUANTITY, Verdict
from otel_pipeline.ledger.plans import UNKNOWN, why_not
from otel_pipeline.ledger.price_rows import Basis
from otel_pipeline.wire.batch import ABSENT, Strings

if TYPE_CHECKING:
    from otel_pipeline.ledger.catalogue import Catalogue
    from otel_pipeline.ledger.spans import Reported
    from otel_pipeline.wire.batch import Ints, Mask


@dataclass(frozen=True, slots=True)
class Looked:
    """What some rows of a batch say: columns with an entry for each of `rows`.

    number: place in the catalogue; fields, used: names of quantities, and a line each, int64 (fields, rows)
    energy_mj: of the GPUs of a span in all its time; what is below it is in it
    """

    rows: Ints
    number: Ints
    start_ns: Ints
    end_ns: Ints
    fields: tuple[str, ...]
    used: Ints
    energy_mj: Ints
    told: Reported | None


@dataclass(slots=True)
class Priced:
    """What they cost.

    verdict: place in the catalogue's verdicts, ABSENT where nothing is charged; nano: the amount where there is one;
    delta: what was reported above what the price book says, 0 where the two are not to be compared; None if nothing was
    """

    catalogue: Catalogue
    looked: Looked
    verdict: Ints
    nano: Ints
    delta: Ints | None

    @property
    def money(self) -> Ints:
        """The number of each row's currency; NO_MONEY, UNKNOWN_MONEY."""
        return self.catalogue.currency_of.take(self.verdict)

    @property
    def charged(self) -> Mask:
        """The rows that are charged as calls."""
        charged: Mask = (self.catalogue.flags[self.looked.number] & CHARGED) != 0
        return charged

    def reported(self) -> tuple[Ints, Strings]:
        """What the senders of calls said these cost: n$ or UNKNOWN, and the currency."""
        told, rows = self.looked.told, self.looked.rows
        if told is None:
            return np.full(len(rows), UNKNOWN), Strings(np.full(len(rows), ABSENT, np.int32), [])
        mine = self.charged & (told.nano[rows] >= 0)
        codes = np.where(mine, told.currency.codes[rows], ABSENT).astype(np.int32)
        return np.where(mine, told.nano[rows], UNKNOWN), Strings(codes, told.currency.values)


def price(catalogue: Catalogue, looked: Looked) -> Priced:
    """What each row costs."""
    offer = catalogue.offers_at(looked.number, looked.start_ns)
    verdict, plan = catalogue.verdict_of.take(offer), catalogue.plan_of.take(offer)
    nano, known = catalogue.plans.amounts(plan, looked.used, looked.fields)
    priced = Priced(catalogue, looked, verdict, nano, None)
    if not known.all():
        bad = (~known & (plan != ABSENT) & ((catalogue.flags[looked.number] & IS_REPORTED) == 0)).nonzero()[0]
        if len(bad):
            _tell_why(priced, bad, offer[bad])
    if looked.told is not None:
        _take_reported(priced, looked.told, offer)
    return priced


def _tell_why(priced: Priced, bad: Ints, offer: Ints) -> None:
    """Verdicts of rows whose quantities give no amount: one for each offer and set of known quantities."""
    catalogue, looked = priced.catalogue, priced.looked
    used = looked.used[:, bad]
    known = (1 << np.arange(len(looked.fields))) @ (used > 0)
    _, example, which = np.unique(np.stack((offer, known)), axis=1, return_index=True, return_inverse=True)
    verdicts = []
    for place in example.tolist():
        plan = catalogue.plans.plans[catalogue.plan_of[offer[place]]]
        reason = why_not(plan, dict(zip(looked.fields, used[:, place].tolist(), strict=True)))
        asked = catalogue.verdicts[catalogue.verdict_of[offer[place]]].asked
        told = Verdict(Status.UNPRICED, "", plan.row.basis, plan.row.id, reason, NO_QUANTITY, asked)
        verdicts.append(catalogue.verdict_number(told))
    priced.verdict[bad] = np.array(verdicts, np.int64)[which.reshape(-1)]


def _take_reported(priced: Priced, told: Reported, offer: Ints) -> None:
    """Charge what the senders say where they say it, and keep how far the price book is from that."""
    catalogue = priced.catalogue
    mine = (catalogue.flags[priced.looked.number] & IS_REPORTED).nonzero()[0]
    if not len(mine):
        return
    rows = priced.looked.rows[mine]
    nano, names = told.nano[rows], told.currency.values
    distinct, which = np.unique(told.currency.codes[rows] * 2 + told.by_provider[rows], return_inverse=True)
    verdicts = []
    for code, by_provider in (divmod(each, 2) for each in distinct.tolist()):
        source = "reported.provider" if by_provider else "reported.client"
        verdicts.append(catalogue.verdict_number(Verdict(Status.FINAL, names[code], Basis.REPORTED, source)))
    verdict = np.array(verdicts, np.int64)[which]
    currency = catalogue.currency_of
    booked = currency[catalogue.verdict_of[offer[mine]]]
    same = (booked == currency[verdict]) & (priced.nano[mine] > 0)
    priced.delta = np.zeros(len(offer), np.int64)
    priced.delta[mine] = np.where(same, nano - priced.nano[mine], 0)
    priced.nano[mine] = nano
    priced.verdict[mine] = verdict
