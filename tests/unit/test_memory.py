"""The memory limit closes the door; what a file stands behind does not count."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline import memory
from otel_pipeline.memory import MIB, MemoryWatch, anonymous_bytes, total_bytes
from otel_pipeline.processors.memory_limiter import MemoryLimiterSettings
from otel_pipeline.stats import rss_bytes

if TYPE_CHECKING:
    from collections.abc import Callable


class Readings:
    """A clock and a memory that the test moves."""

    def __init__(self) -> None:
        self.now_s = 50.0
        self.used = 0
        self.reads = 0

    def read(self) -> int:
        self.reads += 1
        return self.used

    def watch(self, limit: int | None, interval_s: float = 1.0) -> MemoryWatch:
        return MemoryWatch(limit, interval_s, self.read, lambda: self.now_s)


def limiter(**written: Any) -> Any:
    """A configured `memory_limiter`, as far as the watch looks at it."""
    return MemoryLimiterSettings.Config.model_validate(written)


def test_memory_is_short_above_the_limit_only() -> None:
    readings = Readings()
    watch = readings.watch(100, interval_s=0.0)
    for used, short in ((100, False), (101, True), (99, False)):
        readings.used = used
        assert watch.short() is short


def test_memory_is_read_once_an_interval() -> None:
    readings = Readings()
    watch = readings.watch(100, interval_s=2.0)
    assert not watch.short()
    readings.used = 200
    assert not watch.short()
    readings.now_s += 2.0
    assert watch.short()
    assert readings.reads == 2


def test_without_a_limiter_memory_is_never_short_nor_read() -> None:
    readings = Readings()
    assert not readings.watch(None).short()
    assert readings.reads == 0
    assert not MemoryWatch.from_settings([]).short()


@pytest.mark.parametrize(
    ("written", "soft_mib"),
    [
        ([{"limit_mib": 500}], 400),
        ([{"limit_mib": 500, "spike_limit_mib": 200}], 300),
        ([{"limit_percentage": 50}], 400),
        ([{"limit_percentage": 50, "spike_limit_percentage": 25}], 250),
        ([{"limit_mib": 500}, {"limit_mib": 100}], 80),
    ],
)
def test_the_door_closes_at_the_strictest_soft_limit(
    monkeypatch: pytest.MonkeyPatch, written: list[dict[str, int]], soft_mib: int
) -> None:
    readings = Readings()
    monkeypatch.setattr(memory, "total_bytes", lambda: 1000 * MIB)
    monkeypatch.setattr(memory, "anonymous_bytes", readings.read)
    readings.used = soft_mib * MIB
    assert not MemoryWatch.from_settings([limiter(**one) for one in written]).short()
    readings.used += 1
    assert MemoryWatch.from_settings([limiter(**one) for one in written]).short()


def test_pages_of_a_mapped_file_do_not_count(tmp_path: Path) -> None:
    size = 64 * MIB
    path = tmp_path / "outbox"
    path.write_bytes(bytes(size))
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as mapped:
        resident, anonymous = rss_bytes(), anonymous_bytes()
        assert sum(mapped[at] for at in range(0, size, mmap.PAGESIZE)) == 0
        assert rss_bytes() - resident > 48 * MIB
        assert anonymous_bytes() - anonymous < 16 * MIB


def test_memory_of_our_own_counts() -> None:
    before = anonymous_bytes()
    held = b"x" * (64 * MIB)
    assert anonymous_bytes() - before > 48 * MIB
    del held


def files(contents: dict[str, str]) -> Callable[[str], Path]:
    """Paths of which these exist and no others."""

    class Fake:
        def __init__(self, name: str) -> None:
            self.name = name

        def exists(self) -> bool:
            return self.name in contents

        def read_text(self) -> str:
            return contents[self.name]

    return Fake  # type: ignore[return-value]


V2, V1, MEMINFO = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/proc/meminfo"


@pytest.mark.parametrize(
    ("contents", "total"),
    [
        ({V2: "1048576\n", MEMINFO: "MemTotal: 4096 kB\n"}, 1048576),
        ({V2: "max\n", MEMINFO: "MemFree: 1 kB\nMemTotal: 4096 kB\n"}, 4096 * 1024),
        ({V1: "2097152\n", MEMINFO: "MemTotal: 4096 kB\n"}, 2097152),
        ({V1: "9223372036854771712\n", MEMINFO: "MemTotal: 4096 kB\n"}, 4096 * 1024),
    ],
)
def test_the_containers_limit_counts_else_the_machines_memory(
    monkeypatch: pytest.MonkeyPatch, contents: dict[str, str], total: int
) -> None:
    monkeypatch.setattr(memory, "Path", files(contents))
    assert total_bytes() == total


def test_a_machine_that_hides_its_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "Path", files({MEMINFO: "MemFree: 1 kB\n"}))
    with pytest.raises(OSError, match="MemTotal"):
        total_bytes()


def test_freed_memory_is_kept_for_the_next_batch() -> None:
    """Page faults of buffers of 1 MiB that are taken and freed again and again, in a process of its own."""
    code = """
import resource, sys
from otel_pipeline.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def batches(count):
    for _ in range(count):
        joined = b"x" * (1 << 20)
        spliced = bytearray(1 << 20)
        copy = bytes(spliced)
        del joined, spliced, copy
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
batches(5)
before = faults()
batches(50)
print(faults() - before)
"""

    def faults(mode: str) -> int:
        return int(subprocess.run([sys.executable, "-c", code, mode], capture_output=True, check=True).stdout)

    assert faults("kept") < faults("default") / 10
