"""What holds for the book of error groups over any database. Each law gets an empty one."""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from otel_pipeline.store.error_group_queries import Wanted, find_group, list_groups, set_state
from otel_pipeline.store.error_groups import Bounds, ErrorGroups
from tests.support.error_occurrences import NOW_MS, NOW_S, Seen, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_pipeline.store.database import Database
    from otel_pipeline.store.error_group_tables import ErrorGroup

A, B = "aaaa000011112222", "bbbb000011112222"


class Fails(Exception):
    """A crash."""


class Watched:
    """A book with a clock to turn and what it told."""

    def __init__(self, database: Database, **bounds: Any) -> None:
        self.now_s = NOW_S
        self.told: dict[str, int] = {}
        self.database = database
        self.book = ErrorGroups(database, self._count, lambda: self.now_s, Bounds(**bounds))
        self._next = 0

    def _count(self, event: str, number: int) -> None:
        self.told[event] = self.told.get(event, 0) + number

    def apply(self, *seen: Seen) -> None:
        """One record."""
        self.book.apply("epoch", self._next, [record(seen)])
        self._next += 1

    def group(self, name: str = A) -> ErrorGroup:
        return find_group(self.database, name)[0]

    def services(self, name: str = A) -> dict[str, int]:
        return {one.service: one.count for one in find_group(self.database, name)[1]}

    def events(self) -> list[tuple[str, str]]:
        return [(one.event, one.group.fingerprint) for one in self.book.news]


def everything(database: Database) -> list[tuple[object, ...]]:
    """What the store knows of groups and services, without the numbers that it gave."""
    columns = "fingerprint, message, state, resolved_ms, first_seen_ms, first_span_id, last_seen_ms, last_span_id"
    groups = f"SELECT {columns}, count, traces, services FROM error_group ORDER BY fingerprint"  # noqa: S608
    services = (
        "SELECT fingerprint, service, s.count, s.first_seen_ms, s.last_seen_ms "
        "FROM error_group_service s JOIN error_group g ON g.id = s.group_id ORDER BY fingerprint, service"
    )
    with database.read() as connection:
        return [tuple(row) for query in (groups, services) for row in connection.execute(sa.text(query))]


def a_group_tells_what_it_has_seen(database: Database) -> None:
    watched = Watched(database)
    watched.apply(Seen(ago_ms=5000, message="first"), Seen(ago_ms=3000, span=2, service="api", message="last"))
    group = watched.group()
    assert (group.fingerprint, group.class_, group.rule, group.fault) == (
        A,
        "TIMEOUT_ERROR",
        "http-timeout",
        "provider",
    )
    assert group.retryable is True
    assert (group.first_seen_ms, group.last_seen_ms) == (NOW_MS - 5000, NOW_MS - 3000)
    assert (group.first_span_id, group.last_span_id) == ("0" * 15 + "1", "0" * 15 + "2")
    assert group.first_trace_id == "0" * 31 + "1"
    assert (group.count, group.traces, group.services) == (2, 1, 2)
    assert (group.state, group.message, group.exception_type) == ("open", "last", "httpx.ReadTimeout")
    assert watched.services() == {"worker": 1, "api": 1}


def nested_spans_of_a_trace_are_one_trace(database: Database) -> None:
    watched = Watched(database)
    watched.apply(*(Seen(trace=trace, span=10 * trace + span) for trace in (1, 2) for span in range(3)))
    watched.apply(Seen(trace=2, span=99))
    assert (watched.group().count, watched.group().traces) == (7, 2)


def the_same_span_counts_once(database: Database) -> None:
    watched = Watched(database)
    watched.apply(Seen(), Seen(ago_ms=500))
    watched.apply(Seen(ago_ms=100, service="collector"))
    assert (watched.group().count, watched.group().traces) == (1, 1)
    assert watched.services() == {"worker": 1}
    assert watched.told["repeated"] == 2


def a_record_of_no_span_counts_by_its_time(database: Database) -> None:
    watched = Watched(database)
    watched.apply(Seen(span=0), Seen(span=0, ago_ms=2000), Seen(span=0))
    watched.apply(Seen(span=0), Seen(span=0, trace=0), Seen(span=0, trace=0, ago_ms=2000))
    group = watched.group()
    assert (group.count, group.traces) == (4, 3)


def records_that_come_again_count_once(database: Database) -> None:
    records = [record([Seen(span=span, trace=span)]) for span in range(1, 6)]
    book = Watched(database).book
    book.apply("epoch", 0, records[:3])
    book.apply("epoch", 0, records[:3])
    book.apply("epoch", 1, records[1:])
    assert find_group(database, A)[0].count == 5
    assert book.position("epoch") == 5
    assert book.position("another outbox") == 0


