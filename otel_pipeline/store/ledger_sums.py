"""What spans cost, added up by the hour and GPU for each way that people ask: by fact, by user, by job.

Apart, for together they would hardly be fewer than the spans: with two thousand users an hour of a GPU has as many sums
of fact and user as it has spans.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.store.database import METADATA
from otel_pipeline.store.ledger_tables import ALLOCATION, ATTEMPT_COST, FACT, add_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otel_pipeline.store.ledger_blocks import Cell
    from otel_pipeline.store.ledger_names import Names

SUCCEEDED: Final = ("completed", "partial", "ok", "success")
NO_WASTE: Final = (*SUCCEEDED, "", "skipped", "unknown")
"""Outcomes of jobs whose cost is not wasted. How much of a partial one was lost is not known here."""

BY_FACT, BY_USER, BY_JOB = 1, 2, 3
WHATS: Final = {"fact": BY_FACT, "user_id": BY_USER, "job": BY_JOB}

SUM: Final = sa.Table(
    "ledger_sum",
    METADATA,
    *(
        sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False)
        for name in ("what", "hour", "gpu", "number")
    ),
    sa.Column("currency", sa.Text, primary_key=True),
    sa.Column("nano", sa.BigInteger, nullable=False),
    sa.Column("wasted", sa.BigInteger, nullable=False),
)
"""`number` is that of a fact, user or job, as `what` says; users and jobs of 0 are those of nobody."""


def add_sums(connection: sa.Connection, names: Names, hour: int, gpu: int, cells: Mapping[Cell, int]) -> None:
    """Adds what is booked now: n$ by cell; within the transaction that books it."""
    rows: list[tuple[Any, ...]] = []
    attempts: list[tuple[int, int, str, int]] = []
    for currency, one in sorted(_summed(connection, names, cells).items()):
        by_job: dict[int, int] = defaultdict(int)
        for (job, attempt), nano in sorted(one.attempts.items()):
            by_job[job] += nano
            if job and nano:
                attempts.append((job, attempt, currency, nano))
        for what, sums, wasted in (
            (BY_FACT, one.facts, one.facts_wasted),
            (BY_USER, one.users, one.users_wasted),
            (BY_JOB, by_job, one.jobs_wasted),
        ):
            rows += [
                (what, hour, gpu, number, currency, nano, wasted.get(number, 0))
                for number, nano in sorted(sums.items())
                if nano or wasted.get(number)
            ]
    add_up(connection, SUM, rows, ["nano", "wasted"])
    add_up(connection, ATTEMPT_COST, attempts, ["nano"])


@dataclass(slots=True)
class _Sums:
    """n$ of one currency: by fact, by user, by job and attempt; and what of it is wasted."""

    facts: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    users: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    attempts: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))
    facts_wasted: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    users_wasted: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    jobs_wasted: dict[int, int] = field(default_factory=lambda: defaultdict(int))


def _summed(connection: sa.Connection, names: Names, cells: Mapping[Cell, int]) -> dict[str, _Sums]:
    """By currency. Plain, for there are as many cells as spans, and Python's numbers do not overflow."""
    found: dict[str, _Sums] = defaultdict(_Sums)
    known: dict[int, tuple[int, bool]] = {}
    for cell, nano in cells.items():
        _, _, _, _, fact, user, job, currency = cell
        told = known.get(fact)
        if told is None:
            what = names.fact(connection, fact)
            told = known[fact] = (what.attempt, what.outcome not in NO_WASTE)
        attempt, is_wasted = told
        one = found[currency]
        one.facts[fact] += nano
        one.users[user] += nano
        one.attempts[job, attempt] += nano
        if is_wasted:
            one.facts_wasted[fact] += nano
            one.users_wasted[user] += nano
            one.jobs_wasted[job] += nano
    return found


def proofs(since_ns: int, until_ns: int) -> Iterator[sa.Select[Any]]:
    """Sums of these hours that are not those of what is booked: their keys, and `off` by how much."""
    cells, sums = ALLOCATION.c, SUM.c
    bad = sa.select(FACT.c.id).where(FACT.c.outcome.not_in(NO_WASTE))
    wasted = sa.case((cells.fact.in_(bad), cells.nano), else_=0)
    hour = (cells.start_ns - cells.start_ns % HOUR_NS).label("hour")
    there = (cells.start_ns >= since_ns) & (cells.start_ns < until_ns)
    for name, what in WHATS.items():
        number = cells[name].label("number")
        booked = sa.select(cells.gpu, hour, number, cells.currency, cells.nano.label("x"), wasted.label("y")).where(
            there
        )
        keys = (sums.gpu, sums.hour, sums.number, sums.currency)
        within = (sums.what == what) & (sums.hour >= since_ns) & (sums.hour < until_ns)
        known = sa.select(*keys, -sums.nano, -sums.wasted).where(within)
        both = sa.union_all(booked, known).subquery().c
        groups = (both.gpu, both.hour, both.number, both.currency)
        x, y = sa.func.sum(both.x), sa.func.sum(both.y)
        off = sa.cast(sa.case((x != 0, x), else_=y), sa.BigInteger).label("off")
        question = sa.select(sa.literal(what, sa.BigInteger).label("what"), *groups, off)
        yield question.group_by(*groups).having((x != 0) | (y != 0))
