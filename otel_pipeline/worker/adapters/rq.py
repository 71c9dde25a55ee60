"""RQ: a job is what `perform_job` does, in the work horse or in the worker itself.

Within it everything of RQ's own is silent; the program's function and its callbacks are not. A work horse ends with
os._exit, so what it has is flushed before. rq_carried.py is what travels with a job, rq_horse.py reports the jobs of
work horses that were killed.
"""

from __future__ import annotations

import contextvars
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import wrapt
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_pipeline.worker import outcomes
from otel_pipeline.worker.adapters import rq_carried, rq_horse
from otel_pipeline.worker.adapters.rq_carried import carried, message_of, parent_of, seconds
from otel_pipeline.worker.attempts import framework, raised, typed, waited_since, will_retry
from otel_pipeline.worker.evidence import Outcome
from otel_pipeline.worker.guard import hook, interrupts
from otel_pipeline.worker.jobs import Job, Origin, job_end, job_start
from otel_pipeline.worker.messages import Send, send_end, send_start
from otel_pipeline.worker.process import children, lifecycle
from otel_pipeline.worker.quiet import quietly, restore, silent, speak

_JOB_COMMANDS: Final = (
    *("fetch", "fetch_many", "exists", "refresh", "save", "save_meta", "get_status", "get_meta", "latest_result"),
    *("results", "return_value", "cancel", "delete", "requeue"),
)
_WORKER_COMMANDS: Final = (
    *("register_birth", "register_death", "heartbeat", "maintain_heartbeats", "dequeue_job_and_maintain_ttl"),
    *("run_maintenance_tasks", "clean_registries", "check_for_suspension", "prepare_execution", "set_state"),
    *("subscribe", "teardown"),
)
_CALLBACKS: Final = ("execute_success_callback", "execute_failure_callback", "execute_stopped_callback")


@dataclass(slots=True)
class _Running:
    """A job that RQ performs here."""

    job: Job
    rq_job: Any
    asked: bool = False
    """Its function returned a `Retry`."""


_running: Final[contextvars.ContextVar[_Running | None]] = contextvars.ContextVar("otel_pipeline.rq", default=None)
_many: Final[contextvars.ContextVar[bool]] = contextvars.ContextVar("otel_pipeline.rq.many", default=False)


def patch_job(module: ModuleType) -> None:
    """rq.job."""
    wrapt.wrap_function_wrapper(module.Job, "to_dict", rq_carried.to_dict)
    wrapt.wrap_function_wrapper(module.Job, "restore", rq_carried.restore)
    wrapt.wrap_function_wrapper(module.Job, "perform", _perform)
    quietly(module.Job, *_JOB_COMMANDS)
    interrupts.append(importlib.import_module("rq.timeouts").BaseTimeoutException)


def patch_queue(module: ModuleType) -> None:
    """rq.queue: the producing side. What RQ enqueues itself (retries, schedules, dependents) goes other ways."""
    for name in ("enqueue_job", "schedule_job"):
        if hasattr(module.Queue, name):
            wrapt.wrap_function_wrapper(module.Queue, name, _enqueue)
    if hasattr(module.Queue, "enqueue_many"):
        wrapt.wrap_function_wrapper(module.Queue, "enqueue_many", _enqueue_many)
        wrapt.wrap_function_wrapper(module.Queue, "create_job", _create_job)


def patch_worker(module: ModuleType) -> None:
    """rq.worker: a package of several classes, or a module with one."""
    base = getattr(module, "BaseWorker", None)
    owner = base if base is not None and "perform_job" in vars(base) else module.Worker
    wrapt.wrap_function_wrapper(owner, "perform_job", _perform_job)
    quietly(owner, *_WORKER_COMMANDS)
    # The program's callbacks run in `perform_job` too: functions of rq.callbacks now, methods of a job before.
    homes = (importlib.import_module(owner.__module__), importlib.import_module("rq.job").Job)
    for home, name in [(home, name) for home in homes for name in _CALLBACKS if name in vars(home)]:
        wrapt.wrap_function_wrapper(home, name, _speaking)
    wrapt.wrap_function_wrapper(owner, "handle_exception", _speaking)
    rq_horse.patch(module, owner, _performed_here)


# -- producer ----------------------------------------------------------------------------------------------------------


@hook("rq.sending")
def _sending(queue: Any, rq_job: Any) -> Send | None:
    """Begins the span of a job that is enqueued, and puts its context on it."""
    if silent():
        return None
    send = send_start("rq", str(queue.name), message_of(rq_job), rq_job.id)
    carried(rq_job)["headers"] = send.headers
    return send