def numbers_of_another_outbox_are_not_mixed_up(database: Database) -> None:
    book = Watched(database).book
    book.apply("one", 0, [record([Seen(span=1)]), record([Seen(span=2)])])
    book.apply("two", 0, [record([Seen(span=3)])])
    assert find_group(database, A)[0].count == 3
    assert (book.position("one"), book.position("two")) == (2, 1)


def any_split_gives_the_same(fresh: Callable[[], Database], number: int = 12) -> None:
    """Of the same records, in the same order, with what is told twice."""
    chance = random.Random(7)
    seen = [
        Seen(
            chance.choice([A, B, "c" * 16, "d" * 16]),
            chance.choice(["a", "b", "c", "d", None]),
            chance.randrange(1, 20) * 1000,
            chance.randrange(1, 12),
            chance.randrange(0, 30),
            chance.choice(["this", "that"]),
        )
        for _ in range(300)
    ]
    records = [record(seen[index : index + 10]) for index in range(0, len(seen), 10)]
    results = []
    for turn in range(number):
        database = fresh()
        watched = Watched(database, groups_max=3, services_max=2)
        first = 0
        while first < len(records):
            size = len(records) if turn == 0 else chance.randrange(1, 12)
            watched.book.apply("epoch", first, records[first : first + size])
            first += size
        results.append((everything(database), watched.events()))
    assert all(result[0] == results[0][0] for result in results)
    assert {tuple(sorted(result[1])) for result in results} == {tuple(sorted(results[0][1]))}


def a_crash_before_the_commit_leaves_nothing(database: Database) -> None:
    watched = Watched(database)
    watched.apply(Seen())
    before = everything(database)

    records = [record([Seen(span=2), Seen(B, span=3)])]
    original = database.write

    @contextmanager
    def crashing() -> Iterator[sa.Connection]:
        with original() as connection:
            yield connection
            raise Fails

    database.write = crashing  # type: ignore[method-assign]
    with pytest.raises(Fails):
        watched.book.apply("epoch", 1, records)
    database.write = original  # type: ignore[method-assign]
    assert everything(database) == before
    assert watched.book.position("epoch") == 1
    assert watched.events() == [("new", A)]
    watched.book.apply("epoch", 1, records)
    assert watched.group().count == 2
    assert watched.events() == [("new", A), ("new", B)]


def what_is_told_late_moves_the_first_time(database: Database) -> None:
    watched = Watched(database)
    watched.apply(Seen(ago_ms=1000, message="newest"))
    watched.apply(Seen(ago_ms=90_000, span=2, service="late", message="old"))
    group = watched.group()
    assert (group.first_seen_ms, group.last_seen_ms) == (NOW_MS - 90_000, NOW_MS - 1000)
    assert (group.first_span_id[-1], group.last_span_id[-1], group.message) == ("2", "1", "newest")


def a_time_in_the_future_or_none_is_now(database: Database) -> None:
    watched = Watched(database)
    watched.apply(Seen(ago_ms=-3_600_000), Seen(span=2, ago_ms=NOW_MS))
    assert (watched.group().first_seen_ms, watched.group().last_seen_ms) == (NOW_MS, NOW_MS)


def a_resolved_group_regresses_by_what_happens_after(database: Database) -> None:
    watched = Watched(database)
    watched.apply(Seen(ago_ms=10_000))
    resolved = set_state(database, A, "resolved", NOW_MS - 5000)
    assert (resolved.state, resolved.resolved_ms) == ("resolved", NOW_MS - 5000)
    watched.apply(Seen(ago_ms=6000, span=2))
    assert watched.group().state == "resolved"
    watched.apply(Seen(ago_ms=4000, span=3, service="again"))
    assert watched.group().state == "regressed"
    watched.apply(Seen(ago_ms=3000, span=4))
    assert watched.events() == [("new", A), ("regressed", A)]
    news = watched.book.news[-1]
    assert (news.service, news.span_id, news.time_ns) == ("again", "0" * 15 + "3", (NOW_MS - 4000) * 1_000_000)
    assert (watched.told["new"], watched.told["regressed"]) == (1, 1)
    set_state(database, A, "resolved", NOW_MS)
    watched.now_s += 10
    watched.apply(Seen(ago_ms=-5000, span=5))
    assert watched.events()[2:] == [("regressed", A)]


def an_ignored_group_makes_no_news(database: Database) -> None:
    watched = Watched(database)
    watched.apply(Seen())
    set_state(database, A, "ignored", NOW_MS - 5000)
    watched.apply(Seen(span=2))
    assert (watched.group().state, watched.group().count) == ("ignored", 2)
    assert watched.events() == [("new", A)]
    assert set_state(database, A, "open", NOW_MS).resolved_ms is None


