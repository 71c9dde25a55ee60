"""How others name what they measure of a GPU: the table that `ingest.py` and the receiver `dcgm` read.

One row is a metric's name. It says who sends it, which quantity it is, in which unit if the metric names none, and what
is odd about it. Known emitters and their traps:

    hw         the hardware conventions of OpenTelemetry: `hw.power` and `hw.energy` are a GPU's only with
               `hw.type=gpu`; `hw.gpu.utilization` has a series for each task, of which `general` counts.
    openlit    OpenLIT's collector: the same, with names of its own for power and energy. `hw.gpu.memory.utilization`
               is in no row: by the conventions it is used/limit, in OpenLIT's manual the memory controller's load.
    openlit_sdk  OpenLIT's Python SDK: percent and MiB without a unit; what could not be read is sent as 0. A board
               never draws 0 W and its driver always holds memory, so there 0 means missing; a utilization of 0 may
               be either and is taken as it is.
    genai      genai-otel-instrument: percent and MiB, by index only: the UUID is not told. Its energy is a sum over
               CPU, RAM and all GPUs, in kWh, and is not used.
    dcgm       NVIDIA's exporter, scraped: MiB, mJ, percent; numbers that mean "no value". It measures every 30 s and
               shows the same until then, so a sample is up to 30 s older than its time. A MIG instance has the UUID
               of its board and `GPU_I_ID`; power, energy and DEV_GPU_UTIL are the board's even there. Where pods share
               a GPU it shows the device's value for each of them, or what the pod uses: such copies have more labels.
    nvidia_smi nvidia_gpu_exporter, scraped: base units, a UUID without its prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otel_pipeline.gpu.quantities import Quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB: Final = 1024.0 * 1024.0


@dataclass(frozen=True, slots=True)
class Emitter:
    """Under which attribute keys a sender tells what a point is about; of several the first that is there counts."""

    name: str
    id_keys: tuple[str, ...]
    index_keys: tuple[str, ...]
    name_keys: tuple[str, ...]
    host_keys: tuple[str, ...] = ()
    """On the point. They beat the resource, which here is about whoever scraped."""
    instance_key: str = ""
    """Of the MIG instance, where the id is the board's."""
    parent_keys: tuple[str, ...] = ()
    zero_is_missing: bool = False
    age_max_ns: int = 0
    """How much older than their times its samples may be, if it does not say."""
    is_scraped: bool = False
    """The times are those of the scrapes, by the clock of whoever asked."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one metric measures."""

    emitter: Emitter
    quantity: Quantity | None
    """None: not a sample; it only tells about the device."""
    unit: str
    """If the metric has none."""
    rank: int = 0
    """Of several readings of one quantity of one GPU the one with the lowest rank is used."""
    memory: str = ""
    """Which part of the device's memory it is: limit, used, free or reserved."""
    of_board: bool = False
    """Of the whole board, also where a MIG instance is named."""
    needs_type: bool = False
    """Only points that say `hw.type=gpu`, or whose id is a GPU's."""


HW: Final = Emitter(
    "hw", ("hw.id",), ("gpu.index",), ("hw.name", "hw.model"), parent_keys=("hw.parent", "gpu.parent.uuid")
)
OPENLIT: Final = Emitter("openlit", ("hw.id",), ("gpu.index",), ("hw.name",), parent_keys=("gpu.parent.uuid",))
OPENLIT_SDK: Final = Emitter("openlit_sdk", ("gpu.uuid",), ("gpu.index",), ("gpu.name",), zero_is_missing=True)
GENAI: Final = Emitter("genai", (), ("gpu_id",), ("gpu_name",))
DCGM: Final = Emitter(
    "dcgm",
    ("UUID", "uuid"),
    ("gpu",),
    ("modelName",),
    ("Hostname", "hostname"),
    instance_key="GPU_I_ID",
    age_max_ns=30_000_000_000,
    is_scraped=True,
)
NVIDIA_SMI: Final = Emitter("nvidia_smi", ("uuid",), ("index",), ("name",), is_scraped=True)

