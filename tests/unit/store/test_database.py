"""The database of the books: opening, migrating, damage, and errors at its border."""

from __future__ import annotations

import logging
import sqlite3
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa

from otel_pipeline.errors import StoreError
from otel_pipeline.store import database as database_module
from otel_pipeline.store import error_group_tables, ledger_runs, ledger_tables
from otel_pipeline.store.database import METADATA, Database, keep_position, open_database, position
from otel_pipeline.store.migrations import MIGRATIONS, Migration, migrate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.db"


def opened(path: Path) -> Database:
    return open_database(path, owner=True)


def test_a_store_is_for_its_owner_alone(path: Path) -> None:
    database = opened(path)
    with database.write() as connection:
        keep_position(connection, "book", "epoch", 3, 0)
        modes = {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    database.close()
    assert modes == {0o600}


def test_a_path_may_have_signs_of_a_url(tmp_path: Path) -> None:
    path = tmp_path / "a b?c#d%41" / "store.db"
    opened(path).close()
    assert path.exists()


def test_positions_stay_over_a_restart(path: Path) -> None:
    database = opened(path)
    with database.write() as connection:
        keep_position(connection, "book", "epoch", 3, 0)
        keep_position(connection, "book", "epoch", 5, 1)
        keep_position(connection, "another", "epoch", 7, 1)
    database.close()
    database = opened(path)
    with database.read() as connection:
        assert [position(connection, book, "epoch") for book in ("book", "another", "none")] == [5, 7, 0]
    database.close()


def test_what_fails_is_rolled_back(path: Path) -> None:
    database = opened(path)

    def work() -> None:
        with database.write() as connection:
            keep_position(connection, "book", "epoch", 3, 0)
            connection.execute(sa.text("INSERT INTO nowhere VALUES (1)"))

    with pytest.raises(StoreError, match="no such table"):
        work()
    with database.read() as connection:
        assert position(connection, "book", "epoch") == 0
    database.close()


def test_errors_tell_no_values(path: Path) -> None:
    database = opened(path)
    with pytest.raises(StoreError) as caught, database.write() as connection:
        connection.execute(sa.text("INSERT INTO store_schema VALUES (1, :value)"), {"value": "s3cret"})
    database.close()
    assert "s3cret" not in str(caught.value)
    assert "UNIQUE" in str(caught.value)


def test_a_store_that_another_writes_to_is_told_after_a_while(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pragmas = tuple(pragma for pragma in database_module.PRAGMAS if "busy" not in pragma)
    monkeypatch.setattr(database_module, "PRAGMAS", (*pragmas, "PRAGMA busy_timeout = 1"))
    database = opened(path)
    with database.write(), pytest.raises(StoreError, match="locked"), database.write():
        pass
    database.close()


# -- damage ------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_set_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database " * 1000)
    database = opened(path)
    with database.read() as connection:
        assert position(connection, "book", "epoch") == 0
    database.close()
    (aside,) = path.parent.glob("store.db.unreadable-*")
    assert aside.read_bytes() == b"no database " * 1000
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert str(aside) in caplog.text


def test_a_file_with_a_damaged_page_is_set_aside(path: Path) -> None:
    database = opened(path)
    with database.write() as connection:
        for number in range(2000):
            keep_position(connection, f"book {number}", "epoch", 3, 0)
    database.close()
    content = bytearray(path.read_bytes())
    content[8 * 4096 : 12 * 4096] = b"\xff" * 4 * 4096
    path.write_bytes(content)
    opened(path).close()
    (aside,) = path.parent.glob("store.db.unreadable-*")
    assert aside.read_bytes() == content


def test_the_files_beside_a_damaged_one_go_with_it(path: Path) -> None:
    path.parent.mkdir()
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).write_text(suffix)
    database_module._set_aside(path, ValueError("damaged"))
    moved = {each.read_text(): each.name for each in path.parent.iterdir()}
    assert moved == {suffix: moved[""] + suffix for suffix in ("", "-wal", "-shm")}
    assert moved[""].startswith("store.db.unreadable-")


def test_a_command_sets_nothing_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(StoreError, match="not a database"):
        open_database(path, owner=False)
    assert [each.name for each in path.parent.iterdir()] == ["store.db"]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot open the store"):
        opened(tmp_path / "file" / "store.db")


# -- schema ------------------------------------------------------------------------------------------------------------


def test_the_steps_lead_to_the_tables_of_the_program(path: Path) -> None:
    opened(path).close()
    assert {error_group_tables.ERROR_GROUP, ledger_tables.SPAN, ledger_runs.RUN} <= {*METADATA.tables.values()}
    engine = sa.create_engine(f"sqlite:///{path}")
    found = sa.inspect(engine)
    for table in METADATA.tables.values():
        columns = {column["name"]: column["nullable"] for column in found.get_columns(table.name)}
        assert [*columns] == [column.name for column in table.columns]
        assert all(columns[column.name] == column.nullable for column in table.columns if not column.primary_key)
    assert {*found.get_table_names()} - {"store_schema", "sqlite_sequence"} == {*METADATA.tables}
    engine.dispose()


def test_an_older_store_gets_the_steps_that_are_missing(path: Path) -> None:
    database = opened(path)
    more = (*MIGRATIONS, Migration("one more", ("CREATE TABLE more (id {id}, name TEXT)",)))
    with database.write() as connection:
        migrate(connection, more)
        migrate(connection, more)
        connection.execute(sa.text("INSERT INTO more (name) VALUES ('a')"))
    with database.read() as connection:
        assert connection.execute(sa.text("SELECT version FROM store_schema")).scalars().all() == [
            *range(1, len(more) + 1)
        ]
    database.close()


def test_a_step_that_fails_leaves_the_store_as_it_was(path: Path) -> None:
    database = opened(path)
    broken = (*MIGRATIONS, Migration("broken", ("CREATE TABLE more (id {id})", "CREATE NONSENSE")))
    with pytest.raises(StoreError, match="NONSENSE"), database.write() as connection:
        migrate(connection, broken)
    with database.read() as connection:
        assert not sa.inspect(connection).has_table("more")
    database.close()


@pytest.mark.parametrize("owner", [True, False])
def test_a_store_of_a_newer_version_is_refused(path: Path, *, owner: bool) -> None:
    database = opened(path)
    with database.write() as connection:
        connection.execute(sa.text("INSERT INTO store_schema VALUES (99, 'to come')"))
    database.close()
    with pytest.raises(StoreError, match="schema 99.*a newer version made it"):
        open_database(path, owner=owner)
    assert not list(path.parent.glob("*unreadable*"))


def test_a_command_needs_a_store_of_its_version(path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store in"):
        open_database(path, owner=False)
    path.parent.mkdir()
    sqlite3.connect(path).close()
    with pytest.raises(StoreError, match="schema 0.*start its gateway once"):
        open_database(path, owner=False)


# -- places ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://u@h/d", "cannot be used|no store that is known"),
        ("no url", "cannot be used"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_a_url_that_cannot_be_used_is_told(url: str, told: str) -> None:
    with pytest.raises(StoreError, match=told):
        open_database(url, owner=True)


def test_an_old_sqlite_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(StoreError, match="needed: 3.35"):
        opened(path)
    assert not path.exists()


def test_a_server_that_does_not_answer_is_told_without_its_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError) as caught:
        open_database("postgresql://user:s3cret@/none?host=/nowhere", owner=False)
    assert "s3cret" not in str(caught.value)
    assert "postgresql" in str(caught.value)


def test_the_gateway_starts_without_its_server(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("psycopg")
    database = open_database("postgresql://user:s3cret@/none?host=/nowhere", owner=True)
    with pytest.raises(StoreError, match="nowhere"), database.read():
        pass
    assert "is not there yet" in caplog.text
    assert "s3cret" not in caplog.text
