"""`OTEL_PIPELINE_JOB_RULES`: the operator's rules go first, and their mistakes are told."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context

from otel_pipeline.worker import outcomes
from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.guard import HOOKS
from otel_pipeline.worker.jobs import Job, Origin
from otel_pipeline.worker.outcomes import rules
from otel_pipeline.worker.settings import settings


@pytest.fixture(autouse=True)
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    def set_to(document: Any) -> None:
        monkeypatch.setenv("OTEL_PIPELINE_JOB_RULES", document if isinstance(document, str) else json.dumps(document))
        settings.cache_clear()

    rules.rules.cache_clear()
    settings.cache_clear()
    yield set_to
    settings.cache_clear()
    assert not any(hook.failures for name, hook in HOOKS.items() if name.startswith("outcomes."))


@pytest.fixture
def job() -> Job:
    return Job(Origin("redis", "q"), "j*1", trace.INVALID_SPAN, owns_span=True, started_ns=1, previous=Context())


def outcome(evidence: Evidence | None) -> Outcome | None:
    assert evidence is None or evidence.source is Source.RULE
    return evidence.outcome if evidence else None


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ({"path": "meta.code", "equals": 4}, {"meta": {"code": 4}}, Outcome.FAILED),
        ({"path": "meta.code", "equals": 4}, {"meta": {"code": "4"}}, Outcome.FAILED),
        ({"path": "meta.code", "equals": 4}, {"meta": {"code": 5}}, None),
        ({"path": "done", "equals": False}, {"done": False}, Outcome.FAILED),
        ({"path": "phase", "in": ["BAD", "WORSE"]}, {"phase": "WORSE"}, Outcome.FAILED),
        ({"path": "phase", "matches": "^BAD"}, {"phase": "BAD card"}, Outcome.FAILED),
        ({"path": "phase", "matches": "^BAD"}, {"phase": "not BAD"}, None),
        ({"path": "phase", "matches": "x"}, {"phase": ["x"]}, None),
        ({"path": "a.b", "exists": True}, {"a": {"b": 0}}, Outcome.FAILED),
        ({"path": "a.b", "exists": False}, {"a": {}}, Outcome.FAILED),
        ({"path": "a.b", "exists": False}, {"a": {"b": 1}}, None),
        ({"path": "a.b"}, {"a": {"b": 1}}, Outcome.FAILED),
        ({"matches": "gone"}, "it is gone", Outcome.FAILED),
        ({"path": "body|json.code", "equals": 9}, {"body": '{"code": 9}'}, Outcome.FAILED),
    ],
)
def test_a_rule_fits(
    configure: Callable[[Any], None], rule: dict[str, Any], value: Any, expected: Outcome | None
) -> None:
    configure([{"when": "return", "outcome": "failed", **rule}])
    assert outcome(outcomes.returned(value)) is expected


def test_the_first_rule_that_fits_goes_before_what_is_built_in(configure: Callable[[Any], None]) -> None:
    configure(
        [
            {"when": "return", "path": "status", "equals": "error", "outcome": "skipped", "error_type": "odd"},
            {"when": "return", "path": "status", "exists": True, "outcome": "failed"},
        ]
    )
    assert outcomes.returned({"status": "error"}) == Evidence(Source.RULE, Outcome.SKIPPED, "odd", "error")
    assert outcome(outcomes.returned({"status": "completed"})) is Outcome.FAILED


def test_a_rule_can_say_that_a_value_says_nothing(configure: Callable[[Any], None]) -> None:
    configure([{"when": "return", "path": "error", "matches": "thumbnail", "outcome": "none"}])
    assert outcomes.returned({"error": "no thumbnail"}) is None
    evidence = outcomes.returned({"error": "no image"})
    assert evidence is not None
    assert evidence.source is Source.RETURN


def test_rules_for_keys_queues_urls_and_log_lines(configure: Callable[[Any], None], job: Job) -> None:
    configure(
        """
- {when: status, key: "render:{id}:phase", equals: BROKEN, outcome: failed}
- {when: message, queue: "verdicts:*", path: verdict, matches: "^no", outcome: skipped}
- {when: http, url: "*/callbacks/*", path: text, exists: true, outcome: partial}
- {when: log, matches: "giving up on", outcome: failed, error_type: gave_up}
"""
    )
    assert outcome(outcomes.status_write(job, "render:j*1:phase", "BROKEN")) is Outcome.FAILED
    assert outcome(outcomes.status_write(job, "render:jx1:phase", "BROKEN")) is None
    assert outcome(outcomes.pushed(job, "verdicts:a", '{"verdict": "not good"}')) is Outcome.SKIPPED
    assert outcome(outcomes.pushed(job, "other", '{"verdict": "not good"}')) is None
    assert outcome(outcomes.http_message(job, "POST", "http://x/callbacks/1", {"text": "t"})) is Outcome.PARTIAL
    assert outcome(outcomes.http_message(job, "GET", "http://x/callbacks/1", {"text": "t"})) is None
    assert outcomes.logged(job, "giving up on it") == Evidence(
        Source.RULE, Outcome.FAILED, "gave_up", "giving up on it"
    )
    assert outcomes.logged(job, "going on") is None


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ('{"when": "return"}', "it is a list of rules"),
        ("[5]", "rule 0: a rule is a mapping"),
        ('[{"when": "later", "outcome": "failed"}]', "rule 0: when: allowed are return, status, message, http, log"),
        ('[{"when": "return"}]', "rule 0: outcome: allowed are completed, failed"),
        ('[{"when": "return", "outcome": "lost"}]', "rule 0: outcome: allowed are"),
        ('[{"when": "return", "outcome": "failed", "key": "x"}]', "rule 0: key: not known for `when: return`"),
        (
            '[{"when": "return", "outcome": "failed", "path": "a..b"}]',
            "rule 0: path: path 'a..b' cannot be read at character 2",
        ),
        ('[{"when": "return", "outcome": "failed", "matches": "("}]', "rule 0: matches: no regular expression"),
        ('[{"when": "return", "outcome": "failed", "in": 5}]', "rule 0: in: a list of values"),
        ('[{"when": "return", "outcome": "failed", "exists": 5}]', "rule 0: exists: true or false"),
        ('[{"when": "return", "outcome": "failed", "equals": 1, "in": [1]}]', "only one of"),
        (json.dumps([{"when": "log", "outcome": "failed", "matches": "x"}] * 65), "more than 64 rules"),
    ],
)
def test_a_mistake_is_told_once(
    configure: Callable[[Any], None], caplog: pytest.LogCaptureFixture, document: str, problem: str
) -> None:
    configure(document)
    with caplog.at_level(logging.WARNING, "otel_pipeline.worker"):
        assert outcomes.returned({"x": 1}) is None
        assert outcomes.returned({"x": 1}) is None
    (record,) = caplog.records
    assert record.getMessage().startswith("OTEL_PIPELINE_JOB_RULES: ")
    assert problem in record.getMessage()


def test_a_readable_rule_stays_beside_one_that_is_not(configure: Callable[[Any], None]) -> None:
    configure([{"when": "never"}, {"when": "return", "path": "x", "outcome": "failed"}])
    assert outcome(outcomes.returned({"x": 1})) is Outcome.FAILED
