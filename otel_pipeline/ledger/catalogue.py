"""What is known of spans, by the numbers that tell them apart (`wire/_likeness_py.py`): arrays that grow.

A batch takes what it needs by its rows' numbers; Python looks at what is new only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

import numpy as np

from otel_pipeline.ledger.charge import Status
from otel_pipeline.ledger.offers import Route
from otel_pipeline.ledger.plans import PlanTable
from otel_pipeline.ledger.records import VERDICT, all_kept
from otel_pipeline.wire.batch import ABSENT

if TYPE_CHECKING:
    from otel_pipeline.ledger.offers import Known, Verdict
    from otel_pipeline.ledger.plans import Ints, Plan

MATTERS, IS_CALL, CHARGED, ON_GPU, IS_REPORTED, CHANGES = (1 << bit for bit in range(6))
"""Flags: the ledger wants to know of it; it may be charged directly; it is; it claims GPUs; by what its sender says;
its price has changed at some time.
"""
NO_MONEY: Final = -1
UNKNOWN_MONEY: Final = -2
"""In place of a currency: nothing is charged; what is charged is not known."""


class Catalogue:
    """By number: flags, the model of a call (0: none), the set of GPUs (-1: none) and how many they are, and the first
    of the offers. By offer: its verdict, and its plan (-1: none). By verdict: its currency, and whether it is final.
    """

    def __init__(self, numbers_max: int) -> None:
        self._numbers_max = numbers_max
        self.currencies: dict[str, int] = {}
        """Their numbers: others keep these over batches, so they are not forgotten."""
        self.forget()

    def forget(self) -> None:
        """Know nothing, but for currencies."""
        self.known: list[Known] = []
        self.flags, self.models, self.gpus, self.sizes, self.offers = np.zeros((5, self._numbers_max), np.int64)
        self._from_ns: list[list[int]] = []
        self.plans = PlanTable()
        self.verdicts: list[Verdict] = []
        self.told: list[tuple[str, ...]] = []
        """The same as texts, in the order of VERDICT."""
        self.verdict_of, self.plan_of = np.full((2, 64), ABSENT, np.int64)
        self.currency_of = np.full(64, NO_MONEY, np.int64)
        self.is_final = np.zeros(64, np.bool_)
        # The last place of each stays empty: ABSENT leads there.
        self._offers = 0
        self._any_changes = False
        self._plan_numbers: dict[int, int] = {}
        self._verdict_numbers: dict[Verdict, int] = {}
        self._gpu_sets: dict[tuple[str, ...], int] = {}

    def learn(self, known: Known) -> None:
        """Take what is known of the next number."""
        number = len(self.known)
        self.known.append(known)
        fact, route = known.fact, known.route
        flags = MATTERS * known.matters | IS_CALL * known.is_call | CHANGES * (len(known.offers) > 1)
        flags |= {Route.NOTHING: 0, Route.GPU: ON_GPU, Route.CALL: CHARGED}.get(route, CHARGED | IS_REPORTED)
        self.flags[number] = flags
        self.models[number] = crc32(fact.model.encode(errors="replace")) + 1 if fact.model else 0
        self.gpus[number] = ABSENT
        if route is Route.GPU:
            self.gpus[number] = self._gpu_sets.setdefault(tuple(sorted(fact.gpus)), len(self._gpu_sets))
            self.sizes[number] = len(fact.gpus)
        self.offers[number] = self._offers if known.offers else ABSENT
        self._any_changes = self._any_changes or len(known.offers) > 1
        self._from_ns.append([offer.from_ns for offer in known.offers])
        for offer in known.offers:
            if self._offers >= len(self.verdict_of) - 1:
                self.verdict_of, self.plan_of = (_longer(each) for each in (self.verdict_of, self.plan_of))
            self.verdict_of[self._offers] = self.verdict_number(offer.verdict)
            self.plan_of[self._offers] = ABSENT if offer.plan is None else self._plan_number(offer.plan)
            self._offers += 1

    def offers_at(self, numbers: Ints, times_ns: Ints) -> Ints:
        """The offer of each number that holds at a time; ABSENT if it has none."""
        offers = self.offers.take(numbers)
        if not self._any_changes:
            return offers
        changing = np.flatnonzero(self.flags[numbers] & CHANGES)
        for number in np.unique(numbers[changing]).tolist():
            mine = changing[numbers[changing] == number]
            before = np.searchsorted(self._from_ns[number], times_ns[mine], side="right")
            offers[mine] += np.maximum(before - 1, 0)
        return offers

    def verdict_number(self, verdict: Verdict) -> int:
        """The place of a verdict."""
        found = self._verdict_numbers.get(verdict)
        if found is None:
            found = self._verdict_numbers[verdict] = len(self.verdicts)
            self.verdicts.append(verdict)
            self.told.append(tuple(all_kept([str(getattr(verdict, name)) for name in VERDICT])))
            if found >= len(self.currency_of) - 1:
                self.currency_of = _longer(self.currency_of)
                self.is_final = np.concatenate((self.is_final, np.zeros(len(self.is_final), np.bool_)))
            unpriced = verdict.status is Status.UNPRICED
            self.is_final[found] = verdict.status is Status.FINAL
            self.currency_of[found] = UNKNOWN_MONEY if unpriced else self._currency_number(verdict.currency)
        return found

    @property
    def is_full(self) -> bool:
        """Whether it is time to forget: reasons and reported currencies are foreign texts, too."""
        return len(self.verdicts) > self._numbers_max

    def _plan_number(self, plan: Plan) -> int:
        found = self._plan_numbers.get(id(plan))
        if found is None:
            found = self._plan_numbers[id(plan)] = self.plans.add(plan)
        return found

    def _currency_number(self, currency: str) -> int:
        return self.currencies.setdefault(currency, len(self.currencies))


def _longer(numbers: Ints) -> Ints:
    return np.concatenate((numbers, np.full(len(numbers), ABSENT, np.int64)))
