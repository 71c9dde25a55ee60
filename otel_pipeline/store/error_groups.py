"""Book `error_groups`: failures by fingerprint, with counts, services, an example and a state.

One transaction applies many records: occurrences are added up first (error_sums.py), those that were counted before
fall out, and then each group is read and written once. The memory of what was counted is bounded by age and number.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
import sqlalchemy as sa

from otel_pipeline.failures.news import News
from otel_pipeline.failures.occurrences import Group, decode
from otel_pipeline.limits import (
    ERROR_GROUP_RETENTION_S,
    ERROR_GROUP_SERVICES_MAX,
    ERROR_GROUPS_MAX,
    ERROR_NEWS_MAX,
    OCCURRENCES_KEPT,
    OCCURRENCES_KEPT_S,
    STORE_PRUNE_S,
)
from otel_pipeline.store.database import insert, keep_position, listed, position
from otel_pipeline.store.error_group_tables import (
    ERROR_GROUP,
    ERROR_GROUP_SERVICE,
    OCCURRENCE,
    OPEN,
    OVERFLOW,
    OVERFLOW_SERVICE,
    REGRESSED,
    RESOLVED,
    ErrorGroup,
)
from otel_pipeline.store.error_sums import gather, in_order, sums

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline.failures.occurrences import Occurrences
    from otel_pipeline.store.database import Database
    from otel_pipeline.store.error_sums import Gathered, Ints, Sum

log = logging.getLogger(__name__)

THE_REST: Final = Group(
    OVERFLOW,
    "UNKNOWN_ERROR",
    rule="",
    retryable=False,
    fault="platform",
    exception_type="",
    message="Failures that have no group of their own.",
    span_name="",
)
"""What stands in the group of those that are too many, or were not looked at in full."""

FIELDS: Final = tuple(field.name for field in fields(ErrorGroup))
CHANGING: Final = tuple(name for name in FIELDS if name not in {"id", "fingerprint", "resolved_ms"})
LOOKS: Final = ("rule", "retryable", "fault", "exception_type", "message", "span_name")
Row: TypeAlias = dict[str, Any]
"""A group on its way through, by FIELDS."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept."""

    groups_max: int = ERROR_GROUPS_MAX
    services_max: int = ERROR_GROUP_SERVICES_MAX
    """Of each group."""
    occurrences_max: int = OCCURRENCES_KEPT
    retention_s: float = ERROR_GROUP_RETENTION_S


class ErrorGroups:
    """Keeps the groups in a database. `counted(event, number)` is told: new, regressed, repeated (occurrences that were
    counted before), unreadable (records).
    """

    name: str = "error_groups"

    def __init__(
        self,
        database: Database,
        counted: Callable[[str, int], None] = lambda _event, _number: None,
        clock: Callable[[], float] = time.time,
        bounds: Bounds = Bounds(),
    ) -> None:
        self._database = database
        self._counted = counted
        self._clock = clock
        self._bounds = bounds
        self._noted = 0
        """Rows of the memory, about: other gateways may write there, too."""
        self._prune_at_s = 0.0
        self.news: Final[deque[News]] = deque(maxlen=ERROR_NEWS_MAX)
        """What the operator should hear of, the oldest first; whoever tells it takes it out."""

    def position(self, epoch: str) -> int:
        """The number of the first record that is not applied; 0 if the outbox is unknown."""
        with self._database.read() as connection:
            return position(connection, self.name, epoch)

    def apply(self, epoch: str, first: int, records: Sequence[bytes]) -> None:
        """Apply records numbered from `first` on; those that were applied before are passed over."""
        now_s = self._clock()
        prune = now_s >= self._prune_at_s
        with self._database.write() as connection:
            start = max(first, position(connection, self.name, epoch))
            pending = records[start - first :]
            readable, unreadable = _readable(pending, start)
            told = sum(len(record.table) for record in readable)
            application = _Application(connection, self._bounds, int(now_s * 1000))
            news = application.apply(gather(readable, int(now_s * 1e9)))
            if pending:
                keep_position(connection, self.name, epoch, start + len(pending), int(now_s * 1000))
            noted = _pruned(connection, self._bounds, now_s, None if prune else self._noted + application.noted)
        # Only what is committed is told.
        self._noted = noted
        self._prune_at_s = now_s + STORE_PRUNE_S if prune else self._prune_at_s
        self.news.extend(news)
        numbers = Counter[str](one.event for one in news)
        numbers.update(repeated=told - application.counted, unreadable=unreadable)
        for event, number in numbers.items():
            self._counted(event, number)

    def close(self) -> None:
        """Give up the store."""
        self._database.close()


