"""Processor `cost`: says on each span what it costs, and leaves for the ledger what must sum.

Two things cost money. Calls of somebody else's model are priced at once, by what the span says it used. Time on GPUs is
paid by whoever used it when: that is known later, by the ledger, so a span's amount is provisional. What is called what
is in `ledger/spans.py`, at which price in `ledger/offers.py`; here they meet in columns.

In a metrics pipeline it tells the ledger which GPUs were there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

import numpy as np
from pydantic import Field

from otel_pipeline.conditions.parser import parse
from otel_pipeline.conditions.settings import SpanCondition
from otel_pipeline.contracts import Context, Settings
from otel_pipeline.exposition.label_columns import Groups, attribute_column, group_rows
from otel_pipeline.exposition.names import label_text
from otel_pipeline.gpu.ingest import HOST_KEYS, hosts_of
from otel_pipeline.gpu.ingest import read as read_samples
from otel_pipeline.gpu.marks import NAME as GPU_NAME
from otel_pipeline.gpu.marks import STATUS as GPU_STATUS
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.gpu.resolve import IDS as GPU_IDS
from otel_pipeline.gpu.used import TIME_NS_MAX
from otel_pipeline.ledger import shares, spans
from otel_pipeline.ledger.charge import Status
from otel_pipeline.ledger.money import CURRENCY, NANO
from otel_pipeline.ledger.nested import Nested
from otel_pipeline.ledger.offers import (
    ATTRIBUTE,
    CALL,
    DIMENSION,
    FAILED,
    FLAGS_END,
    ON_GPU,
    REPORTED,
    SEPARATOR,
    Offers,
    Place,
)
from otel_pipeline.ledger.plans import UNKNOWN
from otel_pipeline.ledger.presence import Minutes
from otel_pipeline.ledger.price_file import book_of
from otel_pipeline.ledger.pricing import Looked, Priced, price
from otel_pipeline.ledger.records import Spans, encode
from otel_pipeline.limits import COST_DISTINCT_MAX, COST_KNOWN_MAX, EXPOSITION_SERIES_MAX, LEDGER_DIMENSIONS_MAX
from otel_pipeline.wire import cells
from otel_pipeline.wire.batch import ABSENT, Constants, Strings
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from otel_pipeline.ledger.offers import Known
    from otel_pipeline.wire.batch import Batch, Codes, Floats, Ints, Mask
    from otel_pipeline.wire.values import Value

ERROR: Final = 2
ID_CELLS: Final = [cells.TRACE_HI, cells.TRACE_LO, cells.SPAN_ID, cells.PARENT_ID]
BOOK: Final = "ledger"
GPU_ENERGY: Final = "otel_pipeline.gpu.energy"
AMOUNT: Final = "otel_pipeline.cost.amount"
DELTA: Final = "otel_pipeline.cost.delta"
TEXTS: Final = {f"otel_pipeline.cost.{name}": name for name in ("status", "currency", "basis", "price_id", "reason")}
"""Attribute -> field of a verdict."""
WRITTEN: Final = (AMOUNT, DELTA, *TEXTS)
LABELS: Final = ("provider", "model", "backend", "basis", "currency")
UNPRICED_LABELS: Final = ("reason", "provider", "model", "gpu")
READ: Final = {
    "provider": spans.PROVIDERS[0],
    "backend": spans.BACKEND,
    "model": spans.MODEL,
    "workflow": spans.WORKFLOW,
    "tier": spans.TIER,
    "job_type": spans.JOB_TYPE,
    "attempt": spans.ATTEMPT,
    "outcome": spans.OUTCOME,
    "gpu_name": GPU_NAME,
    "resolution": spans.RESOLUTION,
    "width": spans.WIDTH,
    "height": spans.HEIGHT,
}
"""What makes spans differ in price or fact, and the attribute that tells it."""
PLACE_KEYS: Final = ("service.name", "cloud.provider", "cloud.region", "k8s.pod.name")
"""Attributes of a resource that a place is made of, besides those that name the host."""
PRICED_BY: Final = ("flags", "gpus", "gpu_name", "provider", "backend", "model")
"""What is looked at if a batch has too many different spans: no dimensions, and no workflow."""
NUMERIC: Final = frozenset({"attempt", "width", "height"})


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
        self._place_keys = (*PLACE_KEYS, *HOST_KEYS, *sorted(book.attribute_keys))
        self._places: dict[tuple[str, ...], Place] = {}
        self._nested = Nested()
        self._minutes = Minutes()
        self._read = {
            **READ,
            **{f"{ATTRIBUTE}{key}": key for key in sorted(book.attribute_keys)},
            **{f"{DIMENSION}{key}": key for key in config.dimensions},
            **({"share": shares.KEY} if book.has_shares else {}),
        }
        self._keys = tuple(
            key
            for key in dict.fromkeys((*spans.KEYS, *self._read.values(), GPU_IDS, GPU_STATUS, GPU_ENERGY, AMOUNT))
            if key not in spans.USAGE_KEYS
        )
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
        asked = frozenset((*self._keys, *spans.USAGE_KEYS, *WRITTEN))
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
        looked = self._look(batch, having)
        if looked is None:
            return
        known, groups = self._known(batch, self._columns(batch, having, looked), looked.chosen)
        rows = np.arange(len(batch)) if groups.rows is None else groups.rows
        priced = price(known, groups.group, rows, looked)
        _write(batch, priced, having)
        self._count(known, priced)
        if self._keeps:
            record = _record(batch, having, known, priced)
            batch.record(BOOK, encode(record, (), [one.text for one in known]))

    def _known(self, batch: Batch, columns: list[tuple[str, Strings]], chosen: Mask) -> tuple[list[Known], Groups]:
        """What is known of the chosen rows, one for each group. If these are too many they are told apart by less."""
        codes, places = self._places_of(batch)
        place = Strings(codes, [str(index) for index in range(len(places))])
        for kept in (None, PRICED_BY, ("flags",)):
            columns = [(name, column) for name, column in columns if kept is None or name in kept]
            groups = group_rows([place, *(column for _, column in columns)], chosen)
            if len(groups.labels) <= COST_DISTINCT_MAX:
                break
        names = tuple(name for name, _ in columns)
        alike = [self._offers.alike(place, names) for place in places]
        return [alike[int(told[0])].known(told) for told in groups.labels], groups

    def _look(self, batch: Batch, having: set[str]) -> Looked | None:
        """What matters in the batch; None if nothing does. Adds to `having` what only calls are asked for."""
        kind = spans.kinds(batch, having)
        gpus = self._gpus(batch, having)
        on_gpu = self._on_gpu(batch, having, kind, gpus)
        called = spans.calls(batch, having, kind, on_gpu)
        used: dict[str, Ints] = {}
        told = None
        if called.any():
            having.update(batch.having(spans.USAGE_KEYS, called))
            used = spans.quantities(batch, having)
            told = spans.reported(batch, having, self._currency)
        called = self._once(batch, called, used, told)
        chosen = (kind != spans.OTHER_KIND) | called | on_gpu
        if spans.JOB_ID in having:
            chosen |= batch.present(spans.JOB_ID)
        chosen &= batch.keep
        if not chosen.any():
            return None
        if not chosen.all():
            chosen |= batch.keep & spans.above(batch, chosen)
        kind[called & (kind == spans.OTHER_KIND)] = spans.CALL_KIND
        start_ns, end_ns = (np.minimum(each, TIME_NS_MAX).view(np.int64) for each in (batch.time, batch.end_time))
        end_ns = np.maximum(start_ns, end_ns)
        if GPU_ENERGY in having:
            used["energy_mj"] = spans.whole(batch.numbers(GPU_ENERGY), 1000)
        if gpus is not None:
            sizes = np.array([*(text.count(SEPARATOR) + 1 for text in gpus.values), 0], np.int64)
            used["gpu_ns"] = spans.whole((end_ns - start_ns).astype(np.float64) * sizes[gpus.codes], 1)
        return Looked(kind, called, on_gpu, gpus, chosen, used, told, start_ns, end_ns)

    def _once(self, batch: Batch, called: Mask, used: Mapping[str, Ints], told: spans.Reported | None) -> Mask:
        """The calls without those that another span below them tells, too."""
        telling = np.zeros(len(batch), np.bool_)
        for column in (*used.values(), *(() if told is None else (told.nano,))):
            telling |= column >= 0
        telling &= called & batch.keep
        if self._nested.is_empty and not telling.any():
            return called
        return called & ~self._nested.outer(batch, telling, batch.strings(spans.MODEL))

    def _gpus(self, batch: Batch, having: AbstractSet[str]) -> Strings | None:
        """The ids of each span's GPUs as one text."""
        if GPU_IDS not in having:
            return None
        codes, lists = batch.lists(GPU_IDS)
        return Strings(codes, [SEPARATOR.join(map(str, ids)) for ids in lists])

    def _on_gpu(self, batch: Batch, having: AbstractSet[str], kind: Ints, gpus: Strings | None) -> Mask:
        """The spans that pay for GPUs, if they are no calls."""
        on_gpu = np.zeros(len(batch), np.bool_) if gpus is None else gpus.where(bool)
        if GPU_STATUS in having and not on_gpu.all():
            on_gpu |= batch.strings(GPU_STATUS).where("ambiguous".__eq__)
        if not on_gpu.any():
            return on_gpu
        wanted = np.zeros(len(batch), np.bool_)
        for condition in self._claims:
            wanted |= condition.mask(batch)
        return on_gpu & (wanted if self._claims else spans.own_work(batch, having, kind))

    def _columns(self, batch: Batch, having: AbstractSet[str], looked: Looked) -> list[tuple[str, Strings]]:
        """What makes spans differ in price or fact."""
        columns = [("flags", _flags(batch, looked))]
        if looked.gpus is not None:
            columns.append(("gpus", looked.gpus))
        for name, key in self._read.items():
            if name == "provider":
                if not having.isdisjoint(spans.PROVIDERS):
                    columns.append((name, spans.first_of(batch, having, spans.PROVIDERS)))
            elif name == "share":
                columns.append((name, shares.told(attribute_column(batch, key))))
            elif name.startswith(DIMENSION):
                columns.append((name, attribute_column(batch, key)))
            elif name in NUMERIC and key in having:
                columns.append((name, spans.small_numbers(batch, key)))
            elif key in having:
                columns.append((name, batch.strings(key)))
        return columns

    def _places_of(self, batch: Batch) -> tuple[Codes, list[Place]]:
        codes, resources = batch.resources()
        return codes, [self._place(resource) for resource in resources]

    def _place(self, resource: Mapping[str, Value]) -> Place:
        told = tuple(str(resource.get(key, "")) for key in self._place_keys)
        found = self._places.get(told)
        if found is None:
            if len(self._places) >= COST_KNOWN_MAX:
                self._places.clear()
            found = self._places[told] = _place_of(resource, self._offers.book.attribute_keys)
        return found

    def _count(self, known: Sequence[Known], priced: Priced) -> None:
        """Count calls by what they cost, and spans without a price."""
        for status, family in ((Status.FINAL, self._costs), (Status.UNPRICED, self._unpriced)):
            mask = priced.having(status)
            if not mask.any():
                continue
            pair = priced.group[mask] * len(priced.verdicts) + priced.verdict[mask]
            tally = np.bincount(pair)
            pairs = np.flatnonzero(tally)
            counts = tally[pairs]
            tally[pairs] = np.arange(len(pairs))
            which = tally[pair]
            labels: list[tuple[str, ...]] = []
            for number, index in (divmod(each, len(priced.verdicts)) for each in pairs.tolist()):
                fact, verdict = known[number].fact, priced.verdicts[index]
                labels.append(
                    (fact.provider, fact.model, fact.backend, verdict.basis, verdict.currency)
                    if family is self._costs
                    else (verdict.why, fact.provider, fact.model, fact.gpu_name)
                )
            family.add(Groups(labels, which, counts), priced.nano[mask] / NANO if family is self._costs else 1.0)

    # -- GPUs ----------------------------------------------------------------------------------------------------------

    def _tell_gpus(self, batch: Batch) -> None:
        samples = read_samples(batch)
        if not samples.blocks:
            return
        names = {(device.hosts, device.gpu): device.name for device in samples.devices}
        places = {hosts_of(resource): self._place(resource) for resource in batch.resources()[1]}
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


