"""Context follows the job into threads, executors and tasks, and a job that was handed on ends with the last of them.

asyncio copies the context into each new task by itself; here the task is only counted as working on the job, and its
context remembered, so that a pop that ran in a task of its own can be handed over to the one that waits (flow.py).
Threads and executors do not copy it; they do here, where the program's own code starts them.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import sys
import sysconfig
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, CoroutineType, ModuleType
from typing import Any, Final

import wrapt
from opentelemetry import context, trace
from opentelemetry.context import Context

from otel_pipeline.worker.evidence import Evidence
from otel_pipeline.worker.flow import (
    Flow,
    exception_evidence,
    flow_of,
    hand_over,
    running_task,
    task_evidence,
    this_flow,
)
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, current_job, job_end

_PATHS: Final = ("stdlib", "platstdlib", "purelib", "platlib")
_LIBRARIES: Final = (
    "<frozen",
    str(Path(__file__).parent) + "/",
    *{sysconfig.get_path(name) + "/" for name in _PATHS},
)
"""Where code starts that is not the program's own: the standard library, installed packages, this package."""


ARGUMENTS_MAX: Final = 32
"""Arguments of work that are shown to those who ask which job it is about."""
handing: Final[list[Callable[[list[Any]], object]]] = []
"""Told of the arguments of work before it is given to a task or a thread: of several open jobs it may be about one
(a batch). Each is a hook."""


@dataclass(frozen=True, slots=True)
class Handed:
    """Work given to another thread."""

    context: Context
    job: Job | None
    submitter: weakref.ref[Flow]
    loop: asyncio.AbstractEventLoop | None
    """Of the task that waits for the result, so that a job popped in it can be handed over."""


def join(job: Job) -> None:
    """One more thread or task works on the job."""
    with job.lock:
        job.children += 1
    flow = this_flow()
    if flow.job is job:
        flow.busy = False


def part(job: Job, *evidence: Evidence) -> None:
    """One of them is done; the last one ends a job that its own flow has left."""
    with job.lock:
        job.children -= 1
        job.activity_ns = time.time_ns()
        last = job.children <= 0 and job.left
    if job.left:
        for each in evidence:
            job.observe(each)
    else:
        job.said_by_children = evidence
    if last:
        job_end(job)


def _announce(arguments: list[Any]) -> None:
    for each in handing:
        each(arguments)


# -- asyncio -----------------------------------------------------------------------------------------------------------


@hook("tasks.coroutine")
def _announce_coroutine(coroutine: Any) -> None:
    """`gather(*[work(item) for item in batch])` makes its tasks when the iteration is through."""
    if handing:
        arguments = _arguments(coroutine)
        for each in arguments[:ARGUMENTS_MAX]:  # `wait_for(work(item))`, `to_thread(work, item)`
            arguments += each[:ARGUMENTS_MAX] if isinstance(each, tuple) else _arguments(each)
        _announce(arguments[:ARGUMENTS_MAX])


def _arguments(coroutine: Any) -> list[Any]:
    """Those of a coroutine that has not begun."""
    frame = coroutine.cr_frame if isinstance(coroutine, CoroutineType) else None
    if frame is None or inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED:
        return []
    return list(frame.f_locals.values())[:ARGUMENTS_MAX]


@hook("tasks.context")
def _own_context(loop: asyncio.AbstractEventLoop) -> contextvars.Context | None:
    """The context to give a task explicitly, so that it is known. A task factory may not take one."""
    return contextvars.copy_context() if loop.get_task_factory() is None else None


@hook("tasks.created")
def _created(task: Any, own: contextvars.Context | None) -> None:
    if not isinstance(task, asyncio.Task):
        return
    job, creator = current_job(), running_task()
    if own is not None:
        flow = flow_of(task)
        flow.context, flow.creator = own, weakref.ref(creator) if creator is not None else None
    if job is not None:
        join(job)
        task.add_done_callback(functools.partial(_left, job))


@hook("tasks.left")
def _left(job: Job, task: asyncio.Task[Any]) -> None:
    part(job, *task_evidence(task))


