"""What is booked as records of a FOCUS file: by hour and GPU, whole, by job or by span.

Direct charges, such as calls of a model, are records of their own.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import sqlalchemy as sa

from otel_pipeline.ledger import focus
from otel_pipeline.ledger.allocation import Allocation, Mode
from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.ledger.charge import Charge, Status
from otel_pipeline.ledger.claims import NO_PARENT, ClaimTable
from otel_pipeline.ledger.money import NANO, Money
from otel_pipeline.ledger.price_rows import Basis
from otel_pipeline.store.database import listed
from otel_pipeline.store.ledger_names import fact_of
from otel_pipeline.store.ledger_tables import (
    ALLOCATION,
    AMOUNTS,
    BUCKETS,
    CHARGE,
    FACT,
    GPU,
    JOB,
    NO_GPU,
    PERIOD,
    PLACE,
    SPAN,
    SPAN_KEY,
    USER,
    WORD,
)
from otel_pipeline.store.ledger_windows import paid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otel_pipeline.ledger.records import Fact
    from otel_pipeline.store.ledger_windows import Window

OWN: Final = "self-hosted"
"""Provider of a GPU or a call that says none."""
NO_JOB: Final = "(no job)"
UNITS: Final = {
    Basis.IMAGE: ("Images", ("images",), NANO),
    Basis.ITEM: ("Items", ("items",), NANO),
    Basis.VIDEO_SECOND: ("Seconds", ("video_ns",), 1),
    Basis.AUDIO_MINUTE: ("Seconds", ("audio_ns",), 1),
    Basis.THOUSAND_CHARACTERS: ("Characters", ("characters",), NANO),
    Basis.MILLION_TOKENS: ("Tokens", ("input_tokens", "output_tokens"), NANO),
}
"""Of a charge by its basis: unit, quantities that are added up, and 1e-9 units in one."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """What a span or a job cost on a GPU in an hour."""

    resource: str
    fact: Fact
    user: str
    job: str
    currency: str
    nano: int
    key: tuple[int, ...]
    """The span's words, 0 where there is none."""