class _Application:
    """The records of one call, on their way into the store."""

    def __init__(self, connection: sa.Connection, bounds: Bounds, now_ms: int) -> None:
        self._connection = connection
        self._bounds = bounds
        self._now_ms = now_ms
        self.noted = 0
        """Rows that the memory got."""
        self.counted = 0

    def apply(self, gathered: Gathered) -> list[News]:
        """Counts what was not counted before. Returns what is news."""
        fresh = gathered.only(np.isin(gathered.key, self._note(gathered.key)))
        self.counted = len(fresh)
        if not len(fresh):
            return []
        groups = self._assigned(fresh)
        traces = self._traces(fresh)
        services = self._services(fresh, groups)
        news, rows = [], []
        for (place,), total in sums(fresh, fresh.group).items():
            row = groups[fresh.fingerprints[place]]
            is_new, state = not row["count"], row["state"]
            _merge(row, fresh, total, self._now_ms)
            row["traces"] += traces[place]
            row["services"] = services[row["id"]]
            rows.append(row)
            if is_new or row["state"] != state:
                news.append(_news("new" if is_new else "regressed", row, fresh, total.last_row))
        self._write(rows)
        return news

    def _note(self, keys: Ints) -> Ints:
        """Remembers keys; returns those that were not there."""
        if not len(keys):
            return keys
        source = listed(self._connection, [("key", sa.BigInteger(), np.sort(keys).tolist())])
        rows = sa.select(source.c.key, sa.literal(self._now_ms, sa.BigInteger())).where(sa.true())
        command = insert(self._connection, OCCURRENCE).from_select(["key", "noted_ms"], rows)
        unless_known = command.on_conflict_do_nothing().returning(OCCURRENCE.c.key)
        new = np.array(self._connection.execute(unless_known).scalars().all(), np.int64)
        self.noted += len(new)
        return new

    def _assigned(self, fresh: Gathered) -> dict[str, Row]:
        """The groups as they are, by fingerprint, locked; those that are new with a count of 0. Occurrences for whose
        group there is no place go to the group of the rest.
        """
        places = in_order(fresh.group)
        wanted = [fresh.fingerprints[place] for place in places]
        known = self._read(wanted)
        room = self._bounds.groups_max - self._number_of_groups() if len(known) < len(wanted) else 0
        new = [fingerprint for fingerprint in wanted if fingerprint not in known and fingerprint != OVERFLOW]
        beyond = frozenset(new[max(0, room) :])
        if beyond:
            rest = fresh.place_of(OVERFLOW)
            moved = [place for place in places if fresh.fingerprints[place] in beyond]
            fresh.group = np.where(np.isin(fresh.group, moved), rest, fresh.group)
        used = [fresh.fingerprints[place] for place in in_order(fresh.group)]
        missing = [fingerprint for fingerprint in used if fingerprint not in known]
        if missing:
            blank = [_blank(fingerprint, self._now_ms) for fingerprint in missing]
            self._connection.execute(insert(self._connection, ERROR_GROUP).on_conflict_do_nothing(), blank)
            known |= self._read(missing)
        return known

    def _read(self, fingerprints: list[str]) -> dict[str, Row]:
        wanted = listed(self._connection, [("fingerprint", sa.Text(), fingerprints)])
        question = sa.select(ERROR_GROUP).where(ERROR_GROUP.c.fingerprint.in_(sa.select(wanted.c.fingerprint)))
        found = self._connection.execute(question.order_by(ERROR_GROUP.c.id).with_for_update())
        return {row.fingerprint: dict(zip(FIELDS, row, strict=True)) for row in found}

    def _number_of_groups(self) -> int:
        own = sa.select(sa.func.count()).select_from(ERROR_GROUP).where(ERROR_GROUP.c.fingerprint != OVERFLOW)
        return self._connection.execute(own).scalar_one()

    def _traces(self, fresh: Gathered) -> list[int]:
        """How many traces each group has more, by place."""
        keys, rows = np.unique(fresh.trace_key, return_index=True)
        new = fresh.group[rows[np.isin(keys, self._note(keys))]]
        numbers: list[int] = np.bincount(new, minlength=len(fresh.fingerprints)).tolist()
        return numbers

    def _services(self, fresh: Gathered, groups: dict[str, Row]) -> dict[int, int]:
        """Counts by service. Returns how many services each group has, by its id."""
        numbers = {row["id"]: row["services"] for row in groups.values()}
        named = fresh.only(fresh.service >= 0)
        totals = {
            (groups[fresh.fingerprints[place]]["id"], fresh.services[service]): total
            for (place, service), total in sums(named, named.group, named.service).items()
        }
        known = self._known_services(list(totals))
        rows: dict[tuple[int, str], Row] = {}
        for (group_id, service), total in totals.items():
            pair = (group_id, service)
            if pair not in known:
                if numbers[group_id] < self._bounds.services_max:
                    numbers[group_id] += 1
                else:
                    pair = (group_id, OVERFLOW_SERVICE)
            rows[pair] = _service_row(pair, total, rows.get(pair))
        if rows:
            self._connection.execute(_service_command(self._connection), list(rows.values()))
        return numbers

    def _known_services(self, pairs: list[tuple[int, str]]) -> set[tuple[int, str]]:
        ids, services = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        columns = (("group_id", sa.BigInteger(), ids), ("service", sa.Text(), services))
        wanted = listed(self._connection, columns)
        table = ERROR_GROUP_SERVICE.c
        same = (table.group_id == wanted.c.group_id) & (table.service == wanted.c.service)
        found = self._connection.execute(
            sa.select(table.group_id, table.service).join_from(wanted, ERROR_GROUP_SERVICE, same)
        )
        return {(group_id, service) for group_id, service in found}

    def _write(self, rows: list[Row]) -> None:
        changes: dict[str, sa.BindParameter[Any]] = {name: sa.bindparam(name) for name in CHANGING}
        command = sa.update(ERROR_GROUP).where(ERROR_GROUP.c.id == sa.bindparam("group_id")).values(changes)
        self._connection.execute(command, [{"group_id": row["id"], **row} for row in rows])


