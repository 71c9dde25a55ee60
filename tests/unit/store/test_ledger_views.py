"""Views of the ledger over a SQLite file."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_pipeline.ledger.price_book import PriceBook
from otel_pipeline.ledger.views import IdlePolicy
from otel_pipeline.store.database import Database
from otel_pipeline.store.ledger_views import NoSuchView
from otel_pipeline.store.ledger_windows import Window
from tests.support.ledger_laws import BOOKS, Watched, seen, spans
from tests.support.ledger_records import SECOND, T0, One, record
from tests.support.ledger_view_laws import DAY, FEW, LAWS, every_file_adds_up, every_view_adds_up, filled, report_of

FULL = os.environ.get("OTEL_PIPELINE_TEST_PROFILE") == "full"


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_of_views_holds_on_sqlite(law: Callable[[Database], None], fresh: Callable[[], Database]) -> None:
    law(fresh())


def test_a_view_that_is_not_there_is_refused(fresh: Callable[[], Database]) -> None:
    database = fresh()
    filled(database)
    with pytest.raises(NoSuchView, match="attributes of jobs: length"):
        report_of(database, by="colour")


def test_an_empty_ledger_has_an_empty_report(fresh: Callable[[], Database]) -> None:
    found = report_of(fresh())
    assert (found.totals, found.view.lines, found.refund_rate) == ({}, [], None)


@settings(
    max_examples=200 if FULL else 2,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    spans(),
    st.lists(seen, max_size=3),
    st.sampled_from(BOOKS),
    st.tuples(st.integers(0, 100), st.integers(1, 200)),
)
def test_every_view_of_every_window_adds_up(
    fresh: Callable[[], Database],
    ones: list[One],
    times: list[dict[str, tuple[int, int]]],
    book: PriceBook,
    minutes: tuple[int, int],
) -> None:
    database = fresh()
    watched = Watched(database, book)
    watched.apply(record(*ones), *(record(seen=one) for one in times if one))
    watched.settle()
    every_file_adds_up(database)
    start = (T0 + minutes[0] * 60) * SECOND
    for window in (DAY, Window(start, start + minutes[1] * 60 * SECOND)):
        every_view_adds_up(database, window, FEW, (IdlePolicy.SEPARATE, IdlePolicy.WEIGHTED))
