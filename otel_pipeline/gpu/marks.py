"""What is written on a span about its GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from otel_pipeline.gpu.join import Status
from otel_pipeline.gpu.resolve import IDS, How
from otel_pipeline.wire.batch import ABSENT, Constants

if TYPE_CHECKING:
    from otel_pipeline.gpu.join import Joined
    from otel_pipeline.gpu.used import Used
    from otel_pipeline.wire.batch import Batch, Ints, Mask

STATUS: Final = "otel_pipeline.gpu.status"
NAME: Final = "otel_pipeline.gpu.name"
MEMORY: Final = "otel_pipeline.gpu.memory.max"
FLOATS: Final = {
    "otel_pipeline.gpu.utilization.mean": "utilization_mean",
    "otel_pipeline.gpu.utilization.max": "utilization_max",
    "otel_pipeline.gpu.power.mean": "power_mean_w",
    "otel_pipeline.gpu.energy": "energy_j",
    "otel_pipeline.gpu.energy.error": "energy_error_j",
    "otel_pipeline.gpu.coverage": "coverage",
}
"""Attribute -> column of `Joined`."""
WRITTEN: Final = (IDS, NAME, MEMORY, STATUS, *FLOATS)
STATUSES: Final = ("ok", "partial", "missing", "ambiguous", "none")
AMBIGUOUS, NONE = 3, 4


def statuses(used: Used, joined: Joined, joinable: Mask) -> Ints:
    """For each row of `used` the number of its status; `joined` has the rows of `joinable`."""
    how = np.array([AMBIGUOUS if place.found.how is How.AMBIGUOUS else NONE for place in used.places], np.int64)
    found: Ints = how[used.place]
    found[joinable] = joined.status
    return found


def write(batch: Batch, used: Used, joined: Joined, joinable: Mask, status: Ints) -> None:
    """Set the attributes; what is not known is not set."""
    codes = np.full(len(batch), ABSENT, np.int32)
    codes[used.rows] = status
    batch.set(STATUS, Constants(codes, STATUSES))
    rows = used.rows[joinable]
    places = np.full(len(batch), ABSENT, np.int32)
    places[rows] = used.place[joinable]
    batch.set(IDS, Constants(places, [place.found.gpus for place in used.places]))
    named = np.array([*(bool(place.names) for place in used.places), False], np.bool_)[places]
    batch.set(NAME, Constants(places, [place.names for place in used.places]), named)
    for key, column in FLOATS.items():
        values = getattr(joined, column)
        unknown = np.isnan(values)
        if unknown.any():
            batch.set_rows(key, rows[~unknown], values[~unknown])
        else:
            batch.set_rows(key, rows, values)
    memory = joined.memory_max_bytes
    known = ~np.isnan(memory)
    batch.set_rows(MEMORY, rows[known], memory[known].astype(np.int64))


def is_complete(status: Ints) -> Mask:
    """Which rows need no explanation."""
    complete: Mask = status == Status.OK
    return complete
