"""What a queue framework does for itself leaves no spans: polling, heartbeats, results, locks.

`quietly` silences functions of the framework. The program's own code that these call is let speak again: a job begins
in a context of its own, so it is never silent; around a callback that runs within a silenced function there is `speak`.
"""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from typing import Any, Final

import opentelemetry.context as contexts
import wrapt
from opentelemetry import context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_pipeline.worker.guard import hook

_KEYS: Final = ("suppress_instrumentation", getattr(contexts, "_SUPPRESS_INSTRUMENTATION_KEY", ""))
"""What official instrumentations look at; the second has a random part."""
_SILENT: Final = dict.fromkeys(filter(None, _KEYS), True)
_OURS: Final = context.create_key("otel_pipeline.quiet")


def quietly(owner: Any, *names: str) -> None:
    """Silences these functions of a class or module, as far as this version of it has them."""
    for name in names:
        if callable(getattr(owner, name, None)):
            wrapt.wrap_function_wrapper(owner, name, _quiet)


def _quiet(wrapped: Any, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    token = hush()
    try:
        result = wrapped(*args, **kwargs)
    finally:
        restore(token)
    return _awaited(result) if inspect.iscoroutine(result) else result


async def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The same for what is awaited, and for all tasks that it makes."""
    token = hush()
    try:
        return await coroutine
    finally:
        restore(token)


def silent() -> bool:
    """Whether a framework is among itself here, or somebody wants no telemetry."""
    return not is_instrumentation_enabled()


def silent_by_us() -> bool:
    """Whether it is us who silenced a function of a framework, which may publish a message of the program's within."""
    return bool(context.get_value(_OURS))


def silenced(within: context.Context) -> context.Context:
    """The context, without spans of the official instrumentations."""
    return context.Context({**within, **_SILENT})


class Silence:
    """`suppress_instrumentation` of the official package, at a third of its cost: two keys in one new context."""

    __slots__ = ("_token",)

    def __init__(self) -> None:
        self._token: Any = None

    def __enter__(self) -> None:
        self._token = context.attach(silenced(context.get_current()))

    def __exit__(self, *_: object) -> None:
        token, self._token = self._token, None
        if token is not None:
            context.detach(token)

    def __del__(self) -> None:
        self.__exit__()  # where the hook that ends it failed


@hook("quiet.hush")
def hush() -> Any:
    """Silence from here on; `restore` ends it."""
    return context.attach(_with(value=True))


@hook("quiet.speak")
def speak() -> Any:
    """The program's own code from here on; `restore` ends it."""
    return context.attach(_with(value=False))


@hook("quiet.restore")
def restore(token: Any) -> None:
    context.detach(token)


def _with(*, value: bool) -> context.Context:
    current = context.set_value(_OURS, value)
    for key in filter(None, _KEYS):
        current = context.set_value(key, value, current)
    return current
