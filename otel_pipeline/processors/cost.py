"""Processor `cost`: says on each span what it costs, and leaves for the ledger what must sum.

Two things cost money. Calls of somebody else's model are priced at once, by what the span says it used. Time on GPUs is
paid by whoever used it when: that is known later, by the ledger, so a span's amount is provisional. What is called what
is in `ledger/spans.py`, at which price in `ledger/offers.py`; here they meet in columns.

In a metrics pipeline it tells the ledger which GPUs were there.
"""

from __future__ import annotations

import secrets
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

import numpy as np
from pydantic import Field

from otel_pipeline.conditions.parser import parse
from otel_pipeline.conditions.settings import SpanCondition
from otel_pipeline.contracts import Context, Settings
from otel_pipeline.exposition.label_columns import Groups, attribute_column
from otel_pipeline.exposition.names import label_text
from otel_pipeline.gpu.ingest import HOST_KEYS, hosts_of
from otel_pipeline.gpu.ingest import read as read_samples
from otel_pipeline.gpu.marks import NAME as GPU_NAME
from otel_pipeline.gpu.marks import STATUS as GPU_STATUS
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.gpu.resolve import IDS as GPU_IDS
from otel_pipeline.ledger import marks, shares, spans
from otel_pipeline.ledger.catalogue import CHARGED, IS_CALL, MATTERS, NO_MONEY, ON_GPU, UNKNOWN_MONEY, Catalogue
from otel_pipeline.ledger.money import CURRENCY, NANO
from otel_pipeline.ledger.offers import Offers, Place
from otel_pipeline.ledger.plans import UNKNOWN
from otel_pipeline.ledger.presence import Minutes
from otel_pipeline.ledger.price_file import book_of
from otel_pipeline.ledger.pricing import Looked, Priced, price
from otel_pipeline.ledger.records import encode
from otel_pipeline.ledger.said import Said, texts_of
from otel_pipeline.limits import (
    COST_DEPTH_MAX,
    COST_DISTINCT_MAX,
    COST_KNOWN_MAX,
    COST_PARENTS_MAX,
    EXPOSITION_SERIES_MAX,
    LEDGER_DIMENSIONS_MAX,
)
from otel_pipeline.wire.batch import ABSENT
from otel_pipeline.wire.kernel import kernel
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from otel_pipeline.wire.batch import Batch, Codes, Floats, Ints, Mask
    from otel_pipeline.wire.values import Value

ERROR: Final = 2
BOOK: Final = "ledger"
GPU_ENERGY: Final = "otel_pipeline.gpu.energy"
LABELS: Final = ("provider", "model", "backend", "basis", "currency")
UNPRICED_LABELS: Final = ("reason", "provider", "model", "gpu")
MORE_QUANTITIES: Final = {GPU_ENERGY: ("energy_mj", 1000)}
PLACE_KEYS: Final = ("service.name", "cloud.provider", "cloud.region", "k8s.pod.name")
"""Attributes of a resource that a place is made of, besides those that name the host."""
SHOWN: Final = (spans.OUTCOME, spans.STAGE, spans.PROMPT, spans.NODE, spans.JOB_ID)
"""It matters whether these are there. The outcome's value does, too."""
PRICED_BY: Final = (*spans.PROVIDERS, spans.MODEL, spans.BACKEND, spans.OPERATION, GPU_IDS, GPU_NAME, GPU_STATUS)
"""What is looked at if a batch has too many different spans: no dimensions, and no workflow."""
TOLD_BY_VALUE: Final = (
    *PRICED_BY,
    *(spans.OUTCOME, spans.WORKFLOW, spans.TIER, spans.JOB_TYPE, spans.ATTEMPT),
    *(spans.RESOLUTION, spans.WIDTH, spans.HEIGHT),
)
"""What makes spans differ in price or fact, besides attributes that the operator names."""
REPORTED, MAY_CLAIM, OUTER = 1, 2, 4
"""Bits of what makes rows differ besides their attributes."""
SHARE: Final = 8
"""Above these bits stands the share of a GPU that a span tells."""
NONE: Final = np.empty(0, np.int64)
NO_LISTS: Final[tuple[Codes, list[tuple[Value, ...]]]] = (np.empty(0, np.int32), [])
OTHER_KEYS: Final = (shares.KEY, spans.USER, spans.COST_CURRENCY, spans.COST_SOURCE, marks.AMOUNT, marks.INCLUSIVE)


