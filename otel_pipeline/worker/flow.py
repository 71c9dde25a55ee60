"""Where a job ends that has no function of its own: from one pop to the next.

A worker that pops in a loop gives no sign when it is done with an element, other than asking for the next one. So every
thread and every asyncio task has a `Flow`, which knows the job it popped last. The job ends when its flow

 * asks again for an element of the same queues (`next_pop`),
 * ends, as a thread or a task,
 * or, if it handed the job to other threads or tasks before it asked again, when the last of those ends (tasks.py).

A pop of a queue that the flow did not pop while it was idle is part of the job at work (a worker that waits for a
partial result), and so is one inside a web request: no new job.

A pop may run in a task or a pool thread that exists for the pop alone (`asyncio.wait_for` up to Python 3.11,
`asyncio.to_thread`). If that ends without having done anything for the job, the job moves on to the flow that
waits for it (`hand_over`).
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry import context

from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, current_job, enter, job_end, leave
from otel_pipeline.worker.redaction import error_text
from otel_pipeline.worker.serving import in_a_request

LOOP_KEYS_MAX: Final = 64
"""Queues that one loop pops from."""


@dataclass(eq=False)
class Flow:
    """One thread or task, as a consumer of queues."""

    job: Job | None = None
    """The open job that it popped."""
    busy: bool = False
    """It worked on the job itself, after it last handed work to others."""
    touched: bool = False
    """It did something about the job, if only bookkeeping: a status that is not final, an acknowledgement."""
    in_flight: int = 0
    """Identity of the exception that was being handled when it popped: that is of the job before, or of none."""
    loop_keys: set[str] = field(default_factory=set)
    """Queues that it popped from while it had no job."""
    context: contextvars.Context | None = None
    """Of the task, if known: where a job can be handed over to."""
    creator: weakref.ref[asyncio.Task[Any]] | None = None
    """The task that began this one."""

    def __del__(self) -> None:
        if self.job is not None and not self.job.over:
            _orphaned(self.job)


@hook("flow.orphaned")
def _orphaned(job: Job) -> None:
    if not job.children:
        job_end(job)
    job.left = True


class _Local(threading.local):
    flow: Flow | None = None


_local: Final = _Local()
_of_tasks: Final[weakref.WeakKeyDictionary[asyncio.Task[Any], Flow]] = weakref.WeakKeyDictionary()


def running_task() -> asyncio.Task[Any] | None:
    # `current_task()` raises where no loop runs, which costs more than all else here.
    loop = asyncio._get_running_loop()
    return asyncio.current_task(loop) if loop is not None else None


def flow_of(task: asyncio.Task[Any]) -> Flow:
    flow = _of_tasks.get(task)
    if flow is None:
        flow = _of_tasks[task] = Flow()
    return flow


def this_flow() -> Flow:
    """That of the running task, or else of the thread."""
    task = running_task()
    if task is not None:
        return flow_of(task)
    if _local.flow is None:
        _local.flow = Flow()
    return _local.flow


def next_pop(keys: Iterable[str]) -> bool:
    """Before a pop of these queues: ends the job before, if this is the loop's next round. True if a job is to come."""
    flow, wanted = this_flow(), set(keys)
    job = flow.job if flow.job is not None and not flow.job.over else None
    if job is None:
        inherited = current_job()
        if inherited is not None:
            if inherited.origin.destination not in wanted:
                return False
            _finish_inherited(inherited)
        elif in_a_request():
            return False
    elif not (wanted & flow.loop_keys or job.settled_ns):
        return False
    else:
        finish(flow)
    if len(flow.loop_keys) < LOOP_KEYS_MAX:
        flow.loop_keys |= wanted
    return True


def popped(job: Job) -> None:
    """A job was begun for what this flow popped."""
    flow = this_flow()
    _hold(flow, job)
    task = running_task()
    if task is not None:
        task.add_done_callback(_task_done)


