"""The database behind the books: how it is opened, and what differs between SQLite and PostgreSQL.

SQLAlchemy Core makes one SQL of both, but for what stands in this file. Its errors end here: all others see StoreError.
A book counts in transactions that also keep its position, so that no record counts twice or never.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError

from otel_pipeline.errors import StoreError
from otel_pipeline.limits import STORE_BUSY_S
from otel_pipeline.store.migrations import migrate, require_current

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

log = logging.getLogger(__name__)

METADATA: Final = sa.MetaData()

BOOK_POSITION: Final = sa.Table(
    "book_position",
    METADATA,
    sa.Column("book", sa.Text, primary_key=True),
    sa.Column("epoch", sa.Text, primary_key=True),
    sa.Column("next", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
)
"""For each book and each outbox that it was fed from, the number of the first record that is not applied."""

DAMAGED: Final = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
SQLITE_VERSION_MIN: Final = (3, 35)
"""Since then INSERT tells what was new (RETURNING)."""
PRAGMAS: Final = (
    f"PRAGMA busy_timeout = {STORE_BUSY_S * 1000:.0f}",
    "PRAGMA journal_mode = WAL",
    # What a book has applied is deleted in the outbox: the store must not forget it in a power cut.
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -32768",
)
NULL: Final = "\\N"
ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
"""Of PostgreSQL's COPY."""
QUOTES: Final = str.maketrans({"\\": "\\\\", '"': '\\"'})
"""Of PostgreSQL's arrays."""
WRITES: Final = {"otel_pipeline_writes": True}
"""Marks transactions that write: SQLite is told at the begin, else two that read first would lock each other out."""


class Database:
    """Transactions on one store, for any thread. Everything raises StoreError if the store cannot be used."""

    def __init__(self, engine: sa.Engine, *, owner: bool) -> None:
        self._engine = engine
        self._is_owner = owner
        self._is_prepared = False
        self.place: Final = engine.url.render_as_string(hide_password=True)
        """For messages: the URL without its password."""

    def prepare(self) -> None:
        """Bring the schema to what the program needs; raises SQLAlchemy's errors. Done once, in any case before the
        first transaction.
        """
        if not self._is_prepared:
            with (self._writing() if self._is_owner else self._engine).begin() as connection:
                (_migrated if self._is_owner else require_current)(connection)
            self._is_prepared = True

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that is committed at the end. On SQLite there is one at a time."""
        with translated(self.place):
            self.prepare()
            with self._writing().begin() as connection:
                yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one moment and changes nothing."""
        with translated(self.place):
            self.prepare()
            with self._engine.connect() as connection:
                yield connection

    def _writing(self) -> sa.Engine:
        return self._engine.execution_options(**WRITES)

    def close(self) -> None:
        """Gives up the connections. May be called twice."""
        self._engine.dispose()


@contextmanager
def translated(place: str) -> Iterator[None]:
    """The border: SQLAlchemy's errors become StoreError, without statements and values."""
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreError(f"the store {place}: {_reason(error)}") from error


def open_database(place: str | Path, *, owner: bool) -> Database:
    """Opens a store: the path of a SQLite file, or a URL.

    The owner is the gateway: it creates and migrates the store, and sets a damaged file aside, never deletes it. It
    starts without a server that is away; then transactions fail until it is there. Others need a store that is there
    and has this program's schema.
    """
    try:
        parsed = _url(place)
        database = Database(_engine(parsed, owner=owner), owner=owner)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise StoreError(f"the store's URL cannot be used: {_reason(error)}") from error
    with translated(database.place):
        try:
            database.prepare()
        except SQLAlchemyError as error:
            if not owner:
                raise
            path = _file(parsed)
            if path is None and isinstance(error, OperationalError):
                log.warning(
                    "the store %s is not there yet, what it should keep waits: %s", database.place, _reason(error)
                )
            elif path is not None and _is_damage(error):
                database.close()
                _set_aside(path, error)
                _create(path)
                database.prepare()
            else:
                raise
    return database


def _migrated(connection: sa.Connection) -> None:
    if connection.dialect.name == "sqlite":
        found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        if found != "ok":
            raise sa.exc.DatabaseError(None, None, _damage(found))
    migrate(connection)


# -- positions ---------------------------------------------------------------------------------------------------------


def position(connection: sa.Connection, book: str, epoch: str) -> int:
    """The number of the first record that is not applied; 0 if the outbox is unknown."""
    wanted = (BOOK_POSITION.c.book == book) & (BOOK_POSITION.c.epoch == epoch)
    return connection.execute(sa.select(BOOK_POSITION.c.next).where(wanted).with_for_update()).scalar() or 0


def keep_position(connection: sa.Connection, book: str, epoch: str, next_record: int, now_ms: int) -> None:
    """Within the transaction that applied the records before it."""
    row = {"book": book, "epoch": epoch, "next": next_record, "updated_ms": now_ms}
    command = insert(connection, BOOK_POSITION).values(row)
    changes = {"next": command.excluded.next, "updated_ms": command.excluded.updated_ms}
    connection.execute(command.on_conflict_do_update(index_elements=["book", "epoch"], set_=changes))


