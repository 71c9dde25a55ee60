"""Small GPU days for property tests: few units of time, much overlap, odd prices."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from hypothesis import strategies as st

from otel_pipeline.ledger.claims import Claim
from otel_pipeline.ledger.tape import Billed, Tape

END: Final = 24
TIME: Final = st.integers(0, END)
GPUS: Final = ("g0", "g1")
WHOLE_SHARES: Final = 2**4 * 3**2 * 5 * 7
"""A price that is a multiple of it splits among up to ten without a rest."""
ODD_PRICES: Final = st.fractions(min_value=0, max_value=7, max_denominator=12)
EVEN_PRICES: Final = st.integers(0, 5).map(lambda times: Fraction(times * WHOLE_SHARES))


@st.composite
def tapes(draw: st.DrawFn, prices: st.SearchStrategy[Fraction] = ODD_PRICES, gpu: str = "g0") -> Tape:
    """A GPU with one or two billed times and up to three prices."""
    edges = sorted(draw(st.lists(TIME, min_size=4, max_size=4)))
    billed = [billed_time(draw, edges[0], edges[1]), billed_time(draw, edges[2], edges[3])]
    changes = sorted(draw(st.sets(st.integers(1, END), max_size=2)))
    gaps = [tuple(sorted(draw(st.tuples(TIME, TIME))))] if draw(st.booleans()) else []
    return Tape(gpu, [(at, draw(prices)) for at in (0, *changes)], billed, gaps)


def billed_time(draw: st.DrawFn, start: int, end: int) -> Billed:
    within = st.none() | st.integers(start, end)
    return Billed(start, end, ready_ns=draw(within), draining_ns=draw(within), stop_ns=draw(within))


@st.composite
def claims(draw: st.DrawFn, span: str, gpus: tuple[str, ...] = ("g0",)) -> Claim:
    """A claim of the span; its parent is another span, whoever it is, in any shape that senders make up."""
    start = draw(TIME)
    steps = draw(st.lists(st.tuples(TIME, st.integers(0, 4)), min_size=1, max_size=3, unique_by=lambda step: step[0]))
    return Claim(
        span=span,
        gpu=draw(st.sampled_from(gpus)),
        start_ns=start,
        end_ns=draw(st.integers(start, END)),
        parent=draw(
            st.none() | st.sampled_from("ABCDEFG") | st.sampled_from("ABCDEFG"[: max("ABCDEFG".index(span), 1)])
        ),
        weight=draw(st.integers(0, 4)) if draw(st.booleans()) else tuple(sorted(steps)),
        share=draw(st.none() | st.fractions(0, 1, max_denominator=7)),
        attempt=draw(st.integers(1, 2)),
        outcome=draw(st.sampled_from(("ok", "error"))),
    )


@st.composite
def claim_lists(draw: st.DrawFn, gpus: tuple[str, ...] = ("g0",), max_size: int = 6) -> list[Claim]:
    """Claims of different spans, at most one of each; cycles of parents are possible."""
    return [draw(claims(span, gpus)) for span in "ABCDEFG"[: draw(st.integers(0, max_size))]]


@st.composite
def trees(draw: st.DrawFn, max_size: int = 6) -> list[Claim]:
    """Claims of which each lies within its parent, and parents come first."""
    found: list[Claim] = []
    for span in "ABCDEF"[: draw(st.integers(1, max_size))]:
        parent = draw(st.none() | st.sampled_from(found)) if found else None
        low, high = (parent.start_ns, parent.end_ns) if parent else (0, END)
        start = draw(st.integers(low, high))
        found.append(Claim(span, "g0", start, draw(st.integers(start, high)), parent.span if parent else None))
    return found


def cut_lists() -> st.SearchStrategy[list[int]]:
    """Bounds of periods from 0 to END."""
    return st.sets(st.integers(1, END - 1), max_size=4).map(lambda inner: [0, *sorted(inner), END])
