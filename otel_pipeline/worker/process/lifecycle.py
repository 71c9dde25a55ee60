"""Nothing is lost when the process ends, whichever way it ends, and its end is not delayed for long.

| end | what happens here |
| --- | --- |
| return, sys.exit, uncaught exception | `_at_exit`: open jobs end, everything is sent, within `exit_timeout_s` |
| SIGTERM that nobody handles | `_on_sigterm`: open jobs end as cancelled, a flush, then the signal's default action |
| os._exit | `_hard_exit`: the same with a flush, within `flush_timeout_s` |
| end of a multiprocessing child | `_child_exit`, by multiprocessing's own finalizers |
| SIGKILL | the gateway marks the jobs that it was told of (records.py) as lost |

A job that is open when the process ends was not necessarily cut short: a worker that pops in a loop and leaves the
loop has finished its last job. So the job of the main thread ends as finished unless an exception or a signal says
otherwise; those of other threads and tasks, which are killed at work, end as unknown.
"""

from __future__ import annotations

import atexit
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any, Final

import wrapt

from otel_pipeline.worker import events
from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.flow import Exit, exception_evidence, this_flow
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import (
    FINISHED,
    UNKNOWN,
    Job,
    current_job,
    forget_inherited,
    job_end,
    open_jobs,
)
from otel_pipeline.worker.process import draining, records
from otel_pipeline.worker.process.draining import Unsent
from otel_pipeline.worker.settings import settings
from otel_pipeline.worker.tasks import code_of

EXIT_SHARE: Final = 0.85
"""Of the exit timeout that is spent on waiting; the rest is for what the interpreter does then."""
FRAMES_MAX: Final = 64
"""Callers of sys.exit that are looked at for a signal handler."""
ENDINGS: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGUSR1", "SIGUSR2")
"""Signals whose handlers of the host's may end it."""
LAST_OF_FINALIZERS: Final = -100
"""Priority in multiprocessing's list: after what the program itself does at the end of a child."""

closing: Final[list[Callable[[], object]]] = []
"""Called when the process ends, after the jobs, before the last flush: who else has spans open ends them. Hooks."""


class _State:
    """Of this process."""

    installed = False
    keeper: draining.Keeper | None = None
    terminating = False
    asked: tuple[Job, Evidence] | None = None
    """What sys.exit was called in the midst of."""


class _Anchor:
    """multiprocessing keeps only weak references to what it calls after a fork."""


_anchor: Final = _Anchor()


@hook("lifecycle.install")
def install() -> None:
    """Arms all of it, in a process that was just started. Idempotent."""
    if _State.installed or "lifecycle" in settings().adapters_disabled:
        return
    _State.installed = True
    _State.keeper = draining.Keeper()
    records.install()
    events.install()
    _install_samplers()
    atexit.register(_at_exit)
    os.register_at_fork(after_in_child=_after_fork)
    wrapt.register_post_import_hook(_with_multiprocessing, "multiprocessing.util")
    _wrap_exits()
    _wrap_excepthook()
    _handle_sigterm()


@hook("lifecycle.install_samplers")
def _install_samplers() -> None:
    if settings().sample_queues or settings().sample_backends:
        from otel_pipeline.worker import samplers  # noqa: PLC0415  it imports an HTTP client

        samplers.install()
    if settings().gpu_sampling != "off":
        from otel_pipeline.worker import gpu_sampling  # noqa: PLC0415  it imports this module

        gpu_sampling.install()


def flush(timeout_s: float | None = None) -> bool:
    """Exports what has ended until now, for a process that may vanish. Bounded, cheap if there is nothing new."""
    return bool(_flush(settings().flush_timeout_s if timeout_s is None else timeout_s))


@hook("lifecycle.flush")
def _flush(timeout_s: float) -> bool:
    return draining.flush(timeout_s)


# -- the end of the interpreter ----------------------------------------------------------------------------------------


@hook("lifecycle.at_exit")
def _at_exit() -> None:
    timeout_s = settings().exit_timeout_s * EXIT_SHARE
    deadline_s = time.monotonic() + timeout_s
    mine = _own_job()
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    _silence()
    _leave_exit_to_us()

    def work() -> bool:
        _end_jobs(_Ending(mine, exception_evidence(error) if error is not None else None))
        draining.shut_down(deadline_s)
        return True

    keeper, _State.keeper = _State.keeper, None
    if keeper is not None:
        keeper.run(timeout_s, work)


@dataclass(frozen=True, slots=True)
class _Ending:
    """What ends the process."""

    mine: Job | None
    """The job of the thread that ends it."""
    evidence: Evidence | None


def _own_job() -> Job | None:
    """The job that the calling thread is at."""
    return this_flow().job or current_job()


@hook("lifecycle.end_jobs")
def _end_jobs(ending: _Ending) -> None:
    records.stop_consuming()
    asked = _State.asked
    for job in list(open_jobs.values()):
        if asked is not None and asked[0] is job:
            _end(job, asked[1])
        elif job is ending.mine:
            _end(job, ending.evidence)
        else:
            _end(job, None, abandoned=not job.settled_ns)
    for close in closing:
        close()


@hook("lifecycle.end")
def _end(job: Job, evidence: Evidence | None, *, abandoned: bool = False) -> None:
    # A job that was acknowledged before is over: what ended the process came after it.
    settled = job.settled_ns and (evidence is None or evidence.source is Source.SIGNAL)
    end_ns = max(job.settled_ns, job.activity_ns) if settled else None
    job_end(job, None if settled else evidence, default=UNKNOWN if abandoned else FINISHED, end_ns=end_ns)


