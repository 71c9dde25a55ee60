"""Stand-ins that remember what they were given."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from otel_pipeline.contracts import Accepted

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline.contracts import Verdict
    from otel_pipeline.wire.signal import Signal


class RememberingEntrance:
    """Gives the next verdict in line, the last one again and again, and keeps the bodies."""

    def __init__(self, *verdicts: Verdict) -> None:
        self.bodies: list[bytes] = []
        self._verdicts = list(verdicts) or [Accepted()]

    async def accept(self, body: bytes) -> Verdict:
        """Keep the body."""
        self.bodies.append(body)
        return self._verdicts.pop(0) if len(self._verdicts) > 1 else self._verdicts[0]


class MeetingEntrance:
    """An entrance whose callers wait until so many are in."""

    def __init__(self, callers: int) -> None:
        self._missing = callers
        self._complete = asyncio.Event()

    async def accept(self, _: bytes) -> Verdict:
        """Wait for the others."""
        self._missing -= 1
        if self._missing == 0:
            self._complete.set()
        await asyncio.wait_for(self._complete.wait(), 20)
        return Accepted()


class RememberingExporter:
    """Keeps what is delivered; `answers` are returned or raised first, one a call."""

    def __init__(self, *answers: int | Exception, request_bytes_max: int = 1 << 20) -> None:
        self.request_bytes_max = request_bytes_max
        self.delivered: list[tuple[Signal, bytes]] = []
        self.attempts = 0
        self.closed = False
        self.check: Callable[[bytes], None] = lambda _: None
        self._answers = list(answers)
        self._arrival = threading.Condition()

    def deliver(self, signal: Signal, request: bytes) -> int:
        """Keep the request, unless there is an answer to raise."""
        with self._arrival:
            self.attempts += 1
            self._arrival.notify_all()
            answer = self._answers.pop(0) if self._answers else 0
            if isinstance(answer, Exception):
                raise answer
            self.check(request)
            self.delivered.append((signal, request))
            return answer

    def wait_for(self, done: Callable[[RememberingExporter], bool], timeout_s: float = 10.0) -> bool:
        """Wait until something holds; False if it does not in time."""
        with self._arrival:
            return self._arrival.wait_for(lambda: done(self), timeout_s)

    def close(self) -> None:
        """Remember that too."""
        self.closed = True
