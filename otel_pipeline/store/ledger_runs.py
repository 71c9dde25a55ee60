"""Attempts of jobs as they ended: how many, of what kind, with which outcome. What they cost stands in the ledger.

The facts of a job's own span tell what it was (backend, workflow, tier, configured attributes) and how it came out.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import sqlalchemy as sa

from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.store.database import METADATA, listed
from otel_pipeline.store.ledger_sums import NO_WASTE, SUCCEEDED
from otel_pipeline.store.ledger_tables import ATTEMPT_COST, FACT, GPU_HOUR, JOB, USER, WORD, merge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline.store.ledger_arrivals import Arrivals
    from otel_pipeline.store.ledger_windows import Window

RUN: Final = sa.Table(
    "ledger_run",
    METADATA,
    sa.Column("job", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("first_ns", sa.BigInteger, nullable=False),
    sa.Column("last_ns", sa.BigInteger, nullable=False),
    sa.Column("fact", sa.BigInteger, nullable=False),
    sa.Column("user_id", sa.BigInteger, nullable=False),
)
"""The span of each attempt of a job; of several the one that ended last. There is an index by last_ns."""

LATER: Final = "(excluded.last_ns, excluded.fact) > (ledger_run.last_ns, ledger_run.fact)"
CHANGES: Final = {
    name: f"CASE WHEN {LATER} THEN excluded.{name} ELSE {RUN.name}.{name} END"
    for name in ("first_ns", "last_ns", "fact", "user_id")
}

ATTEMPTS_USUAL: Final = 8
"""Of one job at most; where jobs have more a list may be shorter than was asked for."""
FAILED: Final = FACT.c.outcome.not_in((*NO_WASTE, "cancelled"))


@dataclass(slots=True)
class Ended:
    """Jobs that ended: an attempt each, so a job that was tried again and then succeeded counts in both."""

    succeeded: int = 0
    failed: int = 0
    other: int = 0
    """Cancelled, skipped, or nobody knows."""

    def add(self, other: Ended) -> None:
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.other += other.other


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job over all of its attempts, whenever they were. `nano` is None where nothing is booked."""

    job: str
    job_type: str
    user: str
    backend: str
    workflow: str
    attempts: int
    outcome: str
    first_ns: int
    last_ns: int
    nano: int | None
    wasted: int
    currency: str


def keep_runs(connection: sa.Connection, arrivals: Arrivals) -> None:
    """Adds what new spans tell; within the transaction that stores them."""
    found: dict[tuple[int, int], tuple[int, int, int, int]] = {}
    jobs = {number for number, fact in arrivals.facts.items() if fact.kind == "job"}
    rows = np.flatnonzero((arrivals.job != 0) & np.isin(arrivals.fact, list(jobs)))
    columns = (arrivals.job, arrivals.start_ns, arrivals.end_ns, arrivals.fact, arrivals.user)
    for job, *run in zip(*(column[rows].tolist() for column in columns), strict=True):
        first, last, fact, user = run
        key = (job, arrivals.facts[fact].attempt)
        known = found.get(key)
        if known is None or (last, fact) > known[1:3]:
            found[key] = (first, last, fact, user)
    merge(connection, RUN, [(*key, *run) for key, run in found.items()], CHANGES)


def ended(connection: sa.Connection, window: Window, name: str) -> dict[int, Ended]:
    """What ended, by fact, user_id or hour."""
    key = (RUN.c.last_ns - RUN.c.last_ns % HOUR_NS).label("hour") if name == "hour" else RUN.c[name]
    every = sa.select(key, sa.func.count()).where(_ended_in(window)).group_by(key)
    found = {value: Ended(succeeded=count) for value, count in connection.execute(every).all()}
    # Few do not succeed: to look for them alone takes less time than to group all by how they came out.
    others = (FACT.c.kind == "job") & FACT.c.outcome.not_in(SUCCEEDED)
    outcomes = {row.id: row.outcome for row in connection.execute(sa.select(FACT.c.id, FACT.c.outcome).where(others))}
    if not outcomes:
        return found
    those = RUN.c.fact.in_(sa.select(FACT.c.id).where(others))
    rest = sa.select(key, RUN.c.fact, sa.func.count()).where(_ended_in(window) & those).group_by(key, RUN.c.fact)
    for value, fact, count in connection.execute(rest).all():
        one = found[value]
        one.succeeded -= count
        if outcomes[fact] in {*NO_WASTE, "cancelled"}:
            one.other += count
        else:
            one.failed += count
    return found


