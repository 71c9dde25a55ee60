"""Jobs by name, with first and last times. What they cost is added up when it is booked, and how their attempts came
out stands in ledger_runs.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from otel_pipeline.store.ledger_tables import JOB, merge

if TYPE_CHECKING:
    import sqlalchemy as sa

    from otel_pipeline.store.ledger_arrivals import Arrivals

CHANGES: Final = {
    name: f"CASE WHEN excluded.{name} {sign} {JOB.name}.{name} THEN excluded.{name} ELSE {JOB.name}.{name} END"
    for name, sign in (("first_ns", "<"), ("last_ns", ">"), ("job_type", ">"))
}


def keep_jobs(connection: sa.Connection, arrivals: Arrivals) -> None:
    """Adds what new spans tell of jobs."""
    rows = np.flatnonzero(arrivals.job)
    if not len(rows):
        return
    jobs: dict[int, tuple[int, int, str]] = {}
    columns = (arrivals.job[rows], arrivals.fact[rows], arrivals.start_ns[rows], arrivals.end_ns[rows])
    for job, number, start, end in zip(*(column.tolist() for column in columns), strict=True):
        kind = arrivals.facts[number].job_type
        first, last, known = jobs.get(job, (start, end, kind))
        jobs[job] = (min(first, start), max(last, end), max(known, kind))
    found = [(job, first, last, arrivals.jobs[job], kind) for job, (first, last, kind) in jobs.items()]
    merge(connection, JOB, found, CHANGES)
