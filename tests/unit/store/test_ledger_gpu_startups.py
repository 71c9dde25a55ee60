"""When a GPU starts up, in the book of the ledger: before the first span of its life, wherever hours end."""

from __future__ import annotations

from collections.abc import Callable

from otel_pipeline.store.database import Database
from tests.support.ledger_laws import Watched, totals
from tests.support.ledger_records import GPU, One, record


def test_a_startup_goes_on_over_the_end_of_an_hour(fresh: Callable[[], Database]) -> None:
    """From minute 58 on, unseen for 4 minutes, used from minute 67 on."""
    watched = Watched(fresh())
    watched.apply(record(One(1, 67 * 60, 68 * 60), seen={GPU: (58, 61)}), record(seen={GPU: (66, 70)}))
    watched.settle()
    assert totals(watched.books())["startup"] == 9 * 60_000_000
    watched.prove()


def test_late_samples_make_a_life_begin_earlier_and_so_its_startup(fresh: Callable[[], Database]) -> None:
    """That a GPU started up for so long is only known when it is told that it was seen in between."""
    watched = Watched(fresh())
    watched.apply(record(One(1, 11 * 60, 12 * 60), seen={GPU: (0, 2)}), record(seen={GPU: (12, 30)}))
    watched.settle()
    assert "startup" not in totals(watched.books())
    watched.apply(record(seen={GPU: (7, 7)}))
    watched.settle()
    assert totals(watched.books())["startup"] == 11 * 60_000_000
    watched.prove()