def succeeded_by_type(
    connection: sa.Connection, window: Window, by_fact: Mapping[int, Ended] | None = None
) -> dict[str, int]:
    """Attempts that succeeded, by type of job; `by_fact`: what ended in the window, where it is known."""
    found: dict[str, int] = {}
    facts = ended(connection, window, "fact") if by_fact is None else by_fact
    types = listed(connection, [("id", WORD, sorted(facts))])
    question = sa.select(FACT.c.id, FACT.c.job_type).where(FACT.c.id.in_(sa.select(types.c.id)))
    for number, job_type in connection.execute(question) if facts else ():
        if facts[number].succeeded:
            found[job_type] = found.get(job_type, 0) + facts[number].succeeded
    return found


def failed_for_good(connection: sa.Connection, window: Window) -> int:
    """Jobs that failed and did not succeed in any attempt: those that people get their money back for."""
    other, good = RUN.alias(), sa.select(FACT.c.id).where(FACT.c.outcome.in_(SUCCEEDED))
    rescued = sa.exists().where((other.c.job == RUN.c.job) & other.c.fact.in_(good))
    question = (
        sa.select(sa.func.count(RUN.c.job.distinct()))
        .where(_ended_in(window) & RUN.c.fact.in_(sa.select(FACT.c.id).where(FAILED)))
        .where(~rescued)
    )
    return connection.execute(question).scalar_one()


def superseded(connection: sa.Connection, window: Window) -> dict[str, int]:
    """n$ by currency of attempts of unknown or good outcome before one that succeeded in the window: done twice."""
    later, earlier = RUN.alias(), RUN.alias()
    good = sa.select(FACT.c.id).where(FACT.c.outcome.in_(SUCCEEDED))
    bad = sa.select(FACT.c.id).where(FACT.c.outcome.not_in(NO_WASTE))
    cost = ATTEMPT_COST
    before = (cost.c.job == later.c.job) & (cost.c.attempt < later.c.attempt)
    same = (earlier.c.job == cost.c.job) & (earlier.c.attempt == cost.c.attempt)
    ended_here = (later.c.last_ns >= window.start_ns) & (later.c.last_ns < window.end_ns) & (later.c.attempt > 1)
    known = sa.exists().where(same & earlier.c.fact.in_(bad))
    rows = (
        sa.select(cost.c.job, cost.c.attempt, cost.c.currency, cost.c.nano)
        .join_from(later, cost, before)
        .where(ended_here & later.c.fact.in_(good) & ~known)
        .distinct()
        .subquery()
    )
    question = sa.select(rows.c.currency, sa.cast(sa.func.sum(rows.c.nano), sa.BigInteger)).group_by(rows.c.currency)
    return {currency: nano for currency, nano in connection.execute(question) if nano}


def last_costs(connection: sa.Connection, window: Window, currency: str) -> dict[str, int]:
    """n$ of the job of each backend that ended last in the window and has a cost, over all of its attempts."""
    cost = sa.cast(sa.func.sum(ATTEMPT_COST.c.nano), sa.BigInteger)
    ends = (
        sa.select(FACT.c.backend, sa.func.max(RUN.c.last_ns).label("last_ns"))
        .join_from(RUN, FACT, FACT.c.id == RUN.c.fact)
        .where(_ended_in(window) & (FACT.c.backend != ""))
        .where(
            sa.exists().where((ATTEMPT_COST.c.job == RUN.c.job) & (ATTEMPT_COST.c.currency == currency)),
        )
        .group_by(FACT.c.backend)
        .subquery()
    )
    question = (
        sa.select(ends.c.backend, RUN.c.job, cost)
        .join_from(ends, RUN, RUN.c.last_ns == ends.c.last_ns)
        .join(FACT, (FACT.c.id == RUN.c.fact) & (FACT.c.backend == ends.c.backend))
        .join(ATTEMPT_COST, (ATTEMPT_COST.c.job == RUN.c.job) & (ATTEMPT_COST.c.currency == currency))
        .group_by(ends.c.backend, RUN.c.job)
        .order_by(RUN.c.job)
    )
    return {backend: nano for backend, _, nano in connection.execute(question)}


