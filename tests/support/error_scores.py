"""How well the shipped rules name the labelled failures: python -m tests.support.error_scores [FILE] prints the table.

Each line of the set is what `errors classify` takes, with the place it was found at (`source`), the class that it has
(`expected`) and others that could be defended (`acceptable`).
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from otel_pipeline.failures.classes import CLASSES
from otel_pipeline.failures.classify import Classifier
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
        got = classifier.classify(told_evidence(row)).name
        result.total += 1
        result.strict += got == row["expected"]
        within = got in (row["expected"], *row.get("acceptable", ()))
        result.within += within
        result.confusion[row["expected"], got] += 1
        if not within:
            result.wrong.append(f"{row['id']}: {row['expected']}, named {got}")
    return result


if __name__ == "__main__":
    found = score(Path(sys.argv[1]) if sys.argv[1:] else LABELLED)
    print(found.table())
    print(f"{found.total}: {found.strict} as labelled, {found.within} within the labels that can be defended")
    print("\n".join(found.wrong))
