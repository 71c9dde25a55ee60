"""Views of the ledger over a SQLite file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.ledger.price_book import PriceBook
from otel_pipeline.ledger.views import StartupPolicy
from otel_pipeline.store.database import Database
from otel_pipeline.store.ledger_reprice import reprice
from otel_pipeline.store.ledger_views import OTHER_JOBS, NoSuchView
from otel_pipeline.store.ledger_windows import Window
from tests.support import ledger_correction_laws
from tests.support.book_examples import examples
from tests.support.ledger_correction_laws import corrections_lead_to_todays_file, files_of
from tests.support.ledger_laws import BOOKS, Watched, seen, spans
from tests.support.ledger_records import SECOND, T0, One, record
from tests.support.ledger_view_laws import (
    DAY,
    LAWS,
    cold,
    every_file_adds_up,
    every_view_adds_up,
    filled,
    report_of,
)


@pytest.mark.parametrize("law", [*LAWS, *ledger_correction_laws.LAWS], ids=lambda law: law.__name__)
def test_a_law_of_views_holds_on_sqlite(law: Callable[[Database], None], fresh: Callable[[], Database]) -> None:
    law(fresh())


def test_a_view_that_is_not_there_is_refused(fresh: Callable[[], Database]) -> None:
    database = fresh()
    filled(database)
    with pytest.raises(NoSuchView, match="attributes of jobs: length"):
        report_of(database, by="colour")


def test_jobs_beyond_the_bound_are_one_line_whoever_bears_cold_starts(
    fresh: Callable[[], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C is not among the dearest jobs by what it used alone."""
    monkeypatch.setattr("otel_pipeline.store.ledger_views.COST_JOBS_MAX", 1)
    database = fresh()
    cold(database)
    told = {
        startup: [(line.name, line.nano) for line in report_of(database, by="job", startup=startup).view.lines]
        for startup in StartupPolicy
    }
    assert told == {
        "separate": [(OTHER_JOBS, 90_000_000), ("A", 60_000_000)],
        "charge_trigger": [("A", 180_000_000), (OTHER_JOBS, 150_000_000)],
        "amortise": [(OTHER_JOBS, 210_000_000), ("A", 120_000_000)],
    }
    every_view_adds_up(database, views=("job",))


def test_an_empty_ledger_has_an_empty_report(fresh: Callable[[], Database]) -> None:
    found = report_of(fresh())
    assert (found.totals, found.view.lines, found.refund_rate) == ({}, [], None)


@examples(2, 200)
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
        every_view_adds_up(database, window)


@examples(5, 60)
@given(spans(), spans(), st.lists(seen, max_size=3), st.tuples(st.sampled_from(BOOKS), st.sampled_from(BOOKS)))
def test_an_earlier_file_and_its_corrections_are_todays_file(
    fresh: Callable[[], Database],
    ones: list[One],
    late: list[One],
    times: list[dict[str, tuple[int, int]]],
    prices: tuple[PriceBook, PriceBook],
) -> None:
    database = fresh()
    watched = Watched(database, prices[0])
    watched.apply(record(*ones), *(record(seen=one) for one in times[:1] if one))
    watched.settle()
    with TemporaryDirectory() as directory:
        earlier, booking = files_of(database, Path(directory))
        watched.apply(record(*(replace(one, span=one.span + 5, parent=one.parent + 5) for one in late)))
        watched.apply(*(record(seen=one) for one in times[1:] if one))
        watched.settle()
        reprice(database, prices[1], T0 * SECOND, int(watched.now_s * 1000))
        corrections_lead_to_todays_file(database, Path(directory), earlier, booking)
