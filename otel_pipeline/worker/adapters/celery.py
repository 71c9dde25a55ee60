"""Celery: its signals tell when a task is published, begins and ends; its headers carry the context.

With the official instrumentation its spans `apply_async/<task>` and `run/<task>` are used: this adds whose job it is
and how it came out. Without it there are `send <queue>` and `process <queue>`. Its receivers may be connected before or
after ours, also in a child only, so ours keep their places: behind all others before a task, around them after it.

What a child of the prefork pool cannot report, because its parent or the kernel killed it, is in celery_parent.py.
"""

from __future__ import annotations

import contextvars
import importlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import wrapt
from opentelemetry import baggage, context, propagate
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import Span

from otel_pipeline.worker import identity, messages, names, outcomes
from otel_pipeline.worker.attempts import framework, raised, retried, typed, waited_since, will_retry
from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.flow import error_name
from otel_pipeline.worker.guard import hook, interrupts
from otel_pipeline.worker.jobs import Job, Origin, current_job, job_end, job_start
from otel_pipeline.worker.messages import Send, send_end, send_start
from otel_pipeline.worker.process import children, lifecycle
from otel_pipeline.worker.quiet import quietly, silent, silent_by_us
from otel_pipeline.worker.settings import settings

SENT: Final = "otelp_sent"
"""Header: when the message was published, Unix seconds."""
OFFICIAL: Final = "opentelemetry.instrumentation.celery"
_CELERY: Final = (
    "lang task id shadow eta expires group group_index retries timelimit root_id parent_id argsrepr kwargsrepr"
)
_MORE: Final = (
    "origin ignore_result replaced_task_nesting stamped_headers stamps traceparent tracestate baggage headers"
)
OWN_HEADERS: Final = frozenset((*_CELERY.split(), *_MORE.split(), SENT))
"""What Celery and propagators put into a message's headers; the others are the program's."""
TERMINATED: Final = 256
"""billiard ends a child that gets a signal with `sys.exit(-(256 - signal))`."""


@dataclass(slots=True)
class _Published:
    """A message between `before_task_publish` and the call that publishes it."""

    send: Send | None


_publishing: Final[contextvars.ContextVar[_Published | None]] = contextvars.ContextVar(
    "otel_pipeline.celery", default=None
)
_running: Final[dict[str, Job]] = {}
"""By task id. One for each thread or greenlet of a pool."""


class _Receivers(list[Any]):
    """A signal's receivers, of which the last one stays the last."""

    def append(self, receiver: Any) -> None:
        self.insert(max(len(self) - 1, 0), receiver)


def patch(_module: ModuleType) -> None:
    """celery: the module that programs import is a lazy one; its signals are asked for by name."""
    signals = importlib.import_module("celery.signals")
    children.install()
    _connect(signals.before_task_publish, _publish, last=True)
    _connect(signals.after_task_publish, _published, last=False)
    _connect(signals.task_prerun, _prerun, last=True)
    _connect(signals.task_postrun, _postrun, last=False)
    _connect(signals.task_postrun, _after_all, last=True)
    interrupts.append(importlib.import_module("billiard.exceptions").SoftTimeLimitExceeded)


def _connect(signal: Any, receiver: Any, *, last: bool) -> None:
    signal.connect(receiver, weak=False)
    if last:
        signal.receivers = _Receivers(signal.receivers)
    else:
        signal.receivers.insert(0, signal.receivers.pop())


def patch_producer(module: ModuleType) -> None:
    """kombu.messaging."""
    wrapt.wrap_function_wrapper(module.Producer, "publish", _producer_publish)


def patch_task(module: ModuleType) -> None:
    """celery.app.task."""
    wrapt.wrap_function_wrapper(module.Task, "update_state", _update_state)


def patch_backend(module: ModuleType) -> None:
    """celery.backends.base: what is written and read of results, in any store."""
    quietly(module.Backend, "store_result", "get_task_meta", "wait_for_pending", "forget", "process_cleanup")


def patch_redis_backend(module: ModuleType) -> None:
    """celery.backends.redis: subscriptions to results."""
    quietly(module.RedisBackend, "get", "mget", "set", "delete", "incr", "expire", "add_to_chord", "set_chord_size")
    quietly(module.RedisBackend, "on_chord_part_return", "apply_chord")
    consumer = getattr(module, "ResultConsumer", None)
    if consumer is not None:
        quietly(consumer, "start", "stop", "drain_events", "consume_from", "cancel_for", "on_wait_for_pending")


