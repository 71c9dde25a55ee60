"""The book of error groups over a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from otel_pipeline.errors import StoreError
from otel_pipeline.store.database import METADATA, Database, open_database
from otel_pipeline.store.error_groups import ErrorGroups
from tests.support.error_group_laws import LAWS, A, B, any_split_gives_the_same, everything
from tests.support.error_occurrences import NOW_S, Seen, record


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_holds_on_postgresql(law: Callable[[Database], None], fresh: Callable[[], Database]) -> None:
    law(fresh())


def test_any_split_of_records_gives_the_same_totals_on_postgresql(fresh: Callable[[], Database]) -> None:
    any_split_gives_the_same(fresh, 4)


def test_gateways_that_start_at_one_time_migrate_once(fresh: Callable[[], Database], url: str) -> None:
    database = fresh()
    with database.write() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    with ThreadPoolExecutor(4) as threads:
        for other in threads.map(lambda _: open_database(url, owner=True), range(4)):
            other.close()
    with database.read() as connection:
        tables = sa.inspect(connection).get_table_names()
    assert {*tables} == {*METADATA.tables, "store_schema"}
    open_database(url, owner=False).close()


def test_gateways_that_count_at_one_time_count_each_span_once(fresh: Callable[[], Database], url: str) -> None:
    first = fresh()
    records = [
        record([Seen(name, trace=trace, span=span, service=f"s{span}") for name in (A, B) for span in range(1, 6)])
        for trace in range(1, 40)
    ]

    def count(gateway: int) -> list[tuple[str, str]]:
        book = ErrorGroups(open_database(url, owner=True), clock=lambda: NOW_S)
        for number, one in enumerate(records if gateway % 2 else records[::-1]):
            while True:
                try:
                    book.apply(f"gateway {gateway}", number, [one])
                    break
                except StoreError as error:  # of two that wait for each other one gives up, and comes again
                    assert "deadlock" in str(error)  # noqa: PT017
        book.close()
        return [(one.event, one.group.fingerprint) for one in book.news]

    with ThreadPoolExecutor(4) as threads:
        news = [one for told in threads.map(count, range(4)) for one in told]
    groups = [row for row in everything(first) if len(row) == 11]
    assert [(row[0], *row[-3:]) for row in groups] == [(A, 195, 39, 5), (B, 195, 39, 5)]
    assert sorted(news) == [("new", A), ("new", B)]
