"""Failures as lines of JSON, for trying the rules on one's own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from otel_pipeline.failures.evidence import Evidence, evidence
from otel_pipeline.limits import CLASSIFY_LINE_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otel_pipeline.failures.classify import Classifier


def answers(classifier: Classifier, lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """For each line its number and the answer, or what is wrong with it; empty lines have none."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, classified(classifier, line)
            except ValueError as error:
                yield number, str(error)


def classified(classifier: Classifier, line: bytes) -> dict[str, Any]:
    """The answer to one line; raises ValueError with what is wrong with it."""
    if len(line) > CLASSIFY_LINE_BYTES_MAX:
        raise ValueError(f"longer than {CLASSIFY_LINE_BYTES_MAX} bytes")
    try:
        told = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error
    if not isinstance(told, dict):
        raise ValueError("must be an object")  # noqa: TRY004  the caller knows one kind of mistake
    verdict = classifier.classify(told_evidence(told))
    return {
        "id": told.get("id"),
        "class": verdict.name,
        "rule": verdict.rule,
        "fingerprint": verdict.fingerprint,
        "retryable": verdict.retryable,
        "fault": verdict.fault,
    }


def told_evidence(told: dict[str, Any]) -> Evidence:
    """Evidence from the fields of a line; raises ValueError for one of a wrong type."""
    names = ("exception_type", "exception_message", "stacktrace", "span_name")
    texts = [_text(told, name) for name in names]
    attributes = told.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise ValueError("attributes must be an object")  # noqa: TRY004  as above
    status = told.get("span_status")
    description = status.get("description") or status.get("message") or "" if isinstance(status, dict) else ""
    description = description or _text(told, "status_description") or _text(told, "status_message")
    kind, message, stack, span = texts
    return evidence(kind, message, stack, str(description), span, attributes)


def _text(told: dict[str, Any], name: str) -> str:
    value = told.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text")  # noqa: TRY004  as above
    return value
