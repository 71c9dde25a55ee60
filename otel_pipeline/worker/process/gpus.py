"""Which GPUs this process may use, by UUID: the machine's, less what CUDA_VISIBLE_DEVICES and the container hide.

CUDA numbers GPUs by their speed unless CUDA_DEVICE_ORDER says PCI_BUS_ID, NVML and the driver's files always by PCI
bus. Where the two may differ, indices say nothing and no id is given.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

NVML_TIMEOUT_S: Final = 1.0
"""A driver in trouble may never answer; the program's start waits this long for it."""
GPUS_MAX: Final = 64
"""GPUs of one machine, MIG instances not counted."""
_WHOLE: Final = ("GPU-", "MIG-")
_UUID_LENGTH: Final = len("GPU-00000000-0000-0000-0000-000000000000")


@dataclass(frozen=True, slots=True)
class Gpu:
    uuid: str
    name: str


def visible(environment: Mapping[str, str], root: Path) -> tuple[str, ...]:
    """UUIDs in the order in which CUDA numbers them, as far as that is known."""
    granted = environment.get("NVIDIA_VISIBLE_DEVICES", "all").strip()
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if granted in {"none", "void"} or (chosen is not None and not _entries(chosen)):
        return ()
    present = _within(installed(root), _entries(granted))
    if chosen is None:
        return tuple(gpu.uuid for gpu in present)
    return _chosen(_entries(chosen), present, environment.get("CUDA_DEVICE_ORDER", "").strip() == "PCI_BUS_ID")


def installed(root: Path) -> tuple[Gpu, ...]:
    """The GPUs that the driver shows here, in the order of the PCI bus: from NVML, else from the driver's files."""
    return _in_time(_from_nvml, NVML_TIMEOUT_S) or _from_files(root)


def _entries(text: str) -> list[str]:
    """The list as CUDA reads it: up to the first entry that names nothing."""
    found: list[str] = []
    for entry in (each.strip() for each in text.split(",")[:GPUS_MAX]):
        if not entry or entry.startswith("-") or (entry not in {"all"} and not _names(entry)):
            break
        found.append(entry)
    return found


def _names(entry: str) -> bool:
    return entry.isdecimal() or entry.startswith(_WHOLE)


def _within(present: tuple[Gpu, ...], granted: list[str]) -> tuple[Gpu, ...]:
    """Those that the container was given by UUID. Given by index, those of the host are meant: says nothing here."""
    uuids = [entry for entry in granted if entry.startswith(_WHOLE)]
    if not uuids:
        return present
    if not present:
        return tuple(Gpu(uuid, "") for uuid in uuids if len(uuid) >= _UUID_LENGTH)
    return tuple(gpu for gpu in present if any(gpu.uuid.startswith(uuid) for uuid in uuids)) or present


def _chosen(entries: list[str], present: tuple[Gpu, ...], by_bus: bool) -> tuple[str, ...]:  # noqa: FBT001
    found: list[str] = []
    alike = by_bus or len({gpu.name for gpu in present}) <= 1 or len(set(entries)) == len(present)
    for entry in entries:
        uuid = _resolve(entry, present, alike)
        if uuid is None:
            break
        found.append(uuid)
    return tuple(dict.fromkeys(found))


def _resolve(entry: str, present: tuple[Gpu, ...], ordered: bool) -> str | None:  # noqa: FBT001
    if entry.isdecimal():
        return present[int(entry)].uuid if ordered and int(entry) < len(present) else None
    if entry.startswith("MIG-"):
        return entry
    matching = [gpu.uuid for gpu in present if gpu.uuid.startswith(entry)]
    if len(matching) == 1:
        return matching[0]
    return entry if not present and len(entry) >= _UUID_LENGTH else None


def _from_files(root: Path) -> tuple[Gpu, ...]:
    found = []
    for file in sorted(root.glob("proc/driver/nvidia/gpus/*/information"))[:GPUS_MAX]:
        pairs = (line.partition(":") for line in file.read_text().splitlines())
        fields = {key.strip(): value.strip() for key, _, value in pairs}
        uuid = fields.get("GPU UUID", "")
        if uuid.startswith("GPU-") and "?" not in uuid:
            found.append(Gpu(uuid, fields.get("Model", "")))
    return tuple(found)


def _from_nvml() -> tuple[Gpu, ...]:
    if importlib.util.find_spec("pynvml") is None:
        return ()
    pynvml: Any = importlib.import_module("pynvml")
    pynvml.nvmlInit()
    try:
        count = min(int(pynvml.nvmlDeviceGetCount()), GPUS_MAX)
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        uuids = [_str(pynvml.nvmlDeviceGetUUID(each)) for each in handles]
        return tuple(map(Gpu, uuids, [_str(pynvml.nvmlDeviceGetName(each)) for each in handles]))
    finally:
        pynvml.nvmlShutdown()


def _str(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _in_time(find: Any, timeout_s: float) -> tuple[Gpu, ...]:
    """What it finds, or nothing if it fails or takes too long; then its thread is left behind, as a daemon."""
    found: list[tuple[Gpu, ...]] = []

    def run() -> None:
        try:
            found.append(find())
        except Exception:  # noqa: BLE001  no driver, no library, a library of another name
            return

    thread = threading.Thread(target=run, name="otel-pipeline-gpus", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return found[0] if found else ()
