"""The book of the ledger over a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.ledger.price_book import PriceBook
from otel_pipeline.store.database import Database, open_database
from otel_pipeline.store.ledger_verify import verify
from tests.support.book_examples import examples
from tests.support.ledger_charge_laws import CHARGE_LAWS
from tests.support.ledger_laws import BOOKS, LAWS, Watched, any_order_gives_the_same_books, seen, spans, totals
from tests.support.ledger_records import GPU, One, record


@pytest.fixture
def fresh(url: str) -> Iterator[Callable[[], Database]]:
    """Each call empties the schema of its own name, so that two can stand side by side."""
    opened = []

    def make() -> Database:
        name = f"ledger_{len(opened)}"
        engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            connection.execute(sa.text(f"DROP SCHEMA IF EXISTS {name} CASCADE"))
            connection.execute(sa.text(f"CREATE SCHEMA {name}"))
        engine.dispose()
        opened.append(open_database(f"{url}&options=-csearch_path%3D{name}", owner=True))
        return opened[-1]

    yield make
    for database in opened:
        database.close()


@pytest.mark.parametrize("law", [*LAWS, *CHARGE_LAWS], ids=lambda law: law.__name__)
def test_a_law_of_the_ledger_holds_on_postgresql(
    law: Callable[[Database], None], fresh: Callable[[], Database]
) -> None:
    law(fresh())


@examples(4)
@given(spans(), st.lists(seen, max_size=3), st.integers(0, 10**6), st.sampled_from(BOOKS))
def test_any_order_gives_the_same_books_on_postgresql(
    fresh: Callable[[], Database],
    ones: list[One],
    times: list[dict[str, tuple[int, int]]],
    seed: int,
    book: PriceBook,
) -> None:
    any_order_gives_the_same_books(fresh, ones, times, seed, book)


def test_gateways_of_a_fleet_feed_one_ledger(fresh: Callable[[], Database]) -> None:
    database = fresh()
    gateways = [Watched(database) for _ in range(3)]
    records = [
        record(One(1, 60 * number, 60 * number + 45, trace=number), seen={GPU: (number, number)})
        for number in range(30)
    ]

    def feed(number: int) -> None:
        for index in range(number, 30, 3):
            gateways[number].ledger.apply(f"outbox {number}", index // 3, [records[index], records[index - 1]][:1])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(feed, range(3)))
    gateways[0].settle()
    found = totals(gateways[0].books())
    assert found["span 1"] == 30 * 45_000_000
    assert verify(database).deviations == []
