"""Which GPUs a span ran on, from what it and its resource say and from what is known of the host. Pure.

In this order:
1. the span's own attributes: `otel_pipeline.gpu.ids`, `hw.id`, `gpu.uuid`, one or several;
2. the host's only GPU;
3. what the process was given: CUDA_VISIBLE_DEVICES, NVIDIA_VISIBLE_DEVICES, `otel_pipeline.gpu.ids` of the resource;
4. otherwise it is ambiguous: a guess would charge somebody else's work.
Being shown all GPUs of a host says nothing, unless CUDA_VISIBLE_DEVICES lists them: that somebody wrote.
An index means nothing by itself. It is followed where the host's GPUs have indices and CUDA counts as the driver does:
with CUDA_DEVICE_ORDER=PCI_BUS_ID, or where all GPUs are the same model.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from otel_pipeline.limits import GPU_ID_CHARS_MAX, GPU_SPAN_GPUS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otel_pipeline.gpu.timeline import Device

IDS: Final = "otel_pipeline.gpu.ids"
SPAN_KEYS: Final = (IDS, "hw.id", "gpu.uuid")
"""Attributes of a span that name its GPUs, the best first."""
_ENVIRONMENT: Final = "process.environment_variable."
CUDA: Final = "CUDA_VISIBLE_DEVICES"
NVIDIA: Final = "NVIDIA_VISIBLE_DEVICES"
ORDER: Final = "CUDA_DEVICE_ORDER"
RESOURCE_KEYS: Final = (IDS, *(prefix + name for name in (CUDA, NVIDIA, ORDER) for prefix in ("", _ENVIRONMENT)))
"""Attributes of a resource that are asked."""
_WHOLE: Final = ("GPU-", "MIG-")
_NOTHING: Final = {"", "none", "void", "-1", "NoDevFiles"}


class How(Enum):
    """What the answer rests on."""

    SPAN = "span"
    ONLY_GPU = "only_gpu"
    VISIBLE = "visible"
    AMBIGUOUS = "ambiguous"
    NONE = "none"
    """Nothing is known of any GPU of this host, or the process may use none."""


@dataclass(frozen=True, slots=True)
class Found:
    """The GPUs of a span."""

    gpus: tuple[str, ...]
    how: How


def resolve(span: Mapping[str, object], resource: Mapping[str, object], devices: Sequence[Device]) -> Found:
    """The GPUs of spans with these attributes, of a host with these GPUs (`Timelines.devices`).

    Attributes are text, an int, or a sequence of them; text may hold several ids behind commas.
    """
    for key in SPAN_KEYS:
        named = _entries(span.get(key))
        if named:
            return Found(_unique(_identified(entry, devices) for entry in named), How.SPAN)
    chosen = _setting(resource, CUDA)
    granted = _setting(resource, NVIDIA)
    if any(setting in _NOTHING for setting in (chosen, granted) if setting is not None):
        return Found((), How.NONE)
    if len(devices) == 1:
        return Found((devices[0].uuid,), How.ONLY_GPU)
    shown = _granted(_entries(granted), devices)
    if chosen is not None:
        gpus = _chosen(_entries(chosen), shown, _counts_alike(resource, shown))
        return Found(gpus, How.VISIBLE) if gpus else Found((), How.AMBIGUOUS)
    own = _unique(_identified(entry, devices) for entry in _entries(resource.get(IDS)))
    for gpus in (_unique(device.uuid for device in shown), own):
        if gpus and (len(gpus) == 1 or len(gpus) < len(devices)):
            return Found(gpus, How.VISIBLE)
    return Found((), How.AMBIGUOUS if devices or own else How.NONE)


def _entries(value: object) -> list[str]:
    if isinstance(value, str):
        parts: list[object] = list(value.split(","))
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        parts = [] if value is None or isinstance(value, bool) else [value]
    texts = [str(part).strip() for part in parts[:GPU_SPAN_GPUS_MAX] if isinstance(part, str | int)]
    return [text for text in texts if 0 < len(text) <= GPU_ID_CHARS_MAX]


def _setting(resource: Mapping[str, object], name: str) -> str | None:
    for key in (name, _ENVIRONMENT + name):
        value = resource.get(key)
        if isinstance(value, str | int):
            return str(value).strip()
        if isinstance(value, list | tuple):
            return ",".join(map(str, value))
    return None


def _identified(entry: str, devices: Sequence[Device]) -> str:
    """The UUID that an id means: itself, the one that begins so, or that of an index; else it stays as it is."""
    if entry.isdecimal():
        found = [device.uuid for device in devices if device.index == int(entry)]
    else:
        found = [device.uuid for device in devices if device.uuid == entry] or [
            device.uuid for device in devices if entry.startswith(_WHOLE) and device.uuid.startswith(entry)
        ]
    return found[0] if len(found) == 1 else entry


def _granted(entries: list[str], devices: Sequence[Device]) -> list[Device]:
    """Those that the container was given, as the driver orders them; all if that says nothing."""
    names = {_identified(entry, devices) for entry in entries}
    return [device for device in devices if device.uuid in names] or list(devices)


def _chosen(entries: list[str], shown: list[Device], counts_alike: bool) -> tuple[str, ...]:  # noqa: FBT001
    """As CUDA reads its list: up to the first entry that names nothing. Empty if an index cannot be followed."""
    found: list[str] = []
    for entry in entries:
        if entry.isdecimal():
            if not counts_alike or int(entry) >= len(shown):
                return ()
            found.append(shown[int(entry)].uuid)
        elif entry.startswith(_WHOLE):
            found.append(_identified(entry, shown))
        else:
            break
    return _unique(found)


def _counts_alike(resource: Mapping[str, object], shown: list[Device]) -> bool:
    """Whether CUDA's indices are places in this list."""
    if any(device.index is None for device in shown):
        return False
    names = {device.name for device in shown}
    return _setting(resource, ORDER) == "PCI_BUS_ID" or (len(names) == 1 and "" not in names)


def _unique(gpus: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(gpus))
