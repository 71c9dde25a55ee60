"""Critical errors that the driver reports as events, by their Xid code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from otel_pipeline.nvml.devices import text

XID_CRITICAL: Final = 0x8
EVENTS_MAX: Final = 32
"""Events of one reading: a GPU that falls off the bus reports a few."""


class XidEvents:
    """Listens to devices; where the driver has no events it is silent."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._watched: set[str] = set()
        self._uuids: dict[int, str] = {}
        try:
            self._set: Any = nvml.nvmlEventSetCreate()
        except Exception:  # noqa: BLE001  no events then
            self._set = None

    def watch(self, handle: Any, uuid: str) -> None:
        """Listen to this device, too."""
        if self._set is None or uuid in self._watched:
            return
        try:
            self._nvml.nvmlDeviceRegisterEvents(handle, XID_CRITICAL, self._set)
        except Exception:  # noqa: BLE001  this device has none
            return
        self._watched.add(uuid)

    def read(self) -> Iterator[tuple[str, int]]:
        """(UUID, Xid) of what happened since the last call; it does not wait."""
        for _ in range(EVENTS_MAX if self._watched else 0):
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._set, 0)
                uuid = text(self._nvml.nvmlDeviceGetUUID(event.device))
            except Exception:  # noqa: BLE001  a timeout: no more
                return
            if event.eventType & XID_CRITICAL:
                yield uuid, int(event.eventData)

    def close(self) -> None:
        """Listen no more."""
        if self._set is not None:
            try:
                self._nvml.nvmlEventSetFree(self._set)
            except Exception:  # noqa: BLE001  the library goes anyway
                self._watched.clear()
            self._set = None
        self._watched.clear()
