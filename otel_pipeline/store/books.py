"""The books by name, each with a connection of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline.ledger.money import NANO
from otel_pipeline.store.database import open_database
from otel_pipeline.store.error_groups import Bounds, ErrorGroups
from otel_pipeline.store.group_metrics import GroupMetrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otel_pipeline.contracts import Book
    from otel_pipeline.ledger.price_book import PriceBook
    from otel_pipeline.stats import Stats
    from otel_pipeline.store.config import StoreConfig


def open_book(name: str, config: StoreConfig, data_dir: Path, stats: Stats, users: Sequence[object] = ()) -> Book:
    """Opens a book for the gateway. `users` are the settings of the processors that leave records for it. Raises
    StoreError if its store cannot be used, ConfigError if a file that they name cannot, KeyError for an unknown name.
    """
    return _BOOKS[name](config, data_dir, stats, users)


def prices_of(users: Sequence[object]) -> PriceBook:
    """The prices by which a ledger is kept: those of the processors that leave records for it."""
    from otel_pipeline.ledger.price_file import book_of  # noqa: PLC0415  other books start faster without

    paths = dict.fromkeys(path for user in users for path in getattr(user, "prices", ()))
    return book_of(paths, defaults=all(getattr(user, "defaults", True) for user in users))


def _ledger(config: StoreConfig, data_dir: Path, stats: Stats, users: Sequence[object]) -> Book:
    from otel_pipeline.store.ledger import Ledger  # noqa: PLC0415  as above
    from otel_pipeline.store.ledger_metrics import LedgerMetrics  # noqa: PLC0415  as above

    def counted(event: str, number: int) -> None:
        stats.ledger.labels(event).inc(number)

    settings = config.ledger
    database = open_database(config.place(data_dir), owner=True)
    metrics = LedgerMetrics(database, config.cost_reports)
    stats.registry.register(metrics)
    return Ledger(
        database,
        prices_of(users),
        counted,
        period_ns=int(settings.period) * NANO,
        lateness_s=settings.lateness,
        retention_s=settings.retention,
        observe=metrics.read,
    )


def _error_groups(config: StoreConfig, data_dir: Path, stats: Stats, _users: Sequence[object]) -> Book:
    def counted(event: str, number: int) -> None:
        stats.error_groups.labels(event).inc(number)

    bounds = Bounds(retention_s=config.error_groups.retention)
    database = open_database(config.place(data_dir), owner=True)
    stats.registry.register(GroupMetrics(database))
    return ErrorGroups(database, counted, bounds=bounds)


_BOOKS = {"error_groups": _error_groups, "ledger": _ledger}