def _create_task(wrapped: Callable[..., Any], loop: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _announce_coroutine(args[0] if args else kwargs.get("coro"))
    given = kwargs.get("context")
    own = given if given is not None else _own_context(loop)  # an empty context is false
    if own is not None and given is None:
        kwargs = {**kwargs, "context": own}
    task = wrapped(*args, **kwargs)
    _created(task, own)
    return task


# -- threads -----------------------------------------------------------------------------------------------------------


@hook("tasks.hand")
def _hand(function: Callable[..., Any], caller: str) -> Handed | None:
    """What a thread that runs the function has to know; None if there is nothing, or libraries are among themselves."""
    own = is_own(code_of(function))
    waiting = running_task() is not None  # a library's function as well: `await asyncio.to_thread(client.blpop, key)`
    if not own and not is_own_file(caller) and not waiting:
        return None
    job, ambient = current_job(), context.get_current()
    if job is None and not trace.get_current_span(ambient).get_span_context().is_valid and not waiting:
        return None
    counted = job if own else None
    if counted is not None:
        join(counted)
    return Handed(ambient, counted, weakref.ref(this_flow()), asyncio.get_running_loop() if waiting else None)


@hook("tasks.begin")
def _begin(handed: Handed) -> object:
    return context.attach(handed.context)


@hook("tasks.finish")
def _finish(handed: Handed, token: Any, error: BaseException | None) -> None:
    flow = this_flow()
    if flow.job is not None and not flow.job.over and not flow.busy and handed.loop is not None and error is None:
        # On the loop, where the task that waits is not running; and before it is woken by the result.
        job, flow.job = flow.job, None
        handed.loop.call_soon_threadsafe(_hand_over, job, flow, handed.submitter)
    if handed.job is not None:
        part(handed.job, *([exception_evidence(error)] if error is not None else []))
    context.attach(Context()) if token is None else context.detach(token)


@hook("tasks.hand_over")
def _hand_over(job: Job, source: Flow, submitter: weakref.ref[Flow]) -> None:
    target = submitter()
    if target is None or not hand_over(job, source, target):
        job_end(job)


def carried(
    handed: Handed | None, function: Callable[..., Any], thread: threading.Thread | None = None
) -> Callable[..., Any]:
    """The function, running in the context that was handed to it; `thread` if it replaces that one's `run`."""
    if handed is None:
        return function

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        token = _begin(handed)
        error: BaseException | None = None
        try:
            return function(*args, **kwargs)
        except BaseException as raised:
            error = raised
            raise
        finally:
            _finish(handed, token, error)
            _release(thread)

    return run


def _start(wrapped: Callable[..., Any], thread: threading.Thread, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _replace_run(thread, sys._getframe(1).f_code.co_filename)
    return wrapped(*args, **kwargs)


@hook("tasks.thread")
def _replace_run(thread: threading.Thread, caller: str) -> None:
    target = getattr(thread, "_target", None) or thread.run
    if handing:
        _announce([*getattr(thread, "_args", ()), *getattr(thread, "_kwargs", {}).values()][:ARGUMENTS_MAX])
    handed = _hand(target, caller)
    if handed is not None:
        thread.run = carried(handed, thread.run, thread)  # type: ignore[method-assign]  # of this one thread


@hook("tasks.release")
def _release(thread: threading.Thread | None) -> None:
    """The thread's `run` refers to the thread: it is over, and its flow must end now, not when garbage is collected."""
    if thread is not None:
        thread.__dict__.pop("run", None)


def _submit(wrapped: Callable[..., Any], _executor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not args:
        return wrapped(*args, **kwargs)
    _announce_call(args, kwargs)
    function = carried(_hand(args[0], sys._getframe(1).f_code.co_filename), args[0])
    return wrapped(function, *args[1:], **kwargs)


@hook("tasks.call")
def _announce_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if handing:
        _announce([*args[1:], *kwargs.values()][:ARGUMENTS_MAX])


# -- whose code --------------------------------------------------------------------------------------------------------


def code_of(function: Any) -> CodeType | None:
    """The code behind a function, method or partial."""
    for _ in range(8):
        if isinstance(function, functools.partial):
            # asyncio.to_thread wraps the function in a partial of Context.run.
            function = function.args[0] if function.args and not hasattr(function.func, "__code__") else function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif hasattr(function, "__func__"):
            function = function.__func__
        else:
            break
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None


def is_own(code: CodeType | None) -> bool:
    """Whether it is code of the program, not of a library."""
    return code is not None and is_own_file(code.co_filename)


@functools.lru_cache(maxsize=4096)
def is_own_file(name: str) -> bool:
    return not name.startswith(_LIBRARIES) and "/site-packages/" not in name and "/dist-packages/" not in name


def patch() -> None:
    """Wraps asyncio's, threading's and concurrent.futures' ways to start work."""
    wrapt.wrap_function_wrapper(asyncio.BaseEventLoop, "create_task", _create_task)
    wrapt.wrap_function_wrapper(threading.Thread, "start", _start)
    wrapt.wrap_function_wrapper(ThreadPoolExecutor, "submit", _submit)


def patch_uvloop(module: ModuleType) -> None:
    """uvloop's loop class is its own."""
    wrapt.wrap_function_wrapper(module.Loop, "create_task", _create_task)
