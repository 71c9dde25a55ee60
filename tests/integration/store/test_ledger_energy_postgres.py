"""GPUs that are priced by energy, in the book of the ledger over a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.ledger.price_book import PriceBook
from otel_pipeline.store.database import Database
from tests.integration.store.test_ledger_postgres import fresh as fresh  # noqa: PLC0414  a fixture
from tests.support.book_examples import examples
from tests.support.ledger_energy_laws import (
    BOOKS,
    LAWS,
    TARIFF,
    WATT_MINUTE,
    any_order_gives_the_same_energy,
    even,
    readings,
)
from tests.support.ledger_laws import Watched, spans, totals
from tests.support.ledger_records import GPU, One, record


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_of_energy_holds_on_postgresql(law: Callable[[Database], None], fresh: Callable[[], Database]) -> None:
    law(fresh())


@examples(3)
@given(spans(), readings, st.integers(0, 10**6), st.sampled_from(BOOKS))
def test_any_order_of_readings_gives_the_same_books_on_postgresql(
    fresh: Callable[[], Database], ones: list[One], told: list[tuple[str, float, int]], seed: int, book: PriceBook
) -> None:
    any_order_gives_the_same_energy(fresh, ones, told, seed, book)


def test_gateways_of_a_fleet_tell_one_counter(fresh: Callable[[], Database]) -> None:
    database = fresh()
    gateways = [Watched(database, TARIFF) for _ in range(3)]
    told = even(100, 0, 300)
    records = [record(seen={GPU: (0, 4)}, energy=told[number : number + 2]) for number in range(30)]

    def feed(number: int) -> None:
        for index in range(number, 30, 3):
            gateways[number].ledger.apply(f"outbox {number}", index // 3, [records[index]])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(feed, range(3)))
    gateways[0].settle()
    found = totals(gateways[0].books())
    assert found["total"] == found["idle"] == 500 * WATT_MINUTE
    assert "unpriced_ns" not in found
    gateways[0].prove()
