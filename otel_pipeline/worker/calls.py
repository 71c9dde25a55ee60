"""A function with something of ours around each call, and still of its kind: `inspect` tells no difference.

`begin(args, kwargs)` runs before the body, `end(begun, error, returned)` after it; both are hooks, so neither can fail.
A generator's body runs in the context that `begin` left, its consumer in its own: the two take turns at each value.
A plain function that returns a coroutine is over when that is.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Final, TypeAlias

from opentelemetry import context

Begin: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Any]
End: TypeAlias = Callable[[Any, BaseException | None, Any], object]

YIELDED_MAX: Final = 1000
"""Values of a generator that `end` is told of, as a list; of more, the first and the newest."""


def around(function: Callable[..., Any], begin: Begin, end: End) -> Callable[..., Any]:
    """The function with `begin` and `end` around each call. `returned` is the list of values for a generator."""
    if inspect.isasyncgenfunction(function):
        return _async_generator(function, begin, end)
    if inspect.isgeneratorfunction(function):
        return _generator(function, begin, end)
    if inspect.iscoroutinefunction(function):
        return _coroutine(function, begin, end)
    return _plain(function, begin, end)


def _plain(function: Callable[..., Any], begin: Begin, end: End) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        turns = _Turns()
        begun = begin(args, kwargs)
        try:
            returned = function(*args, **kwargs)
        except BaseException as error:
            end(begun, error, None)
            raise
        if inspect.iscoroutine(returned):
            turns.to_consumer(None)
            return _awaited(returned, turns, functools.partial(end, begun))
        end(begun, None, returned)
        return returned

    return call


async def _awaited(
    coroutine: Coroutine[Any, Any, Any], turns: _Turns, end: Callable[[BaseException | None, Any], object]
) -> Any:
    turns.to_body()
    try:
        returned = await coroutine
    except BaseException as error:
        end(error, None)
        raise
    end(None, returned)
    return returned


def _coroutine(function: Callable[..., Any], begin: Begin, end: End) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        begun = begin(args, kwargs)
        try:
            returned = await function(*args, **kwargs)
        except BaseException as error:
            end(begun, error, None)
            raise
        end(begun, None, returned)
        return returned

    return call


class _Turns:
    """Whose context is current: the consumer's or the body's."""

    def __init__(self) -> None:
        self._theirs = context.get_current()
        self._inside = self._theirs
        self.values: list[Any] = []

    def begun(self) -> None:
        self._inside = context.get_current()

    def to_consumer(self, value: Any) -> None:
        self._inside = context.get_current()
        if len(self.values) < YIELDED_MAX:
            self.values.append(value)
        else:
            self.values[-1] = value
        context.attach(self._theirs)

    def to_body(self) -> None:
        self._theirs = context.get_current()
        context.attach(self._inside)


def _generator(function: Callable[..., Any], begin: Begin, end: End) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        turns = _Turns()
        begun = begin(args, kwargs)
        turns.begun()
        body = function(*args, **kwargs)
        advance: Callable[[], Any] = functools.partial(next, body)
        try:
            while True:
                try:
                    value = advance()
                except StopIteration as stop:
                    end(begun, None, turns.values)
                    return stop.value
                turns.to_consumer(value)
                try:
                    sent = yield value
                except GeneratorExit:
                    turns.to_body()
                    body.close()
                    raise
                except BaseException as thrown:  # noqa: BLE001  it is the body's
                    advance = functools.partial(body.throw, thrown)
                else:
                    advance = functools.partial(body.send, sent)
                turns.to_body()
        except BaseException as error:
            end(begun, error, turns.values)
            raise

    return call


def _async_generator(function: Callable[..., Any], begin: Begin, end: End) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        turns = _Turns()
        begun = begin(args, kwargs)
        turns.begun()
        body = function(*args, **kwargs)
        advance: Callable[[], Any] = body.__anext__
        try:
            while True:
                try:
                    value = await advance()
                except StopAsyncIteration:
                    end(begun, None, turns.values)
                    return
                turns.to_consumer(value)
                try:
                    sent = yield value
                except GeneratorExit:
                    turns.to_body()
                    await body.aclose()
                    raise
                except BaseException as thrown:  # noqa: BLE001  it is the body's
                    advance = functools.partial(body.athrow, thrown)
                else:
                    advance = functools.partial(body.asend, sent)
                turns.to_body()
        except BaseException as error:
            end(begun, error, turns.values)
            raise

    return call
