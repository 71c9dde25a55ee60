"""The questions a sampler asks NVML about one device, and how answers become samples. All calls of pynvml that read a
value are here.

Two kinds. A poll asks for the value of now. A drain asks for the samples that the driver took by itself since a
moment, each with the driver's own time: more of them, at less cost. Both raise what pynvml raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from otel_pipeline.nvml.codes import code_of
from otel_pipeline.nvml.samples import Attributes, Quantity

Values: TypeAlias = Sequence[tuple[Quantity, Attributes, float]]
Timed: TypeAlias = list[tuple[int, Attributes, float]]
"""(microseconds by the driver's clock, attributes, value), in the order of time."""

PROCESSES_MAX: Final = 64
"""Processes of one device, those with the most memory: a GPU that is shared by more is shared too finely to tell."""
JOINED_SHARE: Final = 0.9
"""Samples of a drain are joined until they span this share of the interval: one that is a little early stands alone."""
FUNCTION_NOT_FOUND: Final = 13
FIELD_MEMORY_TEMPERATURE: Final = 82

PLAUSIBLE_MAX: Final = {
    Quantity.UTILIZATION: 1.0,
    Quantity.MEMORY_UTILIZATION: 1.0,
    Quantity.ENCODER_UTILIZATION: 1.0,
    Quantity.DECODER_UTILIZATION: 1.0,
    Quantity.PROCESS_UTILIZATION: 1.0,
    Quantity.MEMORY_USED: float(2**62),
    Quantity.PROCESS_MEMORY: float(2**62),
    Quantity.POWER: 2.0**31 / 1000 - 1,
    Quantity.ENERGY: 2.0**62 / 1000,
    Quantity.TEMPERATURE: 1_000.0,
    Quantity.CLOCK: (2.0**31 - 16) * 1e6,
    Quantity.ERRORS: float(2**62),
    Quantity.THROTTLED: 1.0,
    Quantity.XID: float(2**31 - 16),
}
"""Above it a value is none: the blanks of NVML and DCGM are the largest numbers of their type, or 16 below."""


class Pace(Enum):
    """How often a question is asked; the periods are the sampler's."""

    FAST = "fast"
    SLOW = "slow"
    RARE = "rare"


@dataclass(frozen=True, slots=True)
class Poll:
    """A question about now."""

    read: Callable[[Any, Any], Values]
    """From pynvml and a device's handle."""
    quantities: tuple[Quantity, ...]
    pace: Pace
    of_instances: bool = False
    """Asked about instances of a split GPU, too: they have memory and processes of their own, and nothing else."""


@dataclass(frozen=True, slots=True)
class Drain:
    """A question about what the driver remembers."""

    read: Callable[[Any, Any, int], Timed]
    """From pynvml, a device's handle and the time of the last sample that is known."""
    quantity: Quantity
    instead: Poll | None
    """What is asked where the driver remembers nothing. None: it is no ring buffer, and nothing is asked then."""


def plausible(quantity: Quantity, value: float) -> bool:
    """Whether a value is one, and no blank."""
    return -274.0 < value <= PLAUSIBLE_MAX[quantity]


# -- now ---------------------------------------------------------------------------------------------------------------


def _utilization(nvml: Any, handle: Any) -> Values:
    return ((Quantity.UTILIZATION, (), nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),)


def _memory_utilization(nvml: Any, handle: Any) -> Values:
    return ((Quantity.MEMORY_UTILIZATION, (), nvml.nvmlDeviceGetUtilizationRates(handle).memory / 100),)


def _encoder(nvml: Any, handle: Any) -> Values:
    return ((Quantity.ENCODER_UTILIZATION, (), nvml.nvmlDeviceGetEncoderUtilization(handle)[0] / 100),)


def _decoder(nvml: Any, handle: Any) -> Values:
    return ((Quantity.DECODER_UTILIZATION, (), nvml.nvmlDeviceGetDecoderUtilization(handle)[0] / 100),)


def _power(nvml: Any, handle: Any) -> Values:
    return ((Quantity.POWER, (), nvml.nvmlDeviceGetPowerUsage(handle) / 1000),)


def _energy(nvml: Any, handle: Any) -> Values:
    return ((Quantity.ENERGY, (), nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000),)


def _memory(nvml: Any, handle: Any) -> Values:
    return ((Quantity.MEMORY_USED, (), nvml.nvmlDeviceGetMemoryInfo(handle).used),)


def _temperature(nvml: Any, handle: Any) -> Values:
    celsius = _either(nvml, ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"), handle, 0)
    return ((Quantity.TEMPERATURE, (("sensor", "gpu"),), celsius),)


def _memory_temperature(nvml: Any, handle: Any) -> Values:
    answer = nvml.nvmlDeviceGetFieldValues(handle, [FIELD_MEMORY_TEMPERATURE])[0]
    if answer.nvmlReturn:
        raise nvml.NVMLError(answer.nvmlReturn)
    return ((Quantity.TEMPERATURE, (("sensor", "memory"),), answer.value.uiVal),)


def _clock(domain: str, number: int) -> Callable[[Any, Any], Values]:
    attributes = (("domain", domain),)
    return lambda nvml, handle: ((Quantity.CLOCK, attributes, nvml.nvmlDeviceGetClockInfo(handle, number) * 1_000_000),)


THROTTLE_REASONS: Final = (
    ("sw_power_cap", 0x04),
    ("hw_slowdown", 0x08),
    ("sw_thermal", 0x20),
    ("hw_thermal", 0x40),
    ("hw_power_brake", 0x80),
)
"""Those that slow a GPU down against its will; that it is idle, or was set to a clock, is no trouble."""


def _throttled(nvml: Any, handle: Any) -> Values:
    names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
    mask = _either(nvml, names, handle)
    return [(Quantity.THROTTLED, (("reason", name),), float(bool(mask & bit))) for name, bit in THROTTLE_REASONS]


def _errors(kind: str, number: int) -> Callable[[Any, Any], Values]:
    attributes = (("kind", kind),)
    return lambda nvml, handle: ((Quantity.ERRORS, attributes, nvml.nvmlDeviceGetTotalEccErrors(handle, number, 0)),)


def _process_memory(nvml: Any, handle: Any) -> Values:
    """Memory is None where the driver does not account for it (Windows)."""
    found = [(each.usedGpuMemory, each.pid) for each in nvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    largest = sorted((each for each in found if each[0] is not None), reverse=True)[:PROCESSES_MAX]
    return [(Quantity.PROCESS_MEMORY, (("pid", str(pid)),), used) for used, pid in largest]


def _either(nvml: Any, names: tuple[str, str], handle: Any, *arguments: int) -> int:
    """The answer of the second function where the driver, or pynvml, has not the first: they were renamed."""
    try:
        return int(getattr(nvml, names[0])(handle, *arguments))
    except Exception as error:
        if code_of(error) != FUNCTION_NOT_FOUND and not isinstance(error, AttributeError):
            raise
    return int(getattr(nvml, names[1])(handle, *arguments))


# -- since then --------------------------------------------------------------------------------------------------------

_MEMBERS: Final = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""Of the union in which a sample comes, by the number of its type."""


def _ring(number: int, scale: float) -> Callable[[Any, Any, int], Timed]:
    def read(nvml: Any, handle: Any, since_us: int) -> Timed:
        kind, samples = nvml.nvmlDeviceGetSamples(handle, number, since_us)
        member = _MEMBERS[kind]
        found = [(each.timeStamp, (), getattr(each.sampleValue, member) / scale) for each in samples]
        return sorted(each for each in found if each[0] > since_us)

    return read


def _process_utilization(nvml: Any, handle: Any, since_us: int) -> Timed:
    samples = nvml.nvmlDeviceGetProcessUtilization(handle, since_us)
    found: Timed = [(each.timeStamp, (("pid", str(each.pid)),), each.smUtil / 100) for each in samples]
    return sorted(each for each in found if each[0] > since_us)[-PROCESSES_MAX:]


def joined(samples: Timed, since_us: int, interval_us: int) -> Timed:
    """Samples that come faster than the interval, joined to their mean over time, at the time of the last of them.

    A sample describes the time since the one before, so the integral stays what it was. What is left at the end, less
    than an interval, is not returned: it comes again when the time of the last one returned is given as `since_us`.
    """
    enough_us = interval_us * JOINED_SHARE
    found: Timed = []
    area, begun_us = 0.0, since_us
    for time_us, attributes, value in samples:
        area += value * (time_us - since_us)
        since_us = time_us
        if time_us - begun_us >= enough_us:
            found.append((time_us, attributes, area / (time_us - begun_us)))
            area, begun_us = 0.0, time_us
    return found


POLLS: Final = (
    Poll(_energy, (Quantity.ENERGY,), Pace.FAST),
    Poll(_memory, (Quantity.MEMORY_USED,), Pace.FAST, of_instances=True),
    Poll(_temperature, (Quantity.TEMPERATURE,), Pace.SLOW),
    Poll(_memory_temperature, (Quantity.TEMPERATURE,), Pace.SLOW),
    Poll(_clock("graphics", 0), (Quantity.CLOCK,), Pace.SLOW),
    Poll(_clock("sm", 1), (Quantity.CLOCK,), Pace.SLOW),
    Poll(_clock("memory", 2), (Quantity.CLOCK,), Pace.SLOW),
    Poll(_throttled, (Quantity.THROTTLED,), Pace.SLOW),
    Poll(_process_memory, (Quantity.PROCESS_MEMORY,), Pace.SLOW, of_instances=True),
    Poll(_errors("corrected", 0), (Quantity.ERRORS,), Pace.RARE),
    Poll(_errors("uncorrected", 1), (Quantity.ERRORS,), Pace.RARE),
)
DRAINS: Final = (
    Drain(_ring(0, 1000.0), Quantity.POWER, Poll(_power, (Quantity.POWER,), Pace.FAST)),
    Drain(_ring(1, 100.0), Quantity.UTILIZATION, Poll(_utilization, (Quantity.UTILIZATION,), Pace.FAST)),
    Drain(
        _ring(2, 100.0),
        Quantity.MEMORY_UTILIZATION,
        Poll(_memory_utilization, (Quantity.MEMORY_UTILIZATION,), Pace.FAST),
    ),
    Drain(_ring(3, 100.0), Quantity.ENCODER_UTILIZATION, Poll(_encoder, (Quantity.ENCODER_UTILIZATION,), Pace.SLOW)),
    Drain(_ring(4, 100.0), Quantity.DECODER_UTILIZATION, Poll(_decoder, (Quantity.DECODER_UTILIZATION,), Pace.SLOW)),
    Drain(_process_utilization, Quantity.PROCESS_UTILIZATION, None),
)
