"""GPUs that are shared by weight or in fixed parts, in the book of the ledger over a SQLite file."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.ledger.price_book import PriceBook
from otel_pipeline.store.database import Database
from tests.support.book_examples import examples
from tests.support.ledger_laws import any_order_gives_the_same_books, seen
from tests.support.ledger_records import One
from tests.support.ledger_share_laws import BOOKS, LAWS, spans


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_of_shares_holds_on_sqlite(law: Callable[[Database], None], fresh: Callable[[], Database]) -> None:
    law(fresh())


@examples(6, 200)
@given(spans(), st.lists(seen, max_size=3), st.integers(0, 10**6), st.sampled_from(BOOKS))
def test_any_order_of_shares_gives_the_same_books(
    fresh: Callable[[], Database],
    ones: list[One],
    times: list[dict[str, tuple[int, int]]],
    seed: int,
    book: PriceBook,
) -> None:
    any_order_gives_the_same_books(fresh, ones, times, seed, book)
