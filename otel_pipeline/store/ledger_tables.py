"""The ledger in the store: tables, and what differs between inserting into SQLite and into PostgreSQL.

Money is in n$ (nano-units of the row's currency), times are ns since 1970, ids of traces and spans are 64-bit words
that may look negative. Nothing that was booked is ever changed: corrections are rows of later bookings, and what holds
is the sum. Compaction alone replaces rows, by fewer ones with the same sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from otel_pipeline.store.database import METADATA, copy, insert, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WORD: Final = sa.BigInteger()
NO_GPU: Final = 0
"""Stands for the GPU of direct charges, such as calls of somebody else's model: the sum of them is what was paid."""
SPAN_KEY: Final = ("trace_lo", "trace_hi", "span")
CELL: Final = ("gpu", "start_ns", *SPAN_KEY, "fact", "user_id", "job")
BUCKETS: Final = ("idle", "startup", "tail", "rounding", "unobserved")
AMOUNTS: Final = ("total", *BUCKETS, "paid_ns", "unpriced_ns")
"""What is known of a GPU in a period besides its spans: `unpriced_ns` is time without a known price."""


def _words(*names: str, key: Sequence[str] = (), nullable: bool = False) -> list[sa.Column[Any]]:
    return [
        sa.Column(name, sa.BigInteger, primary_key=name in key, autoincrement=False, nullable=nullable)
        for name in names
    ]


def _texts(*names: str, key: Sequence[str] = (), nullable: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text, primary_key=name in key, nullable=nullable) for name in names]


STATE: Final = sa.Table(
    "ledger_state", METADATA, *_texts("name", key=["name"]), sa.Column("value", sa.BigInteger, nullable=False)
)
"""booked_ns: periods before it are booked, later data for them is a correction; seen_ns: the latest time that any data
told; seen_at_ms: when that was, by the clock; period_ns; compacted_ns: before it there are no spans any more."""

FACT: Final = sa.Table(
    "ledger_fact",
    METADATA,
    *_words("id", key=["id"]),
    *_texts("service", "host", "gpus", "gpu_name", "region", "provider", "model", "backend", "workflow", "tier"),
    *_texts("job_type", "outcome", "kind", "dimensions", "body"),
    *_words("attempt"),
    sa.Column("failed", sa.Boolean, nullable=False),
    sa.Column("claims", sa.Boolean, nullable=False),
)
"""`body` is all of it as JSON, by which it is told from others; gpus and dimensions are JSON."""

USER: Final = sa.Table("ledger_user", METADATA, *_words("id", key=["id"]), *_texts("name"))
"""Pseudonyms; 0 is none."""

JOB: Final = sa.Table(
    "ledger_job", METADATA, *_words("id", "first_ns", "last_ns", key=["id"]), *_texts("name", "job_type")
)
"""The id is 63 bits of a hash of the name; 0 is none."""

ATTEMPT_COST: Final = sa.Table(
    "ledger_attempt_cost",
    METADATA,
    *_words("job", "attempt", key=["job", "attempt"]),
    *_texts("currency", key=["currency"]),
    *_words("nano"),
)

CHARGE: Final = sa.Table(
    "ledger_charge",
    METADATA,
    *_words("id", key=["id"]),
    *_texts("currency", "basis", "price_id", "status", "reason", "asked", "body"),
)
"""What direct charges have in common, as in ledger_names.Priced."""

SPAN: Final = sa.Table(
    "ledger_span",
    METADATA,
    *_words(*SPAN_KEY, "parent", "start_ns", "end_ns", "fact", "job", "user_id", key=SPAN_KEY),
    *_words("charge", "nano", "reported_nano", "energy_mj", nullable=True),
    *_texts("reported_currency", "quantities", nullable=True),
)

CLAIM: Final = sa.Table("ledger_claim", METADATA, *_words("gpu", "hour", *SPAN_KEY, key=["gpu", "hour", *SPAN_KEY]))
"""Which spans cost something on a GPU in an hour (its start in ns); direct charges stand at NO_GPU."""

GPU: Final = sa.Table("ledger_gpu", METADATA, *_words("id", key=["id"]), *_texts("uuid"))

PLACE: Final = sa.Table(
    "ledger_place",
    METADATA,
    *_words("id", "gpu", key=["id"]),
    *_texts("host", "name", "provider", "region", "pod", "attributes"),
)
"""A GPU in a host, and what its price is looked up by."""