@hook("rq.sent")
def _sent(send: Send, error: BaseException | None = None) -> None:
    send_end(send, error)


def _enqueue(wrapped: Any, queue: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    send: Any = _sending(queue, args[0] if args else kwargs.get("job"))
    try:
        with suppress_instrumentation():
            result = wrapped(*args, **kwargs)
    except BaseException as error:
        _sent(send, error)
        raise
    _sent(send)
    return result


def _enqueue_many(wrapped: Any, _queue: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    token = _many.set(not silent())
    try:
        with suppress_instrumentation():
            return wrapped(*args, **kwargs)
    finally:
        _many.reset(token)


def _create_job(wrapped: Any, queue: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    rq_job = wrapped(*args, **kwargs)
    if _many.get():
        _one_of_many(queue, rq_job)
    return rq_job


@hook("rq.one_of_many")
def _one_of_many(queue: Any, rq_job: Any) -> None:
    """Each has a span of its own, so that each is a trace of its own where there is none yet."""
    send = send_start("rq", str(queue.name), message_of(rq_job), rq_job.id, attach=False)
    carried(rq_job)["headers"] = send.headers
    send_end(send)


# -- consumer ----------------------------------------------------------------------------------------------------------


def _performed_here(rq_job: Any) -> bool:
    running = _running.get()
    return running is not None and running.rq_job.id == rq_job.id


@hook("rq.begin")
def _begin(rq_job: Any) -> _Running:
    known = carried(rq_job)
    known["attempt"] = attempt = int(known.get("attempt") or 0) + 1
    job = job_start(
        Origin("rq", str(rq_job.origin or "default"), rq_job.id),
        message_of(rq_job, loaded=True),
        parent=parent_of(rq_job),
        attempt=attempt,
    )
    typed(job, _function_name(rq_job))
    waited_since(job, seconds(rq_job.enqueued_at or rq_job.created_at))
    children.board.begin(job)
    running = _Running(job, rq_job)
    _running.set(running)
    return running


@hook("rq.end")
def _end(running: _Running, error: BaseException | None = None) -> None:
    _running.set(None)
    job, status = running.job, _status(running.rq_job)
    if error is not None:
        raised(job, error)
    again = status in ("queued", "scheduled")
    if again and running.asked:
        job.observe(framework(Outcome.SKIPPED))
    if again and any(each.outcome is not Outcome.COMPLETED for each in job.evidence):
        will_retry(job)
    elif status == "failed":
        job.observe(framework(Outcome.FAILED))
    elif status == "stopped":
        job.observe(framework(Outcome.CANCELLED, "stopped"))
    job_end(job)
    if children.board.in_child:
        lifecycle.flush()


def _perform_job(wrapped: Any, _worker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    running: Any = _begin(args[0] if args else kwargs.get("job"))
    try:
        with suppress_instrumentation():
            result = wrapped(*args, **kwargs)
    except BaseException as error:
        _end(running, error)
        raise
    _end(running)
    return result


@hook("rq.alone")
def _alone(rq_job: Any) -> _Running | None:
    """A queue that is not asynchronous performs a job where it is enqueued, without a worker."""
    return None if _performed_here(rq_job) else _begin(rq_job)


@hook("rq.returned")
def _returned(rq_job: Any, value: Any) -> None:
    running = _running.get()
    if running is None or running.rq_job.id != rq_job.id:
        return
    if type(value).__name__ == "Retry" and type(value).__module__.startswith("rq."):
        running.asked = True
    else:
        running.job.observe(outcomes.returned(value))


@hook("rq.raised")
def _raised(rq_job: Any, error: BaseException) -> None:
    running = _running.get()
    if running is not None and running.rq_job.id == rq_job.id:
        raised(running.job, error)


def _perform(wrapped: Any, rq_job: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    alone: Any = _alone(rq_job)
    token = speak()
    try:
        value = wrapped(*args, **kwargs)
    except BaseException as error:
        _raised(rq_job, error)
        raise
    else:
        _returned(rq_job, value)
        return value
    finally:
        restore(token)
        _end(alone)


def _speaking(wrapped: Any, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    token = speak()
    try:
        return wrapped(*args, **kwargs)
    finally:
        restore(token)


def _function_name(rq_job: Any) -> str | None:
    try:
        return str(rq_job.func_name)
    except Exception:  # noqa: BLE001  a job that cannot be read is RQ's to report
        return None


def _status(rq_job: Any) -> str:
    status = getattr(rq_job, "_status", None)
    return str(getattr(status, "value", status) or "")