@hook("lifecycle.silence")
def _silence() -> None:
    """What the exporters log of a gateway that is away would be the last lines of the program's output."""
    import logging  # noqa: PLC0415  at the end only

    for name in ("opentelemetry", "otel_pipeline"):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.addHandler(logging.NullHandler())


@hook("lifecycle.leave_exit")
def _leave_exit_to_us() -> None:
    """The providers' own exit handlers would wait as long as the exporters try."""
    for provider in draining.providers().values():
        for name in ("_atexit_handler", "_at_exit_handler"):
            handler = getattr(provider, name, None)
            if handler is not None:
                atexit.unregister(handler)
                setattr(provider, name, None)


# -- SIGTERM -----------------------------------------------------------------------------------------------------------


def _handle_sigterm() -> None:
    """Only where nobody else handles it: who does so later takes our place."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    if os.getpid() == 1:
        # The kernel protects the first process of a container: without a handler it would not have noticed.
        _save()
        return
    if not _State.terminating:
        _State.terminating = True
        _terminate(signal.Signals(number).name)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@hook("lifecycle.save")
def _save() -> None:
    for name in draining.SIGNALS:
        draining.request(name)


@hook("lifecycle.terminate")
def _terminate(name: str) -> None:
    """Within a signal handler: all work is in another thread, see draining.py."""
    timeout_s = settings().flush_timeout_s
    evidence = Evidence(Source.SIGNAL, Outcome.CANCELLED, name, f"ended by {name}")
    _silence()

    def work() -> bool:
        records.stop_consuming()
        for job in list(open_jobs.values()):
            _end(job, evidence)
        for close in closing:
            close()
        Unsent.note()
        return draining.flush(timeout_s)

    draining.within(timeout_s, work)


# -- sys.exit and os._exit ---------------------------------------------------------------------------------------------


def _wrap_exits() -> None:
    _replace(sys, "exit", _asked_to_exit)
    _replace(os, "_exit", _hard_exit)


def _replace(module: ModuleType, name: str, before: Callable[[object], object]) -> None:
    """A plain function with the name of the old one, so that it can still be pickled."""
    wrapped = getattr(module, name)

    @functools.wraps(wrapped)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        before((args[0] if args else kwargs.get("status")) or 0)
        return wrapped(*args, **kwargs)

    replacement.__module__ = module.__name__
    setattr(module, name, replacement)


@hook("lifecycle.asked_to_exit")
def _asked_to_exit(code: object) -> None:
    """Remembers the job that sys.exit cuts short: at the exit nothing tells any more that it was called."""
    job = _own_job()
    if job is None:
        return
    by = _handled_signal(sys._getframe(2))
    if by is not None:
        Exit.evidence = Evidence(Source.SIGNAL, Outcome.CANCELLED, by, f"ended by {by}")
        _State.asked = job, Exit.evidence
    elif code:
        _State.asked = job, Evidence(Source.EXCEPTION, Outcome.FAILED, "SystemExit")


def _handled_signal(frame: FrameType | None) -> str | None:
    """The signal whose handler of the host's is among the callers."""
    handlers = {}
    for name in ENDINGS:
        number = getattr(signal, name, None)
        code = code_of(signal.getsignal(number)) if number is not None else None
        if code is not None:
            handlers[code] = name
    for _ in range(FRAMES_MAX):
        if frame is None or not handlers:
            return None
        if frame.f_code in handlers:
            return handlers[frame.f_code]
        frame = frame.f_back
    return None


@hook("lifecycle.hard_exit")
def _hard_exit(code: object) -> None:
    """os._exit runs no exit handlers; what is not sent now is lost."""
    mine = _own_job()
    evidence = Evidence(Source.SIGNAL, Outcome.FAILED, "os._exit", f"os._exit({code})") if code else None

    def work() -> bool:
        _end_jobs(_Ending(mine, evidence))
        return draining.flush(settings().flush_timeout_s)

    if open_jobs or Unsent.any():
        draining.within(settings().flush_timeout_s, work)


# -- threads -----------------------------------------------------------------------------------------------------------


def _wrap_excepthook() -> None:
    previous = threading.excepthook

    @functools.wraps(previous)
    def excepthook(args: Any) -> None:
        _thread_failed(args)
        previous(args)

    threading.excepthook = excepthook


@hook("lifecycle.thread_failed")
def _thread_failed(args: Any) -> None:
    """Runs in the thread that dies of an exception: so does its job."""
    flow = this_flow()
    if flow.job is not None and args.exc_value is not None and id(args.exc_value) != flow.in_flight:
        flow.job.observe(exception_evidence(args.exc_value))


# -- children ----------------------------------------------------------------------------------------------------------


@hook("lifecycle.after_fork")
def _after_fork() -> None:
    forget_inherited()
    draining.forget_threads()
    records.forget()
    _State.asked = Exit.evidence = None
    _State.terminating = False
    _State.keeper = draining.Keeper()


def _with_multiprocessing(util: ModuleType) -> None:
    _register(util)


@hook("lifecycle.multiprocessing")
def _register(util: ModuleType) -> None:
    """A child forgets all finalizers when it begins, and ends with os._exit: this makes one for each child."""

    def in_child(_anchor: object) -> None:
        util.Finalize(None, _child_exit, exitpriority=LAST_OF_FINALIZERS)

    util.register_after_fork(_anchor, in_child)


@hook("lifecycle.child_exit")
def _child_exit() -> None:
    mine = _own_job()
    error = sys.exc_info()[1]  # finalizers run while it is on its way out

    def work() -> bool:
        _end_jobs(_Ending(mine, exception_evidence(error) if error is not None else None))
        Unsent.note()
        return draining.flush(settings().flush_timeout_s)

    draining.within(settings().flush_timeout_s, work)
