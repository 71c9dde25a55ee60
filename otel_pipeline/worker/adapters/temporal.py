"""Temporal: each attempt at an activity is a job, in the trace of whoever started the workflow.

Our interceptors are added to those that the program gives to its clients and workers, as the innermost. They use the
header of Temporal's own OpenTelemetry interceptors, so either side may have those instead.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Final

import wrapt

from otel_pipeline.worker.guard import hook

OURS: Final = "otel_pipeline.worker.adapters.temporal_"
"""They are made of classes of the library, so they are imported when the program has imported that."""


def patch_client(module: ModuleType) -> None:
    wrapt.wrap_function_wrapper(module.Client, "__init__", _client)


def patch_worker(module: ModuleType) -> None:
    wrapt.wrap_function_wrapper(module.Worker, "__init__", _worker)


def _client(wrapped: Callable[..., Any], _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    interceptors = _with("client", kwargs.get("interceptors", ()))
    return wrapped(*args, **(kwargs if interceptors is None else {**kwargs, "interceptors": interceptors}))


def _worker(wrapped: Callable[..., Any], _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    interceptors = _with("worker", kwargs.get("interceptors", ()))
    return wrapped(*args, **(kwargs if interceptors is None else {**kwargs, "interceptors": interceptors}))


@hook("temporal.interceptors")
def _with(side: str, given: Sequence[Any]) -> list[Any]:
    ours = importlib.import_module(OURS + side).JobInterceptor
    return [*given, *([] if any(isinstance(each, ours) for each in given) else [ours()])]
