"""Pairs of failures: the same one with other numbers, ids and places, and different ones in like words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from otel_pipeline.failures.classify import Classifier
from otel_pipeline.failures.lines import told_evidence
from tests.support.error_scores import rows

PAIRS: Final = [
    json.loads(line) for line in (Path(__file__).parents[2] / "data/error_pairs.jsonl").read_text("utf-8").splitlines()
]
CLASSIFIER: Final = Classifier()


def mark(told: dict[str, Any]) -> str:
    return CLASSIFIER.classify(told_evidence(told)).fingerprint


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair["same"]], ids=lambda pair: pair["about"])
def test_two_occurrences_of_one_failure_are_one_group(pair: dict[str, Any]) -> None:
    assert mark(pair["one"]) == mark(pair["other"])


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if not pair["same"]], ids=lambda pair: pair["about"])
def test_two_failures_are_two_groups(pair: dict[str, Any]) -> None:
    assert mark(pair["one"]) != mark(pair["other"])


def test_a_group_outlives_new_lines_and_another_python() -> None:
    moved = 0
    for row in rows():
        if stack := row.get("stacktrace"):
            other = re.sub(r", line \d+", ", line 4711", stack).replace(
                "/opt/venv/lib/python3.11/", "/usr/lib/python3.13/"
            )
            moved += other != stack
            assert mark({**row, "stacktrace": other}) == mark(row), row["id"]
    assert moved > 50
