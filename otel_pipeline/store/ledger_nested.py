"""Charges of calls that are told twice are taken back, see ledger/told_twice.py.

All spans of a trace meet in the store, whichever gateway they came through. When spans arrive, those of their traces
that are charged are looked at together: an outer call loses its charge, and where that is booked its hour is booked
again. Only traces in which a charged span has one below it cost anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import sqlalchemy as sa

from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.ledger.claims import NO_PARENT
from otel_pipeline.ledger.told_twice import Told, told_twice
from otel_pipeline.limits import LEDGER_TRACES_TOGETHER
from otel_pipeline.store.database import listed
from otel_pipeline.store.ledger_nodes import places_of
from otel_pipeline.store.ledger_tables import CLAIM, NO_GPU, SPAN, SPAN_KEY, WORD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otel_pipeline.store.ledger_arrivals import Arrivals
    from otel_pipeline.store.ledger_marks import Marks
    from otel_pipeline.store.ledger_names import Names

TELLS: Final = sa.or_(
    SPAN.c.nano.is_not(None), SPAN.c.quantities.is_not(None), SPAN.c.reported_nano.is_not(None)
).label("tells")
"""Whether a span says what it used: else it may stand for nothing, such as a call that failed."""


def take_back(connection: sa.Connection, names: Names, marks: Marks, arrivals: Arrivals, known: Sequence[Any]) -> int:
    """Before the arrivals are stored: those that are told twice are charged nothing, and so are those that are stored.
    `known` are rows of `ledger_marks.known_spans`. How many lost their charge.
    """
    several = _with_charged_parents(arrivals, known)
    if not several:
        return 0
    tells = (arrivals.nano != 0) | (arrivals.reported_nano >= 0)
    rows = [place for place, ids in enumerate(arrivals.ids.tolist()) if (ids[0], ids[1]) in several]
    spans = []
    for place in rows:
        hi, lo, span = arrivals.ids[place].tolist()
        model = arrivals.facts[int(arrivals.fact[place])].model if arrivals.charge[place] else None
        used = bool(tells[place]) or arrivals.quantities[place] is not None
        spans.append(Told((hi, lo), span, int(arrivals.parent[place]), model, used))
    stored = [row for row in known if (row.trace_hi, row.trace_lo) in several]
    spans += [_told(connection, names, row) for row in stored]
    twice = told_twice(spans)
    new = [rows[place] for place in twice if place < len(rows)]
    arrivals.charge[new] = 0
    arrivals.nano[new] = 0
    _forget(connection, marks, [stored[place - len(rows)] for place in twice if place >= len(rows)])
    return len(twice)


def _with_charged_parents(arrivals: Arrivals, known: Sequence[Any]) -> set[tuple[int, ...]]:
    """Traces in which a charged span has one below it: in most, calls have none."""
    keys = arrivals.ids[arrivals.charge > 0]
    parents = np.column_stack([arrivals.ids[:, :2], arrivals.parent])
    if known:
        rows = [(row.trace_hi, row.trace_lo, row.span, row.parent, row.charge or 0) for row in known]
        stored = np.array(rows, dtype=np.int64)
        keys = np.concatenate([keys, stored[stored[:, 4] > 0, :3]])
        parents = np.concatenate([parents, stored[:, [0, 1, 3]]])
    if not len(keys):
        return set()
    found = places_of(keys, parents)
    return set(map(tuple, keys[found[found != NO_PARENT], :2].tolist()))


def charged_twice(connection: sa.Connection, names: Names, since_ns: int, until_ns: int) -> Iterator[dict[str, int]]:
    """Keys and n$ of stored spans that are charged though they are told twice: there are none, if all is well."""
    key = (SPAN.c.trace_hi, SPAN.c.trace_lo)
    charged = SPAN.c.charge.is_not(None) & (SPAN.c.end_ns >= since_ns) & (SPAN.c.end_ns < until_ns)
    child = SPAN.alias().c
    below = (child.trace_lo == SPAN.c.trace_lo) & (child.trace_hi == SPAN.c.trace_hi) & (child.parent == SPAN.c.span)
    traces = connection.execute(sa.select(*key).where(charged & sa.exists().where(below)).distinct()).all()
    for rows in _spans_of(connection, traces):
        for place in told_twice([_told(connection, names, row) for row in rows]):
            yield {**{name: getattr(rows[place], name) for name in SPAN_KEY}, "off": rows[place].nano or 0}


def take_back_stored(connection: sa.Connection, names: Names, marks: Marks, traces: Sequence[tuple[int, int]]) -> None:
    """The same for stored spans, by (trace_hi, trace_lo), whose charges have changed."""
    for rows in _spans_of(connection, traces):
        _forget(
            connection, marks, [rows[place] for place in told_twice([_told(connection, names, row) for row in rows])]
        )


def _spans_of(connection: sa.Connection, traces: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """All stored spans of the traces, those of some traces at a time."""
    for first in range(0, len(traces), LEDGER_TRACES_TOGETHER):
        high, low = zip(*traces[first : first + LEDGER_TRACES_TOGETHER], strict=True)
        wanted = listed(connection, [("hi", WORD, high), ("lo", WORD, low)])
        columns = (*SPAN_KEY, "parent", "end_ns", "fact", "charge", "nano")
        question = sa.select(*(SPAN.c[name] for name in columns), TELLS)
        same = (SPAN.c.trace_lo == wanted.c.lo) & (SPAN.c.trace_hi == wanted.c.hi)
        yield connection.execute(question.join_from(wanted, SPAN, same)).all()


def _told(connection: sa.Connection, names: Names, row: Any) -> Told:
    model = names.fact(connection, row.fact).model if row.charge else None
    return Told((row.trace_hi, row.trace_lo), row.span, row.parent, model, bool(row.tells))


def _forget(connection: sa.Connection, marks: Marks, rows: Sequence[Any]) -> None:
    """The charges of spans that are stored."""
    if not rows:
        return
    for row in rows:
        if row.nano:
            marks.add(NO_GPU, row.end_ns, row.end_ns + 1)
    keys = [{f"{name}_is": getattr(row, name) for name in SPAN_KEY} for row in rows]
    same = [SPAN.c[name] == sa.bindparam(f"{name}_is") for name in SPAN_KEY]
    connection.execute(sa.update(SPAN).where(*same).values(charge=None, nano=None), keys)
    claims = [{**key, "hour_is": row.end_ns // HOUR_NS * HOUR_NS} for key, row in zip(keys, rows, strict=True)]
    same = [CLAIM.c[name] == sa.bindparam(f"{name}_is") for name in ("hour", *SPAN_KEY)]
    connection.execute(sa.delete(CLAIM).where(CLAIM.c.gpu == NO_GPU, *same), claims)
