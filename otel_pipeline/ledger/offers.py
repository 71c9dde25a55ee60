"""What is known of spans that are alike: their fact for the ledger, how they are charged, and at which prices.

Asked once per distinct combination of values, and remembered over batches. How a span is charged, the first that
holds:

1. it is a call, and its sender says what it cost: that;
2. it is a call, and there is a price for it: quantities x price. A stage that ran on a GPU of this host is no call,
   unless it names a provider of its own or there is a price for what it names;
3. it used GPUs: its time on them x their price, provisionally, for how they are shared is not known yet;
4. it is a call without a price: nothing, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from otel_pipeline.ledger.charge import Status
from otel_pipeline.ledger.plans import Plan, plan_of
from otel_pipeline.ledger.price_book import Subject
from otel_pipeline.ledger.price_rows import ALWAYS_NS, CALL_BASES, FOREVER_NS, OWN_GPU_BASES
from otel_pipeline.ledger.records import KINDS, Fact, fact_text
from otel_pipeline.ledger.shares import UNTOLD
from otel_pipeline.limits import COST_KNOWN_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_pipeline.ledger.price_book import PriceBook
    from otel_pipeline.ledger.price_rows import Row

FAILED, ON_GPU, CALL, REPORTED = (1 << bit for bit in range(4))
"""Bits of a span's flags, above its kind."""
FLAGS_END: Final = len(KINDS) << 4
ATTRIBUTE: Final = "attributes."
"""Before the key of an attribute that prices look at."""
DIMENSION: Final = "dimension."
SEPARATOR: Final = "\x1f"
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


@dataclass
class Alike:
    """What is known of spans of one place, by their values; the first value is not looked at."""

    offers: Offers
    place: Place
    names: tuple[str, ...]
    _known: dict[tuple[str, ...], Known] = field(default_factory=dict)

    def known(self, values: tuple[str, ...]) -> Known:
        """What is known of spans with these values."""
        found = self._known.get(values)
        if found is None:
            found = self._known[values] = self.offers.find(self.place, dict(zip(self.names, values[1:], strict=True)))
        return found

    def forget(self) -> None:
        """Ask anew from now on."""
        self._known.clear()


