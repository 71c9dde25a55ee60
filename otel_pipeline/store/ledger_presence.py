"""When GPUs were seen, and where: by samples and by the spans that used them."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final

import numpy as np
import sqlalchemy as sa

from otel_pipeline.ledger.booking import (
    GAP_BILLED_NS,
    GAP_SEEN_NS,
    HOUR_NS,
    LIFE_SEEN_NS,
    MINUTE_NS,
    STARTUP_NS_MAX,
    Interval,
    Place,
    lives,
    merged,
)
from otel_pipeline.ledger.price_book import Subject
from otel_pipeline.store.ledger_marks import Marks, mark_seen
from otel_pipeline.store.ledger_tables import PLACE, PRESENCE, add

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_pipeline.ledger.claims import Ints
    from otel_pipeline.ledger.records import Fact, Presence
    from otel_pipeline.store.ledger_arrivals import Arrivals
    from otel_pipeline.store.ledger_names import Names


TAIL_NS_MAX: Final = 2 * (LIFE_SEEN_NS + HOUR_NS)
"""An hour looks a day back and a day ahead for the life of a GPU, so what changes may change what lies so far away."""

Used = tuple[int, int, int]
"""From when to when a GPU was seen, and when the last span ended that used it meanwhile; 0: none."""


@dataclass(slots=True)
class Seen:
    """A GPU in a host, as a batch tells it."""

    subject: Subject
    intervals: list[Used] = field(default_factory=list)


def seen(presence: Iterable[Presence], arrivals: Arrivals | None) -> dict[tuple[str, str], Seen]:
    """By (GPU, host): samples, and spans that used the GPU."""
    found: dict[tuple[str, str], Seen] = {}

    def note(gpu: str, subject: Subject, intervals: list[Used]) -> None:
        known = found.setdefault((gpu, subject.host), Seen(subject))
        known.subject = _both(known.subject, subject)
        known.intervals += intervals

    for one in presence:
        host = one.hosts[0] if one.hosts else ""
        subject = Subject(
            provider=one.provider,
            gpu=one.name,
            region=one.region,
            host=host,
            pod=one.pod,
            attributes=tuple(sorted(dict(one.attributes).items())),
        )
        minutes = [(minute * MINUTE_NS, (minute + 1) * MINUTE_NS) for minute in one.minutes if minute < 2**27]
        note(one.gpu, subject, [(*interval, 0) for interval in merged(minutes, 0)])
    by_place: dict[tuple[tuple[str, ...], Subject], list[Ints]] = defaultdict(list)
    for fact, rows in arrivals.claiming() if arrivals is not None else ():
        if len(rows):
            by_place[fact.gpus, _subject_of(fact)].append(rows)
    for (gpus, subject), groups in by_place.items():
        assert arrivals is not None
        rows = np.concatenate(groups)
        intervals = [(start, end, end) for start, end in _joined(arrivals.start_ns[rows], arrivals.end_ns[rows])]
        for gpu in gpus:
            note(gpu, subject, intervals)
    return found


def _subject_of(fact: Fact) -> Subject:
    """Of a span that used a GPU the provider is that of the machine. Several GPUs of different models have no name."""
    name = "" if ", " in fact.gpu_name else fact.gpu_name
    return Subject(provider=fact.provider, gpu=name, region=fact.region, host=fact.host)


def keep(connection: sa.Connection, names: Names, marks: Marks, found: dict[tuple[str, str], Seen]) -> None:
    """Adds what was seen to what is known, and marks what of the booked time it changes."""
    if not found:
        return
    gpus = names.gpus.of(connection, sorted({gpu for gpu, _ in found}))
    for (uuid, host), one in sorted(found.items()):
        gpu = gpus[uuid]
        place = _place(connection, marks, gpu, host, one.subject)
        _merge(connection, marks, gpu, place, _united(one.intervals))


def places(connection: sa.Connection, gpu: int, start_ns: int, end_ns: int) -> list[Place]:
    """Where the GPU was seen, as `booking.bill` wants it."""
    columns = PRESENCE.c
    near = columns.end_ns >= start_ns - LIFE_SEEN_NS
    near &= columns.start_ns <= end_ns + LIFE_SEEN_NS + GAP_BILLED_NS
    question = (
        sa.select(columns.place, columns.start_ns, columns.end_ns, columns.used_ns)
        .where((columns.gpu == gpu) & near)
        .order_by(columns.place, columns.start_ns)
    )
    intervals: dict[int, list[Interval]] = defaultdict(list)
    used: dict[int, list[int]] = defaultdict(list)
    for place, start, end, last in connection.execute(question):
        intervals[place].append((start, end))
        used[place].append(last)
    if not intervals:
        return []
    rows = connection.execute(sa.select(PLACE).where(PLACE.c.gpu == gpu).order_by(PLACE.c.host))
    return [Place(_subject(row), intervals[row.id], used[row.id]) for row in rows if row.id in intervals]


def mark_ended(connection: sa.Connection, marks: Marks, since_ns: int) -> None:
    """Marks the tails of GPUs of which it is known now that they are gone, and was not when the ledger was booked until
    `since_ns`.
    """
    columns = PRESENCE.c
    over = (columns.end_ns > since_ns - GAP_BILLED_NS) & (columns.end_ns <= marks.booked_ns - GAP_BILLED_NS)
    for gpu, end in connection.execute(sa.select(columns.gpu, columns.end_ns).where(over)).all():
        for used, until in _tails(_rows(connection, gpu, end - TAIL_NS_MAX, end)):
            if until == end:
                marks.add(gpu, used, until)


def _joined(start_ns: Ints, end_ns: Ints) -> list[Interval]:
    """The same as `merged` with GAP_SEEN_NS, for many."""
    order = np.argsort(start_ns)
    start, end = start_ns[order], np.maximum.accumulate(end_ns[order])
    heads = np.flatnonzero(np.concatenate([[True], start[1:] - end[:-1] > GAP_SEEN_NS]))
    tails = np.append(heads[1:], len(start)) - 1
    return list(zip(start[heads].tolist(), end[tails].tolist(), strict=True))


def _place(connection: sa.Connection, marks: Marks, gpu: int, host: str, subject: Subject) -> int:
    """The number of the place; what is told of it now is added to what was told before."""
    row = connection.execute(sa.select(PLACE).where((PLACE.c.gpu == gpu) & (PLACE.c.host == host))).one_or_none()
    if row is None:
        number: int = (connection.execute(sa.select(sa.func.max(PLACE.c.id))).scalar() or 0) + 1
        add(connection, PLACE, [(number, gpu, host, *_told(subject))])
        return number
    number = row.id
    both = _both(_subject(row), subject)
    if both != _subject(row):
        names = ("name", "provider", "region", "pod", "attributes")
        changes = dict(zip(names, _told(both), strict=True))
        connection.execute(sa.update(PLACE).where(PLACE.c.id == number).values(changes))
        # Another price may hold now, for all of the time that the GPU was there.
        columns = PRESENCE.c
        question = sa.select(columns.start_ns, columns.end_ns).where((columns.gpu == gpu) & (columns.place == number))
        for start, end in connection.execute(question):
            marks.add(gpu, start, end + GAP_BILLED_NS + MINUTE_NS)
    return number


def _united(intervals: Iterable[Used]) -> list[Used]:
    """The same as `merged` with GAP_SEEN_NS, with the last use of each."""
    found: list[Used] = []
    for start, end, used in sorted(intervals):
        if found and start - found[-1][1] <= GAP_SEEN_NS:
            found[-1] = (found[-1][0], max(found[-1][1], end), max(found[-1][2], used))
        else:
            found.append((start, end, used))
    return found


def _tails(rows: Iterable[Used]) -> set[Interval]:
    """From the last use until the end of each life that was used."""
    rows = list(rows)
    found = set()
    for life in lives((start, end) for start, end, _ in rows):
        used = max(last for start, _, last in rows if life.start_ns <= start <= life.end_ns)
        if used:
            found.add((used, life.end_ns))
    return found


def _rows(connection: sa.Connection, gpu: int, start_ns: int, end_ns: int) -> list[Used]:
    """When the GPU was seen in any place, and used."""
    columns = PRESENCE.c
    near = (columns.gpu == gpu) & (columns.end_ns >= start_ns) & (columns.start_ns <= end_ns)
    rows = connection.execute(sa.select(columns.start_ns, columns.end_ns, columns.used_ns).where(near))
    return [(start, end, used) for start, end, used in rows]


def _merge(connection: sa.Connection, marks: Marks, gpu: int, place: int, new: list[Used]) -> None:
    if not new:
        return
    columns = PRESENCE.c
    here = (columns.gpu == gpu) & (columns.place == place)
    near = here & (columns.end_ns >= new[0][0] - GAP_SEEN_NS) & (columns.start_ns <= new[-1][1] + GAP_SEEN_NS)
    question = sa.select(columns.start_ns, columns.end_ns, columns.used_ns).where(near).order_by(columns.start_ns)
    known = [(start, end, used) for start, end, used in connection.execute(question)]
    fresh = [one for one in new if not any(_holds(row, one) and one[2] <= row[2] for row in known)]
    if not fresh:
        return
    if fresh[0][0] - STARTUP_NS_MAX < marks.booked_ns:
        beside = _beside(connection, gpu, (fresh[0][0], fresh[-1][1]))
        for one in fresh:
            if not any(_holds(row, one) for row in known):
                part = _beyond(one, known)
                mark_seen(marks, gpu, part, beside)
                beside.append(part)
        rows = _rows(connection, gpu, fresh[0][0] - TAIL_NS_MAX, fresh[-1][1] + TAIL_NS_MAX)
        for tail in _tails(rows) ^ _tails([*rows, *fresh]):
            marks.add(gpu, *tail)
    after = _united([*known, *fresh])
    gone = sorted(set(known) - set(after))
    if gone:
        command = sa.delete(PRESENCE).where(here & (columns.start_ns == sa.bindparam("begin")))
        connection.execute(command, [{"begin": one[0]} for one in gone])
    add(connection, PRESENCE, [(gpu, place, *one) for one in after if one not in known])


def _beside(connection: sa.Connection, gpu: int, new: Interval) -> list[Interval]:
    """When the GPU was seen near by, in any place, as `mark_seen` wants it."""
    columns = PRESENCE.c
    near = (columns.end_ns >= new[0] - STARTUP_NS_MAX) & (columns.start_ns <= new[1] + GAP_BILLED_NS)
    question = sa.select(columns.start_ns, columns.end_ns).where((columns.gpu == gpu) & near)
    return [(start, end) for start, end in connection.execute(question)]


def _holds(known: Used, new: Used) -> bool:
    return known[0] <= new[0] and new[1] <= known[1]


def _beyond(new: Used, known: list[Used]) -> Interval:
    """The part of the new interval that reaches beyond one that is known; else all of it."""
    for start, end, _ in known:
        if start <= new[0] <= end:
            return end, new[1]
    return new[:2]


def _both(one: Subject, other: Subject) -> Subject:
    """What two say of one place; where they differ, the text that comes last."""
    texts = {
        each.name: max(getattr(one, each.name), getattr(other, each.name))
        for each in fields(Subject)
        if each.name != "attributes"
    }
    pairs = sorted(one.attributes + other.attributes)
    return Subject(**texts, attributes=tuple(sorted(dict(pairs).items())))


def _told(subject: Subject) -> tuple[str, ...]:
    return subject.gpu, subject.provider, subject.region, subject.pod, json.dumps(dict(subject.attributes))


def _subject(row: sa.Row[tuple[object, ...]]) -> Subject:
    return Subject(
        provider=row.provider,
        gpu=row.name,
        region=row.region,
        host=row.host,
        pod=row.pod,
        attributes=tuple(sorted(json.loads(row.attributes).items())),
    )
