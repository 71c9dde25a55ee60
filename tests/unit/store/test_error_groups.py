"""The book of error groups over a SQLite file."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from otel_pipeline.store.database import Database
from otel_pipeline.store.error_group_queries import NoSuchGroup, find_group
from tests.support.error_group_laws import LAWS, A, Watched, any_split_gives_the_same
from tests.support.error_occurrences import Seen


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_holds_on_sqlite(law: Callable[[Database], None], fresh: Callable[[], Database]) -> None:
    law(fresh())


def test_any_split_of_records_gives_the_same_totals(fresh: Callable[[], Database]) -> None:
    any_split_gives_the_same(fresh)


def test_a_group_is_found_by_number_and_by_the_begin_of_its_fingerprint(fresh: Callable[[], Database]) -> None:
    watched = Watched(fresh())
    watched.apply(Seen(A), Seen("aaaa999911112222", span=2), Seen("1234567812345678", span=3), Seen("12345678", span=4))
    by_number = watched.group("1")
    assert watched.group(A.upper()) == by_number
    assert watched.group("aaaa9").fingerprint == "aaaa999911112222"
    assert watched.group("12345678").fingerprint == "12345678"
    assert watched.group("123456781").fingerprint == "1234567812345678"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("7", "no group 7"),
        ("aaaa", "more than one"),
        ("ffff", "no group ffff"),
        ("aa%", "first 4"),
        ("aaaa%", "no group"),
    ],
)
def test_a_name_of_no_group_is_told(name: str, told: str, fresh: Callable[[], Database]) -> None:
    watched = Watched(fresh())
    watched.apply(Seen(A), Seen("aaaa999911112222", span=2))
    with pytest.raises(NoSuchGroup, match=told):
        find_group(watched.database, name)
