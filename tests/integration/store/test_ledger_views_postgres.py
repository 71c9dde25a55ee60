"""Views of the ledger over a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from otel_pipeline.store.database import Database, open_database
from otel_pipeline.store.ledger_metrics import LedgerMetrics
from otel_pipeline.store.ledger_report_config import CostReportsConfig
from tests.support.ledger_records import T0
from tests.support.ledger_view_laws import LAWS, filled
from tests.support.postgres import binaries, server

PROGRAMS = binaries()
pytest.importorskip("psycopg")
if PROGRAMS is None:
    pytest.skip("there is no PostgreSQL server", allow_module_level=True)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    assert PROGRAMS is not None
    with server(PROGRAMS) as url:
        yield url


@pytest.fixture
def fresh(url: str) -> Iterator[Callable[[], Database]]:
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


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_of_views_holds_on_postgresql(law: Callable[[Database], None], fresh: Callable[[], Database]) -> None:
    law(fresh())


def test_prometheus_is_told_the_day_of_a_ledger_on_postgresql(fresh: Callable[[], Database]) -> None:
    database = fresh()
    filled(database)
    families = LedgerMetrics(database, CostReportsConfig(), lambda: T0 + 80_000.0).collect()
    day = next(family for family in families if family.name == "otel_pipeline_day_cost")
    assert {sample.labels["currency"]: sample.value for sample in day.samples} == {"USD": 7.2, "EUR": 0.64}
