"""Functions that the operator names (`OTEL_PIPELINE_JOB_FUNCTIONS=pkg.mod:function, pkg.mod:Class.method`): each call
is a job, or completes the job that was popped for it.

A named function is replaced where its module or class holds it, right after the module was executed. The program's own
script is never imported, so no import hook sees it: its functions are looked up by their names when they are called,
and are replaced the first time that something happens after they were defined (a pop, a connection, a thread, a log
record: whatever raises an audit event).
"""

from __future__ import annotations

import atexit
import functools
import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

import wrapt
from opentelemetry import context, trace

from otel_pipeline.worker import outcomes
from otel_pipeline.worker.adapters.callables import message_of, positional_names
from otel_pipeline.worker.calls import around
from otel_pipeline.worker.evidence import Evidence
from otel_pipeline.worker.flow import exception_evidence, finish, popped, this_flow
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, Origin, current_job, job_end, job_start
from otel_pipeline.worker.settings import settings

SYSTEM: Final = "in_process"
KINDS: Final = (FunctionType, BuiltinFunctionType, MethodType, functools.partial)
"""What can be named. Objects of frameworks that can be called (a Celery task) would lose their methods."""

_log = logging.getLogger("otel_pipeline.worker")


@dataclass(frozen=True, slots=True)
class Spec:
    """One named function."""

    module: str
    path: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.module}:{'.'.join(self.path)}"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a named function."""

    job: Job
    began: bool
    """The call began the job."""


_waiting: Final[dict[str, Spec]] = {}
"""Those not found yet."""
_at_work: Final[dict[int, int]] = {}
"""Calls in progress by job: of several that share one, the last one's end is the job's."""
_within: Final[ContextVar[int | None]] = ContextVar("otel_pipeline_function", default=None)
"""The job of the named function that runs: one that it calls is a part of it."""
_binding = False


def patch() -> None:
    """Waits for the modules of all functions that are named."""
    for text in settings().job_functions:
        module, _, path = text.partition(":")
        if not module or not path or not all(part.isidentifier() for part in path.split(".")):
            _log.warning("OTEL_PIPELINE_JOB_FUNCTIONS: %r is not module:function or module:Class.method", text)
            continue
        spec = Spec(module, tuple(path.split(".")))
        _waiting[str(spec)] = spec
        if module != "__main__":
            wrapt.register_post_import_hook(functools.partial(_imported, spec), module)
    if _waiting:
        sys.addaudithook(_something_happens)
        atexit.register(_report)


@hook("functions.bind_main")
def bind_main() -> None:
    """Replaces functions of the program's own script that are defined by now. Cheap, and may be called at any time."""
    global _binding  # noqa: PLW0603  replacing raises audit events too
    main = sys.modules.get("__main__")
    if not _waiting or _binding or main is None:
        return
    _binding = True
    try:
        for name, spec in list(_waiting.items()):
            if spec.path[0] in vars(main) and _is_main(spec.module, main):
                _bind(main, name, spec)
    finally:
        _binding = False


def _something_happens(_event: str, _args: tuple[Any, ...]) -> None:
    if _waiting:
        bind_main()


def _is_main(module: str, main: ModuleType) -> bool:
    """`python worker.py` and `python -m app.worker` run as `__main__` what the operator may call by its name."""
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if module == "__main__" or module == getattr(spec, "name", None):
        return True
    return bool(file) and f"/{Path(str(file)).with_suffix('').as_posix()}".endswith("/" + module.replace(".", "/"))


@hook("functions.imported")
def _imported(spec: Spec, module: ModuleType) -> None:
    if str(spec) in _waiting:
        _bind(module, str(spec), spec)


def _bind(module: ModuleType, name: str, spec: Spec) -> None:
    holder: Any = module
    for part in spec.path[:-1]:
        holder = getattr(holder, part, None)
    last = spec.path[-1]
    if holder is None or getattr(holder, last, None) is None:
        return
    del _waiting[name]
    found = inspect.getattr_static(holder, last)
    if isinstance(found, staticmethod | classmethod):
        setattr(holder, last, type(found)(_job_function(found.__func__, spec, isinstance(found, classmethod))))
        return
    function = getattr(holder, last)
    if not isinstance(function, KINDS) and type(function).__name__ != "cython_function_or_method":
        _log.warning("OTEL_PIPELINE_JOB_FUNCTIONS: %s is a %s, not a function", spec, type(function).__qualname__)
        return
    setattr(holder, last, _job_function(function, spec, inspect.isclass(holder)))


def _job_function(function: Callable[..., Any], spec: Spec, bound: bool) -> Callable[..., Any]:  # noqa: FBT001
    generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    names = positional_names(function)
    begin = functools.partial(_begin, spec, names[1:] if bound else names, int(bound))
    return around(function, begin, _end_generator if generator else _end)


@hook("functions.report")
def _report() -> None:
    for name in _waiting:
        _log.warning("OTEL_PIPELINE_JOB_FUNCTIONS: there was no %s", name)


# -- around each call --------------------------------------------------------------------------------------------------


@hook("functions.begin")
def _begin(
    spec: Spec, names: tuple[str, ...], bound: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Call | None:
    job = _open_job()
    if job is not None and _within.get() == id(job):
        return None
    message = message_of(names, args[bound:], kwargs)  # without `self`
    if job is None:
        call = Call(_start(spec, message), began=True)
    else:
        job.learn(message)
        call = Call(job, began=False)
    key = id(call.job)
    _at_work[key] = _at_work.get(key, 0) + 1
    _within.set(key)
    return call


@hook("functions.end")
def _end(call: Call, error: BaseException | None, returned: object) -> None:
    _over(call, exception_evidence(error) if error is not None else outcomes.returned(returned, call.job))


@hook("functions.end_generator")
def _end_generator(call: Call, error: BaseException | None, values: list[Any]) -> None:
    if error is None or isinstance(error, GeneratorExit):  # Whoever reads it may have enough of it.
        _over(call, outcomes.returned(values[-1], call.job) if values else None)
    else:
        _over(call, exception_evidence(error))


def _over(call: Call, evidence: Evidence | None) -> None:
    job, key, flow = call.job, id(call.job), this_flow()
    _within.set(None)
    remaining = _at_work.pop(key, 1) - 1
    if remaining > 0:
        _at_work[key] = remaining
    job.observe(evidence)
    if remaining > 0 or not (call.began or job.flow is not None):
        return  # A framework's job is its framework's to end.
    if flow.job is job:
        finish(flow)
    else:
        job_end(job)


def _open_job() -> Job | None:
    job = current_job()
    if job is None:
        mine = this_flow().job
        job = mine if mine is not None and not mine.over else None
    return job


def _start(spec: Spec, message: Mapping[str, Any]) -> Job:
    ambient = context.get_current()
    parent = ambient if trace.get_current_span(ambient).get_span_context().is_valid else None
    job = job_start(Origin(SYSTEM, ".".join(spec.path)), message, parent=parent)
    popped(job)
    return job
