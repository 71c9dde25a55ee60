"""redis-py 5 to 8, sync and asyncio, single server and cluster: every command passes here, around the official
instrumentation. What is done about it is in redis_operation.py; a command that is none of our business costs a look at
a table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import wrapt

from otel_pipeline.worker.adapters.redis.context import Command, exchange, exchange_async
from otel_pipeline.worker.adapters.redis.operation import (
    Operation,
    answered,
    begin,
    begin_pipeline,
    counted,
    done,
    failed,
    hushed,
    looked_up,
    loud,
    opened,
)

Call = Callable[..., Any]


def _command(wrapped: Call, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _run(begin(client, args), wrapped, args, kwargs)


def _pipeline(wrapped: Call, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _run(begin_pipeline(client), wrapped, args, kwargs)


def _async_command(wrapped: Call, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _run_async(begin(client, args), wrapped, args, kwargs)


def _async_pipeline(wrapped: Call, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _run_async(begin_pipeline(client), wrapped, args, kwargs)


def _run(operation: Operation | None, wrapped: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if operation is not None:
        exchange(operation.client, opened(operation))
    silence = hushed(operation)
    try:
        answer = wrapped(*(args if operation is None else operation.arguments or args), **kwargs)
    except BaseException as error:
        loud(silence)
        failed(error, operation)
        raise
    loud(silence)
    if operation is None or not operation.commands:
        return answer
    read = exchange(operation.client, answered(operation, answer))
    counted(exchange(operation.client, looked_up(read, operation)), operation)
    given = done(operation)
    return answer if given is None else given.value


async def _run_async(operation: Operation | None, wrapped: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if operation is not None:
        await exchange_async(operation.client, opened(operation))
    silence = hushed(operation)
    try:
        answer = await wrapped(*(args if operation is None else operation.arguments or args), **kwargs)
    except BaseException as error:
        loud(silence)
        failed(error, operation)
        raise
    loud(silence)
    if operation is None or not operation.commands:
        return answer
    read = await _exchange_to_end(operation.client, answered(operation, answer))
    counted(await _exchange_to_end(operation.client, looked_up(read, operation)), operation)
    given = done(operation)
    return answer if given is None else given.value


async def _exchange_to_end(client: Any, commands: Sequence[Command] | None) -> list[Any] | None:
    """A round trip after a pop. A cancellation in the middle of it must not cost the program its element: it is
    delivered once the program has that."""
    try:
        return await exchange_async(client, commands)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None:
            raise
        asyncio.get_running_loop().call_soon(_cancel_again, task)
        return None


def _cancel_again(task: asyncio.Task[Any]) -> None:
    # A timeout that expired has taken its cancellation back when it saw a result; then there is none to deliver.
    if not task.done() and task.cancelling():
        task.uncancel()
        task.cancel()


def patch(module: ModuleType) -> None:
    """`redis.client` or `redis.asyncio.client`."""
    if ".asyncio" in module.__name__:
        wrapt.wrap_function_wrapper(module, "Redis.execute_command", _async_command)
        wrapt.wrap_function_wrapper(module, "Pipeline.execute", _async_pipeline)
        wrapt.wrap_function_wrapper(module, "Pipeline.immediate_execute_command", _async_command)
    else:
        wrapt.wrap_function_wrapper(module, "Redis.execute_command", _command)
        wrapt.wrap_function_wrapper(module, "Pipeline.execute", _pipeline)
        wrapt.wrap_function_wrapper(module, "Pipeline.immediate_execute_command", _command)


def patch_cluster(module: ModuleType) -> None:
    """`redis.cluster` or `redis.asyncio.cluster`."""
    asynchronous = ".asyncio" in module.__name__
    wrapt.wrap_function_wrapper(module, "RedisCluster.execute_command", _async_command if asynchronous else _command)
    wrapt.wrap_function_wrapper(module, "ClusterPipeline.execute", _async_pipeline if asynchronous else _pipeline)
