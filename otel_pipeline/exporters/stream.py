"""How far an exporter is with one pipeline's stream, and when it goes on. Used by `sender.py` alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from otel_pipeline.limits import RETRY_ASKED_S_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline.exporters.sender import Batching
    from otel_pipeline.settings import Retry
    from otel_pipeline.wire.signal import Signal


class Stream:
    """One pipeline's stream as this exporter sees it."""

    def __init__(self, pipeline: str, signal: Signal, batching: Batching, retry: Retry, position: int) -> None:
        self.pipeline: Final = pipeline
        self.signal: Final = signal
        self.batching: Final = batching
        self.retry: Final = retry
        self.position = position
        self.due_s = 0.0
        self.awaited = position  # there is nothing to do until the outbox has this entry ...
        self.gathered_s = math.inf  # ... or the oldest one waited long enough
        self._delay_s = retry.initial_interval

    def postpone(self, asked_s: float | None, now_s: float, jitter: Callable[[float, float], float]) -> float:
        """Wait longer after each failure, at least what the backend asked for; returns the delay."""
        spread = self.retry.randomization_factor
        asked_s = min(asked_s or 0.0, RETRY_ASKED_S_MAX)
        delay_s = max(self._delay_s * jitter(1 - spread, 1 + spread), asked_s)
        self._delay_s = min(self._delay_s * self.retry.multiplier, self.retry.max_interval)
        self.due_s = now_s + delay_s
        return delay_s

    def recovered(self) -> None:
        """The backend took something: the next failure begins with a short delay again."""
        self._delay_s = self.retry.initial_interval
        self.due_s = 0.0
