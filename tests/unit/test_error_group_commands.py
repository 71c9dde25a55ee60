"""`otel-pipeline errors list|show|resolve|ignore|reopen`, over a store that a gateway has filled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from otel_pipeline.commands import command_line
from otel_pipeline.store.database import open_database
from tests.support.error_group_laws import A, B, Watched
from tests.support.error_occurrences import NOW_S, Seen


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("otel_pipeline.error_commands.time.time", lambda: NOW_S)
    watched = Watched(open_database(tmp_path / "store.db", owner=True))
    watched.apply(
        Seen(A, ago_ms=90_000_000, message="x" * 100),
        Seen(B, service="api", span=2, message="no\nmarkup [red]"),
        Seen(B, service="api", span=3),
    )
    yield tmp_path
    watched.book.close()


def invoke(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command_line, ["errors", *arguments, "--data-dir", str(directory)])


def listed(directory: Path, *arguments: str) -> list[str]:
    result = invoke(directory, "list", "--format", "json", *arguments)
    assert result.exit_code == 0, result.output
    return [group["fingerprint"] for group in json.loads(result.stdout)]


def test_groups_are_listed_with_what_they_are(directory: Path) -> None:
    lines = invoke(directory, "list").stdout.splitlines()
    assert lines[0].split() == ["id", "fingerprint", "state", "class", "traces", "spans", "last", "seen", "failure"]
    assert lines[1].split()[:6] == ["2", B, "open", "TIMEOUT_ERROR", "1", "2"]
    assert "2027-01-15T07:59:59" in lines[1]
    assert lines[2].endswith("...")
    assert len(lines) == 3


def test_a_message_does_not_break_a_line_of_the_table(directory: Path) -> None:
    invoke(directory, "ignore", A)
    assert len(invoke(directory, "list", "--state", "open").stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), [B, A]),
        (("--since", "24h"), [B]),
        (("--service", "api"), [B]),
        (("--class", "CANCELLED"), []),
        (("--class", "TIMEOUT_ERROR", "--limit", "1"), [B]),
        (("--state", "resolved"), []),
        (("--sort", "count"), [B, A]),
    ],
)
def test_groups_are_listed_as_asked(directory: Path, arguments: tuple[str, ...], expected: list[str]) -> None:
    assert listed(directory, *arguments) == expected


def test_a_wrong_duration_is_told(directory: Path) -> None:
    result = invoke(directory, "list", "--since", "24")
    assert result.exit_code == 2
    assert "is not a duration" in result.stderr


def test_one_group_is_shown(directory: Path) -> None:
    result = invoke(directory, "show", B[:6])
    assert result.exit_code == 0
    told = dict(line.split(": ", 1) for line in result.stdout.splitlines() if ": " in line and line[0] != " ")
    assert told["fingerprint"] == B
    assert told["class"] == "TIMEOUT_ERROR"
    assert told["retryable"] == "True"
    assert told["last seen"] == "2027-01-15T07:59:59.000Z"
    assert told["last trace id"] == "0" * 31 + "1"
    assert "  api: 2, last seen 2027-01-15T07:59:59.000Z" in result.stdout.splitlines()


def test_one_group_is_shown_as_json(directory: Path) -> None:
    told = json.loads(invoke(directory, "show", "2", "--format", "json").stdout)
    assert (told["fingerprint"], told["class"], told["count"], told["resolved"]) == (B, "TIMEOUT_ERROR", 2, None)
    assert [service["service"] for service in told["services"]] == ["api"]


@pytest.mark.parametrize(
    ("command", "state", "told"), [("resolve", "resolved", "resolved 1 "), ("ignore", "ignored", "ignored 1 ")]
)
def test_groups_get_a_state_and_lose_it(directory: Path, command: str, state: str, told: str) -> None:
    result = invoke(directory, command, A, "2")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith(told + A)
    assert listed(directory, "--state", state) == [B, A]
    assert invoke(directory, "reopen", A).stdout.startswith(f"open again: 1 {A}")
    assert listed(directory, "--state", "open") == [A]


def test_a_group_that_is_not_there_is_told(directory: Path) -> None:
    result = invoke(directory, "resolve", "ffffffff")
    assert result.exit_code == 1
    assert "there is no group ffffffff" in result.stderr
    assert invoke(directory, "resolve").exit_code == 2


def test_a_store_that_is_not_there_is_told(tmp_path: Path) -> None:
    result = invoke(tmp_path, "list")
    assert result.exit_code == 1
    assert result.stderr == f"otel-pipeline: there is no store in {tmp_path / 'store.db'}\n"
    assert not list(tmp_path.iterdir())


def test_the_store_of_a_configuration_is_asked(directory: Path, tmp_path: Path) -> None:
    setting = f"store.url=sqlite:///{tmp_path / 'other.db'}"
    result = invoke(directory, "list", "--set", setting)
    assert "there is no store in" in result.stderr
    open_database(tmp_path / "other.db", owner=True).close()
    assert invoke(directory, "list", "--set", setting).stdout == "nothing\n"
