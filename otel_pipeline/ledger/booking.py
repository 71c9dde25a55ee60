"""What is booked: from when to when a GPU was there, at which price, and to what its spans belong. Pure.

A GPU is paid for from the first time it was seen until the last, and is seen by its samples and by the spans that used
it. A gap of up to GAP_BILLED_NS is paid for, too, and is `unobserved` if it is longer than GAP_SEEN_NS; a longer gap is
another life of the GPU. Before the first span of a life that uses the GPU it starts up, if that is known: only a life
that begins at most STARTUP_NS_MAX before it.

Time whose price is unknown is left out of the tapes and told apart: it has no amount, not even 0.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final

import numpy as np

from otel_pipeline.ledger.claims import NO_PARENT, ClaimTable, Ints
from otel_pipeline.ledger.money import NANO
from otel_pipeline.ledger.price_book import PriceBook, Subject, rate_of
from otel_pipeline.ledger.price_rows import GPU_BASES, Basis, Row
from otel_pipeline.ledger.records import Fact
from otel_pipeline.ledger.tape import Billed, Tape
from otel_pipeline.limits import LEDGER_DEPTH_MAX

MINUTE_NS: Final = 60 * NANO
HOUR_NS: Final = 60 * MINUTE_NS
GAP_SEEN_NS: Final = 90 * NANO
"""Samples come once a minute at least, and may be a bit late."""
GAP_BILLED_NS: Final = 5 * MINUTE_NS
STARTUP_NS_MAX: Final = 15 * MINUTE_NS
"""Longer than it takes to load any model: a GPU that is idle for hours before its first job does not start up."""
LIFE_SEEN_NS: Final = 24 * HOUR_NS
"""So far back is looked for the beginning of a life: what happens later does not depend on it."""

Interval = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Place:
    """A GPU in a host: what its price is looked up by, and when it was seen there (ascending, apart)."""

    subject: Subject
    seen: Sequence[Interval]


@dataclass(frozen=True, slots=True)
class Bill:
    """Tapes, one a currency, with the rows of the price book they are made of; and what has no price."""

    tapes: list[tuple[Tape, list[Row]]]
    unpriced: list[Interval]


@dataclass(frozen=True, slots=True)
class _Life:
    """`gaps` are those that are paid for and were not seen."""

    start_ns: int
    end_ns: int
    gaps: list[Interval]


def merged(intervals: Iterable[Interval], gap_ns: int) -> list[Interval]:
    """The intervals (ns) in order, those that are at most `gap_ns` apart as one."""
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if found and start - found[-1][1] <= gap_ns:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def lives(seen: Iterable[Interval]) -> list[_Life]:
    """From when to when a GPU is paid for."""
    parts = merged(seen, GAP_SEEN_NS)
    found: list[_Life] = []
    for start, end in parts:
        if found and start - found[-1].end_ns <= GAP_BILLED_NS:
            last = found[-1]
            found[-1] = _Life(last.start_ns, end, [*last.gaps, (last.end_ns, start)])
        else:
            found.append(_Life(start, end, []))
    return found


def bill(gpu: str, places: Sequence[Place], prices: PriceBook, window: Interval, claimed: Sequence[int]) -> Bill:
    """What the GPU is paid within the window. `places` are of one GPU, by name of the host, with what was seen from
    LIFE_SEEN_NS before until STARTUP_NS_MAX after; `claimed` are the starts (ns, ascending) of spans on it from
    STARTUP_NS_MAX before the start on.
    """
    start_ns, end_ns = window
    found = lives(interval for place in places for interval in place.seen)
    ends = [*(life.start_ns for life in found[1:]), None]
    tapes: dict[str, tuple[list[tuple[int, Fraction]], list[Billed], list[Row]]] = {}
    unpriced: list[Interval] = []
    for life, until in zip(found, ends, strict=True):
        last_row = _row_at(places, prices, life.end_ns - 1)
        bill_end = _rounded_end(life, last_row, until)
        for start, end, row in _priced(places, prices, max(life.start_ns, start_ns), min(bill_end, end_ns)):
            if row is None:
                unpriced.append((start, end))
                continue
            rates, billed, rows = tapes.setdefault(row.currency, ([], [], []))
            rates.append((start, rate_of(row)))
            billed.append(Billed(start, end, ready_ns=_ready(life, claimed), stop_ns=life.end_ns))
            if row not in rows:
                rows.append(row)
    gaps = [gap for life in found for gap in life.gaps]
    return Bill(
        [(Tape(gpu, rates, billed, gaps, currency), rows) for currency, (rates, billed, rows) in sorted(tapes.items())],
        unpriced,
    )


def _ready(life: _Life, claimed: Sequence[int]) -> int | None:
    place = bisect_left(claimed, life.start_ns)
    if place < len(claimed) and claimed[place] <= min(life.start_ns + STARTUP_NS_MAX, life.end_ns):
        return claimed[place]
    return None


def _rounded_end(life: _Life, row: Row | None, until: int | None) -> int:
    """The end of a life that is billed in whole units, such as seconds of a serverless worker."""
    if row is None or row.basis is not Basis.SERVERLESS_SECOND:
        return life.end_ns
    unit = row.round_up or Fraction(1)
    unit_ns = int(unit * NANO)
    end_ns = Billed.rounded_up(life.start_ns, life.end_ns, unit_ns).end_ns if unit_ns > 0 else life.end_ns
    return end_ns if until is None else min(end_ns, until)


def _priced(
    places: Sequence[Place], prices: PriceBook, start_ns: int, end_ns: int
) -> list[tuple[int, int, Row | None]]:
    """From start to end, the row of the price book that holds, each different from the one before."""
    if start_ns >= end_ns:
        return []
    edges = {start_ns}
    for place in places:
        edges.update(at for interval in place.seen for at in interval if start_ns < at < end_ns and len(places) > 1)
        edges.update(at for at, _ in prices.steps(place.subject, start_ns, end_ns, GPU_BASES))
    found: list[tuple[int, int, Row | None]] = []
    for start, end in pairwise([*sorted(edges), end_ns]):
        row = _row_at(places, prices, start)
        if found and found[-1][2] is row:
            found[-1] = (found[-1][0], end, row)
        else:
            found.append((start, end, row))
    return found


def _row_at(places: Sequence[Place], prices: PriceBook, at_ns: int) -> Row | None:
    """By the first place where the GPU is seen at the time; if it is in none, where it was seen last."""
    best: tuple[int, Place] | None = None
    for place in places if len(places) > 1 else ():
        before = [end for start, end in place.seen if start <= at_ns]
        reach = min(max(before), at_ns + 1) if before else -1
        if best is None or reach > best[0]:
            best = (reach, place)
    subject = best[1].subject if best else places[0].subject
    return prices.lookup(subject, at_ns, GPU_BASES).row


# -- to what spans belong ----------------------------------------------------------------------------------------------

_INHERITED: Final = ("provider", "model", "backend", "workflow", "tier", "job_type")


def belongs(own: Fact, above: Fact, *, same_job: bool) -> Fact:
    """The fact of a span below another one: what it does not say itself is that of the one above. `same_job`: it is
    part of the same attempt of a job, whose outcome it shares.
    """
    given: dict[str, Any] = {name: getattr(above, name) for name in _INHERITED if not getattr(own, name)}
    dimensions = {**dict(above.dimensions), **dict(own.dimensions)}
    attempt: dict[str, Any] = {"attempt": above.attempt, "outcome": above.outcome} if same_job else {}
    return replace(own, dimensions=tuple(sorted(dimensions.items())), **given, **attempt)


# -- claims as columns -------------------------------------------------------------------------------------------------


def table_of(gpu: str, claims: int, above: Ints, start_ns: Ints, end_ns: Ints) -> ClaimTable:
    """The table of the first `claims` of the spans, which use one GPU with equal shares and stand in the order of their
    ids; the other spans link them. above: [span] the place of the parent, NO_PARENT without, free of cycles.
    """
    rows = claims
    ones = np.ones(rows, dtype=np.int64)
    zeros = np.zeros(rows, dtype=np.int64)
    return ClaimTable(
        spans=range(len(above)),  # type: ignore[arg-type]  # names are not needed, and a million of them are not small
        gpus=[gpu],
        parent=above,
        span=np.arange(rows, dtype=np.int64),
        gpu=zeros,
        start=start_ns[:rows],
        end=end_ns[:rows],
        attempt=ones,
        share=ones,
        share_whole=1,
        weight_steps=ones,
        weight_from=start_ns[:rows],
        weight=ones,
        outcome=(),
        job=(),
        outputs=zeros,
        outputs_failed=zeros,
    )


def order_of(ids: Ints) -> Ints:
    """The order of ids as the unsigned numbers that they are."""
    words = np.ascontiguousarray(ids).view(np.uint64)
    order: Ints = np.lexsort((words[:, 2], words[:, 1], words[:, 0]))
    return order


def without_cycles(parent: Ints) -> Ints:
    """The places of parents, without those of spans that are above themselves."""
    at = parent.copy()
    for _ in range(LEDGER_DEPTH_MAX.bit_length() + 1):
        at = np.where(at == NO_PARENT, NO_PARENT, at[at])
    for start in np.flatnonzero(at != NO_PARENT).tolist():
        path: dict[int, None] = {}
        node = start
        while node not in path and node != NO_PARENT:
            path[node] = None
            node = int(parent[node])
        if node != NO_PARENT:
            nodes = list(path)
            parent[nodes[nodes.index(node) :]] = NO_PARENT
    return parent