def official() -> Any:
    """The official instrumentation's module, if it is at work."""
    module = sys.modules.get(OFFICIAL)
    instance = getattr(getattr(module, "CeleryInstrumentor", None), "_instance", None)
    return module if getattr(instance, "is_instrumented_by_opentelemetry", False) else None


def _official_span(task: Any, task_id: str, *, publish: bool = False) -> Span | None:
    module = official()
    found = module.utils.retrieve_context(task, task_id, is_publish=publish) if module is not None else None
    return found[0] if found is not None else None


# -- producer ----------------------------------------------------------------------------------------------------------


@hook("celery.publish")
def _publish(
    sender: Any = None,
    body: Any = None,
    headers: Any = None,
    routing_key: Any = None,
    exchange: Any = None,
    **_more: Any,
) -> None:
    if (silent() and not silent_by_us()) or not isinstance(headers, dict) or not headers.get("id"):
        return
    unfinished: Any = _publishing.get()
    _finish(unfinished, None)
    task = _registered(sender)
    args, kwargs = (body[0], body[1]) if isinstance(body, list | tuple) and len(body) > 1 else ((), {})
    message = message_of(task, args, kwargs, headers, str(headers["id"]))
    headers[SENT] = round(time.time(), 6)
    send = None
    if official() is None:
        send = send_start("celery", str(routing_key or exchange or sender), message, str(headers["id"]))
        headers.update(send.headers)
    else:
        _complete(
            _official_span(task, str(headers["id"]), publish=True), message, headers, str(routing_key or exchange)
        )
    _publishing.set(_Published(send))


def _complete(span: Span | None, message: dict[str, Any], headers: dict[str, Any], destination: str) -> None:
    """The official span, and the baggage that it put in: the message is another job than the one that publishes it."""
    known = identity.fields(message)
    known[names.JOB_ID] = identity.job_id(message, known) or message["id"]
    if span is not None:
        described = {
            names.MESSAGING_SYSTEM: "celery",
            names.MESSAGING_DESTINATION: destination,
            names.MESSAGING_OPERATION: "send",
            names.MESSAGING_OPERATION_TYPE: "send",
        }
        correlation = {names.CORRELATION_ID: baggage.get_baggage(names.CORRELATION_ID) or known[names.JOB_ID]}
        span.set_attributes({**described, **correlation, **known})  # type: ignore[dict-item]  # baggage is text
    within = context.get_current()
    for key in settings().baggage:
        if key in known:
            within = baggage.set_baggage(key, str(known[key]), within)
    carrier: dict[str, str] = {}
    propagate.inject(carrier, within)
    if "baggage" in carrier:
        headers["baggage"] = carrier["baggage"]


@hook("celery.finish")
def _finish(published: _Published, error: BaseException | None) -> None:
    _publishing.set(None)
    send_end(published.send, error)


@hook("celery.published")
def _published(**_more: Any) -> None:
    published: Any = _publishing.get()
    _finish(published, None)


@hook("celery.take")
def _take() -> _Published | None:
    return _publishing.get()