class FocusRows:
    """Records of a window, hour by hour: what an hour has is in memory. `until`: the last booking that counts, None for
    all; of what is not booked, such as names of hosts, there is only what is known now.
    """

    def __init__(
        self, connection: sa.Connection, window: Window, grain: str, account: str, until: int | None = None
    ) -> None:
        self._connection = connection
        self._until = until
        self._window = window
        self._by_job = grain == "job"
        self._whole = grain == "gpu"
        self._account = account
        self._gpus = {row.id: row.uuid for row in connection.execute(sa.select(GPU))}
        self._facts: dict[int, Fact] = {}
        self._places = {row.gpu: row for row in connection.execute(sa.select(PLACE).order_by(PLACE.c.id))}

    def records(self) -> Iterator[focus.Record]:
        amounts = paid(self._connection, self._window, ["hour", "gpu"])
        hours: dict[int, dict[tuple[int, str], list[int]]] = defaultdict(dict)
        for (hour, gpu, currency), sums in amounts.items():
            if currency:
                hours[hour][gpu, currency] = sums
        for hour, blocks in sorted(hours.items()):
            for (gpu, currency), sums in sorted(blocks.items()):
                yield from self._block(gpu, hour, currency, sums)

    def block(self, gpu: int, hour: int, currency: str) -> list[focus.Record]:
        """Of one GPU and hour, as far as it was booked by then."""
        columns = PERIOD.c
        sums = [sa.cast(sa.func.coalesce(sa.func.sum(columns[name]), 0), sa.BigInteger) for name in AMOUNTS]
        amounts = self._connection.execute(sa.select(*sums).where(self._here(PERIOD, gpu, hour, currency))).one()
        return list(self._block(gpu, hour, currency, list(amounts))) if any(amounts) else []

    def _block(self, gpu: int, hour: int, currency: str, sums: list[int]) -> Iterator[focus.Record]:
        return self._calls(hour, currency) if gpu == NO_GPU else self._gpu(gpu, hour, currency, sums)

    def _here(self, table: sa.Table, gpu: int, hour: int, currency: str) -> sa.ColumnElement[bool]:
        columns = table.c
        found = (columns.gpu == gpu) & (columns.start_ns >= hour) & (columns.start_ns < hour + HOUR_NS)
        found &= columns.currency == currency
        return found if self._until is None else found & (columns.booking <= self._until)

    def _gpu(self, gpu: int, hour: int, currency: str, sums: list[int]) -> Iterator[focus.Record]:
        account, tags = self._seller(gpu)
        price_id, end = self._prices(gpu, hour, currency), hour + HOUR_NS
        named = dict(zip(AMOUNTS, sums, strict=True))
        if self._whole:
            money = Money(named["total"], currency)
            yield focus.origin(
                account, money, hour, end, gpu=self._gpus[gpu], paid_ns=named["paid_ns"], tags=tags, price_id=price_id
            )
            return
        cells = self._cells(gpu, hour, currency)
        found = _allocation(self._gpus[gpu], currency, hour, cells, named)
        yield from focus.allocated(account, found, mode=Mode.EQUAL, labels=_labels(cells), tags=tags, price_id=price_id)

    def _calls(self, hour: int, currency: str) -> Iterator[focus.Record]:
        cells = self._cells(NO_GPU, hour, currency)
        told = self._charges([cell.key for cell in cells if any(cell.key)])
        sums: dict[tuple[Any, ...], list[int]] = {}
        firsts: dict[tuple[Any, ...], _Cell] = {}
        for cell in cells:
            basis, price_id, quantities = told.get(cell.key, ("", "", None))
            unit, quantity = _quantity(basis, quantities)
            # A row of the whole is by provider; of a job, or a call, what it was stands in its tags.
            what: tuple[Any, ...] = (cell.fact.provider,) if self._whole else (cell.resource, cell.fact, cell.user)
            key = (*what, basis, price_id, unit)
            one = sums.setdefault(key, [0, 0])
            one[0] += cell.nano
            one[1] += quantity
            firsts.setdefault(key, cell)
        for key, (nano, quantity) in sums.items():
            basis, price_id, unit = key[-3:]
            cell = firsts[key]
            provider = cell.fact.provider or OWN
            tags = {"provider": provider} if self._whole else _tags(cell)
            yield focus.called(
                focus.Account(
                    id=self._account,
                    provider=provider,
                    service="Model calls",
                    service_category="AI and Machine Learning",
                    service_subcategory="Generative AI",
                    region=cell.fact.region,
                ),
                Charge(nano, currency, basis, Status.FINAL, price_id),
                hour,
                hour + HOUR_NS,
                span=provider if self._whole else cell.resource,
                quantity_nano=quantity,
                unit=unit,
                labels=focus.Labels(name=cell.fact.model or provider, tags=tags),
            )

    def _cells(self, gpu: int, hour: int, currency: str) -> list[_Cell]:
        """By resource, fact, user and job: what a row may be made of."""
        columns = ALLOCATION.c
        names = ["fact", "user_id", "job"]
        if not self._by_job and not self._whole:
            names += SPAN_KEY
        elif gpu == NO_GPU:
            names += SPAN_KEY  # their quantities stand in the spans
        keys = [columns[name] for name in names]
        total = sa.cast(sa.func.sum(columns.nano), sa.BigInteger).label("total")
        question = (
            sa.select(*keys, total, USER.c.name.label("user"), JOB.c.name.label("job_name"))
            .join_from(ALLOCATION, USER, USER.c.id == columns.user_id, isouter=True)
            .join(JOB, JOB.c.id == columns.job, isouter=True)
            .where(self._here(ALLOCATION, gpu, hour, currency))
            .group_by(*keys, USER.c.name, JOB.c.name)
            .having(sa.func.sum(columns.nano) != 0)
            .order_by(*keys)
        )
        found = []
        for row in self._connection.execute(question):
            key = tuple(row[3:6]) if len(names) > 3 else (0, 0, 0)
            job = row.job_name or ""
            resource = job or NO_JOB if self._by_job or not any(key) else _span_name(key)
            found.append(_Cell(resource, self._fact(row.fact), row.user or "", job, currency, row.total, key))
        return found

    def _charges(self, keys: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], tuple[str, str, str | None]]:
        """Basis, price and quantities of spans that are still there."""
        if not keys:
            return {}
        words = list(zip(*keys, strict=True))
        wanted = listed(self._connection, [(name, WORD, words[place]) for place, name in enumerate(("lo", "hi", "id"))])
        same = (SPAN.c.trace_lo == wanted.c.lo) & (SPAN.c.trace_hi == wanted.c.hi) & (SPAN.c.span == wanted.c.id)
        question = (
            sa.select(*(SPAN.c[name] for name in SPAN_KEY), CHARGE.c.basis, CHARGE.c.price_id, SPAN.c.quantities)
            .join_from(wanted, SPAN, same)
            .join(CHARGE, CHARGE.c.id == SPAN.c.charge)
        )
        rows = self._connection.execute(question)
        return {tuple(row[:3]): (row.basis, row.price_id, row.quantities) for row in rows}

    def _fact(self, number: int) -> Fact:
        if number not in self._facts:
            question = sa.select(FACT.c.body).where(FACT.c.id == number)
            self._facts[number] = fact_of(self._connection.execute(question).scalar_one())
        return self._facts[number]

    def _seller(self, gpu: int) -> tuple[focus.Account, dict[str, str]]:
        place = self._places.get(gpu)
        provider = (place.provider if place else "") or OWN
        account = focus.Account(id=self._account, provider=provider, region=place.region if place else "")
        tags = {"host": place.host, "gpu": place.name, "pod": place.pod} if place else {}
        return account, {key: value for key, value in tags.items() if value}

    def _prices(self, gpu: int, hour: int, currency: str) -> str:
        question = sa.select(PERIOD.c.price).where(self._here(PERIOD, gpu, hour, currency)).distinct()
        names = {name for (text,) in self._connection.execute(question) for name in text.split()}
        return " ".join(sorted(names))


