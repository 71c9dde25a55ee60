"""Hooks in ComfyUI's own process: what runs there, for whom, and how long it waited.

Works on stock ComfyUI, by `opentelemetry-instrument python main.py`, by the environment (autoload/), or as a custom
node (custom_node/). Three places are hooked, each by the names of its parameters, because their number differs between
versions:

 * `PromptExecutor.execute_async` (`execute` before 0.3.44) is a prompt that runs, `add_message` what becomes of it;
 * the function `execution.execute` is a node that runs (runs.py);
 * `PromptQueue.put` is a prompt that was accepted, called within its HTTP request.

The parent of a prompt's span is what the client put into `extra_data`, else the context of the HTTP request that
brought it (its headers), else the ambient span. Prompts and history stay as they are; answers get one header.
"""

from __future__ import annotations

import inspect
import time
import weakref
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from opentelemetry import baggage, context, metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation

from otel_pipeline import __version__
from otel_pipeline.worker import names
from otel_pipeline.worker.calls import around
from otel_pipeline.worker.comfyui import runs
from otel_pipeline.worker.comfyui.runs import Call, Fault, Outcome, Run
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.process import lifecycle

NODES_HEADER: Final = "x-otel-pipeline-nodes"
"""On the answer of POST /prompt: `server`, so that a client leaves the spans of the nodes to the server."""
WAITING_MAX: Final = 10_000
"""Prompts whose origin is remembered while they wait; ComfyUI keeps as many in its history."""
VALUE_MAX: Final = 8_192
"""Characters of a header or a field of `extra_data` that is read: what the W3C allows for baggage."""
CORRELATION_MAX: Final = 128
CARRIERS: Final = ("traceparent", "tracestate", "baggage")
CORRELATION_HEADER: Final = "x-correlation-id"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Where a prompt in the queue comes from."""

    context: Context | None
    put_ns: int
    number: float | None


class Parameters:
    """Finds the arguments of a call by name, however they were passed."""

    def __init__(self, function: Callable[..., Any], expected: Iterable[str]) -> None:
        own = {name: place for place, name in enumerate(inspect.signature(function).parameters)}
        wanted = tuple(expected)
        # Another custom node may have put an anonymous (*args, **kwargs) around it.
        self._places = own if own.keys() >= set(wanted) else {name: place for place, name in enumerate(wanted)}

    def get(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if name in kwargs:
            return kwargs[name]
        place = self._places.get(name)
        return args[place] if place is not None and place < len(args) else None


_NODE: Final = ("server", "dynprompt", "caches", "current_item", "extra_data", "executed", "prompt_id")
_PROMPT: Final = ("self", "prompt", "prompt_id", "extra_data")
_parameters: Final[dict[str, Parameters]] = {}
"""Of the patched functions: `prompt`, `node`."""
_waiting: Final[dict[str, Waiting]] = {}
_queue: weakref.ref[Any] | None = None


# -- a prompt runs -----------------------------------------------------------------------------------------------------


def patch_execution(module: ModuleType) -> None:
    """`execution` of ComfyUI; anything else of that name is left alone."""
    executor = getattr(module, "PromptExecutor", None)
    if not isinstance(executor, type) or not callable(getattr(executor, "execute", None)):
        return
    if not hasattr(module, "PromptQueue"):
        return
    _patch_prompts(executor)
    if runs.close_all not in lifecycle.closing:
        lifecycle.closing.append(runs.close_all)
    if callable(getattr(executor, "add_message", None)):
        _wrap(executor, "add_message", _message_seen, _nothing)
    if callable(getattr(module.PromptQueue, "put", None)):
        _wrap(module.PromptQueue, "put", _accepted, _nothing)
    if hasattr(module, "ExecutionResult") and inspect.isfunction(getattr(module, "execute", None)):
        _patch_nodes(module)


def _wrap(owner: Any, name: str, begin: Callable[..., Any], end: Callable[..., Any]) -> None:
    setattr(owner, name, around(getattr(owner, name), begin, end))


def _patch_prompts(executor: type) -> None:
    name = "execute_async" if inspect.iscoroutinefunction(getattr(executor, "execute_async", None)) else "execute"
    _parameters["prompt"] = Parameters(getattr(executor, name), _PROMPT)
    _wrap(executor, name, _prompt_start, _prompt_end)


@hook("comfyui_server.prompt_start")
def _prompt_start(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Run, Any] | None:
    parameters = _parameters["prompt"]
    prompt_id, extra = parameters.get("prompt_id", args, kwargs), parameters.get("extra_data", args, kwargs)
    if not isinstance(prompt_id, str):
        return None
    known = extra if isinstance(extra, Mapping) else {}
    return _begin_run(prompt_id, parameters.get("prompt", args, kwargs), known), args[0]


@hook("comfyui_server.prompt_end")
def _prompt_end(begun: tuple[Run, Any], error: BaseException | None, _returned: Any) -> None:
    run, executor = begun
    success = getattr(executor, "success", None)
    runs.end_run(run, error, success if isinstance(success, bool) else None)


def _begin_run(prompt_id: str, prompt: Any, extra: Mapping[str, Any]) -> Run:
    now_ns = time.time_ns()
    waiting = _waiting.pop(prompt_id, None)
    parent = _carried(extra) or (waiting.context if waiting is not None else None)
    created_ms = extra.get("create_time")
    put_ns = waiting.put_ns if waiting is not None else None
    if put_ns is None and isinstance(created_ms, int | float):
        put_ns = int(created_ms * 1e6)
    attributes = {
        runs.PROMPT_QUEUE_WAIT_S: max(0, now_ns - put_ns) / 1e9 if put_ns is not None else None,
        runs.QUEUE_NUMBER: waiting.number if waiting is not None else None,
    }
    return runs.begin_run(prompt_id, parent, prompt, attributes)


def _carried(extra: Mapping[str, Any]) -> Context | None:
    """The context that the client put into `extra_data`."""
    carrier = {key: extra[key] for key in CARRIERS if isinstance(extra.get(key), str) and len(extra[key]) <= VALUE_MAX}
    if not carrier:
        return None
    found = propagate.extract(carrier, Context())
    return found if trace.get_current_span(found).get_span_context().is_valid else None


@hook("comfyui_server.message")
def _message_seen(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """`add_message(event, data, broadcast)`: what ComfyUI itself says of the prompt."""
    event = kwargs["event"] if "event" in kwargs else args[1]
    data = kwargs["data"] if "data" in kwargs else args[2]
    run = runs.run_of(data.get("prompt_id"))
    if run is None:
        return
    if event == "execution_cached":
        runs.cached_nodes(run, data.get("nodes") or ())
    elif event == "execution_success":
        run.succeeded = True
    elif event in {"execution_error", "execution_interrupted"}:
        interrupted = event == "execution_interrupted"
        run.fault = Fault(
            "interrupted" if interrupted else str(data.get("exception_type") or "_OTHER"),
            str(data.get("exception_message") or "")[: runs.MESSAGE_MAX].strip(),
            interrupted=interrupted,
            node_id=str(data["node_id"]) if data.get("node_id") is not None else None,
            node_type=str(data["node_type"]) if data.get("node_type") is not None else None,
        )


def _nothing(_begun: Any, _error: BaseException | None, _returned: Any) -> None:
    """Nothing is done after the call."""


# -- a node runs -------------------------------------------------------------------------------------------------------


def _patch_nodes(module: ModuleType) -> None:
    _parameters["node"] = Parameters(module.execute, _NODE)
    _wrap(module, "execute", _node_start, _node_end)


@hook("comfyui_server.node_start")
def _node_start(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    parameters = _parameters["node"]
    run = runs.run_of(parameters.get("prompt_id", args, kwargs))
    if run is None:
        return None
    return runs.enter_node(
        run,
        parameters.get("current_item", args, kwargs),
        parameters.get("dynprompt", args, kwargs),
        _or_empty(parameters.get("executed", args, kwargs)),
        _or_empty(parameters.get("pending_async_nodes", args, kwargs)),
    )


@hook("comfyui_server.node_end")
def _node_end(call: Call, error: BaseException | None, returned: Any) -> None:
    if error is not None:
        runs.leave_node(call, "FAILURE", runs.fault_of(error))
        return
    result, details, raised = returned
    runs.leave_node(call, result.name, _fault(result.name, details, raised))


def _fault(state: str, details: Any, raised: Any) -> Fault | None:
    if isinstance(raised, BaseException):
        return runs.fault_of(raised, details if isinstance(details, Mapping) else None)
    return Fault("_OTHER", "the node failed") if state == "FAILURE" else None


def _or_empty(given: Any) -> Collection[str]:
    return given if isinstance(given, Collection) else ()


# -- a prompt arrives --------------------------------------------------------------------------------------------------


def patch_server(module: ModuleType) -> None:
    """`server` of ComfyUI; anything else of that name is left alone."""
    kind = getattr(module, "PromptServer", None)
    if not isinstance(kind, type) or not hasattr(kind, "send_sync"):
        return
    instance = getattr(kind, "instance", None)
    if isinstance(instance, kind):
        _join(instance)
    _wrap(kind, "__init__", _constructing, _constructed)


def _constructing(args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
    return args[0]


def _constructed(server: Any, error: BaseException | None, _returned: Any) -> None:
    if error is None:
        _join(server)


@hook("comfyui_server.join")
def _join(server: Any) -> None:
    """The application's last middleware, before it is frozen."""
    _know(server.prompt_queue)
    _no_work(getattr(server, "messages", None))
    if _middleware not in server.app.middlewares:
        server.app.middlewares.append(_middleware)


