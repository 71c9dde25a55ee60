"""Starlette's and FastAPI's background tasks: each is a job, a child of the request that asked for it.

The client has its answer by then, so whether the work succeeds shows nowhere else. The official instrumentation of
FastAPI makes a span for each task; that is the job's then.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, Final

import wrapt
from opentelemetry import context, trace
from opentelemetry.trace import SpanKind

from otel_pipeline.worker import outcomes
from otel_pipeline.worker.adapters.callables import message_of, name_of, positional_names
from otel_pipeline.worker.adapters.official import current
from otel_pipeline.worker.calls import around
from otel_pipeline.worker.flow import exception_evidence
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, Origin, job_end, job_start

SYSTEM: Final = "in_process"


def patch(module: ModuleType) -> None:
    """`BackgroundTasks` calls a `BackgroundTask` for each of its own, so there is one place."""
    wrapt.wrap_function_wrapper(module.BackgroundTask, "__call__", _call)


async def _call(
    wrapped: Callable[..., Awaitable[Any]], task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    function = task.func
    task.func = _as_job(function) or function
    try:
        return await wrapped(*args, **kwargs)
    finally:
        task.func = function


@hook("background.call")
def _as_job(function: Callable[..., Any]) -> Callable[..., Any]:
    return around(function, functools.partial(_begin, function), _end)


@hook("background.begin")
def _begin(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job:
    origin = Origin(SYSTEM, name_of(function))
    message = message_of(positional_names(function), args, kwargs)
    adopted = current("opentelemetry.instrumentation.fastapi", SpanKind.INTERNAL)
    if adopted is not None:
        return job_start(origin, message, parent=adopted.parent, adopt=adopted.span)
    ambient = context.get_current()
    parent = ambient if trace.get_current_span(ambient).get_span_context().is_valid else None
    return job_start(origin, message, parent=parent)


@hook("background.end")
def _end(job: Job, error: BaseException | None, returned: object) -> None:
    job_end(job, exception_evidence(error) if error is not None else outcomes.returned(returned, job))