def _flags(batch: Batch, looked: Looked) -> Strings:
    """Kind and bits of each row, as offers reads them; only those that occur have a code."""
    flags = looked.kind << 4
    bits = [(batch.status_code == ERROR, FAILED), (looked.on_gpu, ON_GPU), (looked.called, CALL)]
    if looked.told is not None:
        bits.append((looked.called & (looked.told.nano >= 0), REPORTED))
    for mask, bit in bits:
        flags |= mask * bit
    distinct = np.flatnonzero(np.bincount(flags, minlength=FLAGS_END))
    table = np.zeros(FLAGS_END, np.int32)
    table[distinct] = np.arange(len(distinct))
    return Strings(table[flags], [str(flag) for flag in distinct.tolist()])


def _write(batch: Batch, priced: Priced, having: AbstractSet[str]) -> None:
    """Set the attributes; what is not known is not set."""
    if not priced.verdicts:
        return
    rows = priced.rows
    for key, name in TEXTS.items():
        column = priced.column(name)
        if any(column.values):
            codes = column.codes
            if len(rows) < len(batch):
                codes = np.full(len(batch), ABSENT, np.int32)
                codes[rows] = column.codes
            batch.set(key, Constants(codes, column.values))
    with_amount = priced.having(Status.FINAL, Status.PROVISIONAL, Status.FREE)
    batch.set_rows(AMOUNT, rows[with_amount], priced.nano[with_amount] / NANO)
    differs = priced.delta != 0
    if differs.any():
        batch.set_rows(DELTA, rows[differs], priced.delta[differs] / NANO)
    if AMOUNT in having:  # from a gateway before this one, which had a price
        unpriced = np.zeros(len(batch), np.bool_)
        unpriced[rows[priced.having(Status.UNPRICED)]] = True
        batch.delete(AMOUNT, unpriced)


