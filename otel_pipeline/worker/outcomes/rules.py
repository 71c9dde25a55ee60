"""`OTEL_PIPELINE_JOB_RULES`: the operator's own rules for how a job came out. They go before the built-in ones.

A list of rules, in YAML or JSON; the first one that fits decides:

    - {when: return, path: meta.code, in: [4, 5], outcome: failed, error_type: upstream}
    - {when: status, key: "render:{id}:phase", equals: BROKEN, outcome: failed}
    - {when: message, queue: "results:*", path: verdict, matches: "^rejected", outcome: skipped}
    - {when: http, url: "*/callbacks/*", path: error.text, exists: true, outcome: failed}
    - {when: log, matches: "giving up on", outcome: failed, error_type: gave_up}
    - {when: return, path: warnings, exists: true, outcome: none}

`when` is what is looked at: `return` (a return value), `status` (a value written to Redis), `message` (a message pushed
to a queue), `http` (the body of a POST, PUT or PATCH), `log` (a log line). `key`, `queue` or `url` is a glob for where
it goes, with {id} for the job's id. `path` is where in the value to look (paths.py; without it the whole value), and
one of `equals`, `in`, `matches` (a regular expression) and `exists` (true or false) is asked of what is there; without
any, a rule fits if there is something. `outcome` is completed, failed, partial, cancelled, skipped, unknown, or none:
the value says nothing then, and the built-in rules are not asked.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from dataclasses import dataclass
from typing import Any, Final

from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.reading import documents
from otel_pipeline.worker.reading.paths import PATTERN_TEXT_MAX, Path, PathError, compiled, parse
from otel_pipeline.worker.reading.payload import Payload, scalar
from otel_pipeline.worker.redaction import scrub
from otel_pipeline.worker.settings import PREFIX, settings

VARIABLE: Final = PREFIX + "JOB_RULES"
RULES_MAX: Final = 64
"""Rules of one configuration: each is asked of each value."""
PLACE_MAX: Final = 2048
"""Characters of a key or URL that a glob is compared with."""

PLACES: Final = {"return": "", "status": "key", "message": "queue", "http": "url", "log": ""}
"""What can be looked at, and what the place is called there."""
_OUTCOMES: Final = {each.value: each for each in Outcome if each is not Outcome.LOST} | {"none": None}
_TESTS: Final = ("equals", "in", "matches", "exists")


@dataclass(frozen=True, slots=True)
class Ruling:
    """A rule fits: what it says, or None if it says nothing."""

    evidence: Evidence | None


@dataclass(frozen=True, slots=True)
class Rule:
    when: str
    place: str | None
    paths: tuple[Path, ...]
    allowed: frozenset[str] | None
    pattern: re.Pattern[str] | None
    exists: bool
    outcome: Outcome | None
    error_type: str | None

    def decide(self, payload: Payload, place: str, job_id: str) -> Ruling | None:
        if self.place is not None:
            glob = self.place.replace("{id}", re.sub(r"([\[\]*?])", r"[\1]", job_id))
            if not fnmatch.fnmatchcase(place[:PLACE_MAX], glob):
                return None
        value = self._value(payload)
        text = _written(value)
        if self.allowed is not None and text not in self.allowed:
            return None
        if self.pattern is not None and (text is None or not self.pattern.search(text[:PATTERN_TEXT_MAX])):
            return None
        if (value is not None) is not self.exists:
            return None
        if self.outcome is None:
            return Ruling(None)
        message = scrub(text) if text and self.outcome is not Outcome.COMPLETED else None
        return Ruling(Evidence(Source.RULE, self.outcome, self.error_type, message))

    def _value(self, payload: Payload) -> object:
        if not self.paths:
            return payload.root
        return next((value for path in self.paths if (value := path.read(payload)) is not None), None)


def decide(when: str, payload: Payload, *, place: str = "", job_id: str = "") -> Ruling | None:
    """What the first rule that fits says; None if none does."""
    text = settings().job_rules
    if not text:
        return None
    for rule in rules(text):
        if rule.when == when:
            ruling = rule.decide(payload, place, job_id)
            if ruling is not None:
                return ruling
    return None


@functools.lru_cache(maxsize=8)
def rules(text: str) -> tuple[Rule, ...]:
    """The readable rules of a configuration. Its mistakes are logged, once."""
    document = documents.read(text, VARIABLE)
    if document is None:
        return ()
    if not isinstance(document, list):
        documents.fault(VARIABLE, "the value", "it is a list of rules")
        return ()
    read: list[Rule] = []
    for index, each in enumerate(document[:RULES_MAX]):
        try:
            read.append(_rule(each))
        except (ValueError, re.error) as error:
            documents.fault(VARIABLE, f"rule {index}", error)
    if len(document) > RULES_MAX:
        documents.fault(VARIABLE, "the value", f"more than {RULES_MAX} rules: the others are not read")
    return tuple(read)


def _rule(given: Any) -> Rule:
    if not isinstance(given, dict):
        raise ValueError("a rule is a mapping")  # noqa: TRY004  one kind of error for the operator
    when = given.get("when")
    if when not in PLACES:
        raise ValueError(f"when: allowed are {', '.join(PLACES)}")
    place = PLACES[when]
    known = {"when", "path", "outcome", "error_type", *_TESTS, *([place] if place else [])}
    unknown = [str(key) for key in given if key not in known]
    if unknown:
        raise ValueError(f"{unknown[0]}: not known for `when: {when}`; allowed are {', '.join(sorted(known))}")
    outcome = given.get("outcome")
    if (outcome is not None and str(outcome) not in _OUTCOMES) or "outcome" not in given:
        raise ValueError(f"outcome: allowed are {', '.join(_OUTCOMES)}")
    if sum(each in given for each in _TESTS) > 1:
        raise ValueError(f"only one of {', '.join(_TESTS)} can be asked")
    exists = given.get("exists", True)
    if not isinstance(exists, bool):
        raise ValueError("exists: true or false")  # noqa: TRY004
    try:
        paths = parse(_text(given, "path")) if "path" in given else ()
        pattern = compiled(_text(given, "matches")) if "matches" in given else None
    except PathError as error:
        raise ValueError(f"path: {error}") from error
    except re.error as error:
        raise ValueError(f"matches: no regular expression: {error}") from error
    return Rule(
        when=when,
        place=_text(given, place) if place and place in given else None,
        paths=paths,
        allowed=_allowed(given),
        pattern=pattern,
        exists=exists,
        outcome=_OUTCOMES[str(outcome)] if outcome is not None else None,
        error_type=_text(given, "error_type") if "error_type" in given else None,
    )


def _allowed(given: dict[str, Any]) -> frozenset[str] | None:
    if "equals" in given:
        values = [given["equals"]]
    elif "in" in given:
        values = given["in"]
        if not isinstance(values, list):
            raise ValueError("in: a list of values")
    else:
        return None
    return frozenset(text for each in values if (text := _written(each)) is not None)


def _written(value: object) -> str | None:
    """A scalar as JSON writes it, without quotes."""
    plain = scalar(value)
    if isinstance(plain, bool):
        return "true" if plain else "false"
    return None if plain is None else str(plain)


def _text(given: dict[str, Any], key: str) -> str:
    value = given[key]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: a text")
    return value
