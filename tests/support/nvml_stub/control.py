"""What the stub shows: lines of its control file, and its clock.

    origin_ns N                 Unix nanoseconds; all times below are seconds since then, and counters begin there
    boot_clock S                times of samples count from S seconds before the origin, instead of 1970
    init CODE                   what nvmlInit returns
    driver VERSION
    gpu UUID                    the lines below are about this one, up to the next
    name TEXT, serial TEXT, memory_total BYTES
    step CURVE 0=100 10=350     values that hold from their time on
    ramp CURVE 0=100 10=350     values that are reached in straight lines
    energy_update_s S           how often the energy counter moves; it is the area below the power curve
    ring NAME PERIOD_S LENGTH   a ring buffer of the driver's: power, utilization, memory_utilization, encoder, decoder
    process PID BYTES SM [FROM UNTIL]
    instance UUID GI CI         a MIG instance of the GPU above; lines below are about the instance
    fail FUNCTION CODE [FROM UNTIL [CALLS]]   `*` is every function; before the first gpu: for all of them;
                                CALLS: only after so many calls

Curves: utilization, memory_utilization, encoder, decoder (percent), memory_used (bytes), power (W), temperature,
memory_temperature (Cel), clock_graphics, clock_sm, clock_memory, clock_video (MHz), throttle (bits), ecc_corrected,
ecc_uncorrected (counts), xid (code at a time), energy_reset (when the counter restarts), energy_mj (the counter itself,
instead of the area).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ORIGIN_S: Final = 1_790_000_000
"""Some day in 2026."""
SECOND_NS: Final = 1_000_000_000


def uuid(index: int) -> str:
    """Of the nth GPU."""
    return f"GPU-{index:08d}-1111-2222-3333-444444444444"


def gpu(index: int, *lines: str) -> str:
    """A GPU with everything, drawing 100 W at 50 %. Further lines replace what is said before them."""
    return "\n".join(
        (
            f"gpu {uuid(index)}",
            "name NVIDIA H100 80GB HBM3",
            f"serial 16500{index}",
            "memory_total 85899345920",
            "step utilization 0=50",
            "step memory_utilization 0=20",
            "step encoder 0=0",
            "step decoder 0=0",
            "step memory_used 0=1073741824",
            "step power 0=100",
            "step temperature 0=40",
            "step memory_temperature 0=45",
            "step clock_graphics 0=1980",
            "step clock_sm 0=1980",
            "step clock_memory 0=2619",
            "step throttle 0=0",
            "step ecc_corrected 0=0",
            "step ecc_uncorrected 0=0",
            *lines,
        )
    )


RINGS: Final = (
    "ring power 0.02 120",
    "ring utilization 0.1666 100",
    "ring memory_utilization 0.1666 100",
    "ring encoder 0.1666 100",
    "ring decoder 0.1666 100",
)
"""As recent drivers have them."""


class Control:
    """A control file and a clock file in a folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "nvml.control"
        self.clock = folder / "nvml.clock"
        self.clock.write_bytes(bytes(16))
        with self.clock.open("r+b") as opened:
            self._page = mmap.mmap(opened.fileno(), 16)
        self._generation = 0

    def write(self, *parts: str) -> None:
        """What is shown from now on."""
        self.file.write_text("\n".join((f"origin_ns {ORIGIN_S * SECOND_NS}", *parts)) + "\n", encoding="ascii")
        self._generation += 1
        self._page[8:16] = struct.pack("q", self._generation)

    def set(self, at_ns: int) -> None:
        """The time since the origin."""
        self._page[0:8] = struct.pack("q", ORIGIN_S * SECOND_NS + at_ns)

    def environment(self, library: Path) -> Mapping[str, str]:
        """For the process that is to see it."""
        return {
            "LD_LIBRARY_PATH": str(library),
            "NVML_STUB_CONTROL": str(self.file),
            "NVML_STUB_CLOCK": str(self.clock),
        }
