"""Which GPUs were there in which minutes, and what their energy counters said: what the ledger bills, as far as samples
tell. Each minute is told once, and of each counter one reading in ENERGY_SLOT_NS.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from otel_pipeline.ledger.records import MJ_END, MS_END, Presence
from otel_pipeline.limits import COST_GPUS_MAX, LEDGER_COUNTERS_MAX, LEDGER_PRESENCE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_pipeline.ledger.offers import Place
    from otel_pipeline.wire.batch import Floats, Ints

    Counter: TypeAlias = "tuple[Ints, Floats]"

MINUTE_NS: Final = 60 * 10**9
ENERGY_SLOT_NS: Final = 10 * 10**9
"""Power changes by the second; a job takes some of them, and 10 s of a GPU are 25 bytes in the store."""
REMEMBERED: Final = 64
"""Minutes of a GPU, and slots of a counter; the ledger takes one twice without harm."""


@dataclass(slots=True)
class _Told:
    minutes: list[int] = field(default_factory=list)
    slots: OrderedDict[str, list[int]] = field(default_factory=OrderedDict)
    """By who counts."""


class Minutes:
    """What was told already, by GPU."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[tuple[str, ...], str, str, Place], _Told] = OrderedDict()

    def seen(
        self,
        hosts: tuple[str, ...],
        gpu: str,
        name: str,
        place: Place,
        times_ns: Iterable[Ints],
        *,
        counters: Mapping[str, Counter] | None = None,
    ) -> Presence | None:
        """A GPU that sent samples of these times; None if all was told. `counters` are times and J by who counts."""
        minutes = {minute for times in times_ns for minute in np.unique(times // MINUTE_NS).tolist()}
        key = (hosts, gpu, name, place)
        told = self._told.pop(key, None) or _Told()
        fresh = sorted(minutes.difference(told.minutes))[-LEDGER_PRESENCE_MAX:]
        told.minutes = (told.minutes + fresh)[-REMEMBERED:]
        readings = [
            (source, *reading)
            for source, counter in (counters or {}).items()
            for reading in _readings(told.slots, source, *counter)
        ]
        self._told[key] = told
        if len(self._told) > COST_GPUS_MAX:
            self._told.popitem(last=False)
        if not fresh and not readings:
            return None
        named = (place.provider, place.region, place.pod, place.attributes)
        return Presence(hosts, gpu, name, tuple(fresh), *named, energy=tuple(readings[-LEDGER_PRESENCE_MAX:]))


def _readings(slots: OrderedDict[str, list[int]], source: str, times_ns: Ints, joules: Floats) -> list[tuple[int, int]]:
    """ms and mJ of the first reading of each slot that was not told."""
    told = slots.pop(source, [])
    order = np.argsort(times_ns, kind="stable")
    slot, first = np.unique(times_ns[order] // ENERGY_SLOT_NS, return_index=True)
    chosen = order[first]
    told_ms = (times_ns[chosen] // 1_000_000).tolist()
    found = []
    fresh = []
    for number, at_ms, value in zip(slot.tolist(), told_ms, joules[chosen].tolist(), strict=True):
        mj = round(value * 1000)
        if number not in told and 0 <= at_ms < MS_END and 0 <= mj < MJ_END:
            fresh.append(number)
            found.append((at_ms, mj))
    slots[source] = (told + fresh)[-REMEMBERED:]
    if len(slots) > LEDGER_COUNTERS_MAX:
        slots.popitem(last=False)
    return found
