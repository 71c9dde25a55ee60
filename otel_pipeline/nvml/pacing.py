"""When a sampler asks what, and by which clocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from otel_pipeline.nvml.probes import Pace

SECOND_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Pacing:
    """How often what is asked, in seconds."""

    interval_s: float = 0.1
    """Utilization, power, energy and memory. Samples that the driver takes by itself are joined to this."""
    slow_s: float = 1.0
    """The rest, and how often the driver's own samples are fetched: it keeps them for two seconds or more."""
    rare_s: float = 10.0
    """Counters of memory errors."""
    rescan_s: float = 60.0
    """Which devices there are: instances of GPUs come and go."""
    retry_s: float = 60.0
    """After a failure of the library or of a device."""

    def ns(self, pace: Pace) -> int:
        """The period of a pace."""
        seconds = {Pace.FAST: self.interval_s, Pace.SLOW: self.slow_s, Pace.RARE: self.rare_s}[pace]
        return int(seconds * SECOND_NS)


def _since_boot_ns() -> int:
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, for samples and for waiting."""

    unix_ns: Callable[[], int] = time.time_ns
    steady_ns: Callable[[], int] = time.monotonic_ns
    boot_ns: Callable[[], int] = _since_boot_ns
    """Since the machine was started; some drivers count the times of their samples so."""

    def ahead_of_boot_us(self) -> int:
        """What is added to a time since the start to get Unix time."""
        return (self.unix_ns() - self.boot_ns()) // 1000
