"""A thread that runs a sampler and hands its readings on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from otel_pipeline.nvml.sampler import Sampler
from otel_pipeline.nvml.samples import Reading

_log = logging.getLogger(__name__)
WAIT_S_MIN: Final = 0.001
"""Between two polls: a sampler that is always behind must not take a whole core."""
LOGGED_MAX: Final = 5
"""Failures of ours that are logged; the others are counted."""


class Runner:
    """Owns the thread. `deliver` is called in it, every `flush_s`, with all that was sampled since; what it raises is
    counted and logged, and sampling goes on.
    """

    def __init__(self, sampler: Sampler, deliver: Callable[[Reading], None], flush_s: float = 1.0) -> None:
        self.failures = 0
        self._sampler = sampler
        self._deliver = deliver
        self._flush_s = flush_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otel_pipeline-gpus", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Deliver the rest and end; a driver that hangs is left behind after the timeout. May be called twice."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        flush_at_s = time.monotonic() + self._flush_s
        while not self._stop.is_set():
            wait_s = self._flush_s
            try:
                wait_s = self._sampler.poll()
                if time.monotonic() >= flush_at_s:
                    flush_at_s = max(flush_at_s, time.monotonic() - self._flush_s) + self._flush_s
                    self._deliver(self._sampler.take())
            except Exception:  # noqa: BLE001  sampling must not end, nor anybody's process
                self._failed()
            self._stop.wait(max(WAIT_S_MIN, min(wait_s, flush_at_s - time.monotonic())))
        try:
            self._deliver(self._sampler.finish())
        except Exception:  # noqa: BLE001  the same
            self._failed()

    def _failed(self) -> None:
        self.failures += 1
        if self.failures <= LOGGED_MAX:
            _log.warning("sampling GPUs failed", exc_info=True)
