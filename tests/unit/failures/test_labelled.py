"""The shipped rules against real public errors."""

from __future__ import annotations

from pathlib import Path

from otel_pipeline.failures.classes import CLASSES
from otel_pipeline.failures.classify import Classifier
from tests.support.error_scores import rows, score

PAGE = Path(__file__).parents[3] / "docs/errors.md"


def test_at_least_95_percent_are_within_the_labels_that_can_be_defended() -> None:
    result = score()
    assert result.within >= 0.95 * result.total, result.wrong
    assert result.strict >= 0.9 * result.total


def test_what_follows_from_a_class_is_told_right() -> None:
    result = score()
    assert result.follows >= 150
    assert len(result.follows_wrong) <= 0.05 * result.follows, result.follows_wrong


def test_the_page_shows_what_came_out() -> None:
    """If not: python -m tests.support.error_scores."""
    assert score().table() in PAGE.read_text("utf-8")


def test_the_set_is_large_and_names_its_sources() -> None:
    labelled = rows()
    assert len(labelled) >= 150
    assert all(row["source"].startswith("https://") for row in labelled)
    assert {label for row in labelled for label in (row["expected"], *row.get("acceptable", ()))} <= set(CLASSES)
    assert {row["expected"] for row in labelled} == set(CLASSES)


def test_the_page_names_every_class() -> None:
    text = PAGE.read_text("utf-8")
    assert not [name for name in CLASSES if f"| `{name}` |" not in text]


def test_every_shipped_rule_decides_its_own_examples() -> None:
    assert Classifier().wrong_examples() == []
