"""The book of the ledger over a SQLite file."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.ledger.price_book import PriceBook
from otel_pipeline.store.database import Database
from tests.support.book_examples import examples
from tests.support.ledger_charge_laws import CHARGE_LAWS, new_prices_hold_after_reprice_alone
from tests.support.ledger_laws import (
    BOOKS,
    LAWS,
    any_order_gives_the_same_books,
    seen,
    spans,
)
from tests.support.ledger_records import One


@pytest.mark.parametrize("law", [*LAWS, *CHARGE_LAWS], ids=lambda law: law.__name__)
def test_a_law_of_the_ledger_holds_on_sqlite(law: Callable[[Database], None], fresh: Callable[[], Database]) -> None:
    law(fresh())


@examples(3, 300)
@given(spans(), st.lists(seen, max_size=4), st.integers(0, 10**6), st.sampled_from(BOOKS))
def test_any_order_and_any_split_gives_the_same_books(
    fresh: Callable[[], Database],
    ones: list[One],
    times: list[dict[str, tuple[int, int]]],
    seed: int,
    book: PriceBook,
) -> None:
    any_order_gives_the_same_books(fresh, ones, times, seed, book)


@examples(6, 100)
@given(spans(), st.lists(seen, max_size=4), st.integers(0, 10**6), st.sampled_from(BOOKS))
def test_a_change_of_prices_in_place_holds_after_reprice_alone(
    fresh: Callable[[], Database],
    ones: list[One],
    times: list[dict[str, tuple[int, int]]],
    seed: int,
    book: PriceBook,
) -> None:
    new_prices_hold_after_reprice_alone(fresh, ones, times, seed, book)
