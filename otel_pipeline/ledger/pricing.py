"""What the spans of a batch cost: where what is known of them meets what they used. Columns in, columns out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from otel_pipeline.ledger.charge import Status
from otel_pipeline.ledger.offers import NO_QUANTITY, Known, Offer, Route, Verdict
from otel_pipeline.ledger.plans import UNKNOWN, amounts, why_not
from otel_pipeline.ledger.price_rows import Basis
from otel_pipeline.wire.batch import ABSENT, Strings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline.ledger.spans import Reported
    from otel_pipeline.wire.batch import Ints, Mask


@dataclass(frozen=True, slots=True)
class Looked:
    """What a batch says, a row each."""

    kind: Ints
    called: Mask
    on_gpu: Mask
    gpus: Strings | None
    chosen: Mask
    """The rows that the ledger wants; the others are passed over."""
    used: dict[str, Ints]
    """By the names of quantities."""
    told: Reported | None
    start_ns: Ints
    end_ns: Ints


@dataclass(slots=True)
class Priced:
    """What some rows of a batch cost: columns with an entry for each of `rows`."""

    rows: Ints
    group: Ints
    """Which of the known ones a row is."""
    looked: Looked
    route: Ints
    verdict: Ints
    """Place in `verdicts`; ABSENT where nothing is charged."""
    nano: Ints
    delta: Ints
    """What was reported above what the price book says; 0 where the two are not to be compared."""
    verdicts: list[Verdict] = field(default_factory=list)
    _columns: dict[str, Strings] = field(default_factory=dict)

    def having(self, *statuses: Status) -> Mask:
        """The rows of these statuses."""
        table = np.array([*(one.status in statuses for one in self.verdicts), False], np.bool_)
        found: Mask = table[self.verdict]
        return found

    def column(self, name: str) -> Strings:
        """One field of the verdicts; what is empty is absent."""
        found = self._columns.get(name)
        if found is None:
            values = [str(getattr(one, name)) for one in self.verdicts]
            codes = self.verdict.astype(np.int32)
            if not all(values):
                table = np.array([*(place if text else ABSENT for place, text in enumerate(values)), ABSENT], np.int32)
                codes = table[codes]
            found = self._columns[name] = Strings(codes, values)
        return found

    @property
    def calls(self) -> Mask:
        """The rows that are charged as calls."""
        found: Mask = (self.route == Route.CALL) | (self.route == Route.REPORTED)
        return found

    def used(self, places: Ints) -> tuple[tuple[str, ...], Ints]:
        """What some of the rows used: names of quantities, and a column each."""
        rows = self.rows[places]
        columns = [column[rows] for column in self.looked.used.values()]
        table = np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0), np.int64)
        return tuple(self.looked.used), table

    def reported(self) -> tuple[Ints, Strings]:
        """What the senders of calls said these cost: n$ or UNKNOWN, and the currency."""
        told, rows = self.looked.told, self.rows
        if told is None:
            return np.full(len(rows), UNKNOWN), Strings(np.full(len(rows), ABSENT, np.int32), [])
        mine = self.calls & (told.nano[rows] >= 0)
        codes = np.where(mine, told.currency.codes[rows], ABSENT).astype(np.int32)
        return np.where(mine, told.nano[rows], UNKNOWN), Strings(codes, told.currency.values)


def price(known: Sequence[Known], group: Ints, rows: Ints, looked: Looked) -> Priced:
    """What each of `rows` costs; row i is as `known[group[i]]`."""
    offers = [offer for one in known for offer in one.offers]
    offer = _offer_of(known, group, looked.start_ns[rows])
    route = np.array([one.route for one in known], np.int64)[group]
    nothing = np.zeros(len(rows), np.int64)
    distinct = {id(each.verdict): each.verdict for each in offers}
    places = {number: place for place, number in enumerate(distinct)}
    verdict_of = np.array([*(places[id(each.verdict)] for each in offers), ABSENT], np.int64)
    verdict = np.where(route > Route.REPORTED, verdict_of[offer], ABSENT)
    priced = Priced(rows, group, looked, route, verdict, nothing, nothing.copy(), list(distinct.values()))
    planned = np.array([*(each.plan is not None for each in offers), False], np.bool_)
    asked = np.flatnonzero((route != Route.NOTHING) & planned[offer])
    if len(asked):
        plans = {id(each.plan): each.plan for each in offers if each.plan is not None}
        numbers = {key: number for number, key in enumerate(plans)}
        plan_of = np.array([numbers.get(id(each.plan), ABSENT) for each in offers], np.int64)
        fields, used = priced.used(asked)
        priced.nano[asked], good = amounts(list(plans.values()), plan_of[offer[asked]], used, fields)
        bad = asked[~good & (route[asked] != Route.REPORTED)]
        if len(bad):
            _tell_why(priced, bad, offers, offer[bad])
    if looked.told is not None:
        _take_reported(priced, looked.told, offers, offer)
    return priced


def _offer_of(known: Sequence[Known], group: Ints, start_ns: Ints) -> Ints:
    """The place of each row's offer among all offers, the one that held when it started."""
    sizes = np.array([len(one.offers) for one in known], np.int64)
    offer: Ints = (np.cumsum(sizes) - sizes)[group]
    for number in np.flatnonzero(sizes > 1).tolist():
        mine = np.flatnonzero(group == number)
        times = np.array([each.from_ns for each in known[number].offers], np.int64)
        offer[mine] += np.searchsorted(times, start_ns[mine], side="right") - 1
    offer[sizes[group] == 0] = ABSENT
    return offer


def _tell_why(priced: Priced, bad: Ints, offers: Sequence[Offer], offer: Ints) -> None:
    """Verdicts of rows whose quantities give no amount: one for each offer and set of known quantities."""
    fields, used = priced.used(bad)
    known = (used > 0) @ (1 << np.arange(len(fields)))
    _, example, which = np.unique(np.stack((offer, known)), axis=1, return_index=True, return_inverse=True)
    first = len(priced.verdicts)
    for place in example.tolist():
        plan = offers[offer[place]].plan
        if plan is not None:
            reason = why_not(plan, dict(zip(fields, used[place].tolist(), strict=True)))
            row = plan.row
            priced.verdicts.append(Verdict(Status.UNPRICED, "", row.basis, row.id, reason, NO_QUANTITY))
    priced.verdict[bad] = first + which.reshape(-1)


def _take_reported(priced: Priced, told: Reported, offers: Sequence[Offer], offer: Ints) -> None:
    """Charge what the senders say where they say it, and keep how far the price book is from that."""
    mine = np.flatnonzero(priced.route == Route.REPORTED)
    if not len(mine):
        return
    rows = priced.rows[mine]
    nano, currency = told.nano[rows], told.currency.codes[rows]
    names = told.currency.values
    distinct, which = np.unique(currency * 2 + told.by_provider[rows], return_inverse=True)
    booked = np.array([each.verdict.currency for each in offers] + [""])[offer[mine]]
    same = (booked == np.array(names)[currency]) & (priced.nano[mine] > 0)
    priced.delta[mine] = np.where(same, nano - priced.nano[mine], 0)
    priced.nano[mine] = nano
    first = len(priced.verdicts)
    for code, by_provider in (divmod(each, 2) for each in distinct.tolist()):
        source = "reported.provider" if by_provider else "reported.client"
        priced.verdicts.append(Verdict(Status.FINAL, names[code], Basis.REPORTED, source))
    priced.verdict[mine] = first + which
