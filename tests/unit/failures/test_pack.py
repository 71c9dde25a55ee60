"""Rules as data: an operator's own, and their mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from otel_pipeline.errors import ConfigError
from otel_pipeline.failures.classify import Classifier
from otel_pipeline.failures.evidence import evidence
from otel_pipeline.failures.pack import read, read_file

OWN = """
families:
  render_farm:
    - host: ['farm\\.example$']
rules:
  - id: farm-busy
    class: RATE_LIMIT_ERROR
    retryable: false
    fault: provider
    when: {family: render_farm, status: 503}
    unless: {message: maintenance}
    examples: {type: X, attributes: {server.address: a.farm.example, http.response.status_code: 503}}
"""


def own(text: str = OWN.replace("examples: {", "examples: [{").replace("503}}\n", "503}}]\n")) -> Classifier:
    return Classifier(read(text, "own.yaml"))


def farm(message: str = "") -> Any:
    return evidence("X", message, attributes={"server.address": "a.farm.example", "http.response.status_code": 503})


def test_own_rules_come_first_and_say_what_follows() -> None:
    verdict = own().classify(farm())
    assert (verdict.name, verdict.rule) == ("RATE_LIMIT_ERROR", "farm-busy")
    assert (verdict.retryable, verdict.fault) == (False, "provider")


def test_unless_takes_a_rule_out() -> None:
    assert own().classify(farm("Maintenance until noon")).rule == "network"


RULE = "rules: [{id: %s, class: %s, when: {%s}, examples: %s}]"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("rules: [", "no YAML"),
        ("rules: 3", "rules"),
        (RULE % ("a", "NO_SUCH", "type: X", "[{type: X}]"), "is no class"),
        (RULE % ("a", "CANCELLED", "type: X", "[]"), "examples"),
        (RULE % ("a", "CANCELLED", "message: '(?=x)'", "[{type: X}]"), "allowed is the syntax of RE2"),
        (RULE % ("a", "CANCELLED", "unless_type: X", "[{type: X}]"), "a field that must hold"),
        (RULE % ("a", "CANCELLED", "family: nobody", "[{type: X}]"), "nobody is no family"),
        (RULE % ("gpu-oom", "CANCELLED", "type: X", "[{type: X}]"), "gpu-oom stands at two rules"),
        ("families: {a: [{family: database}]}", "cannot be told by a family"),
    ],
)
def test_a_mistake_in_a_pack_is_told(text: str, mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        own(text)
    assert any(mistake in one for one in caught.value.mistakes), caught.value.mistakes


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_file(tmp_path / "none.yaml")


def test_verdicts_are_remembered_and_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_pipeline.failures.classify.FAILURES_KEPT", 2)
    classifier = Classifier()
    known = [evidence("X", text) for text in ("one", "two", "three")]
    verdicts = [classifier.classify(one) for one in known]
    assert [classifier.remembered(one) for one in known] == [None, *verdicts[1:]]


def test_the_coarse_verdict_needs_no_message_and_has_no_fingerprint() -> None:
    verdict = Classifier().coarse(evidence("redis.exceptions.ConnectionError", "whatever"))
    assert (verdict.name, verdict.fingerprint) == ("DATABASE_ERROR", "")
