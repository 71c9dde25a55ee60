"""What people ask about error groups, and the states that they set: for commands and the API, beside the gateway."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Literal

import sqlalchemy as sa

from otel_pipeline.limits import ERROR_GROUPS_LISTED_MAX
from otel_pipeline.store.error_group_tables import (
    ERROR_GROUP,
    ERROR_GROUP_SERVICE,
    RESOLVED,
    ErrorGroup,
    GroupService,
    State,
)

if TYPE_CHECKING:
    from otel_pipeline.store.database import Database

Order = Literal["last_seen", "first_seen", "count", "traces"]
ORDERS: Final[tuple[Order, ...]] = ("last_seen", "first_seen", "count", "traces")
PREFIX_CHARS_MIN: Final = 4
"""Of a fingerprint: shorter ones are numbers of groups, or typing mistakes."""
SERVICE_COLUMNS: Final = tuple(ERROR_GROUP_SERVICE.c[field.name] for field in fields(GroupService))


class NoSuchGroup(LookupError):
    """No group, or more than one, has the number or fingerprint that was given."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which groups; None is any."""

    state: State | None = None
    class_: str | None = None
    service: str | None = None
    since_ms: int | None = None
    """Seen at this time, UTC in milliseconds since 1970, or later."""
    order: Order = "last_seen"
    """The largest or latest first."""
    limit: int = 50


def list_groups(database: Database, wanted: Wanted) -> list[ErrorGroup]:
    """The groups, at most `limit`. Raises StoreError."""
    table = ERROR_GROUP.c
    first, last = table.first_seen_ms, table.last_seen_ms
    order = {"last_seen": last, "first_seen": first, "count": table["count"], "traces": table.traces}[wanted.order]
    question = sa.select(ERROR_GROUP).order_by(order.desc(), table.id.desc())
    if wanted.state is not None:
        question = question.where(table.state == wanted.state)
    if wanted.class_ is not None:
        question = question.where(table.class_ == wanted.class_)
    if wanted.since_ms is not None:
        question = question.where(last >= wanted.since_ms)
    if wanted.service is not None:
        seen = sa.select(ERROR_GROUP_SERVICE.c.group_id).where(ERROR_GROUP_SERVICE.c.service == wanted.service)
        question = question.where(table.id.in_(seen))
    with database.read() as connection:
        found = connection.execute(question.limit(min(wanted.limit, ERROR_GROUPS_LISTED_MAX)))
        return [ErrorGroup(*row) for row in found]


def find_group(database: Database, name: str) -> tuple[ErrorGroup, list[GroupService]]:
    """The group with this number, or whose fingerprint begins so, and its services, the one with most first. Raises
    NoSuchGroup, StoreError.
    """
    with database.read() as connection:
        group = _found(connection, name)
        table = ERROR_GROUP_SERVICE.c
        question = sa.select(*SERVICE_COLUMNS).where(table.group_id == group.id)
        services = connection.execute(question.order_by(table["count"].desc(), table.service))
        return group, [GroupService(*row) for row in services]


def set_state(database: Database, name: str, state: State, at_ms: int) -> ErrorGroup:
    """Gives a group a state, from a time on: what happens after it makes a resolved group a regressed one. Returns the
    group as it is then. Raises NoSuchGroup, StoreError.
    """
    resolved_ms = at_ms if state == RESOLVED else None
    changes = {"state": state, "state_changed_ms": at_ms, "resolved_ms": resolved_ms}
    with database.write() as connection:
        group_id = _found(connection, name).id
        connection.execute(sa.update(ERROR_GROUP).where(ERROR_GROUP.c.id == group_id).values(changes))
        return ErrorGroup(*connection.execute(sa.select(ERROR_GROUP).where(ERROR_GROUP.c.id == group_id)).one())


def _found(connection: sa.Connection, name: str) -> ErrorGroup:
    table = ERROR_GROUP.c
    if name.isascii() and name.isdigit() and len(name) < 16:
        row = connection.execute(sa.select(ERROR_GROUP).where(table.id == int(name))).one_or_none()
        if row is not None:
            return ErrorGroup(*row)
    if len(name) < PREFIX_CHARS_MIN:
        raise NoSuchGroup(f"there is no group {name}; a fingerprint needs its first {PREFIX_CHARS_MIN} characters")
    begins = table.fingerprint.startswith(name.lower(), autoescape=True)
    rows = connection.execute(sa.select(ERROR_GROUP).where(begins).order_by(table.fingerprint).limit(2)).all()
    if not rows:
        raise NoSuchGroup(f"there is no group {name}")
    if len(rows) > 1 and rows[0].fingerprint != name.lower():
        raise NoSuchGroup(f"more than one group begins with {name}; give more of the fingerprint")
    return ErrorGroup(*rows[0])
