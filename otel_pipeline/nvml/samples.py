"""What a GPU sampler tells, whichever vendor's library it reads: devices, series of samples, and what failed.

Times are Unix nanoseconds, values have the unit of their quantity. A value of a gauge describes the time before it, up
to the sample before. What a device does not tell is absent: there is no zero that stands for "unknown".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

Attributes: TypeAlias = tuple[tuple[str, str], ...]
"""What tells series of one device and quantity apart, sorted by key."""

POINTS_MAX: Final = 2_048
"""Samples of one series between two readings: 20 s at 100 Hz. Older ones go first."""
SAMPLES_MAX: Final = 262_144
"""Samples of all series between two readings, some 30 MB: 64 GPUs with 15 series at 10 Hz make 10,000 a second."""
SERIES_MAX: Final = 8_192
"""Series between two readings: 64 GPUs with 128 each, nearly all of processes."""


class Quantity(Enum):
    """What is measured, with its unit. Each value is the name by which an operator switches it on and off."""

    UTILIZATION = "utilization"
    """Fraction of the time in which a kernel ran, 0 to 1."""
    MEMORY_UTILIZATION = "memory_utilization"
    """Fraction of the time in which device memory was read or written, 0 to 1: the memory controller, not its fill."""
    ENCODER_UTILIZATION = "encoder_utilization"
    DECODER_UTILIZATION = "decoder_utilization"
    MEMORY_USED = "memory_used"
    """Bytes."""
    POWER = "power"
    """Watts of the board."""
    ENERGY = "energy"
    """Joules of the board: a counter since the driver was loaded."""
    TEMPERATURE = "temperature"
    """Degrees Celsius; `sensor` is gpu or memory."""
    CLOCK = "clock"
    """Hertz; `domain` is graphics, sm, memory or video."""
    THROTTLED = "throttled"
    """1 while the clocks are held down for `reason`, else 0."""
    ERRORS = "errors"
    """Memory errors, `kind` corrected or uncorrected: counters since the driver was loaded."""
    XID = "xid"
    """The code of a critical error that the driver reported at that moment."""
    PROCESS_MEMORY = "process_memory"
    """Bytes that the process `pid` holds; the host's process id, also within a container."""
    PROCESS_UTILIZATION = "process_utilization"
    """Fraction of the time in which a kernel of the process `pid` ran, 0 to 1."""


COUNTERS: Final = frozenset({Quantity.ENERGY, Quantity.ERRORS})
"""Quantities that only rise, until the driver is loaded anew."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or an instance of one that is split (MIG)."""

    uuid: str
    index: int
    """In the order of the PCI bus; of an instance, within its GPU."""
    model: str = ""
    vendor: str = "NVIDIA"
    serial: str = ""
    driver_version: str = ""
    memory_limit_bytes: int | None = None
    parent: str = ""
    """UUID of the GPU that an instance is of."""
    mig_id: str = ""
    """GPU instance and compute instance, as `1/0`."""
    failed: bool = False
    """It was there and answers no more; a `Failure` tells why."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What cannot be had, and why."""

    code: str
    """Of the vendor's library, such as GPU_IS_LOST."""
    reason: str
    """In words."""
    device: str = ""
    """Its UUID, or `index N` if even that is unknown; empty: nothing can be had at all."""
    quantity: Quantity | None = None
    """What the device does not tell; None: it tells nothing."""


@dataclass(slots=True)
class Series:
    """Samples of one device and quantity in the order in which they were taken, both lists of equal length."""

    device: str
    quantity: Quantity
    attributes: Attributes = ()
    started_unix_nano: int = 0
    """Of a counter: since when it counts, at most. Another value than before: it began anew."""
    times_unix_nano: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, time_unix_nano: int, value: float) -> None:
        """One more; a full series loses its oldest half."""
        if len(self.values) >= POINTS_MAX:
            del self.times_unix_nano[: POINTS_MAX // 2], self.values[: POINTS_MAX // 2]
        self.times_unix_nano.append(time_unix_nano)
        self.values.append(value)


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything between two moments."""

    taken_unix_nano: int
    """By the same clock as the samples."""
    devices: tuple[Device, ...] = ()
    series: tuple[Series, ...] = ()
    failures: tuple[Failure, ...] = ()
    """In force now: of the library, or of whole devices."""
    absent: tuple[Failure, ...] = ()
    """Quantities that devices do not tell, in force now."""

    @property
    def available(self) -> bool:
        """Whether GPUs can be read at all."""
        return not any(not failure.device for failure in self.failures)
