"""Stores in SQLite files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from otel_pipeline.store.database import Database, open_database


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], Database]]:
    """Each call opens a new one."""
    numbers, opened = count(), []

    def make() -> Database:
        opened.append(open_database(tmp_path / f"{next(numbers)}.db", owner=True))
        return opened[-1]

    yield make
    for database in opened:
        database.close()
