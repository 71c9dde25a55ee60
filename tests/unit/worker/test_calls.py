"""Functions with something of ours around them stay what they are."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import pytest
from opentelemetry import context
from opentelemetry.context import Context

from otel_pipeline.worker.calls import around

KEY = context.create_key("test")


class Seen:
    """What `begin` and `end` were told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        self.calls.append(("begin", args, kwargs))
        context.attach(context.set_value(KEY, "inside"))
        return "begun"

    def end(self, begun: Any, error: BaseException | None, returned: Any) -> None:
        self.calls.append(("end", begun, type(error) if error else None, returned))
        context.attach(Context())


@pytest.fixture
def seen() -> Seen:
    return Seen()


def plain(number: int) -> int:
    return 6 // number


async def coroutine(number: int) -> int:
    await asyncio.sleep(0)
    return 6 // number


def generator(number: int) -> Generator[object, object, str]:
    yield context.get_value(KEY)
    sent = yield 6 // number
    yield sent
    return "done"


async def async_generator(number: int) -> AsyncGenerator[object, object]:
    yield context.get_value(KEY)
    sent = yield 6 // number
    yield sent


@pytest.mark.parametrize("function", [plain, coroutine, generator, async_generator])
def test_inspect_tells_no_difference(function: Callable[..., Any], seen: Seen) -> None:
    wrapped = around(function, seen.begin, seen.end)
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    assert [kind(wrapped) for kind in kinds] == [kind(function) for kind in kinds]
    assert inspect.signature(wrapped) == inspect.signature(function)
    assert wrapped.__name__ == function.__name__


def test_a_call_is_told_with_its_arguments_and_its_result(seen: Seen) -> None:
    assert around(plain, seen.begin, seen.end)(number=2) == 3
    assert seen.calls == [("begin", (), {"number": 2}), ("end", "begun", None, 3)]


def test_an_exception_passes_through(seen: Seen) -> None:
    with pytest.raises(ZeroDivisionError):
        around(plain, seen.begin, seen.end)(0)
    assert seen.calls[-1] == ("end", "begun", ZeroDivisionError, None)


def test_a_coroutine_begins_when_it_is_awaited_not_when_it_is_made(seen: Seen) -> None:
    made = around(coroutine, seen.begin, seen.end)(2)
    assert seen.calls == []
    assert asyncio.run(made) == 3
    assert seen.calls[-1] == ("end", "begun", None, 3)


def test_a_generator_takes_turns_with_its_consumer(seen: Seen) -> None:
    context.attach(Context())
    values = around(generator, seen.begin, seen.end)(2)
    assert next(values) == "inside"
    assert context.get_value(KEY) is None
    assert next(values) == 3
    assert values.send("sent") == "sent"
    with pytest.raises(StopIteration) as stop:
        next(values)
    assert stop.value.value == "done"
    assert seen.calls[-1] == ("end", "begun", None, ["inside", 3, "sent"])


def test_a_generator_that_is_left_early_is_told(seen: Seen) -> None:
    values = around(generator, seen.begin, seen.end)(2)
    next(values)
    values.close()
    assert seen.calls[-1] == ("end", "begun", GeneratorExit, ["inside"])


def test_what_is_thrown_into_a_generator_reaches_its_body(seen: Seen) -> None:
    def catching() -> Generator[str, None, None]:
        try:
            yield "first"
        except LookupError:
            yield "caught"

    values = around(catching, seen.begin, seen.end)()
    next(values)
    assert values.throw(LookupError()) == "caught"
    assert list(values) == []


def test_an_async_generator_takes_turns_with_its_consumer(seen: Seen) -> None:
    async def main() -> list[object]:
        context.attach(Context())
        values = around(async_generator, seen.begin, seen.end)(2)
        got = [await anext(values), context.get_value(KEY), await anext(values), await values.asend("sent")]
        with pytest.raises(StopAsyncIteration):
            await anext(values)
        return got

    assert asyncio.run(main()) == ["inside", None, 3, "sent"]
    assert seen.calls[-1] == ("end", "begun", None, ["inside", 3, "sent"])


def test_an_exception_of_an_async_generator_passes_through(seen: Seen) -> None:
    async def main() -> None:
        async for _ in around(async_generator, seen.begin, seen.end)(0):
            pass

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    assert seen.calls[-1][2] is ZeroDivisionError


def test_of_very_many_values_the_first_and_the_newest_are_told(seen: Seen) -> None:
    assert sum(1 for _ in around(lambda: range(0), seen.begin, seen.end)()) == 0

    def many() -> Generator[int, None, None]:
        yield from range(5000)

    assert sum(1 for _ in around(many, seen.begin, seen.end)()) == 5000
    told = seen.calls[-1][3]
    assert len(told) == 1000
    assert (told[0], told[-1]) == (0, 4999)
