"""The latest that is known of each GPU, from samples as they came. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from otel_pipeline.gpu.quantities import Quantity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_pipeline.gpu.ingest import Samples


@dataclass(slots=True)
class State:
    """One GPU; None is what nobody told."""

    host: str
    gpu: str
    index: int | None = None
    name: str = ""
    utilization: float | None = None
    """0 to 1."""
    memory_used_bytes: float | None = None
    memory_limit_bytes: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    """Of the counter."""
    age_s: float = 0.0
    """Since samples of it came, by our clock."""


def states(records: Iterable[tuple[int, Samples]], now_ns: int) -> list[State]:
    """By host and GPU. `records`: samples and when they came, in ns, the oldest first."""
    found: dict[tuple[str, str], State] = {}

    def of(hosts: tuple[str, ...], gpu: str) -> State:
        host = hosts[0] if hosts else ""
        return found.setdefault((host, gpu), State(host, gpu))

    for received_ns, samples in records:
        for device in samples.devices:
            state = of(device.hosts, device.gpu)
            state.index = state.index if device.index is None else device.index
            state.name = device.name or state.name
            state.memory_limit_bytes = device.memory_limit_bytes or state.memory_limit_bytes
        for block in samples.blocks:
            state = of(block.hosts, block.gpu)
            setattr(state, FIELDS[block.quantity], float(block.values[int(np.argmax(block.times_ns))]))
            state.age_s = max(0.0, (now_ns - received_ns) / 1e9)
    return sorted(found.values(), key=lambda one: (one.host, one.index is None, one.index or 0, one.gpu))


FIELDS = {
    Quantity.UTILIZATION: "utilization",
    Quantity.MEMORY_USED: "memory_used_bytes",
    Quantity.POWER: "power_w",
    Quantity.ENERGY: "energy_j",
}