def groups_beyond_the_bound_share_one(database: Database) -> None:
    watched = Watched(database, groups_max=2)
    watched.apply(Seen(A), Seen(B, span=2), Seen("c" * 16, span=3, trace=3), Seen("d" * 16, span=3, trace=3))
    watched.apply(Seen("c" * 16, span=4), Seen(A, span=5), Seen("", span=6))
    rest = watched.group("overflow")
    assert (rest.count, rest.class_, rest.services) == (4, "UNKNOWN_ERROR", 1)
    assert watched.group().count == 2
    assert [name for _, name in watched.events()] == [A, B, "overflow"]


def services_beyond_the_bound_share_one(database: Database) -> None:
    watched = Watched(database, services_max=2)
    watched.apply(*(Seen(span=span, service=f"s{span}", ago_ms=span * 1000) for span in range(1, 5)))
    watched.apply(Seen(span=9, service="s9"), Seen(span=10, service="s1"), Seen(span=11, service=None))
    assert watched.services() == {"s1": 2, "s2": 1, "__overflow__": 3}
    assert (watched.group().services, watched.group().count) == (2, 7)


def a_group_that_is_long_gone_is_forgotten(database: Database) -> None:
    watched = Watched(database, retention_s=1_000_000.0)
    watched.apply(Seen(A), Seen(B, span=2))
    watched.now_s += 999_000
    watched.apply(Seen(B, span=3, ago_ms=-999_000_000))
    watched.now_s += 4000
    watched.apply()
    assert [group.fingerprint for group in list_groups(database, Wanted())] == [B]
    watched.apply(Seen(A, span=4, ago_ms=-1_003_000_000))
    assert watched.events() == [("new", A), ("new", B), ("new", A)]
    assert watched.services() == {"worker": 1}


def the_memory_is_bounded_by_age_and_number(database: Database) -> None:
    def remembered() -> int:
        with database.read() as connection:
            return connection.execute(sa.text("SELECT count(*) FROM occurrence")).scalar_one()

    watched = Watched(database, occurrences_max=100)
    for turn in range(40):
        watched.now_s += 1
        watched.apply(*(Seen(span=10 * turn + span + 1, trace=turn + 1) for span in range(9)))
        assert remembered() <= 100
    assert remembered() >= 80
    watched.apply(Seen(span=391, trace=40))
    assert watched.told["repeated"] == 1
    watched.now_s += 25 * 3600
    watched.apply()
    assert remembered() == 0
    assert (watched.group().count, watched.group().traces) == (360, 40)


def a_damaged_record_is_counted_and_passed_over(database: Database) -> None:
    watched = Watched(database)
    watched.book.apply("epoch", 0, [b"damaged", record([Seen()]), record([Seen(span=2)])[:-1]])
    assert (watched.group().count, watched.told["unreadable"], watched.book.position("epoch")) == (1, 2, 3)


def groups_are_found_by_what_is_asked(database: Database) -> None:
    watched = Watched(database)
    watched.apply(Seen(A, ago_ms=9000), Seen(B, ago_ms=1000, service="api", span=2), Seen(B, ago_ms=2000, span=3))

    def found(**wanted: Any) -> str:
        return "".join(group.fingerprint[0] for group in list_groups(database, replace(Wanted(), **wanted)))

    set_state(database, A, "ignored", NOW_MS)
    assert found() == "ba"
    assert found(state="ignored") == "a"
    assert found(class_="TIMEOUT_ERROR", limit=1) == "b"
    assert found(class_="CANCELLED") == ""
    assert found(service="api") == "b"
    assert found(since_ms=NOW_MS - 5000) == "b"
    assert found(order="count") == "ba"
    assert found(order="first_seen") == "ba"


LAWS: list[Callable[[Database], None]] = [
    a_group_tells_what_it_has_seen,
    nested_spans_of_a_trace_are_one_trace,
    the_same_span_counts_once,
    a_record_of_no_span_counts_by_its_time,
    records_that_come_again_count_once,
    numbers_of_another_outbox_are_not_mixed_up,
    a_crash_before_the_commit_leaves_nothing,
    what_is_told_late_moves_the_first_time,
    a_time_in_the_future_or_none_is_now,
    a_resolved_group_regresses_by_what_happens_after,
    an_ignored_group_makes_no_news,
    groups_beyond_the_bound_share_one,
    services_beyond_the_bound_share_one,
    a_group_that_is_long_gone_is_forgotten,
    the_memory_is_bounded_by_age_and_number,
    a_damaged_record_is_counted_and_passed_over,
    groups_are_found_by_what_is_asked,
]
