"""A reading as metrics by the hardware conventions of OpenTelemetry. Both ways out use it: the gateway's bytes and the
worker's SDK.

    hw.gpu.utilization             1        hw.gpu.task: general, encoder, decoder
    hw.gpu.memory.usage            By
    hw.gpu.memory.limit            By       with all that describes the device, gpu.index too
    hw.gpu.memory.utilization      1        usage / limit
    hw.energy                      J        counter since the driver was loaded
    hw.power                       W
    hw.temperature                 Cel      hw.sensor_location: gpu, memory
    hw.errors                      {error}  error.type: corrected, uncorrected (memory, since the driver was loaded)
    hw.status                      1        hw.state: ok, failed; with all that describes the device

and what the conventions do not have:

    hw.gpu.memory_controller.utilization  1   part of the time in which device memory was read or written
    hw.gpu.clock.frequency         Hz       hw.gpu.clock.domain: graphics, sm, memory
    hw.gpu.throttled               -        0 or 1; hw.gpu.throttle.reason
    hw.gpu.xid                     -        code of a critical error, at its time
    process.gpu.memory.usage       By       process.pid (of the host)
    process.gpu.utilization        1        process.pid
    otel_pipeline.gpu.available    -        0: no GPU can be read; why is in the next
    otel_pipeline.gpu.failure      -        always 1; error.type: NVML's name of the error, hw.id if it is of one device

Every point has hw.id, the UUID of the GPU or MIG instance, and hw.name; those of instances have hw.parent, the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from otel_pipeline.nvml.samples import Attributes, Device, Quantity, Reading, Series

SCOPE: Final = "otel_pipeline.nvml"
SENT_TIME: Final = "otel_pipeline.sent_time_unix_nano"
"""Resource attribute, int: the sampler's own clock when the request was made. The gateway tells from it how far the
clock of the host is off.
"""
Value: TypeAlias = "str | int"
Described: TypeAlias = tuple[tuple[str, Value], ...]


class Kind(Enum):
    """What a metric's values are."""

    GAUGE = "gauge"
    UP_DOWN = "up_down"
    """A sum that may fall."""
    COUNTER = "counter"
    """A sum since a time, that does not fall."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric."""

    name: str
    unit: str
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Points:
    """The points of one metric with the same attributes, in the order of time."""

    attributes: Described
    times_unix_nano: Sequence[int]
    values: Sequence[float]
    started_unix_nano: int = 0


UTILIZATION: Final = Instrument("hw.gpu.utilization", "1", Kind.GAUGE, "Part of the time in which the GPU was busy.")
USAGE: Final = Instrument("hw.gpu.memory.usage", "By", Kind.UP_DOWN, "Device memory in use.")
LIMIT: Final = Instrument("hw.gpu.memory.limit", "By", Kind.UP_DOWN, "Device memory there is.")
FILL: Final = Instrument("hw.gpu.memory.utilization", "1", Kind.GAUGE, "Part of the device memory that is in use.")
STATUS: Final = Instrument("hw.status", "1", Kind.UP_DOWN, "1 for the state that the device is in, 0 for the other.")
AVAILABLE: Final = Instrument("otel_pipeline.gpu.available", "", Kind.GAUGE, "0 if no GPU can be read.")
FAILURE: Final = Instrument("otel_pipeline.gpu.failure", "", Kind.GAUGE, "Why GPUs, or one of them, cannot be read.")
GPU: Final = ("hw.type", "gpu")


@dataclass(frozen=True, slots=True)
class _Row:
    """How a quantity is told: `fixed` are attributes of all its points, `keys` rename those of its series."""

    instrument: Instrument
    fixed: Described = ()
    keys: tuple[tuple[str, str], ...] = ()


def _gauge(name: str, unit: str, text: str) -> Instrument:
    return Instrument(name, unit, Kind.GAUGE, text)


