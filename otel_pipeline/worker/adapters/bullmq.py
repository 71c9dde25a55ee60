"""BullMQ (Python): the context travels where BullMQ's own telemetry puts it, as JSON text in the option `tm`.

So a job that a Node.js program with `bullmq-otel` adds has its parent here, and the other way about. A job is one
`Worker.processJob`; the processor tells how it came out, since the worker swallows what leaves it. The worker's loop,
its timers and the scripts around a job are silent; the processor and event listeners are not.
"""

from __future__ import annotations

import contextvars
import inspect
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import wrapt
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_pipeline.worker import outcomes
from otel_pipeline.worker.attempts import age_s, framework, raised, typed, waited_since, will_retry
from otel_pipeline.worker.evidence import Outcome
from otel_pipeline.worker.flow import error_name
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, Origin, job_end, job_start
from otel_pipeline.worker.messages import Send, extract, send_end, send_start
from otel_pipeline.worker.quiet import quietly, restore, silent, speak

METADATA: Final = "tm"
"""BullMQ's short name of `telemetry.metadata`."""
OMIT: Final = "omc"
"""`telemetry.omitContext`: the producer wants no parent."""
NODES_MAX: Final = 1000
"""Jobs of one flow that get the context."""
AGAIN: Final = ("DelayedError", "WaitingChildrenError")
"""The processor put the job back itself."""


@dataclass(slots=True)
class _Running:
    job: Job
    bull: Any


_running: Final[contextvars.ContextVar[_Running | None]] = contextvars.ContextVar("otel_pipeline.bullmq", default=None)


def patch_queue(module: ModuleType) -> None:
    """bullmq.queue."""
    wrapt.wrap_function_wrapper(module.Queue, "add", _add)
    wrapt.wrap_function_wrapper(module.Queue, "addBulk", _add_bulk)
    quietly(module.Job, "updateProgress", "updateData", "log", "moveToDelayed", "moveToWaitingChildren")


def patch_flow(module: ModuleType) -> None:
    """bullmq.flow_producer."""
    wrapt.wrap_function_wrapper(module.FlowProducer, "add", _add_flow)
    wrapt.wrap_function_wrapper(module.FlowProducer, "addBulk", _add_flows)


def patch_worker(module: ModuleType) -> None:
    """bullmq.worker."""
    wrapt.wrap_function_wrapper(module.Worker, "__init__", _init)
    wrapt.wrap_function_wrapper(module.Worker, "processJob", _process)
    wrapt.wrap_function_wrapper(module.Worker, "emit", _emit)
    quietly(module.Worker, "run", "close", "runStalledJobsCheck", "extendLocks")


# -- producer ----------------------------------------------------------------------------------------------------------


@hook("bullmq.sending")
def _sending(queue: Any, data: Any, options: Any, *, attach: bool = True) -> Send | None:
    """Not if the caller carries a context of its own, or wants none."""
    known = options if isinstance(options, Mapping) else {}
    if silent() or METADATA in known or known.get(OMIT):
        return None
    message_id = known.get("jobId")
    message: dict[str, Any] = {
        "args": [],
        "kwargs": data if isinstance(data, Mapping) else {"data": data},
        "id": message_id,
    }
    return send_start("bullmq", str(queue), message, str(message_id) if message_id else None, attach=attach)


@hook("bullmq.sent")
def _sent(send: Send, error: BaseException | None = None) -> None:
    send_end(send, error)


@hook("bullmq.options")
def _with_context(send: Send, options: Any) -> dict[str, Any]:
    """A copy: the caller's dictionary may be shared by all its jobs."""
    return {**(options or {}), METADATA: json.dumps(send.headers, separators=(",", ":"))}


