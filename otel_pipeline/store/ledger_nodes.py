"""The spans of an hour of a GPU with all that are above them, as columns: who is below whom, what belongs to whom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import sqlalchemy as sa

from otel_pipeline.ledger.booking import HOUR_NS, order_of, without_cycles
from otel_pipeline.ledger.claims import NO_PARENT, Ints
from otel_pipeline.ledger.records import UNKNOWN
from otel_pipeline.limits import LEDGER_DEPTH_MAX
from otel_pipeline.store.database import listed
from otel_pipeline.store.ledger_tables import CLAIM, NO_GPU, SPAN, SPAN_KEY, WORD

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from otel_pipeline.store.ledger_names import Names

Key = tuple[int, int, int]
"""trace_lo, trace_hi, span"""
FIELDS: Final = (*SPAN_KEY, "parent", "start_ns", "end_ns", "fact", "user_id", "job", "charge", "nano")
PARENT: Final = [0, 1, 3]
"""The columns that are the key of a span's parent."""
MIXERS: Final = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
"""Odd numbers without a pattern."""
COLUMNS: Final = tuple(
    sa.func.coalesce(SPAN.c[name], 0) if name in ("charge", "nano") else SPAN.c[name] for name in FIELDS
)


def same_span() -> sa.ColumnElement[bool]:
    """Joins CLAIM and SPAN."""
    return sa.and_(*(CLAIM.c[name] == SPAN.c[name] for name in SPAN_KEY))


_HERE: Final = (CLAIM.c.gpu == sa.bindparam("gpu_is")) & (CLAIM.c.hour == sa.bindparam("hour_is"))
_SINCE: Final = sa.bindparam("since", type_=WORD)
_UNTIL: Final = sa.bindparam("until", type_=WORD)
_NODES: Final = sa.select(*COLUMNS).join_from(CLAIM, SPAN, same_span()).where(_HERE)
DIRECT: Final = _NODES.where((SPAN.c.end_ns >= _SINCE) & (SPAN.c.end_ns < _UNTIL))
CLAIMED: Final = _NODES.where((SPAN.c.end_ns > _SINCE) & (SPAN.c.start_ns < _UNTIL))
"""Built once: to build them takes as long as to ask them."""


@dataclass(frozen=True, slots=True)
class Block:
    """Periods of one GPU within an hour, whose bounds are `cuts`. Until `known_ns` all is taken as known."""

    gpu: int
    hour: int
    cuts: list[int]
    known_ns: int


@dataclass(frozen=True, slots=True)
class Nodes:
    """Spans, the first `claims` of them cost something in the block, in the order of their ids; the others are above.

    numbers: [row, FIELDS]; above: [row] the row of the parent, NO_PARENT without, free of cycles; belongs: [3, row]
    fact, user and job, where what a span does not say itself is that of the nearest one above it; so is `share`, that
    of facts.
    """

    claims: int
    numbers: Ints
    above: Ints
    belongs: Ints
    share: Ints

    @property
    def ids(self) -> Ints:
        return self.numbers[:, :3]

    @property
    def start_ns(self) -> Ints:
        return self.numbers[:, 4]

    @property
    def end_ns(self) -> Ints:
        return self.numbers[:, 5]

    @property
    def charge(self) -> Ints:
        return self.numbers[:, 9]

    @property
    def nano(self) -> Ints:
        return self.numbers[:, 10]


def block_of(gpu: int, hour: int, from_ns: int, until_ns: int, period_ns: int) -> Block:
    """The block from the period of `from_ns` on, without a period that reaches beyond `until_ns`."""
    start = hour + (from_ns - hour) // period_ns * period_ns
    end = hour + (min(until_ns, hour + HOUR_NS) - hour) // period_ns * period_ns
    return Block(gpu, hour, list(range(start, end + 1, period_ns)), until_ns)


def load_nodes(connection: sa.Connection, names: Names, block: Block) -> Nodes:
    """The spans of the block."""
    question = DIRECT if block.gpu == NO_GPU else CLAIMED
    times = {"gpu_is": block.gpu, "hour_is": block.hour, "since": block.cuts[0], "until": block.cuts[-1]}
    numbers = _numbers(connection, question, times)
    numbers = numbers[order_of(numbers[:, [1, 0, 2]])]
    claims = len(numbers)
    sought: set[Key] = set()
    level, places = numbers, places_of(numbers[:, :3], numbers[:, PARENT])
    for _ in range(LEDGER_DEPTH_MAX):
        missing = level[(places[len(numbers) - len(level) :] == NO_PARENT) & (level[:, 3] != 0)][:, PARENT]
        keys = {(lo, hi, span) for lo, hi, span in missing.tolist()} - sought
        if not keys:
            break
        sought |= keys
        level = _lookup(connection, keys)
        numbers = np.concatenate([numbers, level])
        places = places_of(numbers[:, :3], numbers[:, PARENT])
    above = np.where(numbers[:, 3] == 0, NO_PARENT, places)
    above = without_cycles(above)
    return Nodes(claims, numbers, above, *_belonging(connection, names, numbers, above))


