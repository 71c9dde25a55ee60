"""Which GPUs were there in which minutes: what the ledger bills, as far as samples tell. Each minute is told once."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import numpy as np

from otel_pipeline.ledger.records import Presence
from otel_pipeline.limits import COST_GPUS_MAX, LEDGER_PRESENCE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_pipeline.ledger.offers import Place
    from otel_pipeline.wire.batch import Ints

MINUTE_NS: Final = 60 * 10**9
REMEMBERED: Final = 64
"""Minutes of a GPU; the ledger takes one twice without harm."""


class Minutes:
    """Minutes that were told already, by GPU."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[tuple[str, ...], str, str, Place], list[int]] = OrderedDict()

    def seen(
        self, hosts: tuple[str, ...], gpu: str, name: str, place: Place, times_ns: Iterable[Ints]
    ) -> Presence | None:
        """A GPU that sent samples of these times; None if all its minutes were told."""
        minutes = {minute for times in times_ns for minute in np.unique(times // MINUTE_NS).tolist()}
        key = (hosts, gpu, name, place)
        told = self._told.pop(key, [])
        fresh = sorted(minutes.difference(told))[-LEDGER_PRESENCE_MAX:]
        self._told[key] = (told + fresh)[-REMEMBERED:]
        if len(self._told) > COST_GPUS_MAX:
            self._told.popitem(last=False)
        if not fresh:
            return None
        named = (place.provider, place.region, place.pod, place.attributes)
        return Presence(hosts, gpu, name, tuple(fresh), *named)