def _producer_publish(wrapped: Any, _producer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    published: Any = _take()
    if published is None:
        return wrapped(*args, **kwargs)
    try:
        with suppress_instrumentation():
            result = wrapped(*args, **kwargs)
    except BaseException as error:
        _finish(published, error)
        raise
    _finish(published, None)
    return result


def _registered(sender: Any) -> Any:
    """The task of this name, if this program has it: a producer may know names only."""
    if not isinstance(sender, str):
        return sender
    state = sys.modules.get("celery._state")
    app = state.get_current_app() if state is not None else None
    return app.tasks.get(sender) if app is not None and app.finalized else None


def message_of(task: Any, args: Any, kwargs: Any, headers: Mapping[str, Any], task_id: str) -> dict[str, Any]:
    """What identifies the job: arguments under the names of the task's parameters, and headers of the program's own."""
    own = {key: value for key, value in headers.items() if key not in OWN_HEADERS}
    args, kwargs = tuple(args or ()), dict(kwargs or {})
    function = getattr(task, "run", None)
    if function is None:
        return {"args": list(args), "kwargs": kwargs, "meta": own, "id": task_id}
    return identity.call(function, args, kwargs, meta=own, id=task_id)


# -- consumer ----------------------------------------------------------------------------------------------------------


def carried(request: Any) -> Context | None:
    """The context in the headers of a message; Celery makes each an attribute of the request."""
    fields = propagate.get_global_textmap().fields
    return messages.extract({name: getattr(request, name, None) for name in fields})


def sent_s(request: Any) -> float | None:
    """When it was published."""
    sent = getattr(request, SENT, None)
    return float(sent) if sent else None


def destination_of(request: Any, task: Any) -> str:
    """The queue, which for Celery is the routing key."""
    info = getattr(request, "delivery_info", None) or {}
    return str(info.get("routing_key") or info.get("exchange") or task.name)


@hook("celery.prerun")
def _prerun(task_id: Any = None, task: Any = None, args: Any = None, kwargs: Any = None, **_more: Any) -> None:
    request = task.request
    eager = bool(request.is_eager)
    if eager and current_job() is not None:
        return  # a call within the job
    span = _official_span(task, task_id)
    parent = carried(request) or (context.get_current() if eager else None)
    headers = getattr(request, "headers", None)
    job = job_start(
        Origin("celery", destination_of(request, task), str(task_id)),
        message_of(task, args, kwargs, headers if isinstance(headers, Mapping) else {}, str(task_id)),
        parent=parent,
        attempt=int(request.retries or 0) + 1,
        adopt=span,
    )
    if span is not None:
        job.parent_span_id = _parent_of(span)
    typed(job, task.name)
    waited_since(job, sent_s(request))
    _running[str(task_id)] = job
    children.board.begin(job)


def _parent_of(span: Span) -> int:
    parent = getattr(span, "parent", None)
    return parent.span_id if parent is not None else 0


@hook("celery.postrun")
def _postrun(task_id: Any = None, retval: Any = None, state: Any = None, **_more: Any) -> None:
    """Before the official receiver, which ends the span."""
    job = _running.pop(str(task_id), None)
    if job is None:
        return
    if state is None:
        _killed(job, sys.exc_info()[1])
    elif state == "SUCCESS":
        job.observe(outcomes.returned(retval))
    elif isinstance(retval, BaseException):
        _not_successful(job, state, retval)
    job_end(job)


def _not_successful(job: Job, state: str, error: BaseException) -> None:
    if state == "RETRY":
        retried(job, error)
    elif state == "IGNORED":
        if not any(evidence.source is Source.FRAMEWORK for evidence in job.evidence):
            job.observe(framework(Outcome.SKIPPED, None, str(error)))
    elif state == "REJECTED":
        again = bool(getattr(error, "requeue", False))
        if again:
            will_retry(job)
        reason = getattr(error, "reason", None)
        kind = error_name(reason) if isinstance(reason, BaseException) else error_name(error)
        outcome = Outcome.SKIPPED if again else Outcome.FAILED
        job.observe(framework(outcome, None if again else kind, str(reason or error)))
    else:
        raised(job, error)


def _killed(job: Job, error: BaseException | None) -> None:
    """The child is about to end. Its parent may have left word why."""
    outcome, kind = children.REASONS[children.board.reason()]
    if kind:
        job.observe(framework(outcome, kind))
    elif isinstance(error, SystemExit) and isinstance(error.code, int) and -TERMINATED < error.code < 0:
        job.observe(Evidence(Source.SIGNAL, Outcome.CANCELLED, _signal(TERMINATED + error.code)))
    elif error is not None:
        raised(job, error)


def _signal(number: int) -> str:
    signal = importlib.import_module("signal")
    try:
        return str(signal.Signals(number).name)
    except ValueError:
        return f"signal {number}"


@hook("celery.after_all")
def _after_all(**_more: Any) -> None:
    """A child may be gone before the next export: it is killed, recycled, or waits for its next task."""
    if children.board.in_child:
        lifecycle.flush()


# -- states that a task sets itself ------------------------------------------------------------------------------------


@hook("celery.state")
def _state(task: Any, task_id: Any, state: Any, meta: Any) -> None:
    job = _running.get(str(task_id or task.request.id))
    if job is None or not isinstance(state, str):
        return
    told = outcomes.returned({"status": state.lower(), **(meta if isinstance(meta, dict) else {})})
    if told is not None and told.outcome is not Outcome.COMPLETED:
        job.observe(framework(told.outcome, told.error_type, told.message))


def _update_state(wrapped: Any, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = dict(zip(("task_id", "state", "meta"), args, strict=False))
    given.update(kwargs)
    _state(task, given.get("task_id"), given.get("state"), given.get("meta"))
    with suppress_instrumentation():
        return wrapped(*args, **kwargs)
