"""How well the shipped rules name the labelled failures: python -m tests.support.error_scores [FILE] prints the table.

Each line of the set is what `errors classify` takes, with the place it was found at (`source`), the class that it has
(`expected`), others that could be defended (`acceptable`), and some with what follows: `retryable`, and `fault`, one of
those listed. What follows is judged where the class is as expected.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from otel_pipeline.failures.classes import CLASSES
from otel_pipeline.failures.classify import Classifier, Verdict
from otel_pipeline.failures.lines import told_evidence

LABELLED: Final = Path(__file__).parents[1] / "data/errors.jsonl"


@dataclass(slots=True)
class Score:
    """What came out."""

    total: int = 0
    strict: int = 0
    within: int = 0
    wrong: list[str] = field(default_factory=list)
    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)
    follows: int = 0
    """Answers about retrying and fault."""
    follows_wrong: list[str] = field(default_factory=list)

    def table(self) -> str:
        """A row for each class: how many there are, how many were named so, what the others were named."""
        lines = ["| class | examples | named so | named otherwise |", "| --- | --- | --- | --- |"]
        for name in CLASSES:
            told = {got: count for (expected, got), count in self.confusion.items() if expected == name}
            others = ", ".join(f"{got} {count}" for got, count in sorted(told.items()) if got != name)
            lines.append(f"| {name} | {sum(told.values())} | {told.get(name, 0)} | {others} |")
        return "\n".join(lines)


def rows(path: Path = LABELLED) -> list[dict[str, Any]]:
    """The labelled failures."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def score(path: Path = LABELLED) -> Score:
    """Name them all."""
    classifier, result = Classifier(), Score()
    for row in rows(path):
        verdict = classifier.classify(told_evidence(row))
        got = verdict.name
        result.total += 1
        result.strict += got == row["expected"]
        within = got in (row["expected"], *row.get("acceptable", ()))
        result.within += within
        result.confusion[row["expected"], got] += 1
        if not within:
            result.wrong.append(f"{row['id']}: {row['expected']}, named {got}")
        if got == row["expected"]:
            _follow(result, row, verdict)
    return result


def _follow(result: Score, row: dict[str, Any], verdict: Verdict) -> None:
    for key, answer in (("retryable", verdict.retryable), ("fault", verdict.fault)):
        if key in row:
            result.follows += 1
            right = row[key] if isinstance(row[key], list) else [row[key]]
            if answer not in right:
                result.follows_wrong.append(f"{row['id']}: {key} {row[key]}, told {answer}")


if __name__ == "__main__":
    found = score(Path(sys.argv[1]) if sys.argv[1:] else LABELLED)
    print(found.table())
    print(f"{found.total}: {found.strict} as labelled, {found.within} within the labels that can be defended")
    print(f"{found.follows - len(found.follows_wrong)} of {found.follows} answers about retrying and fault are right")
    print("\n".join([*found.wrong, *found.follows_wrong]))