@hook("comfyui_server.messages")
def _no_work(messages: Any) -> None:
    """The queue of messages to browsers: nodes fill it while they run, and each would look like a job."""
    from otel_pipeline.worker.adapters import inprocess  # noqa: PLC0415  it may be disabled

    inprocess.ignore(messages)


async def _middleware(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
    token = _request_came(request)
    try:
        response = await handler(request)
    finally:
        _request_left(token)
    _answered(token, response)
    return response


_middleware.__middleware_version__ = 1  # type: ignore[attr-defined]  # aiohttp's mark for this signature


@hook("comfyui_server.request")
def _request_came(request: Any) -> Any:
    """Makes the context of the headers current, unless an instrumentation of the server has done so."""
    if request.method != "POST" or not request.path.rstrip("/").endswith("/prompt"):
        return None
    ambient = context.get_current()
    if not trace.get_current_span(ambient).get_span_context().is_valid:
        headers = {key: request.headers[key][:VALUE_MAX] for key in CARRIERS if key in request.headers}
        ambient = propagate.extract(headers, ambient)
    correlation = request.headers.get(CORRELATION_HEADER, "")[:CORRELATION_MAX]
    if correlation and baggage.get_baggage(names.CORRELATION_ID, ambient) is None:
        ambient = baggage.set_baggage(names.CORRELATION_ID, correlation, ambient)
    return context.attach(ambient)


@hook("comfyui_server.request_left")
def _request_left(token: Any) -> None:
    context.detach(token)


@hook("comfyui_server.answer")
def _answered(_token: Any, response: Any) -> None:
    response.headers[NODES_HEADER] = "server"


@hook("comfyui_server.accepted")
def _accepted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """`PromptQueue.put((number, prompt_id, ...))`, within the request that brought the prompt."""
    queue, item = args[0], kwargs["item"] if "item" in kwargs else args[1]
    _know(queue)
    number, prompt_id = item[0], item[1]
    while len(_waiting) >= WAITING_MAX:
        del _waiting[next(iter(_waiting))]
    _waiting[str(prompt_id)] = Waiting(
        _origin(), time.time_ns(), float(number) if isinstance(number, int | float) else None
    )


def _origin() -> Context | None:
    """What of the current context a waiting prompt keeps: its span's ids and the baggage, not what else hangs on it."""
    spans, carried = trace.get_current_span().get_span_context(), baggage.get_all()
    if not spans.is_valid and not carried:
        return None
    kept = Context()
    if spans.is_valid:
        kept = trace.set_span_in_context(trace.NonRecordingSpan(spans), kept)
    for key, value in carried.items():
        kept = baggage.set_baggage(key, value, kept)
    return kept


# -- the queue as a metric ---------------------------------------------------------------------------------------------


def _know(queue: Any) -> None:
    """The queue whose size is reported, from the first time that it is seen."""
    global _queue  # a process has one
    if queue is None or (_queue is not None and _queue() is queue):
        return
    first, _queue = _queue is None, weakref.ref(queue)
    if first:
        metrics.get_meter("otel_pipeline.worker", __version__).create_observable_gauge(
            "comfyui_queue_size", [_observe], "{prompt}", "Prompts waiting and active, and completed and failed so far."
        )


def _observe(options: CallbackOptions) -> Iterable[Observation]:
    return _sizes(options) or ()


@hook("comfyui_server.queue_size")
def _sizes(_options: CallbackOptions) -> list[Observation]:
    queue = _queue() if _queue is not None else None
    if queue is None:
        return []
    sizes = {
        "waiting": len(queue.queue),
        "active": len(queue.currently_running),
        "completed": runs.finished[Outcome.SUCCESS],
        "failed": runs.finished[Outcome.FAILED],
    }
    return [Observation(size, {"status": status}) for status, size in sizes.items()]
