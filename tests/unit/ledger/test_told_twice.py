"""Which calls are told by a span below them, too."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.ledger.told_twice import Told, told_twice

MODELS = st.sampled_from([None, "", "m", "n"])


@st.composite
def traces(draw: st.DrawFn) -> list[Told]:
    """Spans of two traces, parents before children; some parents are missing."""
    size = draw(st.integers(0, 12))
    return [
        Told((0, draw(st.integers(0, 1))), span, draw(st.integers(0, span - 1)), draw(MODELS), draw(st.booleans()))
        for span in range(1, size + 1)
    ]


def expected(spans: list[Told]) -> set[int]:
    """By the letter: each pair of spans."""
    known = {(one.trace, one.span): one for one in spans}

    def is_below(inner: Told, outer: Told) -> bool:
        at: Told | None = inner
        while at is not None:
            at = known.get((at.trace, at.parent))
            if at is outer:
                return True
        return False

    return {
        outer.span
        for outer in spans
        for inner in spans
        if inner.tells and inner.model is not None and outer.model in ("", inner.model) and is_below(inner, outer)
    }


@given(traces(), st.randoms(use_true_random=False))
def test_an_outer_call_of_the_same_model_is_told_twice(spans: list[Told], chance: random.Random) -> None:
    chance.shuffle(spans)
    assert {spans[place].span for place in told_twice(spans)} == expected(spans)


@given(traces(), st.integers(0, 12))
def test_what_is_taken_back_early_changes_nothing(spans: list[Told], first: int) -> None:
    early = {spans[place].span for place in told_twice(spans[:first])}
    left = [one._replace(model=None) if one.span in early else one for one in spans]
    assert early | {left[place].span for place in told_twice(left)} == expected(spans)


def test_spans_that_are_above_themselves_take_nothing_back() -> None:
    circle = [Told((0, 1), span, parent, "m", tells=True) for span, parent in ((1, 2), (2, 1), (3, 3), (4, 4))]
    assert told_twice(circle) == []
