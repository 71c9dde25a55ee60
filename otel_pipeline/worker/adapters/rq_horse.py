"""RQ's worker as the parent of a work horse: a job whose horse was killed is reported here, once.

RQ tells of a death in two ways: `handle_job_failure` in the worker, if the job's state was not final, and the return
of `monitor_work_horse`. The page of memory that the horse wrote to (children.py) says whether the job is still open. A
work horse that was spawned, not forked, has no such page; its job is reported if RQ says that it failed.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import wrapt
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_pipeline.worker.adapters.rq_carried import carried, message_of, parent_of, seconds
from otel_pipeline.worker.attempts import framework, waited_since, will_retry
from otel_pipeline.worker.evidence import Outcome
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, Origin
from otel_pipeline.worker.process import children
from otel_pipeline.worker.quiet import quietly

_horse: Final[contextvars.ContextVar[int | None]] = contextvars.ContextVar("otel_pipeline.rq.horse", default=None)
"""Its process id: RQ forgets it before it tells of its death."""
_performed_here: Final[list[Callable[[Any], bool]]] = []
"""Says whether a job is performed in this very process."""


def patch(module: ModuleType, owner: Any, performed_here: Callable[[Any], bool]) -> None:
    """`owner` is the class that has `handle_job_failure`."""
    children.install()
    _performed_here[:] = [performed_here]
    wrapt.wrap_function_wrapper(owner, "handle_job_failure", _handle_failure)
    quietly(module.Worker, "fork_work_horse")
    if hasattr(module.Worker, "monitor_work_horse"):
        wrapt.wrap_function_wrapper(module.Worker, "monitor_work_horse", _monitor)


def _monitor(wrapped: Any, worker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _watch(worker)
    with suppress_instrumentation():
        result = wrapped(*args, **kwargs)
    _left_behind(args[0] if args else kwargs.get("job"))
    return result


@hook("rq.watch")
def _watch(worker: Any) -> None:
    _horse.set(int(worker.horse_pid) or None)


@hook("rq.left_behind")
def _left_behind(rq_job: Any) -> None:
    """The horse is gone: a job that it has open was lost, whatever RQ believes."""
    pid = _horse.get()
    slot = children.board.look(pid, rq_job.id) if pid else None
    if slot is not None and slot.open:
        _report(rq_job, Outcome.LOST)


def _handle_failure(wrapped: Any, worker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _failed(worker, args[0] if args else kwargs.get("job"))
    with suppress_instrumentation():
        return wrapped(*args, **kwargs)


@hook("rq.killed")
def _failed(worker: Any, rq_job: Any) -> None:
    """In the horse this is the end of any job that failed; in the worker, of one whose horse did not live to report."""
    if not _performed_here[0](rq_job):
        stopped = getattr(worker, "_stopped_job_id", None) == rq_job.id
        _report(rq_job, Outcome.CANCELLED if stopped else Outcome.LOST)


def _report(rq_job: Any, outcome: Outcome) -> None:
    known = carried(rq_job)
    attempt = int(known.get("attempt") or 0) + 1
    destination = str(rq_job.origin or "default")
    again = outcome is Outcome.LOST and bool(getattr(rq_job, "should_retry", rq_job.retries_left))

    def begun(job: Job) -> None:
        waited_since(job, seconds(rq_job.enqueued_at))
        if again:
            will_retry(job)

    reported = children.report(
        Origin("rq", destination, rq_job.id),
        framework(outcome, "stopped" if outcome is Outcome.CANCELLED else "WorkHorseTerminated"),
        pid=_horse.get(),
        name=f"process {destination}",
        message=message_of(rq_job, read=False),
        parent=parent_of(rq_job),
        attempt=attempt,
        begun=(begun,),
    )
    if reported is not None:
        known["attempt"] = attempt  # the horse's own count died with it, and a retry is saved from this object