def touch(*, busy: bool = True) -> None:
    """This flow does something for its job: called when a span begins and by the hooks on clients.

    Without `busy` it is bookkeeping, as a loop does it that hands its jobs to others.
    """
    flow = this_flow()
    if flow.job is not None:
        flow.busy = flow.busy or busy
        flow.touched = True
        flow.job.activity_ns = time.time_ns()


def finish(flow: Flow, *evidence: Evidence) -> None:
    """The flow is done with its job: it ends now, or with the last of those that it was handed to."""
    job, flow.job = flow.job, None
    if job is None or job.over:
        return
    for each in (*evidence, *(() if flow.busy else job.said_by_children)):
        job.observe(each)
    if job.children and not flow.busy:
        job.left = True
        leave(job)
        return
    # A job that was settled is over, even if the loop slept before it asked for the next one.
    job_end(job, end_ns=max(job.settled_ns, job.activity_ns) if job.settled_ns else None)


def hand_over(job: Job, source: Flow, target: Flow) -> bool:
    """Moves a job that was popped in `source` to the suspended task that waits for it."""
    if target.context is None:
        return False
    source.job = None
    target.loop_keys |= source.loop_keys
    target.context.run(_enter, job)
    _hold(target, job)
    return True


def _hold(flow: Flow, job: Job) -> None:
    flow.job, flow.busy, flow.touched = job, False, False
    handled = sys.exc_info()[1]
    flow.in_flight = id(handled) if handled is not None else 0
    job.flow = weakref.ref(flow)


def _enter(job: Job) -> None:
    ambient = context.get_current()
    before = current_job()
    job.previous = before.previous if before else ambient
    enter(job)


def _finish_inherited(job: Job) -> None:
    """A pop in a thread or task that belongs to the job before: this one is done with it."""
    leave(job)
    flow = job.flow() if job.flow is not None else None
    if isinstance(flow, Flow) and flow.job is job:
        finish(flow)


@hook("flow.task_done")
def _task_done(task: asyncio.Task[Any]) -> None:
    flow = _of_tasks.get(task)
    if flow is None or flow.job is None or flow.job.over:
        return
    if not flow.busy and not flow.job.children and not task.cancelled() and task.exception() is None:
        creator = flow.creator() if flow.creator is not None else None
        if creator is not None and not creator.done() and hand_over(flow.job, flow, flow_of(creator)):
            return
    finish(flow, *(() if _came_before(flow, task) else task_evidence(task)))


def _came_before(flow: Flow, task: asyncio.Task[Any]) -> bool:
    error = None if task.cancelled() else task.exception()
    return error is not None and id(error) == flow.in_flight


def task_evidence(task: asyncio.Task[Any]) -> tuple[Evidence, ...]:
    """What the end of a task says of the job that it worked on."""
    if task.cancelled():
        return (Evidence(Source.EXCEPTION, Outcome.CANCELLED, "CancelledError"),)
    error = task.exception()
    return (exception_evidence(error),) if error is not None else ()


class Exit:
    """The process was asked to end."""

    evidence: Evidence | None = None
    """By a handler of the host's that called sys.exit (lifecycle.py)."""


def exception_evidence(error: BaseException) -> Evidence:
    """What an exception that leaves the unit of work says."""
    if isinstance(error, SystemExit) and Exit.evidence is not None:
        return Exit.evidence
    if isinstance(error, SystemExit) and not error.code:
        return Evidence(Source.END, Outcome.COMPLETED)
    cancelled = isinstance(error, asyncio.CancelledError | KeyboardInterrupt | GeneratorExit)
    outcome = Outcome.CANCELLED if cancelled else Outcome.FAILED
    return Evidence(Source.EXCEPTION, outcome, error_name(error), error_text(error))


def error_name(error: BaseException) -> str:
    """`error.type` of an exception: the qualified class name, builtins without module."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