_ROWS: Final = {
    Quantity.UTILIZATION: _Row(UTILIZATION, (("hw.gpu.task", "general"),)),
    Quantity.ENCODER_UTILIZATION: _Row(UTILIZATION, (("hw.gpu.task", "encoder"),)),
    Quantity.DECODER_UTILIZATION: _Row(UTILIZATION, (("hw.gpu.task", "decoder"),)),
    Quantity.MEMORY_UTILIZATION: _Row(
        _gauge("hw.gpu.memory_controller.utilization", "1", "Part of the time in which device memory was accessed.")
    ),
    Quantity.MEMORY_USED: _Row(USAGE),
    Quantity.POWER: _Row(_gauge("hw.power", "W", "Power that the board draws."), (GPU,)),
    Quantity.ENERGY: _Row(
        Instrument("hw.energy", "J", Kind.COUNTER, "Energy that the board has used since the driver was loaded."),
        (GPU,),
    ),
    Quantity.TEMPERATURE: _Row(
        _gauge("hw.temperature", "Cel", "Temperature of the GPU or its memory."),
        (GPU,),
        (("sensor", "hw.sensor_location"),),
    ),
    Quantity.CLOCK: _Row(
        _gauge("hw.gpu.clock.frequency", "Hz", "Frequency of a clock."), (), (("domain", "hw.gpu.clock.domain"),)
    ),
    Quantity.THROTTLED: _Row(
        _gauge("hw.gpu.throttled", "", "1 while the clocks are held down."),
        (),
        (("reason", "hw.gpu.throttle.reason"),),
    ),
    Quantity.ERRORS: _Row(
        Instrument("hw.errors", "{error}", Kind.COUNTER, "Memory errors since the driver was loaded."),
        (GPU,),
        (("kind", "error.type"),),
    ),
    Quantity.XID: _Row(_gauge("hw.gpu.xid", "", "Code of a critical error that the driver reported.")),
    Quantity.PROCESS_MEMORY: _Row(
        Instrument("process.gpu.memory.usage", "By", Kind.UP_DOWN, "Device memory that a process holds."),
        (),
        (("pid", "process.pid"),),
    ),
    Quantity.PROCESS_UTILIZATION: _Row(
        _gauge("process.gpu.utilization", "1", "Part of the time in which a kernel of the process ran."),
        (),
        (("pid", "process.pid"),),
    ),
}


def metrics(reading: Reading) -> dict[Instrument, list[Points]]:
    """All metrics of a reading, none without points."""
    found: dict[Instrument, list[Points]] = {}
    devices = {device.uuid: device for device in reading.devices}
    for series in reading.series:
        device = devices.get(series.device) or Device(series.device, 0)
        row = _ROWS[series.quantity]
        attributes = (*_identity(device), *row.fixed, *_renamed(series.attributes, row.keys))
        points = Points(attributes, series.times_unix_nano, series.values, series.started_unix_nano)
        found.setdefault(row.instrument, []).append(points)
        if series.quantity is Quantity.MEMORY_USED and device.memory_limit_bytes:
            found.setdefault(FILL, []).append(_fill(series, device.memory_limit_bytes, attributes))
    for instrument, points in _states(reading):
        found.setdefault(instrument, []).append(points)
    return found


def _identity(device: Device) -> Described:
    name = (("hw.name", device.model),) if device.model else ()
    parent = (("hw.parent", device.parent),) if device.parent else ()
    return (("hw.id", device.uuid), *name, *parent)


def _description(device: Device) -> Described:
    told: Described = (
        ("hw.model", device.model),
        ("hw.vendor", device.vendor),
        ("hw.serial_number", device.serial),
        ("hw.driver_version", device.driver_version),
        ("gpu.mig.id", device.mig_id),
    )
    index = () if device.parent else (("gpu.index", device.index),)
    return (*_identity(device), *((key, value) for key, value in told if value), GPU, *index)


def _renamed(attributes: Attributes, keys: tuple[tuple[str, str], ...]) -> Described:
    names = dict(keys)
    return tuple((names[key], int(value) if key == "pid" else value) for key, value in attributes)


def _fill(series: Series, limit_bytes: int, attributes: Described) -> Points:
    """Of the last value only: the others follow from usage and limit."""
    return Points(attributes, series.times_unix_nano[-1:], [series.values[-1] / limit_bytes])


def _states(reading: Reading) -> Iterator[tuple[Instrument, Points]]:
    """What holds at the moment of the reading."""
    now = (reading.taken_unix_nano,)
    yield AVAILABLE, Points((), now, (int(reading.available),))
    for failure in reading.failures:
        whose = (("hw.id", failure.device),) if failure.device else ()
        yield FAILURE, Points((("error.type", failure.code), *whose), now, (1,))
    for device in reading.devices:
        description = _description(device)
        for state in ("ok", "failed"):
            is_in = (state == "failed") == device.failed
            yield STATUS, Points((*description, ("hw.state", state)), now, (int(is_in),))
        if device.memory_limit_bytes:
            yield LIMIT, Points(description, now, (device.memory_limit_bytes,))
