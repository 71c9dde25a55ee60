"""What a condition does to a batch: functions from columns to masks, put together by `parser.py`."""

from __future__ import annotations

import operator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import re2  # type: ignore[import-untyped]  # has no stubs

from otel_pipeline import limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline.conditions.paths import Column
    from otel_pipeline.wire.batch import Batch, Mask

    Answer: TypeAlias = tuple[Mask, Mask | None]
    """Where it holds, and where that is unknown (None: nowhere); no row is in both."""
    Node: TypeAlias = Callable[[Batch], Answer]
    Literal: TypeAlias = str | bool | int | float | None

COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def constant(*, value: bool) -> Node:
    """Every row or none."""
    return lambda batch: (np.full(len(batch), value), None)


def negated(node: Node) -> Node:
    """`not`; what is unknown stays so."""

    def run(batch: Batch) -> Answer:
        holds, unknown = node(batch)
        return (~holds, None) if unknown is None else (~(holds | unknown), unknown)

    return run


def any_of(nodes: list[Node]) -> Node:
    """`or`: unknown where none holds and one is unknown."""

    def run(batch: Batch) -> Answer:
        answers = [node(batch) for node in nodes]
        holds = np.logical_or.reduce([one for one, _ in answers])
        unknowns = [one for _, one in answers if one is not None]
        return holds, (np.logical_or.reduce(unknowns) & ~holds) if unknowns else None

    return run


def all_of(nodes: list[Node]) -> Node:
    """`and`: unknown where none fails and one is unknown."""

    def run(batch: Batch) -> Answer:
        answers = [node(batch) for node in nodes]
        holds = np.logical_and.reduce([one for one, _ in answers])
        if all(unknown is None for _, unknown in answers):
            return holds, None
        possible = np.logical_and.reduce([one if unknown is None else one | unknown for one, unknown in answers])
        return holds, possible & ~holds

    return run


def compared(target: Column, name: str, literal: Literal) -> Node:
    """A path against a literal; raises ValueError where that could never tell anything."""
    test = COMPARISONS[name]
    if literal is None:
        if name not in ("==", "!="):
            raise ValueError("nil can be compared with == and != only")
        present = target.present
        if present is None:
            return constant(value=name == "!=")
        return lambda batch: (present(batch) if name == "!=" else ~present(batch), None)
    if isinstance(literal, str):
        texts = target.texts
        if texts is None:
            raise ValueError(f"{target.name} is a number: compare it with a number or an enum's name")
        equal = literal.__eq__  # called once per distinct value: cheaper than a lambda
        if name == "==":
            return lambda batch: (texts(batch).where(equal), None)
        if name == "!=":
            return lambda batch: (~texts(batch).where(equal), None)
        return lambda batch: (texts(batch).where(lambda value: bool(test(value, literal))), None)
    numbers = target.numbers
    if numbers is None:
        raise ValueError(f"{target.name} is text: compare it with a string in double quotes")
    return lambda batch: (test(numbers(batch), literal), None)


def matches(target: Column, test: Callable[[str], bool]) -> Node:
    """`IsMatch`: texts as they are, numbers by their digits, nil never; unknown for the rest."""
    texts, numbers, present = target.texts, target.numbers, target.present
    assert texts is not None
    of_number = lru_cache(maxsize=limits.VERDICTS_KEPT)(lambda value: test(digits(value)))

    def run(batch: Batch) -> Answer:
        strings = texts(batch)
        holds = strings.where(test)
        if present is None:
            return holds, None
        others = present(batch) & (strings.codes < 0)
        if not others.any():
            return holds, None
        if numbers is not None:
            values = numbers(batch)
            numeric = others & ~np.isnan(values)
            distinct, codes = np.unique(values[numeric], return_inverse=True)
            holds[numeric] = np.array([of_number(value) for value in distinct.tolist()], np.bool_)[codes]
            others &= ~numeric
        return holds, others if others.any() else None

    return run


def has_text(target: Column, test: Callable[[str], bool]) -> Node:
    """`HasPrefix` and `HasSuffix`: unknown where there is no text."""
    texts = target.texts
    assert texts is not None

    def run(batch: Batch) -> Answer:
        strings = texts(batch)
        unknown = strings.codes < 0
        return strings.where(test), unknown if unknown.any() else None

    return run


def digits(value: float) -> str:
    """A number as the Collector writes it for a pattern: no exponent, no needless point."""
    if np.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return np.format_float_positional(value, trim="-")


def pattern(text: str) -> Callable[[str], bool]:
    """Whether a text contains a match of a RE2 pattern; raises ValueError with the reason if it cannot be compiled."""
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if error.args else "unknown"
        raise ValueError(f"{reason}; allowed is the syntax of RE2 (no look-around, no back-references)") from error
    except UnicodeEncodeError as error:
        raise ValueError("the pattern is no valid Unicode") from error

    def test(value: str) -> bool:
        return compiled.search(value) is not None

    kept = lru_cache(maxsize=limits.VERDICTS_KEPT)(test)
    return lambda value: kept(value) if len(value) <= limits.VERDICT_CHARS_MAX else test(value)
