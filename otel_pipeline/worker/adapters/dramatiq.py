"""Dramatiq: the context travels in the message's options, where middleware keeps what is its own.

Not as a middleware: programs build their lists of them, and look at them. What the broker tells its middleware, it
tells us first before a message is processed and last after it, so all of theirs runs within the job. The key in the
options is there only while the message is encoded, so a message that is sent twice is two jobs; on a message that came
it stays, so that attempts and delays keep the context of the producer.
"""

from __future__ import annotations

import contextvars
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import wrapt
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_pipeline.worker import identity, outcomes
from otel_pipeline.worker.attempts import age_s, framework, raised, retried, typed, waited_since, will_retry
from otel_pipeline.worker.evidence import Outcome
from otel_pipeline.worker.flow import error_name
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, Origin, job_end, job_start
from otel_pipeline.worker.messages import Send, extract, send_end, send_start
from otel_pipeline.worker.quiet import hush, quietly, silent

OPTION: Final = "otelp"
"""Of the options: the headers."""
DELAYED: Final = (".DQ", ".XQ")
"""What Dramatiq puts behind a queue's name for messages that wait or are dead."""
OTHERS: Final = ("trace_ctx", "_sentry_headers")
"""Options in which other instrumentations carry the same headers."""


@dataclass(slots=True)
class _Running:
    job: Job
    retries: int
    message: Any


_sending_now: Final[contextvars.ContextVar[Send | None]] = contextvars.ContextVar(
    "otel_pipeline.dramatiq", default=None
)
_running: Final[contextvars.ContextVar[_Running | None]] = contextvars.ContextVar(
    "otel_pipeline.dramatiq.job", default=None
)


def patch(module: ModuleType) -> None:
    """dramatiq.broker: all brokers are of this class, also those of other packages."""
    wrapt.wrap_function_wrapper(module.Broker, "__init__", _init)
    wrapt.wrap_function_wrapper(module.Broker, "emit_before", _emit_before)
    wrapt.wrap_function_wrapper(module.Broker, "emit_after", _emit_after)
    backend = getattr(module, "ResultBackend", None)
    if backend is not None:
        quietly(backend, "get_result", "store_result", "store_exception")


# -- producer ----------------------------------------------------------------------------------------------------------


def _init(wrapped: Any, broker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = wrapped(*args, **kwargs)
    _wrap_enqueue(broker)
    return result


@hook("dramatiq.broker")
def _wrap_enqueue(broker: Any) -> None:
    """Each class of brokers enqueues in its own way."""
    owner = next((each for each in type(broker).__mro__ if "enqueue" in vars(each)), None)
    if owner is not None and not isinstance(vars(owner)["enqueue"], wrapt.FunctionWrapper):
        wrapt.wrap_function_wrapper(owner, "enqueue", _enqueue)


@hook("dramatiq.sending")
def _sending(message: Any) -> Send | None:
    """Not for a message that comes again: a retry, or one that was delayed."""
    if OPTION in message.options or silent():
        return None
    send = send_start("dramatiq", _queue(message), _message(message), str(message.message_id))
    _sending_now.set(send)
    return send


@hook("dramatiq.sent")
def _sent(send: Send, error: BaseException | None = None) -> None:
    _sending_now.set(None)
    send_end(send, error)


def _enqueue(wrapped: Any, _broker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    send: Any = _sending(args[0] if args else kwargs.get("message"))
    try:
        with suppress_instrumentation():
            result = wrapped(*args, **kwargs)
    except BaseException as error:
        _sent(send, error)
        raise
    _sent(send)
    return result


@hook("dramatiq.put")
def _put(message: Any) -> None:
    """Into the message as it is about to be encoded: a broker may have made a copy of it."""
    send = _sending_now.get()
    if send is not None and OPTION not in message.options:
        message.options[OPTION] = dict(send.headers)


@hook("dramatiq.take")
def _take(message: Any) -> None:
    if _sending_now.get() is not None:
        message.options.pop(OPTION, None)


# -- consumer ----------------------------------------------------------------------------------------------------------


def _emit_before(wrapped: Any, broker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    signal = args[0] if args else kwargs.get("signal")
    if signal == "process_message":
        _begin(broker, args[1] if len(args) > 1 else None)
    elif signal == "enqueue":
        _put(args[1] if len(args) > 1 else None)
    return wrapped(*args, **kwargs)


def _emit_after(wrapped: Any, _broker: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    signal = args[0] if args else kwargs.get("signal")
    try:
        return wrapped(*args, **kwargs)
    finally:
        if signal in ("process_message", "skip_message"):
            _end(args[1] if len(args) > 1 else None, signal, kwargs)
        elif signal == "enqueue":
            _take(args[1] if len(args) > 1 else None)
        elif signal in ("consumer_thread_boot", "worker_thread_boot"):
            hush()  # for the thread's life: what it does besides jobs is the framework's


@hook("dramatiq.begin")
def _begin(broker: Any, message: Any) -> None:
    options = message.options
    retries = int(options.get("retries") or 0)
    function = getattr(broker.actors.get(message.actor_name), "fn", None)
    job = job_start(
        Origin("dramatiq", _queue(message), str(message.message_id)),
        _message(message, function),
        parent=extract(next((options[key] for key in (OPTION, *OTHERS) if isinstance(options.get(key), dict)), None)),
        attempt=retries + 1,
    )
    typed(job, message.actor_name)
    waited_since(job, age_s(options.get("requeue_timestamp") or message.message_timestamp))
    _running.set(_Running(job, retries, message))


@hook("dramatiq.end")
def _end(message: Any, signal: str, told: dict[str, Any]) -> None:
    running = _running.get()
    if running is None or running.message is not message:
        return
    _running.set(None)
    job, error = running.job, told.get("exception")
    if signal == "skip_message":
        job.observe(framework(Outcome.FAILED if message.failed else Outcome.SKIPPED))
    elif error is not None:
        _raised(job, error, again=_comes_again(running))
    else:
        job.observe(outcomes.returned(told.get("result")))
    job_end(job)


def _raised(job: Job, error: BaseException, *, again: bool) -> None:
    name = type(error).__name__
    ours = type(error).__module__.startswith("dramatiq.")
    if ours and again and name in ("Retry", "RateLimitExceeded"):
        retried(job, error)
        return
    if ours and name == "Shutdown":
        job.observe(framework(Outcome.CANCELLED, error_name(error), "the worker shuts down"))
    else:
        raised(job, error)
    if again:
        will_retry(job)


def _comes_again(running: _Running) -> bool:
    """The middleware for retries counted one more and did not give up."""
    return not running.message.failed and int(running.message.options.get("retries") or 0) > running.retries


def _queue(message: Any) -> str:
    name = str(message.queue_name)
    return name[: -len(DELAYED[0])] if name.endswith(DELAYED) else name


def _message(message: Any, function: Any = None) -> dict[str, Any]:
    args, kwargs = tuple(message.args), dict(message.kwargs)
    rest = {"id": str(message.message_id)}
    if function is None:
        return {"args": list(args), "kwargs": kwargs, **rest}
    return identity.call(function, args, kwargs, **rest)