def _readable(records: Sequence[bytes], first: int) -> tuple[list[Occurrences], int]:
    """The records that can be read, and how many cannot: trying again would not help."""
    readable, unreadable = [], 0
    for number, record in enumerate(records, first):
        try:
            readable.append(decode(record))
        except ValueError as error:
            unreadable += 1
            log.error("record %d of failures cannot be read, its occurrences are not counted: %s", number, error)  # noqa: TRY400
    return readable, unreadable


def _blank(fingerprint: str, now_ms: int) -> Row:
    """A new group, of which nothing happened yet; the id is the database's."""
    empty = {name: "" if name.endswith("_id") else 0 for name in CHANGING}
    state = {"fingerprint": fingerprint, "state": OPEN, "state_changed_ms": now_ms}
    return {**empty, **_looks(THE_REST), **state}


def _merge(row: Row, fresh: Gathered, total: Sum, now_ms: int) -> None:
    """The group after what happened. What is told late may move its first time back."""
    is_new = not row["count"]
    row["count"] += total.count
    if is_new or total.first_ms < row["first_seen_ms"]:
        row["first_seen_ms"] = total.first_ms
        row["first_trace_id"], row["first_span_id"] = fresh.ids(total.first_row)
    if is_new or total.last_ms >= row["last_seen_ms"]:
        row["last_seen_ms"] = total.last_ms
        row["last_trace_id"], row["last_span_id"] = fresh.ids(total.last_row)
        if row["fingerprint"] != OVERFLOW:
            row |= _looks(fresh.variants[fresh.variant[total.last_row]])
    if row["state"] == RESOLVED and total.last_ms > (row["resolved_ms"] or 0):
        row |= {"state": REGRESSED, "state_changed_ms": now_ms}


