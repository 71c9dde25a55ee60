"""Self time: the part of a span's time on a GPU that none of its descendants there takes. The deepest active one wins.

    job     |--------------------------|         self: the ends
    sample       |---------------|               self: all but vae
    vae                    |---|                 self: all

Siblings in parallel both have their time; a child that outlives its parent has its own. All of it is done on ranks:
places in the sorted array of all points in time, so that rows can be laid side by side on one axis (row * width + rank)
and be worked on all at once, within 64 bits.
"""

from __future__ import annotations

import numpy as np

from otel_pipeline.ledger.claims import NO_PARENT, Ints
from otel_pipeline.limits import LEDGER_DEPTH_MAX


def self_pieces(span: Ints, parent: Ints, start: Ints, end: Ints, width: int) -> tuple[Ints, Ints, Ints]:
    """Row, start rank and end rank of each piece of self time, in the order of rows and ranks.

    span: [row] code, ascending; parent: [code]; start < end: [row] ranks below `width`.
    """
    rows = np.arange(len(span))
    above, below = _kin(span, parent)
    covered_from, covered_to = np.maximum(start[above], start[below]), np.minimum(end[above], end[below])
    real = covered_from < covered_to
    axis = above[real] * width
    # At each place of the axis: openings before it less closings before it = 1 within a row, less 1 for each cover that
    # lies there. So the n-th opening and the n-th closing bound a piece that no cover lies on, or nothing.
    openings = np.sort(np.concatenate([rows * width + start, axis + covered_to[real]]))
    closings = np.sort(np.concatenate([rows * width + end, axis + covered_from[real]]))
    real = openings < closings
    row, first = np.divmod(openings[real], width)
    return row, first, closings[real] - row * width


def cut(starts: Ints, ends: Ints, cuts: Ints) -> tuple[Ints, Ints, Ints]:
    """Which interval, start and end of each part, after intervals (start < end) were cut at the sorted `cuts`."""
    low = np.searchsorted(cuts, starts, side="right")
    high = np.searchsorted(cuts, ends, side="left")
    parts = np.maximum(high - low, 0) + 1
    which = np.repeat(np.arange(len(starts)), parts)
    last = np.cumsum(parts) - 1
    part_starts, part_ends = starts[which], ends[which]
    inner = np.arange(len(which)) - (last - parts + 1)[which]
    inside = inner > 0
    part_starts[inside] = cuts[(low[which] + inner - 1)[inside]]
    before_last = inner < (parts - 1)[which]
    part_ends[before_last] = cuts[(low[which] + inner)[before_last]]
    return which, part_starts, part_ends


def _kin(span: Ints, parent: Ints) -> tuple[Ints, Ints]:
    """All pairs of rows of which the first one's span is an ancestor of the second one's."""
    above: list[Ints] = []
    below: list[Ints] = []
    rows = np.arange(len(span))
    at = parent[span]
    for _ in range(LEDGER_DEPTH_MAX):
        rows, at = rows[at != NO_PARENT], at[at != NO_PARENT]
        if not len(rows):
            break
        low = np.searchsorted(span, at, side="left")
        count = np.searchsorted(span, at, side="right") - low
        if count.any():
            which = np.repeat(np.arange(len(rows)), count)
            inner = np.arange(len(which)) - (np.cumsum(count) - count)[which]
            above.append(low[which] + inner)
            below.append(rows[which])
        at = parent[at]
    empty = np.zeros(0, dtype=np.int64)
    return np.concatenate([*above, empty]), np.concatenate([*below, empty])
