"""Which hours of which GPUs must be booked, once more or for the first time.

What a GPU costs in a period is a pure function of all spans, of when the GPU was seen, and of the prices. So whatever
arrives late marks the hours that it may change; they are allocated again, and the differences are booked.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from otel_pipeline.ledger.booking import GAP_BILLED_NS, HOUR_NS, MINUTE_NS, STARTUP_NS_MAX, Interval
from otel_pipeline.store.database import insert, listed
from otel_pipeline.store.ledger_nested import TELLS
from otel_pipeline.store.ledger_tables import CLAIM, DIRTY, KINDS, NO_GPU, PRESENCE, SPAN, WORD

if TYPE_CHECKING:
    from otel_pipeline.ledger.claims import Ints
    from otel_pipeline.store.ledger_arrivals import Arrivals
    from otel_pipeline.store.ledger_names import Names

BOOKED, LATE, REPRICE, _ = range(len(KINDS))
Key = tuple[int, int, int]


@dataclass(slots=True)
class Marks:
    """From when on hours must be booked, by (GPU, hour); nothing at or after `booked_ns`, nothing before `kept_ns`."""

    booked_ns: int
    kept_ns: int
    found: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, gpu: int, start_ns: int, end_ns: int) -> None:
        """What lies between start and end, as far as it is booked."""
        start_ns, end_ns = max(start_ns, self.kept_ns), min(end_ns, self.booked_ns)
        hour = start_ns // HOUR_NS * HOUR_NS
        while hour < end_ns:
            at = max(start_ns, hour)
            self.found[gpu, hour] = min(at, self.found.get((gpu, hour), at))
            hour += HOUR_NS

    def write(self, connection: sa.Connection, reason: int) -> None:
        """Keeps the marks, beside those that are there."""
        if not self.found:
            return
        rows = [
            {"gpu": gpu, "hour": hour, "from_ns": at, "reason": reason}
            for (gpu, hour), at in sorted(self.found.items())
        ]
        command = insert(connection, DIRTY)
        new, old = command.excluded, DIRTY.c
        changes = {
            "from_ns": sa.case((new.from_ns < old.from_ns, new.from_ns), else_=old.from_ns),
            "reason": sa.case((new.reason > old.reason, new.reason), else_=old.reason),
        }
        connection.execute(command.on_conflict_do_update(index_elements=["gpu", "hour"], set_=changes), rows)


def mark_claims(connection: sa.Connection, marks: Marks, names: Names, arrivals: Arrivals) -> None:
    """Spans that cost something in what is booked, and those whose GPU started up in it."""
    early: dict[int, list[int]] = defaultdict(list)
    for fact, rows in arrivals.claiming():
        start, end = arrivals.start_ns[rows], arrivals.end_ns[rows]
        gpus = list(names.gpus.of(connection, fact.gpus).values())
        for row in np.flatnonzero(start < marks.booked_ns).tolist():
            for gpu in gpus:
                marks.add(gpu, int(start[row]), int(end[row]))
        near = start[start < marks.booked_ns + STARTUP_NS_MAX].tolist()
        for gpu in gpus if near else ():
            early[gpu] += near
    for gpu, starts in early.items():
        _mark_startups(connection, marks, gpu, sorted(starts))
    direct = arrivals.direct()
    for at in arrivals.end_ns[direct][arrivals.end_ns[direct] < marks.booked_ns].tolist():
        marks.add(NO_GPU, at, at + 1)


def _mark_startups(connection: sa.Connection, marks: Marks, gpu: int, starts: list[int]) -> None:
    """From where a life of the GPU may begin until the first span that used it."""
    columns = PRESENCE.c
    near = (columns.gpu == gpu) & (columns.start_ns >= starts[0] - STARTUP_NS_MAX)
    question = sa.select(columns.start_ns).where(near & (columns.start_ns < marks.booked_ns))
    for (begin,) in connection.execute(question):
        if begin <= starts[-1]:
            marks.add(gpu, begin, begin + STARTUP_NS_MAX)


def mark_seen(marks: Marks, gpu: int, new: Interval, known: list[Interval]) -> None:
    """A GPU was seen when nobody knew it: what is paid for changes there, and in gaps beside it, and when it started up
    before. `known` is when it was seen from STARTUP_NS_MAX before on, in any place.
    """
    start, end = new
    marks.add(gpu, start, end + MINUTE_NS)  # a bill may be rounded up
    before = max((min(until, start) for since, until in known if since <= start), default=None)
    after = min((max(since, end) for since, until in known if until >= end), default=None)
    if before is not None and start - before <= GAP_BILLED_NS:
        begin = _begin(before, known)
        # The life goes on: until its first span, which may be behind the new time, it started up.
        marks.add(gpu, begin if begin >= start - STARTUP_NS_MAX else before, start)
    if after is not None and after - end <= GAP_BILLED_NS:
        marks.add(gpu, end, after + STARTUP_NS_MAX)  # it was the begin of a life


def _begin(at_ns: int, known: list[Interval]) -> int:
    """When the life of a GPU began that it has at a time, as far as `known` tells."""
    for since, until in sorted(known, key=lambda one: one[1], reverse=True):
        if since < at_ns <= until + GAP_BILLED_NS:
            at_ns = since
    return at_ns


def mark_below(connection: sa.Connection, marks: Marks, names: Names, new: Arrivals, known: list[Any]) -> None:
    """Booked spans below the new ones: what is above them decides what is theirs, and to which job they belong.
    `known` are rows of SPAN, of the traces of the new ones.
    """
    if not any(row.start_ns < marks.booked_ns for row in known):
        return
    children: dict[Key, list[Any]] = defaultdict(list)
    for row in known:
        if row.parent:
            children[row.trace_hi, row.trace_lo, row.parent].append(row)
    fresh = {tuple(ids) for ids in new.ids.tolist()}
    waiting = [key for key in fresh if key in children]
    if not waiting:
        return
    inner: dict[Key, list[Key]] = defaultdict(list)
    for ids, parent in zip(new.ids.tolist(), new.parent.tolist(), strict=True):
        if parent:
            inner[ids[0], ids[1], parent].append((ids[0], ids[1], ids[2]))
    visited: set[Key] = set()
    while waiting:
        key = waiting.pop()
        if key in visited:
            continue
        visited.add(key)
        waiting += inner.get(key, ())
        for row in children.get(key, ()):
            waiting.append((row.trace_hi, row.trace_lo, row.span))
            _mark_row(connection, marks, names, row)


def _mark_row(connection: sa.Connection, marks: Marks, names: Names, row: Any) -> None:
    fact = names.fact(connection, row.fact)
    if fact.claims:
        for gpu in names.gpus.of(connection, fact.gpus).values():
            marks.add(gpu, row.start_ns, row.end_ns)
    if row.nano:
        marks.add(NO_GPU, row.end_ns, row.end_ns + 1)


def known_spans(connection: sa.Connection, ids: Ints) -> list[Any]:
    """What is stored of the traces."""
    traces = np.unique(ids[:, :2], axis=0)
    if not len(traces):
        return []
    columns = [("hi", WORD, traces[:, 0].tolist()), ("lo", WORD, traces[:, 1].tolist())]
    wanted = listed(connection, columns)
    names = ("trace_hi", "trace_lo", "span", "parent", "start_ns", "end_ns", "fact", "charge", "nano")
    same = (SPAN.c.trace_lo == wanted.c.lo) & (SPAN.c.trace_hi == wanted.c.hi)
    return list(
        connection.execute(sa.select(*(SPAN.c[name] for name in names), TELLS).join_from(wanted, SPAN, same)).all()
    )


def advance(connection: sa.Connection, marks: Marks, since_ns: int | None) -> None:
    """Marks what is to be booked for the first time: from `since_ns` (None: from the first) to marks.booked_ns."""
    columns = PRESENCE.c
    there = columns.start_ns < marks.booked_ns
    hours = sa.select(CLAIM.c.hour).where((CLAIM.c.gpu == NO_GPU) & (CLAIM.c.hour < marks.booked_ns)).distinct()
    if since_ns is not None:
        there &= columns.end_ns > since_ns - GAP_BILLED_NS - MINUTE_NS
        hours = hours.where(CLAIM.c.hour >= since_ns // HOUR_NS * HOUR_NS)
    for gpu, start, end in connection.execute(sa.select(columns.gpu, columns.start_ns, columns.end_ns).where(there)):
        low = start if since_ns is None else max(start, since_ns)
        marks.add(gpu, low, max(end, low) + GAP_BILLED_NS + MINUTE_NS)
    for (hour,) in connection.execute(hours):
        marks.add(NO_GPU, hour if since_ns is None else max(hour, since_ns), hour + HOUR_NS)
