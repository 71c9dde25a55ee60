"""What spans cost, added up by the hour and GPU for each way that people ask: by fact, by user, by job.

Apart, for together they would hardly be fewer than the spans: with two thousand users an hour of a GPU has as many sums
of fact and user as it has spans.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.store.database import METADATA
from otel_pipeline.store.ledger_tables import ALLOCATION, FACT, add_up

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def add_sums(
    connection: sa.Connection, names: Names, hour: int, gpu: int, cells: Mapping[tuple[int, int, int, str], int]
) -> None:
    """Adds what is booked now: n$ by fact, user, job and currency; within the transaction that books it."""
    nano: dict[tuple[int, int, str], int] = defaultdict(int)
    wasted: dict[tuple[int, int, str], int] = defaultdict(int)
    bad: dict[int, bool] = {}
    for (fact, user, job, currency), amount in cells.items():
        if fact not in bad:
            bad[fact] = names.fact(connection, fact).outcome not in NO_WASTE
        for key in ((BY_FACT, fact, currency), (BY_USER, user, currency), (BY_JOB, job, currency)):
            nano[key] += amount
            if bad[fact]:
                wasted[key] += amount
    rows = [
        (what, hour, gpu, number, currency, amount, wasted.get((what, number, currency), 0))
        for (what, number, currency), amount in sorted(nano.items())
        if amount or wasted.get((what, number, currency))
    ]
    add_up(connection, SUM, rows, ["nano", "wasted"])


def proof(since_ns: int, until_ns: int, amount: str) -> tuple[list[sa.Select[Any]], tuple[str, ...]]:
    """Rows whose column `x` adds up to 0 for each of the keys, if the sums (`nano` or `wasted`) of these hours hold."""
    names = ("what", "hour", "gpu", "number", "currency")
    cells, sums = ALLOCATION.c, SUM.c
    hour = (cells.start_ns - cells.start_ns % HOUR_NS).label("hour")
    bad = sa.select(FACT.c.id).where(FACT.c.outcome.not_in(NO_WASTE))
    wasted = sa.case((cells.fact.in_(bad), cells.nano), else_=0)
    x = (cells.nano if amount == "nano" else wasted).label("x")
    there = (cells.start_ns >= since_ns) & (cells.start_ns < until_ns)
    parts: list[sa.Select[Any]] = []
    for name, what in WHATS.items():
        keys = (sa.literal(what, sa.BigInteger).label("what"), hour, cells.gpu, cells[name].label("number"))
        parts.append(sa.select(*keys, cells.currency, x).where(there))
    known = sa.select(*(sums[name] for name in names), (-sums[amount]).label("x"))
    return [*parts, known.where((sums.hour >= since_ns) & (sums.hour < until_ns))], names
