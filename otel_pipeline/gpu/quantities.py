"""What is measured of a GPU, each in its base unit."""

from __future__ import annotations

from enum import IntEnum


class Quantity(IntEnum):
    """The quantities that timelines keep. The numbers are indices of columns."""

    UTILIZATION = 0
    """Part of the time in which at least one kernel ran, 0 to 1: a gauge about the time before its sample."""
    MEMORY_USED = 1
    """Bytes: a gauge."""
    POWER = 2
    """W: a gauge."""
    ENERGY = 3
    """J since some start, such as the driver's: a counter."""
