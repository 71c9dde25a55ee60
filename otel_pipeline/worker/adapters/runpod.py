"""RunPod serverless: `config["handler"]` is replaced by one of the same kind, around which the job is.

So it works wherever the SDK runs the handler: the platform's loop, `--test_input`, `--rp_serve_api`. What the SDK makes
of a result is read before the SDK takes it apart: a dict with a truthy `error`, an element of a generator with one, an
exception. Its polls, its pings and the delivery of its results leave no spans.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

import wrapt
from opentelemetry import context
from opentelemetry.context import Context

from otel_pipeline.worker import outcomes
from otel_pipeline.worker.adapters.callables import name_of
from otel_pipeline.worker.calls import around
from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.flow import exception_evidence
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, Origin, job_end, job_start
from otel_pipeline.worker.messages import extract
from otel_pipeline.worker.process import lifecycle
from otel_pipeline.worker.quiet import quietly
from otel_pipeline.worker.redaction import error_text
from otel_pipeline.worker.serving import in_a_request

SYSTEM: Final = "runpod"
SDK: Final = "runpod.serverless.modules"
CHATTER: Final = {
    "rp_scale": ("get_job", "get_stop_signals"),
    "rp_job": ("send_result", "stream_result"),
    "rp_progress": ("send_result",),
    "rp_fastapi": ("_send_webhook",),
}
"""The SDK's own requests, in the modules that call them by these names."""
CARRIERS: Final = ("traceparent", "tracestate", "baggage")


def patch(module: ModuleType) -> None:
    """Wraps `start` and silences what the SDK sends for itself."""
    wrapt.wrap_function_wrapper(module, "start", _start)
    for name, functions in CHATTER.items():
        if name != "rp_fastapi":  # imported by the SDK when it serves, and it brings FastAPI in
            quietly(importlib.import_module(f"{SDK}.{name}"), *functions)
    wrapt.register_post_import_hook(lambda late: quietly(late, *CHATTER["rp_fastapi"]), f"{SDK}.rp_fastapi")
    quietly(importlib.import_module(f"{SDK}.rp_ping").Heartbeat, "_send_ping")


def _start(wrapped: Callable[..., Any], _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    config = args[0] if args else kwargs.get("config")
    ours = _configured(config)
    if ours is None:
        return wrapped(*args, **kwargs)
    return wrapped(ours, *args[1:]) if args else wrapped(**{**kwargs, "config": ours})


@hook("runpod.start")
def _configured(config: Any) -> dict[str, Any] | None:
    handler = config.get("handler")
    if not callable(handler):
        return None
    destination = name_of(handler)
    begin = functools.partial(_begin, destination)
    generator = inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler)
    return {**config, "handler": around(handler, begin, _end_stream if generator else _end)}


@hook("runpod.begin")
def _begin(destination: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job:
    job = args[0] if args else next(iter(kwargs.values()), None)
    known: Mapping[str, Any] = job if isinstance(job, Mapping) else {}
    identifier = known.get("id")
    return job_start(
        Origin(SYSTEM, destination, str(identifier) if identifier is not None else None),
        known.get("input", known),
        parent=_parent(known),
    )


def _parent(job: Mapping[str, Any]) -> Context | None:
    """What the caller put beside the input or in it, or the request to the SDK's own HTTP server."""
    given = job.get("input")
    for place in (job, given):
        if isinstance(place, Mapping) and "traceparent" in place:
            found = extract({key: place[key] for key in CARRIERS if key in place})
            if found is not None:
                return found
    return context.get_current() if in_a_request() else None


@hook("runpod.end")
def _end(job: Job, error: BaseException | None, returned: object) -> None:
    _over(
        job,
        [exception_evidence(error)] if error is not None else [_platform(returned), outcomes.returned(returned, job)],
    )


@hook("runpod.end_stream")
def _end_stream(job: Job, error: BaseException | None, values: list[Any]) -> None:
    """The SDK stops reading at the first element with an error, and closes the generator."""
    if error is not None and not isinstance(error, GeneratorExit):
        _over(job, [exception_evidence(error)])
    else:
        _over(job, [_platform(values[-1]), outcomes.returned(values[-1], job)] if values else [])


def _platform(returned: object) -> Evidence | None:
    """What RunPod shows as FAILED."""
    error = returned.get("error") if isinstance(returned, dict) else None
    return Evidence(Source.FRAMEWORK, Outcome.FAILED, message=error_text(error)) if error else None


def _over(job: Job, evidence: list[Evidence | None]) -> None:
    job_end(job, *evidence)
    # A pod may be gone a moment after its job. The handler's thread is the one that runs the event loop.
    threading.Thread(target=lifecycle.flush, name="otel_pipeline-flush", daemon=True).start()
