"""Sums over allocations: by span, with descendants, by job, and what was wasted. Each is a partition of the same cells.

`inclusive` is for display: it counts a nested span at each of its ancestors and must never be summed.

Wasted is what an attempt cost that came to nothing: its outcome is not ok, or that of an ancestor isn't, or the job was
done again later with success. Of a batch of n outputs of which k failed it is k/n. Waste is a label on cost that is in
the sums already, never a cost of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from otel_pipeline.ledger.allocation import Allocation
from otel_pipeline.ledger.claims import NO_PARENT, OK, ClaimTable
from otel_pipeline.ledger.money import rounded
from otel_pipeline.ledger.tape import exact_type


@dataclass(frozen=True, slots=True)
class JobCost:
    """A job over all of its attempts, in n$."""

    nano: int
    wasted: int


def row_costs(table: ClaimTable, allocations: Iterable[Allocation]) -> list[int]:
    """[row] n$ over the allocations, which are all of this table; ValueError if their currencies differ."""
    found = list(allocations)
    costs = np.zeros(len(table), dtype=exact_type(sum(sum(one.totals) for one in found)))
    currency = ""
    for allocation in found:
        if allocation.table is not table:
            raise ValueError("the allocation is of another table")
        if currency not in {"", allocation.currency}:
            raise ValueError(f"{currency} and {allocation.currency} cannot be added")
        currency = allocation.currency
        np.add.at(costs, allocation.row, allocation.nano.astype(costs.dtype))
    nano: list[int] = costs.tolist()
    return nano


def span_costs(table: ClaimTable, costs: Iterable[int]) -> dict[str, int]:
    """Self cost of each span that claims, over all GPUs and attempts; `costs` by row."""
    sums: dict[str, int] = {}
    for span, cost in zip(table.span.tolist(), costs, strict=True):
        name = table.spans[span]
        sums[name] = sums.get(name, 0) + cost
    return sums


def inclusive_costs(table: ClaimTable, costs: Mapping[str, int]) -> dict[str, int]:
    """Cost of each span that claims, with all of its descendants; `costs` as from `span_costs`."""
    parent = table.parent.tolist()
    totals = [costs.get(name, 0) for name in table.spans]
    waiting = [0] * len(parent)
    for above in parent:
        if above != NO_PARENT:
            waiting[above] += 1
    leaves = [span for span, children in enumerate(waiting) if not children]
    while leaves:
        span = leaves.pop()
        above = parent[span]
        if above != NO_PARENT:
            totals[above] += totals[span]
            waiting[above] -= 1
            if not waiting[above]:
                leaves.append(above)
    return {name: total for name, total in zip(table.spans, totals, strict=True) if name in costs}


def wasted_costs(table: ClaimTable, costs: Iterable[int]) -> list[int]:
    """[row] the wasted part of each row's cost."""
    failed = _failed_spans(table)
    superseding: dict[str, int] = {}
    for job, attempt, outcome in zip(table.job, table.attempt.tolist(), table.outcome, strict=True):
        if job and outcome == OK:
            superseding[job] = max(superseding.get(job, attempt), attempt)
    wasted = []
    for row, cost in enumerate(costs):
        above = int(table.parent[table.span[row]])
        attempt = int(table.attempt[row])
        if (
            table.outcome[row] != OK
            or (above != NO_PARENT and failed[above])
            or superseding.get(table.job[row], attempt) > attempt
        ):
            wasted.append(cost)
        else:
            outputs = int(table.outputs[row])
            lost = min(int(table.outputs_failed[row]), outputs)
            wasted.append(rounded(cost * lost, outputs) if outputs > 0 and lost > 0 else 0)
    return wasted


def job_costs(table: ClaimTable, costs: Iterable[int], wasted: Iterable[int]) -> dict[str, JobCost]:
    """Cost and waste of each job; what has no job is left out."""
    jobs: dict[str, JobCost] = {}
    for job, cost, waste in zip(table.job, costs, wasted, strict=True):
        if job:
            before = jobs.get(job, JobCost(0, 0))
            jobs[job] = JobCost(before.nano + cost, before.wasted + waste)
    return jobs


def _failed_spans(table: ClaimTable) -> list[bool]:
    """[span] whether it came to nothing, itself or by an ancestor. Of a span with several attempts one ok is enough."""
    some_ok = [False] * len(table.spans)
    claims = [False] * len(table.spans)
    for span, outcome in zip(table.span.tolist(), table.outcome, strict=True):
        claims[span] = True
        some_ok[span] |= outcome == OK
    parent = table.parent.tolist()
    known: list[bool | None] = [None] * len(parent)
    for start in range(len(parent)):
        path = []
        span = start
        while span != NO_PARENT and known[span] is None:
            path.append(span)
            span = parent[span]
        verdict = bool(span != NO_PARENT and known[span])
        for one in reversed(path):
            verdict = verdict or (claims[one] and not some_ok[one])
            known[one] = verdict
    return [bool(verdict) for verdict in known]