def list_jobs(connection: sa.Connection, window: Window, order: str, limit: int) -> list[JobLine]:
    """Jobs that ended in the window, by `cost`, `last` or `duration`, the largest first; a line for each currency."""
    jobs = _top(connection, window, order, limit)
    if not jobs:
        return []
    wanted = sa.select(listed(connection, [("job", WORD, jobs)]).c.job)
    costs: dict[int, dict[str, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
    for row in connection.execute(sa.select(ATTEMPT_COST).where(ATTEMPT_COST.c.job.in_(wanted))):
        costs[row.job][row.currency][row.attempt] = row.nano
    question = (
        sa.select(
            *RUN.c, JOB.c.name, FACT.c.job_type, FACT.c.backend, FACT.c.workflow, FACT.c.outcome,
            USER.c.name.label("user"),
        )
        .join_from(RUN, JOB, JOB.c.id == RUN.c.job)
        .join(FACT, FACT.c.id == RUN.c.fact)
        .join(USER, USER.c.id == RUN.c.user_id, isouter=True)
        .where(RUN.c.job.in_(wanted))
        .order_by(RUN.c.job, RUN.c.attempt)
    )  # fmt: skip
    runs: dict[int, list[Any]] = defaultdict(list)
    for row in connection.execute(question):
        runs[row.job].append(row)
    return [line for job in jobs for line in _job_lines(runs[job], costs[job])]


def _top(connection: sa.Connection, window: Window, order: str, limit: int) -> list[int]:
    """The numbers of the jobs, in order; those without a cost behind all others."""
    if order == "duration":
        by = (sa.func.max(RUN.c.last_ns) - sa.func.min(RUN.c.first_ns)).desc()
        question = sa.select(RUN.c.job).where(_ended_in(window)).group_by(RUN.c.job).order_by(by, RUN.c.job)
        return [row.job for row in connection.execute(question.limit(limit))]
    found = _dearest(connection, window, limit) if order == "cost" else []
    if len(found) < limit:
        latest = sa.select(RUN.c.job).where(_ended_in(window)).order_by(RUN.c.last_ns.desc(), RUN.c.job)
        found += [row.job for row in connection.execute(latest.limit(limit * ATTEMPTS_USUAL))]
    return list(dict.fromkeys(found))[:limit]


def _dearest(connection: sa.Connection, window: Window, limit: int) -> list[int]:
    """The numbers of jobs that have a cost, the dearest first, some twice. Where costs are in several currencies each
    job stands where its largest amount is.
    """
    hours = (GPU_HOUR.c.hour >= window.start_ns - HOUR_NS) & (GPU_HOUR.c.hour < window.end_ns)
    currencies = sa.select(GPU_HOUR.c.currency).where(hours & (GPU_HOUR.c.currency != "")).distinct()
    found: list[tuple[int, int]] = []
    for currency in connection.execute(currencies).scalars().all():
        question = _by_cost(connection, window, currency)
        rows = connection.execute(question.limit(limit * ATTEMPTS_USUAL))
        found += [(-row.cost, row.job) for row in rows if row.cost >= 0]
    return [job for _, job in sorted(found)]


def _by_cost(connection: sa.Connection, window: Window, currency: str) -> sa.Select[Any]:
    """Columns cost (-1: none in this currency) and job, the dearest first."""
    columns = ATTEMPT_COST.c
    nano = sa.cast(sa.func.sum(columns.nano), sa.BigInteger)
    if connection.dialect.name == "postgresql":
        here = sa.select(RUN.c.job).where(_ended_in(window))
        jobs = sa.select(nano.label("cost"), columns.job).where((columns.currency == currency) & columns.job.in_(here))
        return jobs.group_by(columns.job).order_by(sa.desc("cost"), columns.job)
    # SQLite sorts what it groups, all but a few in vain: let each run ask for the cost of its job.
    cost = sa.select(sa.func.coalesce(nano, -1)).where((columns.job == RUN.c.job) & (columns.currency == currency))
    runs = sa.select(cost.scalar_subquery().label("cost"), RUN.c.job).where(_ended_in(window))
    return runs.order_by(sa.desc("cost"), RUN.c.job)


def _job_lines(runs: list[Any], costs: dict[str, dict[int, int]]) -> list[JobLine]:
    """The lines of one job; `runs` by attempt, costs by currency and attempt."""
    last = runs[-1]
    lost = {run.attempt for run in runs if run.outcome not in NO_WASTE}
    return [
        JobLine(
            job=last.name,
            job_type=last.job_type,
            user=last.user or "",
            backend=last.backend,
            workflow=last.workflow,
            attempts=len(runs),
            outcome=last.outcome,
            first_ns=min(run.first_ns for run in runs),
            last_ns=max(run.last_ns for run in runs),
            nano=sum(amounts.values()) if amounts else None,
            wasted=sum(nano for attempt, nano in amounts.items() if attempt in lost),
            currency=currency,
        )
        for currency, amounts in sorted(costs.items()) or [("", {})]
    ]


def _ended_in(window: Window) -> sa.ColumnElement[bool]:
    return (RUN.c.last_ns >= window.start_ns) & (RUN.c.last_ns < window.end_ns)
