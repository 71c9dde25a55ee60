"""GPUs that are priced by energy, in the book of the ledger over a SQLite file."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.ledger.price_book import PriceBook
from otel_pipeline.store.database import Database
from tests.support.book_examples import examples
from tests.support.ledger_energy_laws import BOOKS, LAWS, any_order_gives_the_same_energy, readings
from tests.support.ledger_laws import spans
from tests.support.ledger_records import One


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_of_energy_holds_on_sqlite(law: Callable[[Database], None], fresh: Callable[[], Database]) -> None:
    law(fresh())


@examples(8, 200)
@given(spans(), readings, st.integers(0, 10**6), st.sampled_from(BOOKS))
def test_any_order_of_readings_gives_the_same_books(
    fresh: Callable[[], Database], ones: list[One], told: list[tuple[str, float, int]], seed: int, book: PriceBook
) -> None:
    any_order_gives_the_same_energy(fresh, ones, told, seed, book)