def _looks(group: Group) -> Row:
    """The newest occurrence is the example, and the newest rules name the failure."""
    return {"class_": group.name, **{name: getattr(group, name) for name in LOOKS}}


def _news(event: Literal["new", "regressed"], row: Row, fresh: Gathered, newest: int) -> News:
    place = int(fresh.service[newest])
    service = fresh.services[place] if place >= 0 else ""
    looks = {name: row[name] for name in LOOKS}
    return News(
        event,
        Group(row["fingerprint"], row["class_"], **looks),
        service,
        *fresh.ids(newest),
        int(fresh.time_ns[newest]),
    )


def _service_row(pair: tuple[int, str], total: Sum, more: Row | None) -> Row:
    """What one statement adds for a service; the one for all further services stands for several."""
    group_id, service = pair
    count, first_ms, last_ms = total.count, total.first_ms, total.last_ms
    if more:
        count += more["count"]
        first_ms, last_ms = min(first_ms, more["first_seen_ms"]), max(last_ms, more["last_seen_ms"])
    times = {"first_seen_ms": first_ms, "last_seen_ms": last_ms}
    return {"group_id": group_id, "service": service, "count": count, **times}


def _service_command(connection: sa.Connection) -> sa.Insert:
    command = insert(connection, ERROR_GROUP_SERVICE)
    new, old = command.excluded, ERROR_GROUP_SERVICE.c
    earlier, later = new.first_seen_ms < old.first_seen_ms, new.last_seen_ms > old.last_seen_ms
    changes = {
        "count": old["count"] + new["count"],
        "first_seen_ms": sa.case((earlier, new.first_seen_ms), else_=old.first_seen_ms),
        "last_seen_ms": sa.case((later, new.last_seen_ms), else_=old.last_seen_ms),
    }
    return command.on_conflict_do_update(index_elements=["group_id", "service"], set_=changes)


def _pruned(connection: sa.Connection, bounds: Bounds, now_s: float, noted: int | None) -> int:
    """Forgets what is too much, and what is too old where the number of rows is not given. Returns the new number."""
    if noted is None:
        old = OCCURRENCE.c.noted_ms < int((now_s - OCCURRENCES_KEPT_S) * 1000)
        connection.execute(sa.delete(OCCURRENCE).where(old))
        unseen = ERROR_GROUP.c.last_seen_ms < int((now_s - bounds.retention_s) * 1000)
        connection.execute(sa.delete(ERROR_GROUP).where(unseen))
        noted = connection.execute(sa.select(sa.func.count()).select_from(OCCURRENCE)).scalar_one()
    if noted <= bounds.occurrences_max:
        return noted
    # A fifth at a time: to find the oldest all are looked at.
    place = noted - bounds.occurrences_max * 4 // 5 - 1
    oldest = sa.select(OCCURRENCE.c.noted_ms).order_by(OCCURRENCE.c.noted_ms).offset(place).limit(1)
    until = connection.execute(oldest).scalar() or 0
    gone = (OCCURRENCE.c.noted_ms <= until) & (OCCURRENCE.c.noted_ms < int(now_s * 1000))
    return noted - connection.execute(sa.delete(OCCURRENCE).where(gone)).rowcount
