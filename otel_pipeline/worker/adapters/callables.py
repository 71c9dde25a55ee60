"""What a function is called, who called it, and its arguments as a message that a job's identity is read from."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Final

FRAMES_MAX: Final = 24
"""Callers that are looked at: between a framework and the client that it uses there are not many."""
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def name_of(function: Any) -> str:
    """Of low cardinality: `Class.method`, or the class of an object that can be called."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(name).rpartition("<locals>.")[2]


def positional_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the parameters that can be given by position."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(each.name for each in parameters if each.kind in _POSITIONAL)


def message_of(parameters: tuple[str, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, the positional ones by their names too."""
    return {"args": list(args), "kwargs": {**dict(zip(parameters, args, strict=False)), **kwargs}}


def called_by(frame: FrameType | None, modules: tuple[str, ...]) -> bool:
    """Whether code of one of these top-level modules is among the callers."""
    for _ in range(FRAMES_MAX):
        if frame is None:
            return False
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] in modules:
            return True
        frame = frame.f_back
    return False
