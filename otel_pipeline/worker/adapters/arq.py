"""arq: the context waits in a side key of the job's id, since a job is pickled as a whole and has no headers.

`Worker.run_job` fetches the job, calls its coroutine and swallows what comes of it. So a job begins where its message
has been read (`deserialize_job_raw`), its coroutine tells how it came out, and it ends with `run_job`. The worker's
polling is silent, and so are the tasks that it makes, until their job begins.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import wrapt
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_pipeline.worker import identity, names, outcomes
from otel_pipeline.worker.adapters.redis import context as redis_context
from otel_pipeline.worker.adapters.redis.context import Carried, Command
from otel_pipeline.worker.attempts import age_s, framework, raised, retried, typed, waited_since, will_retry
from otel_pipeline.worker.evidence import Outcome
from otel_pipeline.worker.flow import error_name
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, Origin, job_end, job_start
from otel_pipeline.worker.messages import Send, element_key, extract, send_end, send_start
from otel_pipeline.worker.quiet import quietly, silent
from otel_pipeline.worker.settings import settings


@dataclass(slots=True, eq=False)
class _Run:
    """One call of `run_job`."""

    worker: Any
    job_id: str
    task: asyncio.Task[Any] | None
    carried: Carried | None = None
    job: Job | None = None
    again: bool = False


_run: Final[contextvars.ContextVar[_Run | None]] = contextvars.ContextVar("otel_pipeline.arq", default=None)


def patch_connections(module: ModuleType) -> None:
    """arq.connections: the producing side."""
    wrapt.wrap_function_wrapper(module.ArqRedis, "enqueue_job", _enqueue)
    quietly(module.ArqRedis, "all_job_results", "queued_jobs")
    quietly(module.Job, "result", "info", "result_info", "status", "abort")


def patch_worker(module: ModuleType) -> None:
    """arq.worker."""
    wrapt.wrap_function_wrapper(module.Worker, "run_job", _run_job)
    wrapt.wrap_function_wrapper(module, "deserialize_job_raw", _deserialize)
    wrapt.wrap_function_wrapper(module, "serialize_result", _serialize)
    quietly(module.Worker, "_poll_iteration", "heart_beat", "finish_job", "finish_failed_job", "close")


# -- producer ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Sending:
    send: Send
    job_id: str


@hook("arq.sending")
def _sending(pool: Any, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Sending | None:
    """Not for cron jobs, which the worker enqueues to itself: each of them is the root of its trace."""
    if silent():
        return None
    job_id = str(kwargs.get("_job_id") or uuid.uuid4().hex)
    own = {name: value for name, value in kwargs.items() if not name.startswith("_")}
    queue = kwargs.get("_queue_name") or pool.default_queue_name
    message = {"args": list(args), "kwargs": own, "id": job_id, "function": function}
    return _Sending(send_start("arq", str(queue), message, job_id), job_id)


@hook("arq.beside")
def _beside(sending: _Sending) -> list[Command]:
    """The newest context of an id is the one that counts: an id is in the queue once only."""
    key = element_key(sending.job_id.encode())
    ttl = int(settings().context_ttl_s)
    value = redis_context.encode(sending.send.headers, 1)
    return [("LPUSH", key, value), ("LTRIM", key, 0, redis_context.EQUAL_MAX - 1), ("EXPIRE", key, ttl)]


@hook("arq.refused")
def _refused(sending: _Sending) -> list[Command]:
    """arq has a job of that id already, which keeps its own context."""
    return [("LPOP", element_key(sending.job_id.encode()))]


@hook("arq.with_id")
def _with_id(sending: _Sending, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**kwargs, "_job_id": sending.job_id}


@hook("arq.sent")
def _sent(sending: _Sending, error: BaseException | None = None) -> None:
    send_end(sending.send, error)


async def _enqueue(wrapped: Any, pool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    sending: Any = _sending(pool, args[0] if args else kwargs.get("function", ""), args[1:], kwargs)
    try:
        with suppress_instrumentation():
            await redis_context.exchange_async(pool, _beside(sending))
            result = await wrapped(*args, **(_with_id(sending, kwargs) or kwargs))
            if result is None:
                await redis_context.exchange_async(pool, _refused(sending))
    except BaseException as error:
        _sent(sending, error)
        raise
    _sent(sending)
    return result


# -- consumer ----------------------------------------------------------------------------------------------------------


@hook("arq.run")
def _running(worker: Any, job_id: Any) -> _Run:
    run = _Run(worker, str(job_id), asyncio.current_task())
    _run.set(run)
    return run


@hook("arq.context")
def _reads(run: _Run) -> list[Command]:
    return [("LINDEX", element_key(run.job_id.encode()), 0)]


@hook("arq.carried")
def _carried(run: _Run, answers: list[Any] | None) -> None:
    run.carried = redis_context.decode(answers[0]) if answers and answers[0] is not None else None


@hook("arq.over")
def _over(run: _Run, error: BaseException | None = None) -> list[Command] | None:
    """Ends the job. Its context is taken away, unless it runs again."""
    _run.set(None)
    if run.job is not None:
        if error is not None:
            raised(run.job, error)
        job_end(run.job)
    return [("DEL", element_key(run.job_id.encode()))] if run.carried is not None and not run.again else None


async def _run_job(wrapped: Any, worker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    run: Any = _running(worker, args[0] if args else kwargs.get("job_id"))
    with suppress_instrumentation():
        _carried(run, await redis_context.exchange_async(worker.pool, _reads(run)))
        try:
            result = await wrapped(*args, **kwargs)
        except BaseException as error:
            _over(run, error)
            raise
        await redis_context.exchange_async(worker.pool, _over(run))
        return result


def _start(run: _Run, message: dict[str, Any]) -> Job:
    carried = run.carried
    job = job_start(
        Origin("arq", str(run.worker.queue_name), run.job_id),
        message,
        parent=extract(carried.headers) if carried is not None else None,
    )
    run.job = job
    return job


@hook("arq.begin")
def _begin(read: Any) -> None:
    """The message was read: function, arguments, number of the try if the producer set it, time of enqueuing."""
    run = _run.get()
    if run is None or run.job is not None:
        return
    function, args, kwargs, _, enqueued_ms = read
    known = run.worker.functions.get(function)
    coroutine = getattr(known, "coroutine", None)
    message = {"args": list(args), "kwargs": dict(kwargs), "id": run.job_id}
    if coroutine is not None:
        message = identity.call(coroutine, (None, *args), dict(kwargs), id=run.job_id)
        message["args"] = list(args)
        _observe(known)
    job = _start(run, message)
    typed(job, function)
    waited_since(job, age_s(enqueued_ms))


def _deserialize(wrapped: Any, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    read = wrapped(*args, **kwargs)
    _begin(read)
    return read


def _observe(function: Any) -> None:
    """The coroutine of a function or cron job tells how its calls come out; it is still called as before."""
    if not isinstance(function.coroutine, wrapt.FunctionWrapper):
        function.coroutine = wrapt.FunctionWrapper(function.coroutine, _call)


def _call(wrapped: Any, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = wrapped(*args, **kwargs)
    return _called(result, args[0] if args else None) if inspect.iscoroutine(result) else result


async def _called(coroutine: Coroutine[Any, Any, Any], ctx: Any) -> Any:
    _attempt(ctx)
    try:
        value = await coroutine
    except BaseException as error:
        _failed(error)
        raise
    _returned([value])
    return value


@hook("arq.attempt")
def _attempt(ctx: Any) -> None:
    run = _run.get()
    if run is not None and run.job is not None and ctx.get("job_id") == run.job_id:
        run.job.attempt = int(ctx["job_try"])
        run.job.set(names.JOB_ATTEMPT, run.job.attempt)


@hook("arq.returned")
def _returned(values: list[Any]) -> None:
    run = _run.get()
    if run is not None and run.job is not None:
        run.job.observe(outcomes.returned(values[0]))


@hook("arq.failed")
def _failed(error: BaseException) -> None:
    """An exception leaves the coroutine. A cancellation has three reasons, which it does not tell."""
    run = _run.get()
    if run is None or run.job is None:
        return
    again = bool(getattr(run.worker, "retry_jobs", True))
    if type(error).__module__ == "arq.worker" and type(error).__name__ in ("Retry", "RetryJob") and again:
        run.again = True
        retried(run.job, error)
    elif not isinstance(error, asyncio.CancelledError):
        raised(run.job, error)
    elif run.job_id in getattr(run.worker, "aborting_tasks", ()):
        run.job.observe(framework(Outcome.CANCELLED, "aborted"))
    elif run.task is not None and run.task.cancelling():
        run.again = again
        if again:
            will_retry(run.job)
        run.job.observe(framework(Outcome.CANCELLED, "shutdown"))
    else:
        run.job.observe(framework(Outcome.FAILED, "TimeoutError", "the job's time was over"))


@hook("arq.result")
def _result(kwargs: dict[str, Any], args: tuple[Any, ...]) -> None:
    """What arq keeps of a job. Its word counts where there was no call: expired, unknown, aborted, too many tries."""
    run = _run.get()
    success = kwargs.get("success", args[5] if len(args) > 5 else True)
    result = kwargs.get("result", args[6] if len(args) > 6 else None)
    if run is None or success or not isinstance(result, BaseException):
        return
    if run.job is None:
        _start(run, {"id": run.job_id})
    if run.job is not None and not run.job.evidence:
        cancelled = isinstance(result, asyncio.CancelledError)
        told = framework(Outcome.CANCELLED if cancelled else Outcome.FAILED, error_name(result), str(result))
        run.job.observe(told)


def _serialize(wrapped: Any, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _result(kwargs, args)
    return wrapped(*args, **kwargs)
