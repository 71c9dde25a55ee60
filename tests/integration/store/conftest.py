"""A real PostgreSQL server for the books. CI installs one; elsewhere its tests are skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from otel_pipeline.store.database import Database, open_database
from tests.support.postgres import server_for_tests


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """Where the server is, with an empty database."""
    with server_for_tests() as found:
        yield found


@pytest.fixture
def fresh(url: str) -> Iterator[Callable[[], Database]]:
    """Each call opens a store in a schema that was emptied."""
    opened = []

    def make() -> Database:
        engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
        engine.dispose()
        opened.append(open_database(url, owner=True))
        return opened[-1]

    yield make
    for database in opened:
        database.close()
