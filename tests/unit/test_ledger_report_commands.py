"""`otel-pipeline ledger report|jobs|export`, over a store that a gateway has filled."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from otel_pipeline.commands import command_line
from otel_pipeline.ledger.focus_check import mistakes
from otel_pipeline.store.database import open_database
from tests.support.ledger_records import SECOND, T0, moment
from tests.support.ledger_view_laws import filled


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Filled once: the commands only read."""
    directory = tmp_path_factory.mktemp("store")
    watched = filled(open_database(directory / "store.db", owner=True))
    yield directory
    watched.database.close()


@pytest.fixture
def directory(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("otel_pipeline.ledger_report_commands.time.time_ns", lambda: (T0 + 7200) * SECOND)
    return store


def invoke(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command_line, ["ledger", *arguments, "--data-dir", str(directory)])


def printed(directory: Path, *arguments: str) -> str:
    result = invoke(directory, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_report_tells_what_was_paid_and_for_what(directory: Path) -> None:
    text = printed(directory, "report", "--by", "model")
    assert "paid 7.200000000 USD, used 0.062000000, nobody's 7.138000000, wasted 0.012000000 (19.4%)" in text
    assert "jobs: 2 succeeded, 1 failed, 0 other; refund rate 0.0%" in text
    assert "7.200000000 of 10.000000000 USD, 2.800000000 left" in text
    lines = [line.split() for line in text.splitlines() if line.startswith(("flux", "wan", "(nobody"))]
    assert lines[0][:4] == ["flux", "USD", "0.037000000", "0.012000000"]
    assert ["(nobody:", "idle)", "USD"] in [line[:3] for line in lines]


def test_a_report_as_json_is_exact(directory: Path) -> None:
    found = json.loads(printed(directory, "report", "--by", "job", "--format", "json"))
    dollars = found["totals"][1]
    assert (dollars["currency"], dollars["paid"], dollars["trend"]) == ("USD", "7.200000000", None)
    assert {line["job"]: line["cost"] for line in found["lines"] if line["currency"] == "EUR"} == {"B": "0.640000000"}
    assert found["budget"]["left"] == "2.800000000"
    assert found["savings"] is None


def test_a_report_as_csv_has_a_line_each(directory: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(printed(directory, "report", "--by", "length", "--format", "csv"))))
    assert {row["length"]: row["cost"] for row in rows if row["currency"] == "USD"}["short"] == "0.012000000"


def test_idle_is_borne_as_asked(directory: Path) -> None:
    lines = json.loads(printed(directory, "report", "--by", "model", "--idle", "weighted", "--format", "json"))["lines"]
    assert {line["model"] for line in lines} == {"flux", "wan", "veo"}


def test_lines_beyond_the_limit_are_one(directory: Path) -> None:
    found = json.loads(printed(directory, "report", "--by", "model", "--limit", "2", "--format", "json"))
    assert [(line["model"], line["cost"]) for line in found["lines"][1:3]] == [
        ("flux", "0.037000000"),
        ("(others)", "0.025000000"),
    ]


def test_settings_judge_the_costs(directory: Path) -> None:
    text = printed(
        directory,
        "report",
        "--set",
        "store.cost_reports.daily_budget=5",
        "--set",
        "store.cost_reports.reference_price=0.08",
    )
    assert "2.200000000 over the budget" in text
    assert "saved -7.040000000 USD: 2 jobs would have cost 0.160000000" in text


def test_a_window_is_given_by_times(directory: Path) -> None:
    times = ("--from", moment(3600), "--to", moment(7200))
    found = json.loads(printed(directory, "report", *times, "--format", "json"))
    assert found["totals"][1]["paid"] == "3.600000000"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", "--to", "2026-01-01"), "--to needs --from"),
        (("report", "--from", "2026-01-02", "--to", "2026-01-01"), "--from must be before --to"),
        (("report", "--from", "yesterday"), "Invalid value for '--from'"),
        (("report", "--by", "colour"), "there is no view colour"),
        (("export", "--from", "2026-01-01", "--to", "2026-01-01T00:30Z", "-o", "x.csv"), "1 mistakes; nothing written"),
    ],
)
def test_a_wrong_question_is_told(directory: Path, arguments: tuple[str, ...], message: str) -> None:
    result = invoke(directory, *arguments)
    assert result.exit_code != 0
    assert message in result.stderr


def test_jobs_are_listed_with_cost_and_outcome(directory: Path) -> None:
    rows = json.loads(printed(directory, "jobs", "--format", "json"))
    told = [(row["job"], row["cost"], row["wasted"], row["currency"], row["outcome"]) for row in rows]
    assert told == [
        ("B", "0.640000000", "0.000000000", "EUR", "completed"),
        ("B", "0.025000000", "0.000000000", "USD", "completed"),
        ("A", "0.037000000", "0.012000000", "USD", "completed"),
    ]
    assert len(printed(directory, "jobs", "--sort", "last", "--limit", "1").splitlines()) == 3


@pytest.mark.parametrize("grain", ["span", "job", "gpu"])
def test_an_export_passes_the_strict_check(directory: Path, tmp_path: Path, grain: str) -> None:
    path = tmp_path / "focus.csv"
    text = printed(directory, "export", "--from", moment(0), "--to", moment(7200), "--grain", grain, "-o", str(path))
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert text.startswith(f"{len(rows)} rows")
    assert mistakes(reader.fieldnames or [], rows) == []
    assert not path.with_name("focus.csv.part").exists()
