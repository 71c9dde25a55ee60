"""What an error of NVML means for a sampler. Numbers are those of nvml.h, which never change."""

from __future__ import annotations

from enum import Enum
from typing import Final

CODES: Final = {
    1: "UNINITIALIZED",
    2: "INVALID_ARGUMENT",
    3: "NOT_SUPPORTED",
    4: "NO_PERMISSION",
    6: "NOT_FOUND",
    7: "INSUFFICIENT_SIZE",
    9: "DRIVER_NOT_LOADED",
    10: "TIMEOUT",
    11: "IRQ_ISSUE",
    12: "LIBRARY_NOT_FOUND",
    13: "FUNCTION_NOT_FOUND",
    14: "CORRUPTED_INFOROM",
    15: "GPU_IS_LOST",
    16: "RESET_REQUIRED",
    17: "OPERATING_SYSTEM",
    18: "LIB_RM_VERSION_MISMATCH",
    19: "IN_USE",
    20: "MEMORY",
    21: "NO_DATA",
    23: "INSUFFICIENT_RESOURCES",
    25: "ARGUMENT_VERSION_MISMATCH",
    26: "DEPRECATED",
    27: "NOT_READY",
    28: "GPU_NOT_FOUND",
    29: "INVALID_STATE",
    999: "UNKNOWN",
}
REASONS: Final = {
    9: "the driver is not loaded",
    12: "libnvidia-ml.so.1 is not there: no NVIDIA driver, or not shown to this container",
    15: "the GPU has fallen off the bus or is not accessible",
    16: "the GPU needs a reset",
    18: "the driver was upgraded and the old one still runs: reboot",
}
NO_MODULE: Final = "NO_PYNVML"
"""pynvml itself cannot be imported."""
TAKEN: Final = "TAKEN"
"""Not an error: another sampler of this machine reads the device."""


class Meaning(Enum):
    """What follows from an error."""

    NOTHING_NEW = "nothing to tell at the moment"
    ABSENT = "this device will never tell this"
    DEVICE = "the device is gone, until it comes back"
    LIBRARY = "nothing works, until the library is opened again"
    PASSING = "no value this time"


_NOTHING_NEW: Final = frozenset({0, 6, 21})
"""pynvml raises 0, success, where the first of two calls finds no process."""
_ABSENT: Final = frozenset({2, 3, 4, 13, 25, 26})
_DEVICE: Final = frozenset({15, 16, 28})
_LIBRARY: Final = frozenset({1, 9, 12, 18})


def code_of(error: BaseException) -> int | None:
    """The number of an NVML error, None for anything else."""
    value = getattr(error, "value", None)
    return value if isinstance(value, int) and type(error).__name__.startswith("NVMLError") else None


def name_of(error: BaseException) -> str:
    """The name of an error, as in nvml.h without its prefix."""
    code = code_of(error)
    return type(error).__name__ if code is None else CODES.get(code, f"CODE_{code}")


def reason_of(error: BaseException) -> str:
    """What an error means, in words."""
    code = code_of(error)
    return REASONS.get(code if code is not None else -1) or str(error) or type(error).__name__


def meaning_of(error: BaseException) -> Meaning:
    """What follows from an error. One that is none of NVML's comes of a pynvml that has not the function."""
    code = code_of(error)
    if code is None or code in _ABSENT:
        return Meaning.ABSENT
    if code in _NOTHING_NEW:
        return Meaning.NOTHING_NEW
    if code in _DEVICE:
        return Meaning.DEVICE
    return Meaning.LIBRARY if code in _LIBRARY else Meaning.PASSING