def _allocation(gpu: str, currency: str, hour: int, cells: list[_Cell], named: dict[str, int]) -> Allocation:
    """The hour as one period, with a row for each resource, attempt and outcome."""
    sums: dict[tuple[str, int, str, str], int] = defaultdict(int)
    for cell in cells:
        sums[cell.resource, cell.fact.attempt, cell.fact.outcome, cell.job] += cell.nano
    count = len(sums)
    rows = np.arange(count, dtype=np.int64)
    nothing = np.zeros(count, dtype=np.int64)
    table = ClaimTable(
        spans=[key[0] for key in sums],
        gpus=[gpu],
        parent=nothing + NO_PARENT,
        span=rows,
        gpu=nothing,
        start=nothing,
        end=nothing,
        attempt=np.array([key[1] for key in sums], dtype=np.int64),
        share=nothing,
        share_whole=1,
        weight_steps=nothing,
        weight_from=nothing,
        weight=nothing,
        outcome=[key[2] for key in sums],
        job=[key[3] for key in sums],
        outputs=nothing,
        outputs_failed=nothing,
    )
    return Allocation(
        gpu=gpu,
        currency=currency,
        table=table,
        cuts=np.array([hour, hour + HOUR_NS], dtype=np.int64),
        row=rows,
        period=nothing,
        nano=np.array(list(sums.values()), dtype=np.int64),
        self_ns=nothing,
        paid_ns=nothing,
        shared_max=nothing,
        buckets=[[named[name] for name in BUCKETS]],
        totals=[named["total"]],
        paid_by_period=[named["paid_ns"]],
    )


def _labels(cells: list[_Cell]) -> dict[str, focus.Labels]:
    """By resource, what holds for all of it."""
    tags: dict[str, dict[str, str]] = {}
    for cell in cells:
        own = _tags(cell)
        known = tags.setdefault(cell.resource, own)
        tags[cell.resource] = {key: value for key, value in known.items() if own.get(key) == value}
    return {resource: focus.Labels(name=resource, tags=own) for resource, own in tags.items()}


def _tags(cell: _Cell) -> dict[str, str]:
    fact = cell.fact
    names = ("service", "model", "backend", "workflow", "tier", "job_type")
    told = {name: getattr(fact, name) for name in names} | {"user": cell.user, "job": cell.job}
    return {key: value for key, value in {**told, **dict(fact.dimensions)}.items() if value}


def _quantity(basis: str, quantities: str | None) -> tuple[str, int]:
    """Unit and quantity in 1e-9 of it; without any it is one request."""
    if basis in UNITS and quantities:
        unit, names, parts = UNITS[Basis(basis)]
        told = json.loads(quantities)
        count = sum(told.get(name, 0) for name in names)
        if count > 0:
            return unit, count * parts
    return "Requests", NANO


def _span_name(key: tuple[int, ...]) -> str:
    lo, hi, span = (word % 2**64 for word in key)
    return f"{hi:016x}{lo:016x}/{span:016x}"
