"""What late spans change. An allocation is a pure function of its claims, so a late claim means: do it again, and book
the differences. They add up to 0 in each period, because what was paid has not changed; a changed price is the
exception: its differences add up to what the bill changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from otel_pipeline.ledger.allocation import Allocation, Mode, allocate
from otel_pipeline.ledger.claims import Claim, claim_table
from otel_pipeline.ledger.tape import BUCKETS, Tape


@dataclass(frozen=True, slots=True)
class Correction:
    """A difference of one span's, or one bucket's, cost in a period; `span` is empty for a bucket and the reverse."""

    gpu: str
    start_ns: int
    end_ns: int
    span: str
    attempt: int
    bucket: str
    nano: int


def reallocated(
    before: Allocation,
    tape: Tape,
    claims: Iterable[Claim],
    late: Iterable[Claim],
    *,
    mode: Mode = Mode.EQUAL,
    links: Mapping[str, str] | None = None,
    anchor_ns: int | None = None,
) -> tuple[Allocation, list[Correction]]:
    """The allocation of the claims and the late ones, over the periods of `before`, and what to book.

    The result is the same as if all had come at once; claims that were known change nothing.
    """
    table = claim_table([*claims, *late], links)
    after = allocate(tape, table, before.cuts.tolist(), mode, anchor_ns)
    return after, corrections(before, after)


def corrections(before: Allocation, after: Allocation) -> list[Correction]:
    """What to add to `before` to get `after`: by period, spans first. Both are of one GPU and the same periods."""
    if before.gpu != after.gpu or before.cuts.tolist() != after.cuts.tolist() or before.currency != after.currency:
        raise ValueError("corrections are between allocations of one GPU, one currency and the same periods")
    old, new = _cells(before), _cells(after)
    cuts = after.cuts.tolist()
    found = []
    for key in sorted(old.keys() | new.keys()):
        nano = new.get(key, 0) - old.get(key, 0)
        if nano:
            period, bucket, span, attempt = key
            name = BUCKETS[bucket] if bucket >= 0 else ""
            found.append(Correction(after.gpu, cuts[period], cuts[period + 1], span, attempt, name, nano))
    return found


def _cells(allocation: Allocation) -> dict[tuple[int, int, str, int], int]:
    """n$ by period, bucket (-1 for spans), span and attempt."""
    table = allocation.table
    cells = {
        (period, -1, table.spans[int(table.span[row])], int(table.attempt[row])): nano
        for row, period, nano in zip(
            allocation.row.tolist(), allocation.period.tolist(), allocation.nano.tolist(), strict=True
        )
    }
    for period, amounts in enumerate(allocation.buckets):
        cells.update({(period, bucket, "", 0): nano for bucket, nano in enumerate(amounts)})
    return cells
