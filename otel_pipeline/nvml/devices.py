"""Which devices NVML shows: GPUs, and the instances of those that are split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from otel_pipeline.nvml.codes import Meaning, meaning_of, name_of, reason_of
from otel_pipeline.nvml.samples import Device, Failure

GPUS_MAX: Final = 64
"""GPUs of one machine."""
INSTANCES_MAX: Final = 16
"""Instances of one GPU; NVIDIA splits one in seven at most."""
TEXT_MAX: Final = 128
"""Characters of a name."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A device and the handle by which NVML knows it."""

    device: Device
    handle: Any


def shown(nvml: Any, takes: Callable[[str], bool], known: Mapping[int, str]) -> tuple[list[Shown], list[Failure]]:
    """The devices whose UUID is taken, and those that do not answer; `known` has the UUIDs that GPUs had before, by
    index. Raises what makes the whole library useless.
    """
    driver = text(_told(nvml.nvmlSystemGetDriverVersion))
    found: list[Shown] = []
    silent: list[tuple[int, str, Exception]] = []
    for index in range(min(int(nvml.nvmlDeviceGetCount()), GPUS_MAX)):
        uuid = ""
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = text(nvml.nvmlDeviceGetUUID(handle))
            if takes(uuid):
                one = Shown(_described(nvml, handle, Device(uuid, index, driver_version=driver)), handle)
                found += [one, *_instances(nvml, one)]
        except Exception as error:
            if meaning_of(error) is Meaning.LIBRARY:
                raise
            silent.append((index, uuid, error))
    failures = []
    answering = {one.device.uuid for one in found}
    for index, told, why in silent:
        uuid = told or known.get(index, "")
        if uuid in answering:
            uuid = ""  # the indices have moved: it is another one
        if uuid and not takes(uuid):
            continue
        failures.append(Failure(name_of(why), reason_of(why), uuid or f"index {index}"))
        if uuid:
            found.append(Shown(Device(uuid, index, driver_version=driver, failed=True), None))
    return found, failures


def text(value: object) -> str:
    """A text as str: pynvml of some versions answers in bytes. None is empty."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value)[:TEXT_MAX] if value is not None else ""


def _described(nvml: Any, handle: Any, device: Device) -> Device:
    memory = _told(nvml.nvmlDeviceGetMemoryInfo, handle)
    return replace(
        device,
        model=text(_told(nvml.nvmlDeviceGetName, handle)),
        serial=text(_told(nvml.nvmlDeviceGetSerial, handle)),
        memory_limit_bytes=int(memory.total) if memory is not None and 0 < memory.total < 2**62 else None,
    )


def _instances(nvml: Any, gpu: Shown) -> Iterator[Shown]:
    mode = _told(nvml.nvmlDeviceGetMigMode, gpu.handle)
    if not mode or not mode[0]:
        return
    for index in range(min(int(_told(nvml.nvmlDeviceGetMaxMigDeviceCount, gpu.handle) or 0), INSTANCES_MAX)):
        handle = _told(nvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu.handle, index)
        uuid = text(_told(nvml.nvmlDeviceGetUUID, handle)) if handle is not None else ""
        if uuid:
            ids = (_told(nvml.nvmlDeviceGetGpuInstanceId, handle), _told(nvml.nvmlDeviceGetComputeInstanceId, handle))
            mig_id = "/".join(str(each) for each in ids) if None not in ids else ""
            device = Device(uuid, index, driver_version=gpu.device.driver_version, parent=gpu.device.uuid)
            yield Shown(_described(nvml, handle, replace(device, mig_id=mig_id)), handle)


def _told(function: Callable[..., Any], *arguments: Any) -> Any:
    """What it answers, or None where the driver does not tell. Raises what concerns the whole device or library."""
    try:
        return function(*arguments)
    except Exception as error:
        if meaning_of(error) in (Meaning.DEVICE, Meaning.LIBRARY):
            raise
        return None
