"""`otel-pipeline ledger report|jobs|export`, over a store that a gateway has filled."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from otel_pipeline.commands import command_line
from otel_pipeline.ledger.focus_check import mistakes
from otel_pipeline.ledger_report_layouts import row
from otel_pipeline.store.database import open_database
from otel_pipeline.store.ledger_views import Line
from tests.support.ledger_laws import Watched
from tests.support.ledger_records import GPU, SECOND, T0, One, moment, record
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


ALL = ("report", "--set", "store.cost_reports.reference_price=0.08")


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


LINE = {"currency", "cost", "wasted", "idle", "succeeded", "failed", "other", "cost_per_job"}
TOTAL = {"currency", "paid", "spent", "nobody", "wasted", "superseded", "waste_ratio", "paid_before", "trend"}
SHAPE = {
    "from": None, "to": None, "booked_until": None, "by": None, "version": None,
    "totals": TOTAL,
    "jobs": {"succeeded", "failed", "other", "failed_for_good", "refund_rate"},
    "lines": LINE | {"backend"},
    "startups": {"gpu", "began", "currency", "cost", "caused_by"},
    "unpriced": {"gpu_seconds", "calls"},
    "budget": {"day", "currency", "budget", "paid", "left"},
    "savings": {"currency", "jobs", "reference", "paid", "saved", "jobs_without_reference"},
}  # fmt: skip
"""Programs read it: what is there stays."""


def test_a_report_as_json_keeps_its_shape(directory: Path) -> None:
    found = json.loads(printed(directory, *ALL, "--format", "json"))
    assert found.keys() == SHAPE.keys()
    assert found["version"] == 1
    for name, keys in SHAPE.items():
        for one in found[name] if isinstance(found[name], list) else [found[name]]:
            assert keys is None or one.keys() == keys, name
    nobody = found["lines"][-1]
    assert (nobody["backend"], nobody["succeeded"], nobody["cost_per_job"]) == ("(nobody: tail)", None, None)
    assert found["unpriced"] == {"gpu_seconds": "0.000000000", "calls": []}


def test_no_amount_in_json_is_a_number(directory: Path) -> None:
    """Readers would make binary floats of them. Ratios are numbers."""
    found = json.loads(printed(directory, *ALL, "--format", "json"), parse_float=lambda number: f"float {number}")
    for one in [*found["totals"], found["jobs"]]:
        for ratio in ("waste_ratio", "trend", "refund_rate"):
            one.pop(ratio, None)
    assert "float" not in str(found)


def test_an_attribute_with_the_name_of_a_column_does_not_hide_it() -> None:
    found = row(Line("short", "USD", 5), "cost")
    assert (found["name"], found["cost"]) == ("short", "0.000000005")


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


def test_corrections_are_told_since_a_booking_or_a_time(directory: Path) -> None:
    hours = ("--from", moment(0), "--to", moment(7200))
    path = directory / "corrections.csv"
    later = ("--billing-period", "2027-02", "-o", str(path))
    assert printed(directory, "export", *hours, "--corrections-since", "0", *later).endswith("up to booking 2\n")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert mistakes(list(rows[0]), rows) == []
    assert {(row["ChargeClass"], row["BillingPeriodStart"]) for row in rows} == {("Correction", "2027-02-01T00:00:00Z")}
    assert sum(Decimal(row["BilledCost"]) for row in rows if row["BillingCurrency"] == "USD") == Decimal("7.2")
    for since in ("2", moment(86_400 * 400)):
        assert printed(directory, "export", *hours, "--corrections-since", since, *later).startswith("0 rows")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--corrections-since", "1"), "an open billing period FOCUS knows none"),
        (("--billing-period", "2027-02"), "--billing-period needs --corrections-since"),
        (("--corrections-since", "yesterday"), "Invalid value for '--corrections-since'"),
        (("--corrections-since", "1", "--billing-period", "soon"), "must be a month such as 2026-12"),
    ],
)
def test_a_wrong_question_for_corrections_is_told(directory: Path, arguments: tuple[str, ...], message: str) -> None:
    hours = ("--from", moment(0), "--to", moment(7200))
    result = invoke(directory, "export", *hours, *arguments, "-o", str(directory / "x.csv"))
    assert result.exit_code != 0
    assert message in result.stderr
    assert not (directory / "x.csv").exists()


def test_a_formula_from_outside_is_a_text_in_csv(tmp_path: Path) -> None:
    """A workflow's name, a job's: whoever sends spans chooses them."""
    watched = Watched(open_database(tmp_path / "store.db", owner=True))
    watched.apply(record(One(1, 0, 30, kind="job", job="@SUM(A1)", model="=1+1", outcome="ok"), seen={GPU: (0, 9)}))
    watched.settle()
    watched.database.close()
    hours = ("--from", moment(0), "--to", moment(3600))
    report = list(csv.DictReader(io.StringIO(printed(tmp_path, "report", *hours, "--by", "model", "--format", "csv"))))
    assert (report[0]["model"], report[0]["cost"]) == ("'=1+1", "0.030000000")
    (job,) = csv.DictReader(io.StringIO(printed(tmp_path, "jobs", *hours, "--format", "csv")))
    assert job["job"] == "'@SUM(A1)"
    printed(tmp_path, "export", *hours, "-o", str(tmp_path / "focus.csv"))
    with (tmp_path / "focus.csv").open(encoding="utf-8", newline="") as file:
        assert "'@SUM(A1)" in {row["AllocatedResourceId"] for row in csv.DictReader(file)}


def test_cold_starts_are_borne_as_asked(tmp_path: Path) -> None:
    watched = Watched(open_database(tmp_path / "store.db", owner=True))
    watched.apply(record(One(1, 60, 90, kind="job", job="A", outcome="ok"), seen={GPU: (0, 9)}))
    watched.settle()
    watched.database.close()
    command = ("report", "--from", moment(0), "--to", moment(3600), "--by", "job", "--format", "json")
    told = json.loads(printed(tmp_path, *command, "--startup", "charge_trigger"))
    assert told["lines"][0]["cost"] == "0.090000000"
    assert [(one["cost"], one["caused_by"]) for one in told["startups"]] == [("0.060000000", "A")]
    assert f"cold start of {GPU} at 2027-01-15T00:00:00Z: 0.060000000 USD, caused by A" in printed(
        tmp_path, *command[:-2]
    )
    configured = json.loads(printed(tmp_path, *command, "--set", "store.cost_reports.startup=amortise"))
    assert configured["lines"][0]["cost"] == "0.090000000"
    assert configured["totals"] == told["totals"] == json.loads(printed(tmp_path, *command))["totals"]
