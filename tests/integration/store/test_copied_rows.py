"""Rows that go to PostgreSQL as text are those that come back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from otel_pipeline.errors import StoreError
from otel_pipeline.store.database import Database, listed
from otel_pipeline.store.ledger_tables import CHARGE, SPAN, add

TEXTS = ("", "plain", "a\tb\nc\rd\\e", "\\N", 'say "yes", {x}', "\u00e9\u4e2d\U0001f3ac", "NULL")


def test_texts_are_kept_as_they_are(fresh: Callable[[], Database]) -> None:
    rows = [(number, text, text, text, text, text, text, f"{number}") for number, text in enumerate(TEXTS)]
    database = fresh()
    with database.write() as connection:
        add(connection, CHARGE, rows)
    with database.read() as connection:
        assert connection.execute(sa.select(CHARGE).order_by(CHARGE.c.id)).all() == rows
        source = listed(connection, [("n", sa.BigInteger(), range(len(TEXTS))), ("text", sa.Text(), TEXTS)])
        assert connection.execute(sa.select(*source.c).order_by(source.c.n)).all() == list(enumerate(TEXTS))


def test_what_is_unknown_stays_unknown(fresh: Callable[[], Database]) -> None:
    row = (-(2**63), 2**63 - 1, *range(7), None, None, 0, None, None, "{}")
    database = fresh()
    with database.write() as connection:
        add(connection, SPAN, [row])
    with database.read() as connection:
        assert connection.execute(sa.select(SPAN)).all() == [row]


def test_a_number_that_is_too_large_is_an_error_of_the_store_without_values(fresh: Callable[[], Database]) -> None:
    with pytest.raises(StoreError) as raised, fresh().write() as connection:
        add(connection, SPAN, [(2**63 + 4711, *range(8), None, None, None, None, None, None)])
    assert "out of range" in str(raised.value)
    assert "line 1" not in str(raised.value)