def _record(batch: Batch, having: AbstractSet[str], known: Sequence[Known], priced: Priced) -> Spans:
    """The spans as the ledger takes them."""
    rows, looked = priced.rows, priced.looked
    trace_hi, trace_lo, span, parent = (batch.rows[:, cell].take(rows) for cell in ID_CELLS)
    nothing = Strings(np.full(len(rows), ABSENT, np.int32), [])
    job, user = (
        Strings((column := batch.strings(key)).codes[rows], column.values) if key in having else nothing
        for key in (spans.JOB_ID, spans.USER)
    )
    reported_nano, reported_currency = priced.reported()
    quantities = nothing
    if priced.calls.any():
        fields, used = priced.used(np.arange(len(rows)))
        quantities = spans.told_quantities(np.where(priced.calls[:, None], used, UNKNOWN), fields)
    return Spans(
        facts=[one.fact for one in known],
        fact=priced.group.astype(np.int32),
        trace_hi=trace_hi,
        trace_lo=trace_lo,
        span=span,
        parent=parent,
        start_ns=looked.start_ns[rows],
        end_ns=looked.end_ns[rows],
        nano=priced.nano,
        reported_nano=reported_nano,
        energy_mj=looked.used["energy_mj"][rows] if "energy_mj" in looked.used else np.full(len(rows), UNKNOWN),
        job=job,
        user=user,
        reported_currency=reported_currency,
        quantities=quantities,
        **{name: priced.column(name) for name in ("currency", "basis", "price_id", "status", "reason")},
    )
