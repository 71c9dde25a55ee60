"""The wall between our code and the host program: no exception of ours gets through it.

Everything that an adapter does around a call of the host is a `Hook`, a function of ours that returns None when it
fails. A wrapper contains nothing but hooks and the host's own call:

    @hook("redis.before")
    def before(...) -> Operation | None: ...

    def wrapper(wrapped, instance, args, kwargs):
        operation = before(instance, args)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            failed(operation, error)
            raise
        done(operation, result)
        return result

A hook that is handed None as its first argument, because the hook before it failed, returns None at once.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any, Final, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

LOGGED_MAX: Final = 20
"""Failures of one hook that are logged; the others are counted only."""
interrupts: Final[list[type[BaseException]]] = []
"""What a framework's timer raises in the middle of anything, so in a hook too: a job's time is over. It is the
host's."""

_log = logging.getLogger("otel_pipeline.worker")
_log.addHandler(logging.NullHandler())


class Hook(Generic[P, R]):
    """One function of ours in the host's path. `failures` counts what it swallowed."""

    def __init__(self, name: str, function: Callable[P, R]) -> None:
        self.name = name
        self.failures = 0
        self.fault: BaseException | None = None
        """Raised instead of running: the tests prove with it that the host does not notice."""
        self._function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
        if args and args[0] is None:
            return None
        try:
            if self.fault is not None:
                raise self.fault  # noqa: TRY301  it has to be inside the wall
            return self._function(*args, **kwargs)
        except Exception as error:
            if interrupts and isinstance(error, tuple(interrupts)) and error is not self.fault:
                raise
            self._swallow()
            return None

    def _swallow(self) -> None:
        self.failures += 1
        if self.failures <= LOGGED_MAX and not getattr(_logging_now, "active", False):
            _logging_now.active = True
            try:
                _log.debug("hook %s failed", self.name, exc_info=True)
            finally:
                _logging_now.active = False


_logging_now = threading.local()
HOOKS: Final[dict[str, Hook[Any, Any]]] = {}
"""Every hook by its name."""


def hook(name: str) -> Callable[[Callable[P, R]], Hook[P, R]]:
    """Makes a function a hook. Names are unique: `adapter.step`."""

    def decorate(function: Callable[P, R]) -> Hook[P, R]:
        made = Hook(name, function)
        if name in HOOKS:
            raise ValueError(f"two hooks are named {name}")
        HOOKS[name] = made
        return made

    return decorate
