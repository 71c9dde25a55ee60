"""The newest entries of the outbox in memory: an exporter that keeps up gets them here and never touches the file."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from otel_pipeline.outbox_state import Chunk, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable


class Recent:
    """The last entries of each stream, consecutive, all together at most `bytes_max`. The outbox's lock guards it."""

    def __init__(self, streams: Iterable[str], bytes_max: int) -> None:
        self._streams: dict[str, deque[tuple[Entry, bytes]]] = {name: deque() for name in streams}
        self._bytes_max = bytes_max
        self._bytes = 0

    def add(self, stream: str, entry: Entry, payload: bytes) -> None:
        """Remember the newest entry; the oldest ones of its stream give way, and it itself if there is no room."""
        line = self._streams[stream]
        self._bytes += len(payload)
        line.append((entry, payload))
        while line and self._bytes > self._bytes_max:
            self._bytes -= len(line.popleft()[1])

    def forget(self, stream: str, end: int) -> None:
        """Forget the entries before sequence number `end`."""
        line = self._streams[stream]
        while line and line[0][0].sequence < end:
            self._bytes -= len(line.popleft()[1])

    def read(self, stream: str, start: int, bytes_max: int, entries_max: int) -> Chunk | None:
        """The entries from `start` on, as the outbox reads them; None if the first of them is not here."""
        line = self._streams[stream]
        if not line or not line[0][0].sequence <= start <= line[-1][0].sequence:
            return None
        entries: list[Entry] = []
        parts: list[bytes] = []
        size = 0
        for index in range(start - line[0][0].sequence, len(line)):
            entry, payload = line[index]
            size += len(payload)
            if entries and (size > bytes_max or len(entries) == entries_max):
                break
            entries.append(entry)
            parts.append(payload)
        return Chunk(entries, parts[0] if len(parts) == 1 else b"".join(parts))
