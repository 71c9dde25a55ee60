"""Cold starts of GPUs in a window: what they cost, which job caused each, and who ran on the GPU until it stopped.

The ledger books a cold start as nobody's, minute by minute, from when a GPU is there until the first span uses it. Here
these minutes become cold starts again. Who bears them is a question of reports: nothing that is booked changes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from otel_pipeline.ledger.booking import GAP_BILLED_NS, HOUR_NS, STARTUP_NS_MAX, lives
from otel_pipeline.ledger.views import StartupPolicy, with_startup
from otel_pipeline.limits import COST_STARTUPS_MAX, COST_STARTUPS_TOLD
from otel_pipeline.store.database import listed
from otel_pipeline.store.ledger_sums import SUM, WHATS
from otel_pipeline.store.ledger_tables import (
    ALLOCATION,
    GPU,
    GPU_HOUR,
    JOB,
    PERIOD,
    PRESENCE,
    SPAN,
    SPAN_KEY,
    WORD,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from otel_pipeline.ledger.booking import Interval
    from otel_pipeline.store.ledger_windows import Window


@dataclass(frozen=True, slots=True)
class Startup:
    """A cold start, as far as it lies in the window: n$ of periods from `start_ns` until `ready_ns`, the last of which
    begins at `last_ns`. The GPU served until `stop_ns`, and at no other time between `before_ns` and `after_ns`.
    """

    gpu: int
    currency: str
    nano: int
    start_ns: int
    last_ns: int
    ready_ns: int
    stop_ns: int
    before_ns: int
    after_ns: int


@dataclass(frozen=True, slots=True)
class Caused:
    """What a report tells of a cold start; `job` is empty if what used the GPU first belongs to none."""

    gpu: str
    start_ns: int
    currency: str
    nano: int
    job: str


def startups(connection: sa.Connection, window: Window) -> list[Startup]:
    """Those that were paid for in the window, in order of GPU and time."""
    rows = _periods(connection, window)
    served = _lives(connection, rows)
    parts: dict[tuple[int, int, str], list[Any]] = defaultdict(list)
    for row in rows:
        own = served.get(row.gpu, [])
        # Hours that are compacted may have several: they stand as the last one.
        parts[row.gpu, bisect_left(own, (row.end_ns,)) - 1, row.currency].append(row)
    return [_startup(served.get(gpu, []), place, own) for (gpu, place, _), own in parts.items()]


def _startup(served: list[Interval], place: int, rows: Sequence[Any]) -> Startup:
    """`rows` are its periods; `served`, at the place: from when to when the GPU was there."""
    first, last = rows[0], rows[-1]
    return Startup(
        gpu=first.gpu,
        currency=first.currency,
        nano=sum(row.nano for row in rows),
        start_ns=first.start_ns,
        last_ns=last.start_ns,
        ready_ns=last.end_ns,
        stop_ns=max(served[place][1] if place >= 0 else 0, last.end_ns),
        before_ns=served[place - 1][1] if place > 0 else 0,
        after_ns=served[place + 1][0] if place + 1 < len(served) else 2**62,
    )


def dearest_startups(connection: sa.Connection, window: Window) -> list[Caused]:
    """The dearest of them, and which job caused each."""
    found = sorted(startups(connection, window), key=lambda one: (-one.nano, one.start_ns, one.gpu))
    found = found[:COST_STARTUPS_TOLD]
    causes = _triggers(connection, found, "job")
    jobs = dict(connection.execute(sa.select(JOB.c.id, JOB.c.name).where(JOB.c.id.in_(set(causes.values())))).all())
    gpus = {one.gpu for one in found}
    uuids = dict(connection.execute(sa.select(GPU.c.id, GPU.c.uuid).where(GPU.c.id.in_(gpus))).all())
    return [
        Caused(uuids.get(one.gpu, ""), one.start_ns, one.currency, one.nano, jobs.get(causes.get(place, 0), ""))
        for place, one in enumerate(found)
    ]


def borne(
    connection: sa.Connection,
    window: Window,
    policy: StartupPolicy,
    key: str,
    named: Callable[[Iterable[int]], Mapping[int, str]],
) -> Iterator[tuple[str, dict[str, int]]]:
    """Currency, and n$ by name, of each cold start in the window that somebody bears. `key` is fact, user_id or job,
    `named` tells how a report calls their numbers.
    """
    found = [] if policy is StartupPolicy.SEPARATE else startups(connection, window)
    if policy is StartupPolicy.CHARGE_TRIGGER:
        causes = _triggers(connection, found, key)
        names = named(causes.values())
        for place, one in enumerate(found):
            if place in causes:
                yield one.currency, {names[causes[place]]: one.nano}
    elif policy is StartupPolicy.AMORTISE:
        served = _served(connection, window, found, key)
        names = named({number for costs in served.values() for number in costs})
        for place, one in enumerate(found):
            costs: dict[str, int] = defaultdict(int)
            for number, nano in served.get(place, {}).items():
                costs[names[number]] += nano
            after = with_startup(costs, one.nano, policy).costs
            if costs:
                yield one.currency, {name: nano - costs[name] for name, nano in after.items()}


# -- what is booked ----------------------------------------------------------------------------------------------------


def _periods(connection: sa.Connection, window: Window) -> Sequence[Any]:
    """Periods with a cold start: gpu, start_ns, end_ns, currency, nano."""
    hours, columns = GPU_HOUR.c, PERIOD.c
    nano = sa.cast(sa.func.sum(columns.startup), sa.BigInteger)
    same = (columns.gpu == hours.gpu) & (columns.currency == hours.currency)
    here = same & (columns.start_ns >= hours.hour) & (columns.start_ns < hours.hour + HOUR_NS)
    near = (hours.hour > window.start_ns - HOUR_NS) & (hours.hour < window.end_ns) & (hours.startup != 0)
    key = (columns.gpu, columns.start_ns, columns.currency)
    question = (
        sa.select(*key, sa.func.max(columns.end_ns).label("end_ns"), nano.label("nano"))
        .join_from(GPU_HOUR, PERIOD, here)
        .where(near & (columns.start_ns >= window.start_ns) & (columns.start_ns < window.end_ns))
        .group_by(*key)
        .having(sa.func.sum(columns.startup) != 0)
        .order_by(*key)
        .limit(COST_STARTUPS_MAX)
    )
    return connection.execute(question).all()


def _lives(connection: sa.Connection, rows: Sequence[Any]) -> dict[int, list[Interval]]:
    """From when to when each GPU of the rows was there, around them."""
    if not rows:
        return {}
    columns = PRESENCE.c
    first = min(row.start_ns for row in rows) - HOUR_NS - STARTUP_NS_MAX - GAP_BILLED_NS
    wanted = listed(connection, [("gpu", WORD, sorted({row.gpu for row in rows}))])
    near = (columns.end_ns >= first) & columns.gpu.in_(sa.select(wanted.c.gpu))
    seen: dict[int, list[Interval]] = defaultdict(list)
    for gpu, start, end in connection.execute(sa.select(columns.gpu, columns.start_ns, columns.end_ns).where(near)):
        seen[gpu].append((start, end))
    return {gpu: [(life.start_ns, life.end_ns) for life in lives(intervals)] for gpu, intervals in seen.items()}


def _triggers(connection: sa.Connection, found: Sequence[Startup], key: str) -> dict[int, int]:
    """Fact, user or job of the span that used each GPU first, by the place of the cold start. Of compacted hours the
    job that began first.
    """
    if not found:
        return {}
    # The first use ends the last period of the cold start, or begins with the next one.
    spans = [(place, one.gpu, one.last_ns, 2 * one.ready_ns - one.last_ns) for place, one in enumerate(found)]
    cells, wanted = ALLOCATION.c, _ranges(connection, spans)
    here = (cells.gpu == wanted.c.gpu) & (cells.start_ns >= wanted.c.since) & (cells.start_ns < wanted.c.until)
    same = sa.and_(*(SPAN.c[name] == cells[name] for name in SPAN_KEY))
    own = (wanted.c.place, cells[key], *(cells[name] for name in SPAN_KEY))
    began = sa.func.min(sa.func.coalesce(SPAN.c.start_ns, JOB.c.first_ns, cells.start_ns)).label("began")
    question = (
        sa.select(wanted.c.place, cells[key].label("number"), began, sa.func.max(SPAN.c.end_ns).label("ended"))
        .select_from(wanted.join(ALLOCATION, here).outerjoin(SPAN, same).outerjoin(JOB, JOB.c.id == cells.job))
        .group_by(*own)
        .having(sa.func.sum(cells.nano) != 0)
    )
    first: dict[int, tuple[int, int, int]] = {}
    for place, number, at, end in connection.execute(question):
        one = (at, -(end or 0), number)
        first[place] = min(first.get(place, one), one)
    return {place: one[2] for place, one in first.items()}


def _served(connection: sa.Connection, window: Window, found: Sequence[Startup], key: str) -> dict[int, dict[int, int]]:
    """n$ by fact, user or job of what used the GPU from each cold start until it stopped, within the window."""
    hours: list[tuple[int, int, int, int]] = []
    spans: list[tuple[int, int, int, int]] = []
    for place, one in enumerate(found):
        end = min(one.stop_ns, window.end_ns)
        # An hour in which the GPU served at no other time is its own: to add up its minutes takes much longer.
        low, high = max(window.start_ns, one.before_ns), min(window.end_ns, one.after_ns)
        for hour in range(one.start_ns // HOUR_NS * HOUR_NS, end, HOUR_NS):
            if low <= hour and hour + HOUR_NS <= high:
                hours.append((place, one.gpu, hour, hour))
            else:
                spans.append((place, one.gpu, max(hour, one.start_ns), min(hour + HOUR_NS, end)))
    costs: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for ranges, table, number in ((hours, SUM, SUM.c.number), (spans, ALLOCATION, ALLOCATION.c[key])):
        wanted, columns = _ranges(connection, ranges), table.c
        here = columns.gpu == wanted.c.gpu
        if table is SUM:
            here &= (columns.what == WHATS[key]) & (columns.hour == wanted.c.since)
        else:
            here &= (columns.start_ns >= wanted.c.since) & (columns.start_ns < wanted.c.until)
        total = sa.cast(sa.func.sum(columns.nano), sa.BigInteger)
        keys = (wanted.c.place, number, columns.currency)
        question = sa.select(*keys, total).join_from(wanted, table, here).group_by(*keys)
        for place, value, currency, nano in connection.execute(question).all() if ranges else ():
            if currency == found[place].currency and nano > 0:
                costs[place][value] += nano
    return costs


def _ranges(connection: sa.Connection, rows: Sequence[tuple[int, int, int, int]]) -> sa.Subquery:
    """place, gpu, since, until as a table."""
    names = ("place", "gpu", "since", "until")
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    return listed(connection, [(name, WORD, values) for name, values in zip(names, columns, strict=True)])
