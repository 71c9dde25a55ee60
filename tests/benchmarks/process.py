"""Child processes: start them, read what they cost from /proc (Linux), end them by their own pid."""

from __future__ import annotations

import itertools
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

STOP_TIMEOUT_S = 15.0
POLL_S = 0.02
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Field numbers of /proc/PID/stat counted from the state, which follows the parenthesised name.
_PPID, _UTIME, _STIME, _CUTIME, _CSTIME = 1, 11, 12, 13, 14
# A peer is configured by its command line only; settings in the environment would make two runs differ.
_FOREIGN_SETTINGS = ("OTEL_", "ROTEL_")
_LOG_TAIL_BYTES = 2_000
_PORTS_TRIED = 10_000


class ChildError(RuntimeError):
    """A child did not start, did not answer in time or ended early."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a process and its descendants: now, and the sum of their high-water marks."""

    rss_mb: float
    peak_mb: float


class Child:
    """A process that is stopped when its `with` block ends; with one that `talks`, use line() and say()."""

    def __init__(self, command: Sequence[str], log: Path, *, talks: bool = False) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN_SETTINGS)}
        self.name = Path(command[0]).name if command[0] != sys.executable else command[2]
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else output,
                stderr=output,
                env=environment,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def line(self, timeout_s: float) -> dict[str, Any]:
        """The next line on stdout, which is JSON."""
        stdout = self._process.stdout
        assert stdout is not None, f"{self.name} does not talk"
        if not select.select([stdout], [], [], timeout_s)[0]:
            raise ChildError(f"{self.name} said nothing for {timeout_s:.0f} s")
        text = stdout.readline()
        if not text:
            raise ChildError(f"{self.name} ended with code {self._process.wait()}: {self.log_tail()}")
        value: dict[str, Any] = json.loads(text)
        return value

    def say(self, text: str) -> None:
        stdin = self._process.stdin
        assert stdin is not None, f"{self.name} does not talk"
        stdin.write(text.encode() + b"\n")
        stdin.flush()

    def wait_until(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Poll until ready; an early end of the child is an error at once."""
        deadline_s = time.monotonic() + timeout_s
        while not is_ready():
            if self._process.poll() is not None:
                raise ChildError(f"{self.name} ended with code {self._process.returncode}: {self.log_tail()}")
            if time.monotonic() > deadline_s:
                raise ChildError(f"{self.name} was not ready within {timeout_s:.0f} s: {self.log_tail()}")
            time.sleep(POLL_S)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone and its ports are free."""
        self._process.kill()
        self._close()

    def stop(self) -> None:
        """SIGTERM, SIGKILL after a while; may be called twice."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._close()

    def cpu_s(self) -> float:
        """User and system time of the process with all its threads and descendants."""
        if self._process.poll() is not None:
            raise ChildError(f"{self.name} ended with code {self._process.returncode}: {self.log_tail()}")
        own = [_stat(pid) for pid in self._tree()]
        ticks = sum(int(fields[_UTIME]) + int(fields[_STIME]) for fields in own if fields)
        # Time of descendants that have ended and were waited for.
        ticks += sum(int(fields[_CUTIME]) + int(fields[_CSTIME]) for fields in own if fields)
        return ticks / _TICKS_PER_S

    def memory(self) -> Memory:
        lines = [_status(pid) for pid in self._tree()]
        return Memory(
            rss_mb=sum(status.get("VmRSS", 0) for status in lines) / 1024,
            peak_mb=sum(status.get("VmHWM", 0) for status in lines) / 1024,
        )

    def log_tail(self) -> str:
        return self._log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()

    def _tree(self) -> list[int]:
        parents = {pid: int(fields[_PPID]) for pid in _pids() if (fields := _stat(pid))}
        tree = [self.pid]
        for pid in tree:
            tree.extend(child for child, parent in parents.items() if parent == pid)
        return tree

    def _close(self) -> None:
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def exit_on_sigterm() -> None:
    """Let a runner that is told to end leave its `with` blocks, which end the children."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def python_module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago.

    They lie below those that the kernel hands out as source ports: while a gateway is down, a client that keeps
    reconnecting could otherwise be given the gateway's own port, and be connected to itself.
    """
    kernel_first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = random.sample(range(max(1024, kernel_first - _PORTS_TRIED), kernel_first), _PORTS_TRIED // 2)
    ports = list(itertools.islice(filter(_is_free, candidates), count))
    if len(ports) < count:
        raise ChildError(f"no {count} free ports below {kernel_first}")
    return ports


def accepts_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []  # Ended between the listing and now.


def _status(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {key: int(value.split()[0]) for key, _, value in (line.partition(":") for line in lines) if key[:2] == "Vm"}