@hook("bullmq.with_options")
def _arguments(send: Send, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """name, data and options."""
    if len(args) > 2:
        return (*args[:2], _with_context(send, args[2]) or args[2], *args[3:]), kwargs
    return args, {**kwargs, "opts": _with_context(send, kwargs.get("opts")) or kwargs.get("opts")}


async def _add(wrapped: Any, queue: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    data, options = _given(args, kwargs)
    send: Any = _sending(queue.name, data, options)
    args, kwargs = _arguments(send, args, kwargs) or (args, kwargs)
    try:
        with suppress_instrumentation():
            added = await wrapped(*args, **kwargs)
    except BaseException as error:
        _sent(send, error)
        raise
    _identified(send, added)
    _sent(send)
    return added


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    _, data, options = [*args[:3], *[None] * 3][:3]
    return kwargs.get("data", data), kwargs.get("opts", options)


@hook("bullmq.identified")
def _identified(send: Send, added: Any) -> None:
    """Redis gave the job its number."""
    if added.id is not None:
        send.span.set_attribute("messaging.message.id", str(added.id))


async def _in_bulk(wrapped: Any, args: tuple[Any, ...], kwargs: dict[str, Any], sends: Any) -> Any:
    error: BaseException | None = None
    try:
        with suppress_instrumentation():
            return await wrapped(*args, **kwargs)
    except BaseException as raised_error:
        error = raised_error
        raise
    finally:
        for send in sends or ():
            _sent(send, error)


@hook("bullmq.bulk")
def _bulk(queue: Any, jobs: Any) -> tuple[list[dict[str, Any]], list[Send]]:
    """One span for each, so that each is a trace of its own if there is none yet."""
    made: list[Any] = []
    sends: list[Send] = []
    for each in jobs:
        send: Any = _sending(queue.name, each.get("data"), each.get("opts"), attach=False)
        options = _with_context(send, each.get("opts"))
        made.append({**each, "opts": options} if options is not None else each)
        if send is not None:
            sends.append(send)
    return made, sends


async def _add_bulk(wrapped: Any, queue: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = args[0] if args else kwargs.get("jobs")
    jobs, sends = _bulk(queue, given) or (given, None)
    args, kwargs = ((jobs, *args[1:]), kwargs) if args else (args, {**kwargs, "jobs": jobs})
    return await _in_bulk(wrapped, args, kwargs, sends)


@hook("bullmq.flow")
def _flow(flows: list[Any]) -> tuple[list[Any], list[Send]]:
    """The jobs of a flow belong together: they share the context of its root's span."""
    made: list[Any] = []
    sends: list[Send] = []
    for flow in flows:
        send: Any = _sending(flow.get("queueName"), flow.get("data"), flow.get("opts"), attach=False)
        made.append(_tree(flow, send, [NODES_MAX]) if send is not None else flow)
        if send is not None:
            sends.append(send)
    return made, sends


def _tree(node: dict[str, Any], send: Send, left: list[int]) -> dict[str, Any]:
    left[0] -= 1
    if left[0] < 0:
        return node
    children = node.get("children")
    nodes = {"children": [_tree(child, send, left) for child in children]} if children else {}
    options = _with_context(send, node.get("opts"))
    return {**node, **({"opts": options} if options is not None else {}), **nodes}


async def _add_flow(wrapped: Any, _producer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = args[0] if args else kwargs.get("flow")
    flows, sends = _flow([given]) or ([given], None)
    args, kwargs = ((flows[0], *args[1:]), kwargs) if args else (args, {**kwargs, "flow": flows[0]})
    return await _in_bulk(wrapped, args, kwargs, sends)


async def _add_flows(wrapped: Any, _producer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = args[0] if args else kwargs.get("flows")
    flows, sends = _flow(list(given or ())) or (given, None)
    args, kwargs = ((flows, *args[1:]), kwargs) if args else (args, {**kwargs, "flows": flows})
    return await _in_bulk(wrapped, args, kwargs, sends)


# -- consumer ----------------------------------------------------------------------------------------------------------


@hook("bullmq.begin")
def _begin(worker: Any, bull: Any) -> _Running:
    options = bull.opts if isinstance(bull.opts, Mapping) else {}
    data = bull.data if isinstance(bull.data, Mapping) else {"data": bull.data}
    job = job_start(
        Origin("bullmq", str(worker.name), str(bull.id)),
        {"args": [], "kwargs": dict(data), "id": str(bull.id)},
        parent=None if options.get(OMIT) else extract(_headers(options.get(METADATA))),
        attempt=int(bull.attemptsMade or 0) + 1,
    )
    typed(job, str(bull.name) if bull.name else None)
    waited_since(job, age_s((bull.timestamp or 0) + (options.get("delay") or 0)))
    running = _Running(job, bull)
    _running.set(running)
    reason = getattr(bull, "deferredFailure", None)
    if reason:
        job.observe(framework(Outcome.FAILED, "deferredFailure", str(reason)))
    return running


def _headers(metadata: Any) -> dict[str, Any] | None:
    try:
        found = json.loads(metadata) if isinstance(metadata, str | bytes) else metadata
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


@hook("bullmq.end")
def _end(running: _Running, error: BaseException | None = None) -> None:
    _running.set(None)
    if error is not None:
        raised(running.job, error)
    job_end(running.job)


async def _process(wrapped: Any, worker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    running: Any = _begin(worker, args[0] if args else kwargs.get("job"))
    try:
        with suppress_instrumentation():
            result = await wrapped(*args, **kwargs)
    except BaseException as error:
        _end(running, error)
        raise
    _end(running)
    return result


def _init(wrapped: Any, worker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = wrapped(*args, **kwargs)
    _observe(worker)
    return result


@hook("bullmq.processor")
def _observe(worker: Any) -> None:
    """The processor still is what it was to anybody who looks at it."""
    if callable(worker.processor) and not isinstance(worker.processor, wrapt.FunctionWrapper):
        worker.processor = wrapt.FunctionWrapper(worker.processor, _call)


def _call(wrapped: Callable[..., Any], _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    token = speak()
    try:
        result = wrapped(*args, **kwargs)
    except BaseException as error:
        _failed(error)
        raise
    finally:
        restore(token)
    return _called(result) if inspect.iscoroutine(result) else result


async def _called(coroutine: Coroutine[Any, Any, Any]) -> Any:
    token = speak()
    try:
        value = await coroutine
    except BaseException as error:
        _failed(error)
        raise
    else:
        _returned([value])
        return value
    finally:
        restore(token)


@hook("bullmq.returned")
def _returned(values: list[Any]) -> None:
    running = _running.get()
    if running is not None:
        running.job.observe(outcomes.returned(values[0]))


@hook("bullmq.failed")
def _failed(error: BaseException) -> None:
    running = _running.get()
    if running is None:
        return
    job, bull = running.job, running.bull
    if type(error).__module__.startswith("bullmq.") and type(error).__name__ in AGAIN:
        will_retry(job)
        job.observe(framework(Outcome.SKIPPED, None, error_name(error)))
        return
    raised(job, error)
    unrecoverable = any(each.__name__ == "UnrecoverableError" for each in type(error).__mro__)
    if isinstance(error, Exception) and not unrecoverable and not getattr(bull, "discarded", False):
        attempts = int((bull.opts or {}).get("attempts") or 0)
        if int(bull.attemptsMade or 0) + 1 < attempts:
            will_retry(job)


def _emit(wrapped: Any, _worker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Listeners are the program's."""
    token = speak()
    try:
        return wrapped(*args, **kwargs)
    finally:
        restore(token)
