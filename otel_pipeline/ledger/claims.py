"""Claims: which span used which GPU, from when to when. One table holds those of many GPUs as columns.

A claim says "this span was on this GPU"; how much of that is its own is told by `self_time.py`. Who makes claims
decides what may claim: spans that wait, call others or talk to a database don't.

The table is a pure function of the *set* of claims: the order of arrival and what is delivered twice change nothing.
A claim is known by (span, GPU, attempt); of two that differ in the rest the one that ends last is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_pipeline.limits import LEDGER_SHARES_MAX, LEDGER_WEIGHT_MAX

Ints = NDArray[np.int64]
OK: Final = "ok"
NO_PARENT: Final = -1


@dataclass(frozen=True, slots=True)
class Claim:
    """A span on a GPU.

    `weight` counts in the mode `weighted` and may change with time: (from_ns, weight) in order, the first counts from
    the start. `share` counts in the mode `fixed`; None is the whole GPU. `outputs_failed` of `outputs` of a batch
    came to nothing.
    """

    span: str
    gpu: str
    start_ns: int
    end_ns: int
    parent: str | None = None
    weight: int | tuple[tuple[int, int], ...] = 1
    share: Fraction | None = None
    attempt: int = 1
    outcome: str = OK
    job: str = ""
    outputs: int = 0
    outputs_failed: int = 0


@dataclass(frozen=True, eq=False)
class ClaimTable:
    """Claims as columns, in the order of (span, GPU, attempt). Rows name spans and GPUs by their places in the lists.

    spans:   all spans that claim or link claims, sorted: the order of codes is the order of ids
    parent:  [span] code of the parent, NO_PARENT without; free of cycles
    span, gpu, start, end, attempt, wasted_parts, parts: [row]; start < end in ns
    weights: [row] number of steps, `weight_from`, `weight`: the steps of all rows, one row after another
    share:   [row] in parts of `share_whole`
    dropped: claims that end before they start: span and GPU
    """

    spans: Sequence[str]
    gpus: Sequence[str]
    parent: Ints
    span: Ints
    gpu: Ints
    start: Ints
    end: Ints
    attempt: Ints
    share: Ints
    share_whole: int
    weight_steps: Ints
    weight_from: Ints
    weight: Ints
    outcome: Sequence[str]
    job: Sequence[str]
    outputs: Ints
    outputs_failed: Ints
    dropped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.span)

    @cached_property
    def rows_of_gpu(self) -> dict[str, Ints]:
        """The rows of each GPU, in the order of the table."""
        order = np.argsort(self.gpu, kind="stable")
        cuts = np.searchsorted(self.gpu[order], np.arange(1, len(self.gpus)))
        return dict(zip(self.gpus, np.split(order, cuts), strict=True)) if len(self.gpus) else {}


def claim_table(claims: Iterable[Claim], links: Mapping[str, str] | None = None) -> ClaimTable:
    """The table of the claims. `links` are the parents of spans that claim nothing but stand between spans that do.

    Raises ValueError for a weight or a share out of its bounds. A claim of no length stays, and costs nothing.
    """
    known: dict[tuple[str, str, int], Claim] = {}
    dropped: set[tuple[str, str]] = set()
    for claim in claims:
        if claim.end_ns < claim.start_ns:
            dropped.add((claim.span, claim.gpu))
            continue
        key = (claim.span, claim.gpu, claim.attempt)
        other = known.get(key)
        if other is None or (other != claim and _rank(claim) > _rank(other)):
            known[key] = claim
    rows = [known[key] for key in sorted(known)]
    parent_of = _parents(rows, links or {})
    spans = sorted(parent_of)
    gpus = sorted({row.gpu for row in rows})
    code = {span: index for index, span in enumerate(spans)}
    gpu_code = {gpu: index for index, gpu in enumerate(gpus)}
    whole, shares = _shares({row.share for row in rows})
    counts, times, weights = _weights(rows)
    return ClaimTable(
        spans=spans,
        gpus=gpus,
        parent=_without_cycles(_ints([code.get(parent_of[span] or "", NO_PARENT) for span in spans])),
        span=_ints([code[row.span] for row in rows]),
        gpu=_ints([gpu_code[row.gpu] for row in rows]),
        start=_ints([row.start_ns for row in rows]),
        end=_ints([row.end_ns for row in rows]),
        attempt=_ints([row.attempt for row in rows]),
        share=_ints([shares[row.share] for row in rows]),
        share_whole=whole,
        weight_steps=counts,
        weight_from=times,
        weight=weights,
        outcome=[row.outcome for row in rows],
        job=[row.job for row in rows],
        outputs=_ints([row.outputs for row in rows]),
        outputs_failed=_ints([row.outputs_failed for row in rows]),
        dropped=tuple(sorted(dropped)),
    )


def _rank(claim: Claim) -> tuple[object, ...]:
    """Decides between two claims of one key, whichever came first."""
    weight = ((0, claim.weight),) if isinstance(claim.weight, int) else claim.weight
    share = Fraction(1) if claim.share is None else claim.share
    rest = (claim.outcome, claim.parent or "", share, weight, claim.job, claim.outputs, claim.outputs_failed)
    return (claim.end_ns, -claim.start_ns, *rest)


def _shares(distinct: set[Fraction | None]) -> tuple[int, dict[Fraction | None, int]]:
    """In how many parts shares are counted, and each share in them."""
    given = {share: Fraction(1) if share is None else share for share in distinct}
    whole = lcm(*(share.denominator for share in given.values()))
    if whole > LEDGER_SHARES_MAX or any(not 0 <= share <= 1 for share in given.values()):
        raise ValueError(f"shares must be between 0 and 1, and whole parts of at most 1/{LEDGER_SHARES_MAX}")
    return whole, {key: share.numerator * (whole // share.denominator) for key, share in given.items()}


def _weights(rows: Sequence[Claim]) -> tuple[Ints, Ints, Ints]:
    """[row] number of steps of the weight; the time and the weight of each step, one row after another."""
    steps = [((row.start_ns, row.weight),) if isinstance(row.weight, int) else row.weight for row in rows]
    for row, own in zip(rows, steps, strict=True):
        if len(own) != 1 and [at for at, _ in own] != sorted({at for at, _ in own}):
            raise ValueError(f"the weights of {row.span} have no order in time")
    counts = _ints([len(own) for own in steps])
    weights = _ints([weight for own in steps for _, weight in own])
    if not counts.all() or (weights < 0).any() or (weights > LEDGER_WEIGHT_MAX).any():
        raise ValueError(f"each claim needs weights between 0 and {LEDGER_WEIGHT_MAX}")
    return counts, _ints([at for own in steps for at, _ in own]), weights


def _parents(rows: Sequence[Claim], links: Mapping[str, str]) -> dict[str, str | None]:
    """The parent of each span; rows win over links, the first row of a span over its others."""
    parents: dict[str, str | None] = {}
    for row in rows:
        if row.span not in parents:
            parents[row.span] = row.parent or links.get(row.span)
    return {**links, **parents}


def _without_cycles(parent: Ints) -> Ints:
    """The parents, and none for spans that are ancestors of themselves."""
    far = parent
    for _ in range(len(parent).bit_length()):  # each round doubles the steps towards the root
        if (far == NO_PARENT).all():
            return parent
        far = np.where(far == NO_PARENT, NO_PARENT, far[far])
    parent = parent.copy()
    for start in np.unique(far[far != NO_PARENT]).tolist():  # some of each cycle
        at = start
        while parent[at] != NO_PARENT:
            parent[at], at = NO_PARENT, int(parent[at])
    return parent


def _ints(values: Sequence[int]) -> Ints:
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError as error:
        raise ValueError("a time or a number of a claim has more than 64 bits") from error
