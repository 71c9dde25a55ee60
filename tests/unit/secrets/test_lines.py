"""The command redact: JSON lines in and out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from otel_pipeline.commands import command_line
from otel_pipeline.wire import otlp_json
from otel_pipeline.wire.signal import Signal
from tests.support import otlp


def run(text: str, *options: str) -> tuple[int, list[Any]]:
    result = CliRunner().invoke(command_line, ["redact", *options], input=text)
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def test_a_line_tells_what_was_removed_and_where_it_stood() -> None:
    text = "für joe@example.com: password=hunter22"
    code, [answer] = run(json.dumps({"id": "a", "text": text}) + "\n")
    assert code == 0
    assert answer["id"] == "a"
    assert "joe@" not in answer["text"]
    assert [text[one["start"] : one["end"]] for one in answer["removed"]] == ["joe@example.com", "hunter22"]
    assert answer["removed"][0]["kind"] == "email"


def test_a_text_without_secrets_comes_back() -> None:
    assert run('{"id": 1, "text": "a secret garden"}') == (0, [{"id": 1, "text": "a secret garden", "removed": []}])


@pytest.mark.parametrize("bad", ["{", "[]", '{"id": 1}', '{"id": 1, "text": 5}', '{"text": "x"}', "\ufffd", "9" * 5000])
def test_a_bad_line_costs_no_other(bad: str) -> None:
    code, answers = run(f'{{"id": 1, "text": "a"}}\n{bad}\n\n{{"id": 2, "text": "b"}}\n')
    assert code == 1
    assert [answer.get("id") for answer in answers] == [1, None, 2]
    assert answers[1]["line"] == 2
    assert answers[1]["error"]


def test_lone_surrogates_are_no_obstacle() -> None:
    code, [answer] = run('{"id": 1, "text": "\\ud800 joe@example.com"}')
    assert code == 0
    assert answer["text"] == "\ud800 [redacted:email]"


def test_otlp_lines_of_all_signals() -> None:
    bodies = {Signal.TRACES: otlp.traces(), Signal.METRICS: otlp.metrics(), Signal.LOGS: otlp.logs()}
    lines = [otlp_json.encode(signal, body) for signal, body in bodies.items()]
    lines[0] = lines[0].replace('"name":"', '"name":"joe@example.com ', 1)
    code, answers = run("\n".join([lines[0], "{}", *lines[1:]]), "--otlp")
    assert code == 1
    assert "joe@example.com" not in json.dumps(answers[0])
    assert "[redacted:email]" in json.dumps(answers[0])
    assert answers[1]["line"] == 2
    assert answers[2:] == [json.loads(line) for line in lines[1:]]