PRESENCE: Final = sa.Table(
    "ledger_presence",
    METADATA,
    *_words("gpu", "place", "start_ns", "end_ns", "used_ns", key=["gpu", "place", "start_ns"]),
)
"""From when to when a GPU was seen in a place, and when the last span ended that used it meanwhile; 0: none."""

READING: Final = sa.Table(
    "ledger_reading", METADATA, *_words("gpu", "at_ns", "source", "mj", key=["gpu", "at_ns", "source"])
)
"""What a GPU's energy counter said; `source` is a hash of who read it."""

DIRTY: Final = sa.Table("ledger_dirty", METADATA, *_words("gpu", "hour", "from_ns", "reason", key=["gpu", "hour"]))
"""Hours to be booked, from a time on; `reason` is a place in KINDS."""

KINDS: Final = ("booked", "late", "reprice", "compacted")

BOOKING: Final = sa.Table("ledger_booking", METADATA, *_words("id", "at_ms", key=["id"]), *_texts("kind"))

PERIOD: Final = sa.Table(
    "ledger_period",
    METADATA,
    *_words("gpu", "start_ns", key=["gpu", "start_ns"]),
    *_texts("currency", key=["currency"]),
    *_words("booking", "end_ns", *AMOUNTS, key=["booking"]),
    *_texts("price"),
)
"""What a GPU was paid in a period and the part of it that is nobody's; all numbers are to be added up over bookings."""

ALLOCATION: Final = sa.Table(
    "ledger_allocation",
    METADATA,
    *_words(*CELL, key=CELL),
    *_texts("currency", key=["currency"]),
    *_words("booking", "nano", key=["booking"]),
)
"""What a span costs on a GPU in a period, with the fact, user and job that it belongs to: what a span does not say is
that of the nearest span above it."""

GPU_HOUR: Final = sa.Table(
    "ledger_gpu_hour",
    METADATA,
    *_words("hour", "gpu", key=["hour", "gpu"]),
    *_texts("currency", key=["currency"]),
    *_words(*AMOUNTS),
)
"""What stands in ledger_period, by hour."""

PRICE: Final = sa.Table("ledger_price", METADATA, *_words("id", "first_ms", key=["id"]), *_texts("name", "body"))
"""Rows of price books, as they were; the id is a hash of the body."""

EDITION: Final = sa.Table("ledger_edition", METADATA, *_words("id", "first_ms", key=["id"]), *_texts("body"))
"""What a price book said of time on GPUs: pairs of whether a row is the operator's own, and its number in PRICE. The id
is a hash of the body."""

PIN: Final = sa.Table(
    "ledger_pin", METADATA, *_words("gpu", "hour", "from_ns", "edition", key=["gpu", "hour", "from_ns"])
)
"""With which edition an hour of a GPU was booked, from a time on."""


def add(connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Inserts rows, whose values stand in the order of the table's columns."""
    if not rows:
        return
    names = ", ".join(column.name for column in table.columns)
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(table.columns))
        connection.exec_driver_sql(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", list(rows))  # noqa: S608
        return
    copy(connection, table, rows)


def add_up(connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[Any, ...]], sums: Sequence[str]) -> None:
    """Inserts rows, or adds the columns `sums` to those that are there. No key may stand twice among the rows."""
    merge(connection, table, rows, {name: f"{table.name}.{name} + excluded.{name}" for name in sums})


def merge(
    connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[Any, ...]], changing: Mapping[str, str]
) -> None:
    """Inserts rows, whose values stand in the order of the table's columns; where one is there it is changed: columns
    and what they become, in SQL with the names `excluded` and that of the table.
    """
    if not rows:
        return
    columns = [column.name for column in table.columns]
    keys = [column.name for column in table.primary_key]
    if connection.dialect.name == "sqlite":
        changes = ", ".join(f"{name} = {value}" for name, value in changing.items())
        marks = ", ".join("?" * len(columns))
        text = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608
        connection.exec_driver_sql(f"{text} ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}", list(rows))
        return
    each = zip(table.columns, zip(*rows, strict=True), strict=True)
    source = listed(connection, [(column.name, column.type, values) for column, values in each])
    command = insert(connection, table).from_select(columns, sa.select(*source.c))
    texts = {name: sa.text(value) for name, value in changing.items()}
    connection.execute(command.on_conflict_do_update(index_elements=keys, set_=texts))


def keep(connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Inserts the rows that are not there."""
    if rows:
        names = [column.name for column in table.columns]
        command = insert(connection, table).on_conflict_do_nothing()
        connection.execute(command, [dict(zip(names, row, strict=True)) for row in rows])
