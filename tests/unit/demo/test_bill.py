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
"""14:33:54, UTC."""
UNTIL_NS = SINCE_NS + 20 * NANO
QUESTIONS = (*bill.questions(SINCE_NS, UNTIL_NS), bill.later(SINCE_NS))


def environment(folder: Path) -> Environment:
    return Environment(folder, PORTS, "opentelemetry-instrument", None)


def test_every_command_that_is_shown_can_be_typed(tmp_path: Path) -> None:
    demo = environment(tmp_path / "with a blank")
    demo.folder.mkdir()
    demo.gateway_command()
    for question in QUESTIONS:
        program, *words = shlex.split(bill.typed(demo, question))
        assert program == "otel-pipeline"
        assert words[words.index("--data-dir") + 1] == str(demo.folder)
        _, command, arguments = command_line.resolve_command(command_line.make_context(program, words.copy()), words)
        assert command is not None
        name, inner, rest = command.resolve_command(command.make_context("ledger", arguments.copy()), arguments)  # type: ignore[attr-defined]
        assert inner.make_context(name, rest).params


def test_reports_are_from_the_hour_of_the_run_to_what_is_booked() -> None:
    asked = [one.arguments for one in QUESTIONS if one.arguments[0] in {"report", "jobs"}]
    window = ("--from", "2026-09-21T14:00:00Z", "--to", "2026-09-21T14:34:14Z")
    assert [one[1:5] for one in asked[:-1]] == [window] * 3
    assert asked[-1][1:5] == (*window[:2], "--by", "gpu"), "what is asked later has no end"


def test_only_what_allocates_anew_is_told_the_prices(tmp_path: Path) -> None:
    told = {one.arguments[0]: "--config" in bill.typed(environment(tmp_path), one) for one in QUESTIONS}
    assert told == {"report": False, "jobs": False, "verify": True}


def test_a_bill_waits_for_the_ledger(tmp_path: Path) -> None:
    database = open_database(tmp_path / "store.db", owner=True)
    book = Ledger(database, prices(price()), clock=lambda: T0 + 100.0, lateness_s=2, period_ns=NANO)
    with pytest.raises(DemoError, match="was not booked within 0 s"):
        bill.wait_until_booked(tmp_path, T0 * NANO, patience_s=0)
    book.apply("outbox", 0, [record(One(1, 2, 5, kind="job"), seen={GPU: (0, 0)})])
    assert bill.wait_until_booked(tmp_path, (T0 + 50) * NANO, patience_s=0) == (T0 + 58) * NANO
    with pytest.raises(DemoError, match="was not booked"):
        bill.wait_until_booked(tmp_path, (T0 + 59) * NANO, patience_s=0)
    database.close()
