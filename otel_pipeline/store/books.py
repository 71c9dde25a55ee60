"""The books by name, each with a connection of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline.store.database import open_database
from otel_pipeline.store.error_groups import Bounds, ErrorGroups
from otel_pipeline.store.group_metrics import GroupMetrics

if TYPE_CHECKING:
    from pathlib import Path

    from otel_pipeline.contracts import Book
    from otel_pipeline.stats import Stats
    from otel_pipeline.store.config import StoreConfig


def open_book(name: str, config: StoreConfig, data_dir: Path, stats: Stats) -> Book:
    """Opens a book for the gateway. Raises StoreError if its store cannot be used, KeyError for an unknown name."""
    return _BOOKS[name](config, data_dir, stats)


def _error_groups(config: StoreConfig, data_dir: Path, stats: Stats) -> Book:
    def counted(event: str, number: int) -> None:
        stats.error_groups.labels(event).inc(number)

    bounds = Bounds(retention_s=config.error_groups.retention)
    database = open_database(config.place(data_dir), owner=True)
    stats.registry.register(GroupMetrics(database))
    return ErrorGroups(database, counted, bounds=bounds)


_BOOKS = {"error_groups": _error_groups}