class CostProcessor:
    """Sets `otel_pipeline.cost.*`; see docs/cost.md."""

    signals: ClassVar = frozenset({Signal.TRACES, Signal.METRICS})
    """The pipelines it stands in: one of each, by the same name."""

    class Config(Settings):
        """Settings of `cost`."""

        prices: tuple[Path, ...] = ()
        """Price files of your own; their rows go over those of this package. See docs/cost.md. Try them with
        `otel-pipeline price explain --prices FILE`."""
        defaults: bool = True
        """Use the dated public prices of this package where yours have none. `defaults: false` in one of your files
        does the same."""
        currency: Annotated[str, Field(pattern=f"^{CURRENCY.pattern}$")] = "USD"
        """Of costs that a sender reports without a currency."""
        dimensions: Annotated[
            tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=LEDGER_DIMENSIONS_MAX)
        ] = ()
        """Attributes of the span, or else of its resource, by which the ledger tells costs apart, besides service,
        host, GPU, provider, model, backend, workflow, tier, user and job. Never an id: the job's is there already."""
        claims: tuple[SpanCondition, ...] = ()
        """Which spans with GPUs pay for them: those that match one of these conditions. By default jobs, stages,
        ComfyUI's prompts and nodes, and spans of a model that are no calls of others."""
        ledger: bool = True
        """Keep costs in the store, for `otel-pipeline ledger` and the views."""
        series_max: Annotated[int, Field(ge=1)] = EXPOSITION_SERIES_MAX
        """Series of each metric; all further ones share the series whose labels read `__overflow__`."""

    @staticmethod
    def books(config: Config) -> tuple[str, ...]:
        """Where costs are kept."""
        return (BOOK,) if config.ledger else ()

    def __init__(self, config: Config, context: Context) -> None:
        book = book_of(config.prices, defaults=config.defaults)
        self._currency = config.currency
        self._keeps = BOOK in context.books
        self._offers = Offers(book, config.dimensions)
        self._claims = [parse(text, Signal.TRACES) for text in config.claims]
        self._catalogue = Catalogue(COST_KNOWN_MAX)
        self._likeness = kernel().likeness(COST_KNOWN_MAX, [secrets.randbits(64) | 1 for _ in range(2)])
        self._lineage = kernel().lineage(COST_PARENTS_MAX, COST_DEPTH_MAX)
        self._place_keys = (*PLACE_KEYS, *HOST_KEYS, *sorted(book.attribute_keys), *config.dimensions)
        self._places: dict[tuple[str, ...], int] = {}
        self._place_numbers = count()
        self._minutes = Minutes()
        self._dimensions = config.dimensions
        self._has_shares = book.has_shares
        self._by_value = tuple(dict.fromkeys((*TOLD_BY_VALUE, *sorted(book.attribute_keys), *config.dimensions)))
        usage = (*spans.QUANTITIES, *spans.REPORTED_KEYS, *MORE_QUANTITIES)
        self._levels: tuple[tuple[tuple[str, ...], tuple[str, ...], int], ...] = (
            (SHOWN, self._by_value, COST_DISTINCT_MAX),
            (SHOWN, PRICED_BY, COST_DISTINCT_MAX),
            ((*SHOWN, *PRICED_BY), (), COST_KNOWN_MAX),
        )
        """How closely spans are looked at: which attributes must be there, and which must be equal."""
        self._keys = tuple(dict.fromkeys((*self._by_value, *SHOWN, *usage, *OTHER_KEYS)))
        metrics = context.exposition
        self._costs = metrics.counter(
            "otel_pipeline_cost_total", "Cost of calls, in units of the currency.", LABELS, config.series_max
        )
        self._unpriced = metrics.counter(
            "otel_pipeline_unpriced_spans_total", "Spans without a price.", UNPRICED_LABELS, config.series_max
        )

    def attributes(self, signal: Signal) -> frozenset[str]:
        """What tells what a span used, what the ledger tells costs apart by, and what it sets."""
        if signal is not Signal.TRACES:
            return frozenset()
        asked = frozenset((*self._keys, *marks.WRITTEN))
        return asked.union(*(condition.attributes for condition in self._claims))

    def process(self, batch: Batch) -> None:
        """Price spans; tell of GPUs."""
        if batch.signal is Signal.METRICS:
            if self._keeps:
                self._tell_gpus(batch)
        elif batch.signal is Signal.TRACES and batch.keep.any():
            self._price(batch)

    # -- spans ---------------------------------------------------------------------------------------------------------

    def _price(self, batch: Batch) -> None:
        having = set(batch.having(self._keys))
        start_ns, end_ns, awaits = self._lineage.read(batch.rows)
        told = spans.reported(batch, having, self._currency)
        extra = self._extra(batch, told)
        if not having and not len(extra) and not awaits:
            return
        number = self._numbers(batch, having, extra)
        fields, used = spans.quantities(batch, having, MORE_QUANTITIES)
        flags = self._catalogue.flags.take(number)
        found = int(np.bitwise_or.reduce(flags))
        if awaits or found & IS_CALL:
            outer = self._outer(batch, (number, flags), used, told)
            if outer.any():
                number = self._numbers(batch, having, (0 if not len(extra) else extra) | outer * np.int64(OUTER))
                flags = self._catalogue.flags.take(number)
        energy_mj = used[fields.index("energy_mj")] if "energy_mj" in fields else np.full(len(batch), UNKNOWN)
        if found & ON_GPU:
            fields, used = self._own_use(batch.keep, number, start_ns, fields, used)
        chosen = self._lineage.mattering(flags, MATTERS | CHARGED | ON_GPU, batch.keep.view(np.uint8))
        rows = chosen.nonzero()[0]
        if len(rows) < len(batch):
            number, used = number[rows], used.take(rows, axis=1)
            start_ns, end_ns, energy_mj = start_ns[rows], end_ns[rows], energy_mj[rows]
        priced = price(self._catalogue, Looked(rows, number, start_ns, end_ns, fields, used, energy_mj, told))
        nano, money = priced.nano, priced.money
        if len(rows) < len(batch):
            nano, money = np.zeros(len(batch), np.int64), np.full(len(batch), NO_MONEY)
            nano[rows], money[rows] = priced.nano, priced.money
        sums, sums_money = self._lineage.totals(nano, money)
        marks.write(batch, priced, (sums, sums_money), having)
        self._count(priced)
        if self._keeps and len(rows):
            batch.record(BOOK, marks.record(batch, priced, having))

    def _extra(self, batch: Batch, told: spans.Reported | None) -> Ints:
        """What makes rows differ besides their attributes: bits, or nothing."""
        extra = NONE if told is None else (told.nano >= 0) * np.int64(REPORTED)
        if self._claims:
            wanted = np.zeros(len(batch), np.bool_)
            for condition in self._claims:
                wanted |= condition.mask(batch)
            extra = (extra if len(extra) else 0) | wanted * np.int64(MAY_CLAIM)
        if self._has_shares:
            parts = shares.told(attribute_column(batch, shares.KEY)) - shares.UNTOLD
            extra = (extra if len(extra) else 0) | parts * SHARE
        return extra if extra.any() else NONE

    # -- what is known -------------------------------------------------------------------------------------------------

    def _numbers(self, batch: Batch, having: AbstractSet[str], extra: Ints) -> Ints:
        """Each row's place in the catalogue, which learns what is new. If that is much, rows are told apart by less."""
        resources = batch.distinct_resources()
        places = np.array([self._place(resource) for resource in resources], np.int64)
        if self._catalogue.is_full:
            self._forget()
        for shown, by_value, fresh_max in self._levels:
            for _ in range(2):
                found = batch.alike(self._likeness, (shown, by_value), places, extra, fresh_max)
                if found is not None:
                    self._learn(batch, found[1], (shown, by_value), (GPU_IDS in having, extra))
                    return found[0].astype(np.int64)
                self._forget()
        raise ValueError(f"the batch has more than {COST_KNOWN_MAX} resources")

    def _learn(
        self,
        batch: Batch,
        fresh: Sequence[int],
        level: tuple[Sequence[str], Sequence[str]],
        told: tuple[bool, Ints],
    ) -> None:
        """Take up what some rows say, whose numbers are the next ones. If that fails, nothing is known: the numbers and
        what is known must go together.
        """
        on_gpus, extra = told
        try:
            lists = batch.lists(GPU_IDS) if fresh and on_gpus else NO_LISTS
            resources = batch.distinct_resources() if fresh else []
            for row in fresh:
                bits = int(extra[row]) if len(extra) else 0
                resource = resources[batch.resource_of(row)]
                said = self._said(batch, row, level, resource, (lists, bits))
                self._catalogue.learn(self._offers.find(self._place_of(resource), said))
        except BaseException:
            self._forget()
            raise

    def _said(
        self,
        batch: Batch,
        row: int,
        level: tuple[Sequence[str], Sequence[str]],
        resource: Mapping[str, Value],
        told: tuple[tuple[Codes, list[tuple[Value, ...]]], int],
    ) -> Said:
        shown = frozenset(key for keys in level for key in keys if batch.has(key, row))
        texts = texts_of(batch, level[1], row)
        (codes, lists), bits = told
        gpus = lists[codes[row]] if GPU_IDS in level[1] and len(codes) and codes[row] != ABSENT else ()
        return Said(
            texts,
            shown,
            int(batch.kind[row]),
            int(batch.status_code[row]) == ERROR,
            tuple(map(str, gpus)),
            texts.get(GPU_NAME, ""),
            texts.get(GPU_STATUS) == "ambiguous" or (GPU_IDS in shown and GPU_IDS not in level[1]),
            reported=bool(bits & REPORTED),
            is_outer=bool(bits & OUTER),
            may_claim=bool(bits & MAY_CLAIM) if self._claims else None,
            share=bits // SHARE + shares.UNTOLD,
            dimensions={
                key: texts.get(key) or label_text(resource.get(key, "")) for key in self._dimensions if key in level[1]
            },
        )

    def _forget(self) -> None:
        self._likeness.forget()
        self._catalogue.forget()

    def _place(self, resource: Mapping[str, Value]) -> int:
        """A number for what matters of a resource."""
        told = tuple(label_text(resource.get(key, "")) for key in self._place_keys)
        found = self._places.get(told)
        if found is None:
            if len(self._places) >= COST_KNOWN_MAX:
                self._places.clear()
            found = self._places[told] = next(self._place_numbers)
        return found

    def _place_of(self, resource: Mapping[str, Value]) -> Place:
        return _place_of(resource, self._offers.book.attribute_keys)

    # -- columns -------------------------------------------------------------------------------------------------------

    def _outer(self, batch: Batch, known: tuple[Ints, Ints], used: Ints, told: spans.Reported | None) -> Mask:
        """The calls that another span below them tells, too. `known` are numbers and flags."""
        number, flags = known
        called = ((flags & IS_CALL) != 0) & batch.keep
        telling = called & (used >= 0).any(0) if len(used) else np.zeros(len(batch), np.bool_)
        if told is not None:
            telling |= called & (told.nano >= 0)
        models = self._catalogue.models.take(number)
        return np.asarray(self._lineage.outer(called.view(np.uint8), telling.view(np.uint8), models)).view(np.bool_)

    def _own_use(
        self, keep: Mask, number: Ints, start_ns: Ints, fields: tuple[str, ...], used: Ints
    ) -> tuple[tuple[str, ...], Ints]:
        """What each row used of GPUs itself, without what those below it used: their time goes to `used`, and energy in
        proportion.
        """
        gpus, sizes = self._catalogue.gpus.take(number), self._catalogue.sizes.take(number)
        if not keep.all():
            gpus[~keep] = ABSENT
        order = (gpus >= 0).nonzero()[0]
        order = order.take(start_ns.take(order).argsort(kind="stable"))
        whole, own = self._lineage.own(order, gpus, sizes)
        lines = np.concatenate((used, own[None]))
        if "energy_mj" in fields:
            line = lines[fields.index("energy_mj")]
            part = ((own < whole) & (line > 0)).nonzero()[0]
            line[part] = np.rint(line[part] * (own[part] / whole[part]))
        return (*fields, "gpu_ns"), lines

    def _count(self, priced: Priced) -> None:
        """Count calls by what they cost, and spans without a price."""
        catalogue = priced.catalogue
        for wanted, family in (
            (catalogue.is_final, self._costs),
            (catalogue.currency_of == UNKNOWN_MONEY, self._unpriced),
        ):
            rows = wanted[priced.verdict].nonzero()[0]
            if not len(rows):
                continue
            pair = priced.looked.number[rows] * len(catalogue.verdicts) + priced.verdict[rows]
            pairs, which, counts = np.unique(pair, return_inverse=True, return_counts=True)
            labels: list[tuple[str, ...]] = []
            for number, index in (divmod(each, len(catalogue.verdicts)) for each in pairs.tolist()):
                fact, verdict = catalogue.known[number].fact, catalogue.verdicts[index]
                labels.append(
                    (fact.provider, fact.model, fact.backend, verdict.basis, verdict.currency)
                    if family is self._costs
                    else (verdict.why, fact.provider, fact.model, fact.gpu_name)
                )
            family.add(Groups(labels, which, counts), priced.nano[rows] / NANO if family is self._costs else 1.0)

    # -- GPUs ----------------------------------------------------------------------------------------------------------

    def _tell_gpus(self, batch: Batch) -> None:
        samples = read_samples(batch)
        if not samples.blocks:
            return
        names = {(device.hosts, device.gpu): device.name for device in samples.devices}
        places = {hosts_of(resource): self._place_of(resource) for resource in batch.resources()[1]}
        times: dict[tuple[tuple[str, ...], str], list[Ints]] = {}
        for block in samples.blocks:
            times.setdefault((block.hosts, block.gpu), []).append(block.times_ns)
        counters: dict[tuple[tuple[str, ...], str], dict[str, tuple[Ints, Floats]]] = {}
        for block in samples.blocks if self._offers.book.has_energy else ():
            if block.quantity is Quantity.ENERGY:
                counters.setdefault((block.hosts, block.gpu), {})[block.source] = block.times_ns, block.values
        seen = [
            self._minutes.seen(
                hosts,
                gpu,
                names.get((hosts, gpu), ""),
                places.get(hosts, Place()),
                each,
                counters=counters.get((hosts, gpu)),
            )
            for (hosts, gpu), each in times.items()
        ]
        told = [one for one in seen if one is not None]
        if told:
            batch.record(BOOK, encode(None, told))


def _place_of(resource: Mapping[str, Value], keys: AbstractSet[str]) -> Place:
    """Where a process ran; of its attributes those of `keys`."""
    hosts = hosts_of(resource)
    service, provider, region, pod = (label_text(resource.get(key, "")) for key in PLACE_KEYS)
    attributes = tuple((key, label_text(resource[key])) for key in sorted(keys & resource.keys()))
    return Place(service, hosts[0] if hosts else "", provider, region, pod, attributes)
