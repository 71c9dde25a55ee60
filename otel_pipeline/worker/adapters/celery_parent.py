"""The parent of Celery's prefork pool: jobs that never began, or whose child did not live to report them.

Revoked and expired tasks are refused by the parent. A hard time limit, `revoke(terminate=True)` and a worker that is
lost end a child in mid job; what it did not report itself, its parent does when it is dead (children.py).
"""

from __future__ import annotations

import functools
import importlib
import weakref
from types import ModuleType
from typing import Any, Final

import wrapt

from otel_pipeline.worker.adapters.celery import carried, destination_of, message_of, official, sent_s
from otel_pipeline.worker.attempts import framework, typed, waited_since, will_retry
from otel_pipeline.worker.evidence import Evidence, Outcome
from otel_pipeline.worker.flow import error_name
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, Origin
from otel_pipeline.worker.process import children

_watched: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""Requests whose end is reported or about to be: Celery tells of some ends twice."""
KINDS: Final = {
    "TimeLimitExceeded": Outcome.FAILED,
    "Terminated": Outcome.CANCELLED,
    "WorkerLostError": Outcome.LOST,
    "SystemExit": Outcome.LOST,
    "KeyboardInterrupt": Outcome.LOST,
}
"""What the parent is told of a child that is gone, by class."""


def patch(module: ModuleType) -> None:
    """celery.worker.request."""
    signals = importlib.import_module("celery.signals")
    signals.task_revoked.connect(_revoked, weak=False)
    wrapt.wrap_function_wrapper(module.Request, "on_timeout", _on_timeout)
    wrapt.wrap_function_wrapper(module.Request, "on_failure", _on_failure)
    wrapt.wrap_function_wrapper(module.Request, "terminate", _terminate)


def _on_timeout(wrapped: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    soft = args[0] if args else kwargs.get("soft")
    if not soft:
        _timed_out(request)
    return wrapped(*args, **kwargs)


@hook("celery.timed_out")
def _timed_out(request: Any) -> None:
    _mark(request, children.TIMED_OUT)
    _watch(request, framework(Outcome.FAILED, children.REASONS[children.TIMED_OUT][1], "hard time limit"))


def _terminate(wrapped: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _terminating(request)
    return wrapped(*args, **kwargs)


@hook("celery.terminating")
def _terminating(request: Any) -> None:
    if request.time_start:  # else it is refused when a child takes it
        _mark(request, children.REVOKED)
        _watch(request, framework(Outcome.CANCELLED, "revoked"))


def _on_failure(wrapped: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _gone(request, args[0] if args else kwargs.get("exc_info"))
    return wrapped(*args, **kwargs)


@hook("celery.gone")
def _gone(request: Any, einfo: Any) -> None:
    error = getattr(einfo, "exception", None)
    error = getattr(error, "exc", None) or error  # billiard wraps it, to pickle its traceback
    kind = type(error).__name__
    if not isinstance(error, BaseException) or kind not in KINDS:
        return
    if kind == "TimeLimitExceeded":
        _mark(request, children.TIMED_OUT)
    _watch(request, framework(KINDS[kind], error_name(error), str(error)))


@hook("celery.revoked")
def _revoked(request: Any = None, terminated: Any = None, expired: Any = None, **_more: Any) -> None:
    """A task that no child ever saw. `request` is the task's context here, not the parent's request."""
    if not terminated:
        _report(request, None, framework(Outcome.CANCELLED, "expired" if expired else "revoked"))


def _mark(request: Any, reason: int) -> None:
    if request.worker_pid:
        children.board.mark(int(request.worker_pid), str(request.id), reason)


def _watch(request: Any, evidence: Evidence) -> None:
    if request in _watched or not _forks():
        return
    _watched.add(request)
    pid = int(request.worker_pid) if request.worker_pid else None
    known = request._context
    again = bool(getattr(request.task, "acks_late", False) and getattr(request.task, "reject_on_worker_lost", False))

    lost_again = again and evidence.outcome is Outcome.LOST
    children.when_gone(pid, functools.partial(_late, known, pid, evidence, again=lost_again))


def _forks() -> bool:
    """Whether children share the page of memory with this process."""
    return bool(importlib.import_module("billiard").get_start_method() == "fork")


@hook("celery.late")
def _late(request: Any, pid: int | None, evidence: Evidence, *, again: bool) -> None:
    """In a thread of ours, when the child is dead."""
    _report(request, pid, evidence, again=again)


def _describe(task: Any, request: Any, job: Job) -> None:
    typed(job, task.name)
    waited_since(job, sent_s(request))


def _report(request: Any, pid: int | None, evidence: Evidence, *, again: bool = False) -> None:
    app = importlib.import_module("celery._state").get_current_app()
    task = app.tasks[request.task]
    destination = destination_of(request, task)
    headers = request.headers if isinstance(request.headers, dict) else {}
    children.report(
        Origin("celery", destination, str(request.id)),
        evidence,
        pid=pid,
        name=f"run/{task.name}" if official() is not None else f"process {destination}",
        message=message_of(task, request.args, request.kwargs, headers, str(request.id)),
        parent=carried(request),
        attempt=int(request.retries or 0) + 1,
        begun=(functools.partial(_describe, task, request), *((will_retry,) if again else ())),
    )
