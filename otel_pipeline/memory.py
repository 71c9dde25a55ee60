"""The memory limit: looks at the memory in use now and then, and lets the door say "later" above the limit.

What counts is anonymous memory. Pages of the outbox's file are resident, too, but the kernel takes them back when it
needs them; were they counted, a backend that is down would close the door long before the outbox is full.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from otel_pipeline.limits import MALLOC_KEPT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


MIB: Final = 1024 * 1024
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
"""Numbers of `mallopt` in glibc's malloc.h."""


class Limiter(Protocol):
    """The settings of a `memory_limiter`; the limits have the Collector's names."""

    @property
    def check_interval(self) -> float:
        """Seconds between two readings."""


class MemoryWatch:
    """Answers whether memory is short, from a reading that is at most `interval_s` old."""

    def __init__(
        self,
        limit_bytes: int | None,
        interval_s: float,
        read: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._interval_s = interval_s
        self._read = read or anonymous_bytes
        self._clock = clock
        self._next_s = 0.0
        self._short = False

    def short(self) -> bool:
        """Whether to refuse new requests."""
        if self._limit_bytes is None:
            return False
        now_s = self._clock()
        if now_s >= self._next_s:
            self._next_s = now_s + self._interval_s
            self._short = self._read() > self._limit_bytes
        return self._short

    @classmethod
    def from_settings(cls, limiters: Sequence[Limiter]) -> MemoryWatch:
        """The strictest of the configured `memory_limiter`s: its soft limit (limit less spike) closes the door."""
        limits = [(_soft_limit(one), one.check_interval) for one in limiters]
        if not limits:
            return cls(None, 0.0)
        limit, interval_s = min(limits)
        return cls(limit, interval_s)


def _soft_limit(config: object) -> int:
    """In bytes; without a spike limit a fifth of the limit, as in the Collector."""
    limit = getattr(config, "limit_mib", 0) * MIB or total_bytes() * getattr(config, "limit_percentage", 0) // 100
    spike = (
        getattr(config, "spike_limit_mib", 0) * MIB
        or total_bytes() * getattr(config, "spike_limit_percentage", 0) // 100
        or limit // 5
    )
    return limit - spike


def anonymous_bytes() -> int:
    """Resident memory of this process that no file stands behind."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - read again and again
        for line in file:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status does not name RssAnon")


def total_bytes() -> int:
    """What this process may use: the cgroup's limit if there is one, else the machine's memory."""
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(name)
        if path.exists() and (text := path.read_text().strip()).isdigit() and int(text) < 1 << 60:
            return int(text)
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo does not name MemTotal")


def keep_freed_memory() -> None:
    """Let glibc keep some MiB of freed memory instead of giving back and faulting in the pages of every batch.

    A batch of 1 MiB takes several buffers of that size. By default each comes from the kernel and goes back to it, page
    by page: that cost half of all processing. Another C library has no `mallopt`; then nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, MALLOC_KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, MALLOC_KEPT_BYTES // 2)
        mallopt(M_ARENA_MAX, 2)  # each arena keeps that much, and by default there may be eight a core