# -- where the dialects differ -----------------------------------------------------------------------------------------


def insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def listed(
    connection: sa.Connection, columns: Sequence[tuple[str, sa.types.TypeEngine[Any], Sequence[Any]]]
) -> sa.Subquery:
    """Values of the program as a table, by one parameter a column: (name, type, values). Any length, one statement."""
    if connection.dialect.name == "postgresql":
        arrays = [_array(kind, values) for _, kind, values in columns]
        names = [sa.column(name, kind) for name, kind, _ in columns]
        table = sa.func.unnest(*arrays).table_valued(*names).render_derived()
        return sa.select(*table.c).subquery()
    if len(columns) == 1:
        ((name, kind, values),) = columns
        value = sa.func.json_each(json.dumps(list(values), ensure_ascii=False)).table_valued("value").c.value
        return sa.select(sa.type_coerce(value, kind).label(name)).subquery()
    rows = json.dumps(list(zip(*(values for _, _, values in columns), strict=True)), ensure_ascii=False)
    each = sa.func.json_each(rows).table_valued("value")
    cells = [
        sa.type_coerce(sa.func.json_extract(each.c.value, f"$[{index}]"), kind).label(name)
        for index, (name, kind, _) in enumerate(columns)
    ]
    return sa.select(*cells).subquery()


def _array(kind: sa.types.TypeEngine[Any], values: Sequence[Any]) -> sa.ColumnElement[Any]:
    """Values as one text, for the database's library takes long for each."""
    texts = [f'"{value.translate(QUOTES)}"' for value in values] if isinstance(kind, sa.Text) else map(str, values)
    return sa.cast(sa.literal(f"{{{','.join(texts)}}}", sa.Text()), postgresql.ARRAY(kind))


def copy(connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """PostgreSQL's way for many rows, whose values stand in the order of the table's columns."""
    columns = zip(table.columns, zip(*rows, strict=True), strict=True)
    texts = [_copied(column, values) for column, values in columns]
    lines = "\n".join(map("\t".join, zip(*texts, strict=True)))
    command = f"COPY {table.name} ({', '.join(column.name for column in table.columns)}) FROM STDIN"
    library: Any = connection.dialect.dbapi
    cursor: Any = connection.connection.cursor()
    try:
        with cursor, cursor.copy(command) as stream:
            stream.write(f"{lines}\n")
    except library.Error as error:
        raise sa.exc.DBAPIError.instance(command, None, error, library.Error, dialect=connection.dialect) from error


def _copied(column: sa.Column[Any], values: Sequence[Any]) -> list[str]:
    if isinstance(column.type, sa.Text):
        return [NULL if value is None else value.translate(ESCAPES) for value in values]
    return [NULL if value is None else str(value) for value in values] if column.nullable else list(map(str, values))


def _url(place: str | Path) -> sa.URL:
    if isinstance(place, Path):
        return sa.URL.create("sqlite", database=str(place))
    url = sa.make_url(place)
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _engine(url: sa.URL, *, owner: bool) -> sa.Engine:
    if url.get_backend_name() == "postgresql":
        return sa.create_engine(url, hide_parameters=True, pool_pre_ping=True)
    if url.get_backend_name() != "sqlite":
        raise StoreError(f"{url.get_backend_name()} is no store that is known; allowed: sqlite, postgresql")
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        raise StoreError(
            f"Python's SQLite is {sqlite3.sqlite_version}; needed: {'.'.join(map(str, SQLITE_VERSION_MIN))}"
        )
    path = _file(url)
    if path is None:
        raise StoreError("a store in memory would forget all; needed: a path, such as sqlite:////var/lib/store.db")
    if owner:
        _create(path)
    elif not path.exists():
        raise StoreError(f"there is no store in {path}")
    engine = sa.create_engine(url, hide_parameters=True)
    sa.event.listen(engine, "connect", _connected)
    sa.event.listen(engine, "begin", _begun)
    return engine


def _connected(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # Python's own BEGIN would come too late, and never before DDL
    for pragma in PRAGMAS:
        connection.execute(pragma)


def _begun(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("otel_pipeline_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


# -- the file ----------------------------------------------------------------------------------------------------------


def _file(url: sa.URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return None
    return Path(url.database)


def _create(path: Path) -> None:
    """SQLite gives its further files the mode of the first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError(f"cannot open the store {path}: {error.strerror or error}") from error


def _set_aside(path: Path, error: Exception) -> None:
    aside = path.with_name(f"{path.name}.unreadable-{int(time.time())}")
    log.error("the store cannot be read (%s): set aside as %s, starting with an empty one", _reason(error), aside)
    path.rename(aside)
    for suffix in ("-wal", "-shm"):  # under the same name, so that what can be saved is found
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))


def _damage(found: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(found.splitlines()[0] if found else "the check failed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _is_damage(error: SQLAlchemyError) -> bool:
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
    return code & 0xFF in DAMAGED


def _reason(error: Exception) -> str:
    origin = getattr(error, "orig", None) or error
    told = str(origin).partition("\nDETAIL:")[0].partition("\nCONTEXT:")[0]  # there PostgreSQL tells values
    return " ".join(told.split()) or type(origin).__name__
