"""What is known of spans that are alike: their fact for the ledger, how they are charged, and at which prices.

Asked once for each distinct combination of values; `catalogue.py` remembers it. How a span is charged, the first that
holds:

1. it is a call, and its sender says what it cost: that;
2. it is a call, and there is a price for it: quantities x price. A stage that ran on a GPU of this host is no call,
   unless it names a provider of its own or there is a price for what it names;
3. it used GPUs: its time on them x their price, provisionally, for how they are shared is not known yet;
4. it is a call without a price: nothing, with the reason.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from otel_pipeline.ledger import spans
from otel_pipeline.ledger.charge import Status
from otel_pipeline.ledger.plans import Plan, plan_of
from otel_pipeline.ledger.price_book import Subject
from otel_pipeline.ledger.price_rows import ALWAYS_NS, CALL_BASES, FOREVER_NS, OWN_GPU_BASES
from otel_pipeline.ledger.records import KINDS, Fact, fact_text
from otel_pipeline.limits import COST_KNOWN_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline.ledger.price_book import PriceBook
    from otel_pipeline.ledger.price_rows import Row
    from otel_pipeline.ledger.said import Said

NO_PRICE, NO_QUANTITY, NO_GPU = "no_price", "no_quantity", "unknown_gpu"


class Route(IntEnum):
    """How a span is charged."""

    NOTHING = 0
    REPORTED = 1
    CALL = 2
    GPU = 3


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process ran, by its resource."""

    service: str = ""
    host: str = ""
    provider: str = ""
    region: str = ""
    pod: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    """Those that some price looks at."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What stands on a span about its cost, besides the amount."""

    status: Status
    currency: str = ""
    basis: str = ""
    price_id: str = ""
    reason: str = ""
    """In words."""
    why: str = ""
    """The same as one of few words."""
    asked: str = ""
    """By what the price of a call was looked up besides the fact, for `ledger reprice`: a JSON object."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A price from a time on, or why there is none."""

    from_ns: int
    plan: Plan | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of spans that are alike."""

    fact: Fact
    text: str
    """The fact as it stands in records."""
    route: Route
    offers: tuple[Offer, ...] = ()
    """By time. On the route REPORTED those that the reported cost is compared with."""
    is_call: bool = False
    """Whether it may be charged directly, whatever became of that."""
    matters: bool = False
    """Whether the ledger wants to know of it."""


@dataclass
class Offers:
    """The prices. `dimensions` are attribute keys, in the order of a fact."""

    book: PriceBook
    dimensions: Sequence[str] = ()
    _plans: dict[tuple[int, str, tuple[int, int], bool], Plan] = field(default_factory=dict)

    def find(self, place: Place, said: Said) -> Known:
        """What is known of spans of a place that say the same."""
        route, offers = self._route(place, said)
        on_gpu = route is Route.GPU
        texts = said.texts
        attempt = texts.get(spans.ATTEMPT, "")
        fact = Fact(
            service=place.service,
            host=place.host,
            gpus=said.gpus,
            gpu_name=said.gpu_name,
            region=place.region,
            provider=place.provider if on_gpu else said.provider or texts.get(spans.BACKEND, ""),
            model=texts.get(spans.MODEL, ""),
            backend=texts.get(spans.BACKEND, ""),
            workflow=texts.get(spans.WORKFLOW, ""),
            tier=texts.get(spans.TIER, ""),
            job_type=texts.get(spans.JOB_TYPE, ""),
            attempt=max(_whole(attempt), 1),
            outcome=texts.get(spans.OUTCOME, ""),
            failed=said.failed,
            share=said.share,
            kind=KINDS[said.kind],
            claims=on_gpu,
            dimensions=tuple((key, said.dimensions[key]) for key in self.dimensions if said.dimensions.get(key)),
        )
        return Known(fact, fact_text(fact), route, offers, is_call=said.is_call, matters=_matters(said))

    def _route(self, place: Place, said: Said) -> tuple[Route, tuple[Offer, ...]]:
        if said.is_call:
            offers = self._of_call(place, said)
            if said.reported:
                return Route.REPORTED, offers
            if said.provider or not said.is_on_gpu or any(offer.plan for offer in offers):
                return Route.CALL, offers
        if said.is_on_gpu:
            return Route.GPU, self._of_gpu(place, said)
        return Route.NOTHING, ()

    def _of_call(self, place: Place, said: Said) -> tuple[Offer, ...]:
        texts = said.texts
        provider = said.provider or texts.get(spans.BACKEND, "")
        model, attributes = texts.get(spans.MODEL, ""), self._attributes(place, said)
        asked = Subject(provider, model, "", place.region, place.host, place.pod, attributes)
        sides = _whole(texts.get(spans.WIDTH, "")), _whole(texts.get(spans.HEIGHT, ""))
        kept = self._asked(asked, texts.get(spans.RESOLUTION, ""), sides)
        offers = []
        for from_ns, found in self.book.steps(asked, ALWAYS_NS, FOREVER_NS, CALL_BASES):
            resolution = texts.get(spans.RESOLUTION, "")
            plan = self._plan(found.row, resolution, sides, failed=said.failed) if found.row else None
            offers.append(_offer(from_ns, plan, found.reason, NO_PRICE, kept))
        return tuple(offers)

    def _asked(self, asked: Subject, resolution: str, sides: tuple[int, int]) -> str:
        """By what a price was looked up besides the fact: all that prices may look at, so that nothing is left open."""
        told: dict[str, Any] = {"resolution": resolution, "pod": asked.pod, "width": sides[0], "height": sides[1]}
        told = {name: value for name, value in told.items() if value}
        attributes = dict.fromkeys(sorted(self.book.attribute_keys), "") | dict(asked.attributes)
        return json.dumps({"attributes": attributes} | told)

    def _of_gpu(self, place: Place, said: Said) -> tuple[Offer, ...]:
        name, model = said.gpu_name, said.texts.get(spans.MODEL, "")
        if not said.gpus:
            return (_offer(ALWAYS_NS, None, "it is not known which GPU of the host was used", NO_GPU),)
        if ", " in name:
            return (_offer(ALWAYS_NS, None, "GPUs of several models are priced in the ledger only", NO_GPU),)
        attributes = self._attributes(place, said)
        asked = Subject(place.provider, model, name, place.region, place.host, place.pod, attributes)
        offers = []
        for from_ns, found in self.book.steps(asked, ALWAYS_NS, FOREVER_NS, OWN_GPU_BASES):
            plan = self._plan(found.row, "", (0, 0), failed=False) if found.row else None
            offers.append(_offer(from_ns, plan, found.reason, NO_PRICE))
        return tuple(offers)

    def _attributes(self, place: Place, said: Said) -> tuple[tuple[str, str], ...]:
        own = {key: said.texts[key] for key in self.book.attribute_keys & said.texts.keys()}
        return tuple(sorted({**dict(place.attributes), **own}.items()))

    def _plan(self, row: Row, resolution: str, sides: tuple[int, int], *, failed: bool) -> Plan:
        """One object for equal plans: a batch asks which are the same."""
        key = (id(row), resolution, sides, failed)
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= COST_KNOWN_MAX:
                self._plans.clear()
            found = self._plans[key] = plan_of(row, resolution, *sides, failed=failed)
        return found


def _offer(from_ns: int, plan: Plan | None, reason: str, why: str, asked: str = "") -> Offer:
    if plan is None:
        return Offer(from_ns, None, Verdict(Status.UNPRICED, "", "", "", reason, why, asked))
    told = (plan.row.currency, plan.row.basis, plan.row.id)
    return Offer(from_ns, plan, Verdict(plan.status, *told, asked=asked))


def _matters(said: Said) -> bool:
    """Whether the ledger wants to know of such spans."""
    return said.kind != spans.OTHER_KIND or said.is_on_gpu or spans.JOB_ID in said.shown


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
