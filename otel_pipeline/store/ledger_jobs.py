"""Jobs by name, with first and last times. What they cost is added up when it is booked, and how their attempts came
out stands in ledger_runs.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from otel_pipeline.store.database import insert
from otel_pipeline.store.ledger_tables import JOB

if TYPE_CHECKING:
    from otel_pipeline.store.ledger_arrivals import Arrivals


def keep_jobs(connection: sa.Connection, arrivals: Arrivals) -> None:
    """Adds what new spans tell of jobs."""
    rows = np.flatnonzero(arrivals.job)
    if not len(rows):
        return
    jobs: dict[int, dict[str, Any]] = {}
    columns = (arrivals.job[rows], arrivals.fact[rows], arrivals.start_ns[rows], arrivals.end_ns[rows])
    for job, number, start, end in zip(*(column.tolist() for column in columns), strict=True):
        kind = arrivals.facts[number].job_type
        row = jobs.get(job)
        if row is None:
            jobs[job] = {"id": job, "first_ns": start, "last_ns": end, "name": arrivals.jobs[job], "job_type": kind}
            continue
        row["first_ns"], row["last_ns"] = min(row["first_ns"], start), max(row["last_ns"], end)
        row["job_type"] = max(row["job_type"], kind)
    command = insert(connection, JOB)
    new, old = command.excluded, JOB.c
    changes = {
        "first_ns": sa.case((new.first_ns < old.first_ns, new.first_ns), else_=old.first_ns),
        "last_ns": sa.case((new.last_ns > old.last_ns, new.last_ns), else_=old.last_ns),
        "job_type": sa.case((new.job_type > old.job_type, new.job_type), else_=old.job_type),
    }
    connection.execute(command.on_conflict_do_update(index_elements=["id"], set_=changes), list(jobs.values()))
