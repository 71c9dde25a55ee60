"""How far the ledger is."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from otel_pipeline.store.database import insert
from otel_pipeline.store.ledger_tables import STATE


@dataclass(slots=True)
class State:
    """The row of STATE by name; None: not yet."""

    booked_ns: int | None = None
    seen_ns: int | None = None
    seen_at_ms: int | None = None
    period_ns: int | None = None
    compacted_ns: int | None = None


def read_state(connection: sa.Connection) -> State:
    """How far the ledger is."""
    rows = connection.execute(sa.select(STATE.c.name, STATE.c.value).where(STATE.c.name != "lock"))
    return State(**{row.name: row.value for row in rows})


def locked(connection: sa.Connection) -> State:
    """The same; nobody else writes to the ledger until the transaction ends."""
    connection.execute(sa.select(STATE.c.value).where(STATE.c.name == "lock").with_for_update())
    return read_state(connection)


def keep_state(connection: sa.Connection, name: str, value: int) -> None:
    command = insert(connection, STATE).values(name=name, value=value)
    connection.execute(command.on_conflict_do_update(index_elements=["name"], set_={"value": value}))
