"""Views of a ledger: how long they take, each asked many times.

    python -m tests.benchmarks.ledger_views --spans 1000000 --users 2000 --directory /tmp/ledger-views

The store is filled as tests/benchmarks/ledger.py does it, with users; a directory that has one is used again. Times are
wall clock in ms, median and 95 of 100, and the process's CPU time: with SQLite that is all work.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from otel_pipeline.ledger.records import decode, encode
from otel_pipeline.ledger.views import IdlePolicy, StartupPolicy
from otel_pipeline.store.database import Database, open_database
from otel_pipeline.store.ledger import Ledger
from otel_pipeline.store.ledger_metrics import LedgerMetrics
from otel_pipeline.store.ledger_report import report, totals, window_of
from otel_pipeline.store.ledger_report_config import CostReportsConfig
from otel_pipeline.store.ledger_runs import list_jobs
from otel_pipeline.store.ledger_sums import SUM
from otel_pipeline.store.ledger_tables import ALLOCATION
from otel_pipeline.store.ledger_views import Idle, view
from otel_pipeline.store.ledger_windows import booked_ns
from otel_pipeline.wire.batch import Strings
from tests.benchmarks.ledger import arguments, batches, store
from tests.support.ledger_records import T0, prices

CONFIG = CostReportsConfig(reference_price="0.08")


def with_users(records: Iterator[bytes], users: int) -> Iterator[bytes]:
    """Each job belongs to one of so many users."""
    chance = np.random.default_rng(3)
    names = [f"user-{number:08d}" for number in range(users)]
    for record in records:
        read = decode(record)
        spans = read.spans
        assert spans is not None
        own = chance.integers(0, users, len(spans.job.values))
        codes = np.where(spans.job.codes < 0, -1, own[spans.job.codes]).astype(np.int32)
        yield encode(dataclasses.replace(spans, user=Strings(codes, names)), read.presence)


def fill(place: str | Path, spans: int, users: int) -> None:
    ledger = Ledger(open_database(place, owner=True), prices(), clock=lambda: T0 + 10**7)
    pending: list[bytes] = []
    applied = 0
    for record in with_users(batches(spans), users):
        pending.append(record)
        if len(pending) == 20:
            ledger.apply("bench", applied, pending)
            applied += len(pending)
            pending = []
    ledger.apply("bench", applied, pending)
    while not ledger.book():
        pass
    ledger.close()


def questions(database: Database) -> dict[str, Callable[[], object]]:
    """Each as a command or the page asks it."""
    with database.read() as connection:
        booked = booked_ns(connection)
    asked: dict[str, Callable[[], object]] = {}

    def reading(question: Callable[..., object], *arguments: object) -> Callable[[], object]:
        def ask() -> object:
            with database.read() as connection:
                return question(connection, *arguments)

        return ask

    for period in ("1h", "24h", "30d"):
        window = window_of(period, booked + 10**9, booked)
        for by in ("backend", "model", "user", "gpu", "hour", "job"):
            asked[f"{period} by {by}"] = reading(view, window, by)
        asked[f"{period} totals"] = reading(totals, window)
        asked[f"{period} jobs by cost"] = reading(list_jobs, window, "cost", 50)
        asked[f"{period} jobs by end"] = reading(list_jobs, window, "last", 50)
        asked[f"{period} report"] = partial(report, database, CONFIG, window, "backend", booked)
        asked[f"{period} by backend, idle weighted"] = reading(view, window, "backend", Idle(IdlePolicy.WEIGHTED))
        amortised = Idle(startup=StartupPolicy.AMORTISE)
        asked[f"{period} by backend, startup amortised"] = reading(view, window, "backend", amortised)
    clock = iter(range(booked // 10**9, 2**40, 60))
    metrics = LedgerMetrics(database, CONFIG, lambda: float(next(clock)))
    asked["metrics, read"] = metrics.read
    asked["metrics, scraped"] = lambda: list(metrics.collect())
    return asked


def main() -> None:
    options = arguments(__doc__, 50_000)
    options.add_argument("--users", type=int, default=2_000)
    options.add_argument("--times", type=int, default=20)
    given = options.parse_args()
    with store(given) as place:
        if not isinstance(place, Path) or not place.exists():
            fill(place, given.spans, given.users)
        ask_all(place, given.times)


def ask_all(place: str | Path, times: int) -> None:
    database = open_database(place, owner=False)
    with database.read() as connection:
        for table in (ALLOCATION, SUM):
            print(
                f"{table.name}: {connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one():,} rows"
            )
    print(f"{'':34}{'median ms':>10}{'p95 ms':>10}{'CPU ms':>10}")
    for name, ask in questions(database).items():
        took = []
        for _ in range(times):
            at, cpu = time.perf_counter(), time.process_time()
            ask()
            took.append(((time.perf_counter() - at) * 1000, (time.process_time() - cpu) * 1000))
        wall, used = zip(*took, strict=True)
        print(f"{name:34}{np.median(wall):10.1f}{np.percentile(wall, 95):10.1f}{np.median(used):10.1f}", flush=True)
    database.close()


if __name__ == "__main__":
    main()
