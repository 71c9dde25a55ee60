"""Processes that the demo starts: each writes to a log of its own and is stopped by its own pid."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from otel_pipeline.errors import OtelPipelineError

STOP_S_MAX: Final = 30.0
"""After SIGTERM: what Kubernetes gives a container, and enough for an SDK that cannot reach its endpoint."""
LOG_BYTES_SHOWN: Final = 2000
"""How much of a log's end goes into an error message."""


class DemoError(OtelPipelineError):
    """The demo cannot go on; the message says why and what helps."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running process and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> int:
        """SIGTERM, then SIGKILL if it has not ended in time; may be called twice. Returns the exit code."""
        if not self.ended:
            self.process.terminate()
        try:
            return self.process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def failure(self, reason: str) -> DemoError:
        """An error that shows the end of the log."""
        tail = self.log.read_bytes()[-LOG_BYTES_SHOWN:].decode("utf-8", "replace").strip()
        return DemoError(f"{self.name} {reason}; its log ends with:\n{tail or '(nothing)'}")


@contextmanager
def child(name: str, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Runs a command inside `folder` with its output in `<name>.log`, and stops it at the end of the block."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        # A session of its own: Ctrl-C in a terminal reaches the demo alone, which then stops the others in order.
        process = subprocess.Popen(  # noqa: S603  # commands are built here, from no foreign input
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    started = Child(name, process, log)
    try:
        yield started
    finally:
        started.stop()