READINGS: Final[Mapping[str, Reading]] = {
    "hw.gpu.utilization": Reading(HW, Quantity.UTILIZATION, "1"),
    "hw.gpu.memory.usage": Reading(HW, Quantity.MEMORY_USED, "By"),
    "hw.gpu.memory.limit": Reading(HW, None, "By", memory="limit"),
    "hw.status": Reading(HW, None, "1", needs_type=True),
    "hw.power": Reading(HW, Quantity.POWER, "W", needs_type=True),
    "hw.energy": Reading(HW, Quantity.ENERGY, "J", needs_type=True),
    "hw.gpu.power.draw": Reading(OPENLIT, Quantity.POWER, "W"),
    "hw.gpu.energy.consumed": Reading(OPENLIT, Quantity.ENERGY, "J"),
    "gpu.utilization": Reading(OPENLIT_SDK, Quantity.UTILIZATION, "%"),
    "gpu.memory.used": Reading(OPENLIT_SDK, Quantity.MEMORY_USED, "MiBy"),
    "gpu.memory.total": Reading(OPENLIT_SDK, None, "MiBy", memory="limit"),
    "gpu.power.draw": Reading(OPENLIT_SDK, Quantity.POWER, "W"),
    "gen_ai.gpu.utilization": Reading(GENAI, Quantity.UTILIZATION, "%"),
    "gen_ai.gpu.memory.used": Reading(GENAI, Quantity.MEMORY_USED, "MiBy"),
    "gen_ai.gpu.memory.total": Reading(GENAI, None, "MiBy", memory="limit"),
    "gen_ai.gpu.power": Reading(GENAI, Quantity.POWER, "W"),
    "DCGM_FI_DEV_GPU_UTIL": Reading(DCGM, Quantity.UTILIZATION, "%", of_board=True),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": Reading(DCGM, Quantity.UTILIZATION, "1", rank=1),
    "DCGM_FI_DEV_FB_USED": Reading(DCGM, Quantity.MEMORY_USED, "MiBy", memory="used"),
    "DCGM_FI_DEV_FB_FREE": Reading(DCGM, None, "MiBy", memory="free"),
    "DCGM_FI_DEV_FB_RESERVED": Reading(DCGM, None, "MiBy", memory="reserved"),
    "DCGM_FI_DEV_FB_TOTAL": Reading(DCGM, None, "MiBy", memory="limit"),
    "DCGM_FI_DEV_POWER_USAGE": Reading(DCGM, Quantity.POWER, "W", of_board=True),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": Reading(DCGM, Quantity.ENERGY, "mJ", of_board=True),
    "nvidia_smi_utilization_gpu_ratio": Reading(NVIDIA_SMI, Quantity.UTILIZATION, "1"),
    "nvidia_smi_memory_used_bytes": Reading(NVIDIA_SMI, Quantity.MEMORY_USED, "By"),
    "nvidia_smi_memory_total_bytes": Reading(NVIDIA_SMI, None, "By", memory="limit"),
    "nvidia_smi_power_draw_watts": Reading(NVIDIA_SMI, Quantity.POWER, "W"),
    "nvidia_smi_power_draw_average_watts": Reading(NVIDIA_SMI, Quantity.POWER, "W", rank=1),
    "nvidia_smi_power_draw_instant_watts": Reading(NVIDIA_SMI, Quantity.POWER, "W", rank=2),
    "nvidia_smi_energy_joules_total": Reading(NVIDIA_SMI, Quantity.ENERGY, "J"),
    "nvidia_smi_gpu_info": Reading(NVIDIA_SMI, None, "1"),
}

# -- units -------------------------------------------------------------------------------------------------------------

_FRACTIONS: Final = {"1": 1.0, "%": 0.01, "percent": 0.01, "ratio": 1.0}
_BYTES: Final = {
    **dict.fromkeys(("By", "B", "bytes"), 1.0),
    **dict.fromkeys(("KiBy", "KiB"), 1024.0),
    **dict.fromkeys(("MiBy", "MiB"), MIB),
    **dict.fromkeys(("GiBy", "GiB"), 1024.0 * MIB),
    **dict.fromkeys(("kBy", "kB", "KBy"), 1e3),
    **dict.fromkeys(("MBy", "MB"), 1e6),
    **dict.fromkeys(("GBy", "GB"), 1e9),
}
_WATTS: Final = {"W": 1.0, "watts": 1.0, "mW": 1e-3, "kW": 1e3}
_JOULES: Final = {"J": 1.0, "joules": 1.0, "mJ": 1e-3, "kJ": 1e3, "MJ": 1e6, "Wh": 3.6e3, "W.h": 3.6e3, "kWh": 3.6e6}
_UNITS: Final[Mapping[Quantity, Mapping[str, float]]] = {
    Quantity.UTILIZATION: _FRACTIONS,
    Quantity.MEMORY_USED: _BYTES,
    Quantity.POWER: _WATTS,
    Quantity.ENERGY: _JOULES,
}


def scale_of(reading: Reading, unit: str) -> float | None:
    """What a raw value is multiplied with to get the base unit. The metric's own unit beats the table; None: it is no
    unit of that quantity.
    """
    if reading.quantity is None and not reading.memory:
        return 1.0
    quantity = Quantity.MEMORY_USED if reading.quantity is None else reading.quantity
    return _UNITS[quantity].get(unit.strip() or reading.unit)


# -- values that are none ----------------------------------------------------------------------------------------------

BLANK_MIN: Final = 2.0**47
"""DCGM's blank floating-point numbers begin here, its blank 64-bit integers and NVML's "not available" far above. No
raw value comes near: as mJ it would be four years at 1 kW, as bytes 128 TiB.
"""
BLANK_32_MIN: Final = float(0x7FFFFFF0)
BLANK_32_MAX: Final = float(0x7FFFFFF3)
"""DCGM's blank 32-bit integers: blank, not found, not supported, not permitted. A counter may pass such a number: then
one sample is lost.
"""

PLAUSIBLE_MAX: Final[Mapping[Quantity, float]] = {
    Quantity.UTILIZATION: 1.0,
    Quantity.MEMORY_USED: BLANK_MIN,
    Quantity.POWER: 1e5,
    Quantity.ENERGY: BLANK_MIN,
}
"""The largest value in the base unit that is believed. 100 kW is a rack; -1 in an unsigned number of mW is 4,295 kW."""