def places_of(keys: Ints, wanted: Ints) -> Ints:
    """The row of `keys`, which are distinct, that is each of `wanted`; NO_PARENT for none. Both are [row, 3]."""
    mixed = _mixed(keys)
    order = np.argsort(mixed)
    mixed = mixed[order]
    if (mixed[1:] == mixed[:-1]).any():  # hardly ever
        rows = {key: row for row, key in enumerate(map(tuple, keys.tolist()))}
        return np.array([rows.get(key, NO_PARENT) for key in map(tuple, wanted.tolist())], dtype=np.int64)
    if not len(keys):
        return np.full(len(wanted), NO_PARENT, dtype=np.int64)
    found = order[np.minimum(np.searchsorted(mixed, _mixed(wanted)), len(keys) - 1)]
    return np.where((keys[found] == wanted).all(axis=1), found, NO_PARENT)


def _mixed(keys: Ints) -> npt.NDArray[np.uint64]:
    """64 bits of each key: the same for equal ones, and hardly ever for others."""
    mixed: npt.NDArray[np.uint64] = (np.ascontiguousarray(keys).view(np.uint64) * MIXERS).sum(axis=1, dtype=np.uint64)
    return mixed


def _numbers(connection: sa.Connection, question: sa.Select[Any], values: Mapping[str, int] | None = None) -> Ints:
    """The rows of a question for COLUMNS, taken from the database's library: there may be many."""
    cursor = connection.execute(question, values).cursor
    rows = cursor.fetchall() if cursor is not None else []
    return np.fromiter(chain.from_iterable(rows), np.int64, len(rows) * len(FIELDS)).reshape(-1, len(FIELDS))


def _lookup(connection: sa.Connection, keys: set[Key]) -> Ints:
    words = list(zip(*sorted(keys), strict=True))
    wanted = listed(connection, [(name, WORD, words[place]) for place, name in enumerate(SPAN_KEY)])
    same = sa.and_(*(SPAN.c[name] == wanted.c[name] for name in SPAN_KEY))
    return _numbers(connection, sa.select(*COLUMNS).join_from(wanted, SPAN, same))


def _belonging(connection: sa.Connection, names: Names, numbers: Ints, above: Ints) -> tuple[Ints, Ints]:
    """From the top down, all spans of one depth at a time. A fact is told without its share: there are many of them."""
    belongs = numbers[:, 6:9].T.copy()
    used, place = np.unique(numbers[:, 6], return_inverse=True)
    facts = [names.fact(connection, number) for number in used.tolist()]
    is_job = np.array([fact.kind == "job" for fact in facts], dtype=np.bool_)[place]
    share = np.array([fact.share for fact in facts], dtype=np.int64)[place]
    if (share != UNKNOWN).any():
        plain = names.facts.of(connection, [replace(fact, share=UNKNOWN) for fact in facts])
        belongs[0] = np.array([plain[replace(fact, share=UNKNOWN)] for fact in facts], dtype=np.int64)[place]
    settled = above == NO_PARENT
    waiting = np.flatnonzero(~settled)
    while len(waiting):
        ready = settled[above[waiting]]
        rows, waiting = waiting[ready], waiting[~ready]
        upper = above[rows]
        fact, user, job = belongs[:, upper]
        own_fact, own_user, own_job = belongs[:, rows]
        same_job = (job != 0) & ((own_job == 0) | (own_job == job)) & ~is_job[rows]
        pairs, which = np.unique(own_fact << 32 | fact << 1 | same_job, return_inverse=True)
        merged = [
            names.belonging(connection, pair >> 32, pair >> 1 & 0x7FFFFFFF, same_job=bool(pair & 1))
            for pair in pairs.tolist()
        ]
        belongs[0, rows] = np.array(merged, dtype=np.int64)[which]
        share[rows] = np.where(share[rows] == UNKNOWN, share[upper], share[rows])
        belongs[1, rows] = np.where(own_user != 0, own_user, user)
        belongs[2, rows] = np.where(own_job != 0, own_job, job)
        settled[rows] = True
    return belongs, share