@dataclass
class Offers:
    """The prices, and what was asked for lately. `dimensions` are attribute keys, in the order of a fact."""

    book: PriceBook
    dimensions: Sequence[str] = ()
    _alike: dict[tuple[Place, tuple[str, ...]], Alike] = field(default_factory=dict)
    _found: int = 0
    _plans: dict[tuple[int, str, tuple[int, int], bool], Plan] = field(default_factory=dict)

    def alike(self, place: Place, names: tuple[str, ...]) -> Alike:
        """For spans of a place that tell these names; one name is `flags`: a kind, with bits."""
        key = (place, names)
        found = self._alike.get(key)
        if found is None:
            if len(self._alike) >= COST_KNOWN_MAX:
                self._alike.clear()
            found = self._alike[key] = Alike(self, place, names)
        return found

    def find(self, place: Place, told: Mapping[str, str]) -> Known:
        """Ask anew; remembered by whoever asks. Beyond a bound all is forgotten."""
        self._found += 1
        if self._found > COST_KNOWN_MAX:
            self._found = 0
            for each in self._alike.values():
                each.forget()
        flags = int(told["flags"])
        route, offers = self._route(place, told, flags)
        on_gpu = route is Route.GPU
        provider = place.provider if on_gpu else told.get("provider") or told.get("backend", "")
        dimensions = ((key, told.get(f"{DIMENSION}{key}", "")) for key in self.dimensions)
        attempt = told.get("attempt", "")
        fact = Fact(
            service=place.service,
            host=place.host,
            gpus=tuple(filter(None, told.get("gpus", "").split(SEPARATOR))),
            gpu_name=told.get("gpu_name", ""),
            region=place.region,
            provider=provider,
            model=told.get("model", ""),
            backend=told.get("backend", ""),
            workflow=told.get("workflow", ""),
            tier=told.get("tier", ""),
            job_type=told.get("job_type", ""),
            attempt=max(int(attempt), 1) if attempt.isascii() and attempt.isdigit() and len(attempt) < 10 else 1,
            outcome=told.get("outcome", ""),
            failed=bool(flags & FAILED),
            share=int(told.get("share") or UNTOLD),
            kind=KINDS[flags >> 4],
            claims=on_gpu,
            dimensions=tuple((name, value) for name, value in dimensions if value),
        )
        return Known(fact, fact_text(fact), route, offers)

    def _route(self, place: Place, told: Mapping[str, str], flags: int) -> tuple[Route, tuple[Offer, ...]]:
        if flags & CALL:
            offers = self._of_call(place, told, failed=bool(flags & FAILED))
            if flags & REPORTED:
                return Route.REPORTED, offers
            if told.get("provider") or not flags & ON_GPU or any(offer.plan for offer in offers):
                return Route.CALL, offers
        if flags & ON_GPU:
            return Route.GPU, self._of_gpu(place, told)
        return Route.NOTHING, ()

    def _of_call(self, place: Place, told: Mapping[str, str], *, failed: bool) -> tuple[Offer, ...]:
        provider = told.get("provider") or told.get("backend", "")
        asked = Subject(
            provider, told.get("model", ""), "", place.region, place.host, place.pod, _attributes(place, told)
        )
        sides = _whole(told.get("width", "")), _whole(told.get("height", ""))
        offers = []
        for from_ns, found in self.book.steps(asked, ALWAYS_NS, FOREVER_NS, CALL_BASES):
            resolution = told.get("resolution", "")
            plan = self._plan(found.row, resolution, sides, failed=failed) if found.row else None
            offers.append(_offer(from_ns, plan, found.reason, NO_PRICE))
        return tuple(offers)

    def _of_gpu(self, place: Place, told: Mapping[str, str]) -> tuple[Offer, ...]:
        name = told.get("gpu_name", "")
        if not told.get("gpus"):
            return (_offer(ALWAYS_NS, None, "it is not known which GPU of the host was used", NO_GPU),)
        if ", " in name:
            return (_offer(ALWAYS_NS, None, "GPUs of several models are priced in the ledger only", NO_GPU),)
        asked = Subject(
            place.provider,
            told.get("model", ""),
            name,
            place.region,
            place.host,
            place.pod,
            _attributes(place, told),
        )
        offers = []
        for from_ns, found in self.book.steps(asked, ALWAYS_NS, FOREVER_NS, OWN_GPU_BASES):
            plan = self._plan(found.row, "", (0, 0), failed=False) if found.row else None
            offers.append(_offer(from_ns, plan, found.reason, NO_PRICE))
        return tuple(offers)

    def _plan(self, row: Row, resolution: str, sides: tuple[int, int], *, failed: bool) -> Plan:
        """One object for equal plans: a batch asks which are the same."""
        key = (id(row), resolution, sides, failed)
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= COST_KNOWN_MAX:
                self._plans.clear()
            found = self._plans[key] = plan_of(row, resolution, *sides, failed=failed)
        return found


def _offer(from_ns: int, plan: Plan | None, reason: str, why: str) -> Offer:
    if plan is None:
        return Offer(from_ns, None, _verdict(Status.UNPRICED, "", "", "", (reason, why)))
    return Offer(from_ns, plan, _verdict(plan.status, plan.row.currency, plan.row.basis, plan.row.id, ("", "")))


@lru_cache(COST_KNOWN_MAX)
def _verdict(status: Status, currency: str, basis: str, price_id: str, reason: tuple[str, str]) -> Verdict:
    """One object for equal verdicts: a batch asks which are the same."""
    return Verdict(status, currency, basis, price_id, *reason)


def _attributes(place: Place, told: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    own = {name.removeprefix(ATTRIBUTE): value for name, value in told.items() if name.startswith(ATTRIBUTE) and value}
    return tuple(sorted({**dict(place.attributes), **own}.items()))


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
