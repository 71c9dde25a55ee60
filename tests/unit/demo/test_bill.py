"""The demo's bill: which commands it shows, and when."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from otel_pipeline.commands import command_line
from otel_pipeline.demo import bill
from otel_pipeline.demo.environment import PORTS, Environment
from otel_pipeline.demo.processes import DemoError
from otel_pipeline.ledger.money import NANO
from otel_pipeline.store.database import open_database
from otel_pipeline.store.ledger import Ledger
from tests.support.ledger_records import GPU, T0, One, price, prices, record

SINCE_NS = 1_790_001_234 * NANO
"""20:33 and a bit, UTC."""


def environment(folder: Path) -> Environment:
    return Environment(folder, PORTS, "opentelemetry-instrument", None)


def test_every_command_that_is_shown_can_be_typed(tmp_path: Path) -> None:
    demo = environment(tmp_path / "with a blank")
    demo.folder.mkdir()
    demo.gateway_command()
    for question in bill.questions(SINCE_NS):
        program, *words = shlex.split(bill.typed(demo, question))
        assert program == "otel-pipeline"
        assert words[words.index("--data-dir") + 1] == str(demo.folder)
        _, command, arguments = command_line.resolve_command(command_line.make_context(program, words.copy()), words)
        assert command is not None
        name, inner, rest = command.resolve_command(command.make_context("ledger", arguments.copy()), arguments)  # type: ignore[attr-defined]
        assert inner.make_context(name, rest).params


def test_reports_begin_with_the_hour_of_the_run(tmp_path: Path) -> None:
    first = bill.typed(environment(tmp_path), bill.questions(SINCE_NS)[0])
    assert "--from 2026-09-21T14:00Z " in first


def test_only_what_allocates_anew_is_told_the_prices(tmp_path: Path) -> None:
    told = {one.arguments[0]: "--config" in bill.typed(environment(tmp_path), one) for one in bill.questions(SINCE_NS)}
    assert told == {"report": False, "jobs": False, "verify": True}


def test_a_bill_waits_for_the_ledger(tmp_path: Path) -> None:
    database = open_database(tmp_path / "store.db", owner=True)
    book = Ledger(database, prices(price()), clock=lambda: T0 + 100.0, lateness_s=2, period_ns=NANO)
    with pytest.raises(DemoError, match="was not booked within 0 s"):
        bill.wait_until_booked(tmp_path, T0 * NANO, patience_s=0)
    book.apply("outbox", 0, [record(One(1, 2, 5, kind="job"), seen={GPU: (0, 0)})])
    bill.wait_until_booked(tmp_path, (T0 + 58) * NANO, patience_s=0)
    with pytest.raises(DemoError, match="was not booked"):
        bill.wait_until_booked(tmp_path, (T0 + 59) * NANO, patience_s=0)
    database.close()
