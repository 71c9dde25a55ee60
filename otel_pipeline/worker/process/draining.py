"""Getting what the SDK holds out of the process, within a time that is promised to the host.

The SDK's own `force_flush` ignores its timeout and its `shutdown` retries for 12 s when nobody listens. So both run in
threads here, and only the wait is ours. Two rules follow from where this is called:

 * It runs inside signal handlers, where the interrupted code may hold any lock. The calling thread therefore takes no
   lock but a new one; whatever needs another runs in the thread that is waited for.
 * From Python 3.12 on no thread can be started while the interpreter ends. A `Keeper` is started long before.
"""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry._logs import get_logger_provider

from otel_pipeline.worker.guard import hook

SIGNALS: Final = ("traces", "logs", "metrics")
"""In the order of their worth, should there be time for one only."""


class Unsent:
    """Whether spans ended or log records came since the last flush."""

    watched = False
    """A processor of ours tells (providers.py); without one there is always something to flush."""
    since_flush = True

    @classmethod
    def note(cls) -> None:
        cls.since_flush = True

    @classmethod
    def any(cls) -> bool:
        return cls.since_flush or not cls.watched


def providers(names: Iterable[str] = SIGNALS) -> dict[str, Any]:
    """The SDK's providers that are in use, by signal."""
    found: dict[str, Callable[[], Any]] = {
        "traces": trace.get_tracer_provider,
        "logs": get_logger_provider,
        "metrics": metrics.get_meter_provider,
    }
    known = {name: found[name]() for name in names}
    return {name: provider for name, provider in known.items() if callable(getattr(provider, "force_flush", None))}


class Flusher:
    """Flushes one provider in a thread of its own, one flush at a time: a gateway that hangs costs one thread."""

    def __init__(self, signal: str) -> None:
        self._signal = signal
        self._changed = threading.Condition(threading.Lock())
        self._wanted = 0
        self._done = 0
        self._running = False

    def request(self) -> int:
        """Asks for a flush of all that is there now; the ticket to wait with."""
        with self._changed:
            self._wanted += 1
            if not self._running:
                self._running = True
                _thread.start_new_thread(self._run, ())
            return self._wanted

    def wait(self, ticket: int, deadline_s: float) -> bool:
        """Waits until that flush is done; False if the deadline (monotonic) comes first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._done >= ticket, deadline_s - time.monotonic())

    def _run(self) -> None:
        while True:
            with self._changed:
                ticket = self._wanted
                if self._done >= ticket:
                    self._running = False
                    return
            _flush_provider(self._signal)
            with self._changed:
                self._done = ticket
                self._changed.notify_all()


@hook("draining.flush_provider")
def _flush_provider(signal: str) -> None:
    for provider in providers((signal,)).values():
        provider.force_flush()


_flushers: dict[str, Flusher] = {}


def _flusher(signal: str) -> Flusher:
    # No lock: two threads that make one at the same time cost a second flush, nothing else.
    return _flushers.setdefault(signal, Flusher(signal))


def forget_threads() -> None:
    """In a forked child, where no thread of the parent runs and its locks stay as they were."""
    global _flushers  # noqa: PLW0603  one of this process
    _flushers = {}
    Unsent.since_flush = False  # the SDK's queues are the parent's, too


def request(signal: str) -> None:
    """Asks for a flush of one signal without waiting for it."""
    _flusher(signal).request()


def flush(timeout_s: float) -> bool:
    """Exports what is there, all signals at once; returns after the timeout at the latest. False if it was not enough.

    Cheap if nothing came since the last one. For any thread, a forked child, a signal handler.
    """
    if not Unsent.any():
        return True
    Unsent.since_flush = False
    done = within(timeout_s, lambda: _flush_all(timeout_s))
    if not done:
        Unsent.note()
    return done


def _flush_all(timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    tickets = {signal: _flusher(signal).request() for signal in providers()}
    done = [_flusher(signal).wait(ticket, deadline_s) for signal, ticket in tickets.items()]
    return all(done)


def shut_down(deadline_s: float) -> None:
    """Shuts all providers down at once; one after the other where no thread can be started any more."""
    waiting = []
    for provider in providers().values():
        done = _thread.allocate_lock()
        done.acquire()
        try:
            _thread.start_new_thread(_shut_down_and_tell, (provider, done))
        except RuntimeError:
            _shut_down_and_tell(provider, done)
        waiting.append(done)
    for done in waiting:
        done.acquire(timeout=max(deadline_s - time.monotonic(), 0.0))


def _shut_down_and_tell(provider: Any, done: Any) -> None:
    _shut_down_provider(provider)
    done.release()


@hook("draining.shut_down_provider")
def _shut_down_provider(provider: Any) -> None:
    provider.shutdown()


def within(timeout_s: float, work: Callable[[], bool]) -> bool:
    """Runs the work in a thread and waits so long for it. False if it fails, takes longer or no thread can be had."""
    done = _thread.allocate_lock()
    done.acquire()
    result: list[bool] = []
    try:
        _thread.start_new_thread(_work, (work, result, done))
    except RuntimeError:
        return False
    return bool(done.acquire(timeout=timeout_s)) and result == [True]


def _work(work: Callable[[], bool], result: list[bool], done: Any) -> None:
    try:
        result.append(bool(_run(work)))
    finally:
        done.release()


@hook("draining.work")
def _run(work: Callable[[], bool]) -> bool:
    return work()


class Keeper:
    """A thread that waits for one piece of work, of a time when no thread can be started."""

    def __init__(self) -> None:
        self._work: Callable[[], bool] | None = None
        self._go = _thread.allocate_lock()
        self._go.acquire()
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._result: list[bool] = []
        _thread.start_new_thread(self._wait, ())

    def run(self, timeout_s: float, work: Callable[[], bool]) -> bool:
        """As `within`; once only."""
        self._work = work
        self._go.release()
        return bool(self._done.acquire(timeout=timeout_s)) and self._result == [True]

    def _wait(self) -> None:
        self._go.acquire()
        if self._work is not None:
            _work(self._work, self._result, self._done)
