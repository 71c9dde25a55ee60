"""What the energy counters of GPUs said: readings, by who counts. What they add up to is told by `ledger/energy.py`.

Readings are a set: the order in which they come changes nothing. Of two with one time the higher counts.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from otel_pipeline.ledger.energy import READING_GAP_NS, Power, Reading, of_one, power
from otel_pipeline.store.ledger_names import hashed
from otel_pipeline.store.ledger_tables import READING, add

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_pipeline.ledger.records import Presence
    from otel_pipeline.store.ledger_marks import Marks
    from otel_pipeline.store.ledger_names import Names

NS_PER_MS: Final = 1_000_000


def keep(connection: sa.Connection, names: Names, marks: Marks, presence: Iterable[Presence]) -> None:
    """Adds the readings that are new, and marks what of the booked time they change."""
    told: dict[tuple[str, int], dict[int, int]] = defaultdict(dict)
    for one in presence:
        host = one.hosts[0] if one.hosts else ""
        for who, at_ms, mj in one.energy:
            at_ns = at_ms * NS_PER_MS
            if at_ns >= marks.kept_ns - READING_GAP_NS:
                counter = told[one.gpu, hashed(f"{host}\0{who}")]
                counter[at_ns] = max(mj, counter.get(at_ns, 0))
    if not told:
        return
    gpus = names.gpus.of(connection, sorted({gpu for gpu, _ in told}))
    rows: list[tuple[int, ...]] = []
    for (uuid, source), counter in sorted(told.items()):
        rows += _fresh(connection, gpus[uuid], source, counter)
    for gpu, at_ns, *_ in rows:
        if at_ns - READING_GAP_NS < marks.booked_ns:
            marks.add(gpu, at_ns - READING_GAP_NS, at_ns + READING_GAP_NS)
    add(connection, READING, sorted(rows))


def power_of(connection: sa.Connection, gpu: int, start_ns: int, end_ns: int) -> list[Power]:
    """What is known of the GPU's power from start to end."""
    columns = READING.c
    near = (columns.at_ns >= start_ns - READING_GAP_NS) & (columns.at_ns <= end_ns + READING_GAP_NS)
    question = sa.select(columns.source, columns.at_ns, columns.mj).where((columns.gpu == gpu) & near)
    rows = sorted(tuple(row) for row in connection.execute(question))
    counters: list[list[Reading]] = [[row[1:] for row in each] for _, each in groupby(rows, lambda row: row[0])]
    return [one for one in of_one(map(power, counters)) if one[1] > start_ns and one[0] < end_ns]


def forget(connection: sa.Connection, gpu: int, until_ns: int) -> None:
    """Deletes the readings that tell only about the time before."""
    columns = READING.c
    connection.execute(sa.delete(READING).where((columns.gpu == gpu) & (columns.at_ns < until_ns - READING_GAP_NS)))


def _fresh(connection: sa.Connection, gpu: int, source: int, counter: dict[int, int]) -> list[tuple[int, ...]]:
    """The rows that are not there yet; lower ones of the same time are deleted."""
    columns = READING.c
    here = (columns.gpu == gpu) & (columns.source == source)
    near = here & (columns.at_ns >= min(counter)) & (columns.at_ns <= max(counter))
    known = {row.at_ns: row.mj for row in connection.execute(sa.select(columns.at_ns, columns.mj).where(near))}
    lower = [at_ns for at_ns, mj in counter.items() if known.get(at_ns, mj) < mj]
    if lower:
        command = sa.delete(READING).where(here & (columns.at_ns == sa.bindparam("at")))
        connection.execute(command, [{"at": at_ns} for at_ns in lower])
    return [(gpu, at_ns, source, mj) for at_ns, mj in counter.items() if known.get(at_ns, -1) < mj]
