# ruff: noqa: PLC0415, BLE001
# A flow imports its library itself: with our hooks in place, and only if it is run. All servers are on loopback.
"""What a flow is, and what it has around it."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

FLOWS: Final[dict[str, Callable[[Any], Any]]] = {}


def flow(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    if function.__name__ in FLOWS:
        raise ValueError(f"two flows are named {function.__name__}")
    FLOWS[function.__name__] = function
    return function


def awaited(function: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def run(world: Any) -> Any:
        return asyncio.run(function(world))

    return run


def asynchronous(function: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Any]:
    return flow(awaited(function))


def in_a_job(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The flow is the work at a job that was popped from a list."""

    @functools.wraps(function)
    def run(world: World) -> Any:
        client = world.redis()
        client.rpush("jobs:queue", TEXT)
        popped = client.lpop("jobs:queue")
        try:
            return [popped, function(world), client.lpop("jobs:queue")]
        finally:
            client.close()

    return flow(run)


class World:
    """Where the servers are, and clients for them."""

    def __init__(
        self,
        *,
        only: list[str],
        redis: str = "",
        comfyui: str = "",
        amqp: str = "",
        temporal: str = "",
        hooks: list[str] | None = None,
        **_: Any,
    ) -> None:
        self.redis_url, self.comfyui, self.amqp, self.temporal = redis, comfyui, amqp, temporal
        self.only = only
        self.hooks = tuple(hooks or [""])
        """What the names of the hooks begin with that are to throw."""

    def redis(self, **options: Any) -> Any:
        import redis

        client = redis.Redis.from_url(self.redis_url, **options)
        client.flushdb()
        return client

    def async_redis(self) -> Any:
        import redis.asyncio

        return redis.asyncio.Redis.from_url(self.redis_url)


def attempt(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The value, or the exception as a value."""
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        return [type(error).__qualname__, str(error)]


TASK: Final = {"job_id": "job-1", "user_id": "u", "workflow": "portrait", "created_at": 5}
TEXT: Final = json.dumps(TASK)


def own_keys(client: Any) -> list[Any]:
    return sorted(key for key in client.keys("*") if not bytes(key).startswith(b"otelp:"))
