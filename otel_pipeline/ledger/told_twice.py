"""The same call told by two spans: one of a framework, and below it one of the client's library that it uses.

Both tell the same usage, so one of them must not be charged: the outer one, for what is below is closer to the
provider. A call is told twice if below it, at any depth, stands another one of the same model that tells what it used;
a call that names no model is taken for one of any. What stands between the two does not matter. Which calls are told
twice depends on the spans alone and not on their order, and further spans only add to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from otel_pipeline.ledger.booking import without_cycles
from otel_pipeline.ledger.claims import NO_PARENT

if TYPE_CHECKING:
    from collections.abc import Sequence


class Told(NamedTuple):
    """A span. `model` is None if it is not charged as a call, empty if it is one of no model; `tells` what it used."""

    trace: tuple[int, int]
    span: int
    parent: int
    model: str | None
    tells: bool


def told_twice(spans: Sequence[Told]) -> list[int]:
    """The places of calls that a call below them tells, too. `spans` are all that are known of some traces."""
    places = {(one.trace, one.span): place for place, one in enumerate(spans)}
    parents = [places.get((one.trace, one.parent), NO_PARENT) if one.parent else NO_PARENT for one in spans]
    above = without_cycles(np.array(parents, dtype=np.int64)).tolist()
    found: set[int] = set()
    seen: set[tuple[int, str]] = set()
    for place, one in enumerate(spans):
        if one.model is None or not one.tells:
            continue
        at = above[place]
        while at != NO_PARENT and (at, one.model) not in seen:
            seen.add((at, one.model))
            if spans[at].model in ("", one.model):
                found.add(at)
            at = above[at]
    return sorted(found)
