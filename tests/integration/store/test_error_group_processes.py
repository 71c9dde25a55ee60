"""The commands in a process of their own, beside one that writes into the same store."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

from otel_pipeline.store.database import open_database
from otel_pipeline.store.error_groups import ErrorGroups
from tests.support.error_group_laws import A
from tests.support.error_occurrences import NOW_MS, Seen, record

TIMEOUT_S = 60
LONG_AGO_S = 1_000_000_000.0
NO_TIME = Seen(ago_ms=NOW_MS)
"""Happened when it is counted, by the clock of the book."""


def command(directory: Path, *arguments: str) -> str:
    words = [sys.executable, "-m", "otel_pipeline", "errors", *arguments, "--data-dir", str(directory)]
    done = subprocess.run(words, timeout=TIMEOUT_S, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_commands_work_while_the_gateway_writes(tmp_path: Path) -> None:
    book = ErrorGroups(open_database(tmp_path / "store.db", owner=True), clock=lambda: LONG_AGO_S)
    book.apply("epoch", 0, [record([NO_TIME])])
    ended = threading.Event()
    applied = 1

    def write() -> None:
        nonlocal applied
        while not ended.wait(0.005):
            book.apply("epoch", applied, [record([replace(NO_TIME, span=applied + 1)])])
            applied += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert command(tmp_path, "resolve", A).startswith("resolved 1")
        (group,) = json.loads(command(tmp_path, "list", "--format", "json"))
        assert (group["fingerprint"], group["state"]) == (A, "resolved")
        assert command(tmp_path, "reopen", "1").startswith("open again")
    finally:
        ended.set()
        writer.join(TIMEOUT_S)
    (group,) = json.loads(command(tmp_path, "list", "--format", "json"))
    assert (group["count"], group["state"]) == (applied, "open")
    assert applied > 10
    book.close()


def test_a_group_that_was_resolved_beside_the_gateway_regresses(tmp_path: Path) -> None:
    book = ErrorGroups(open_database(tmp_path / "store.db", owner=True))
    book.apply("epoch", 0, [record([NO_TIME])])
    command(tmp_path, "resolve", "1")
    book.apply("epoch", 1, [record([replace(NO_TIME, span=2)])])
    assert [news.event for news in book.news] == ["new", "regressed"]
    assert json.loads(command(tmp_path, "show", A, "--format", "json"))["state"] == "regressed"
    book.close()
