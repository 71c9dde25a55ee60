"""`otel-pipeline errors`: naming failures on stdin, and trying rules."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from otel_pipeline.commands import command_line

OWN = "rules: [{id: own, class: CANCELLED, when: {type: a.B}, examples: [{type: a.B}, {type: c.D}]}]"


def test_each_line_is_answered_and_bad_ones_cost_no_others() -> None:
    lines = [
        json.dumps({"id": 1, "exception_type": "httpx.ReadTimeout", "exception_message": "", "stacktrace": None}),
        "{broken",
        "",
        json.dumps([1]),
        json.dumps({"id": 2, "exception_type": 3}),
        json.dumps({"id": 3, "attributes": [1]}),
        json.dumps({"id": "x", "attributes": {"http.response.status_code": 429}, "span_name": "POST"}),
        json.dumps({"id": 4, "span_status": {"code": "ERROR", "message": "Connection refused"}}),
    ]
    result = CliRunner().invoke(command_line, ["errors", "classify"], input="\n".join(lines))
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["id"], one["class"]) for one in answers] == [
        (1, "TIMEOUT_ERROR"),
        ("x", "RATE_LIMIT_ERROR"),
        (4, "NETWORK_ERROR"),
    ]
    assert set(answers[0]) == {"id", "class", "rule", "fingerprint", "retryable", "fault"}
    told = result.stderr.splitlines()
    assert [line.split(":")[0] for line in told] == ["line 2", "line 4", "line 5", "line 6"]
    assert result.exit_code == 1


def test_good_lines_alone_exit_with_0() -> None:
    assert CliRunner().invoke(command_line, ["errors", "classify"], input="{}\n").exit_code == 0


def test_the_shipped_rules_pass_their_examples() -> None:
    result = CliRunner().invoke(command_line, ["errors", "test"])
    assert result.exit_code == 0
    assert result.output.endswith(" 0 wrong\n")


def test_an_own_rule_that_does_not_decide_its_example_is_told(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(OWN)
    result = CliRunner().invoke(command_line, ["errors", "test", "--rules", str(file)])
    assert result.exit_code == 1
    assert 'own: decided by none as UNKNOWN_ERROR: {"type": "c.D"}' in result.stderr


def test_a_file_that_is_no_pack_is_told(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("rules: 3")
    result = CliRunner().invoke(command_line, ["errors", "classify", "--rules", str(file)], input="{}\n")
    assert result.exit_code == 1
    assert "rules" in result.stderr
