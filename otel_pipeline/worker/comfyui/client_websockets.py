"""websockets: `recv` of its connections, of the asyncio, sync, trio and legacy kinds; iterating calls it too."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt

from otel_pipeline.worker.comfyui.sockets import frame


def patch(module: ModuleType) -> None:
    """`module` is websockets.asyncio.connection or websockets.trio.connection."""
    wrapt.wrap_function_wrapper(module.Connection, "recv", _recv_async)


def patch_sync(module: ModuleType) -> None:
    wrapt.wrap_function_wrapper(module.Connection, "recv", _recv)


def patch_legacy(module: ModuleType) -> None:
    wrapt.wrap_function_wrapper(module.WebSocketCommonProtocol, "recv", _recv_async)


async def _recv_async(wrapped: Callable[..., Any], socket: Any, args: Any, kwargs: Any) -> Any:
    received = await wrapped(*args, **kwargs)
    frame(socket, received)
    return received


def _recv(wrapped: Callable[..., Any], socket: Any, args: Any, kwargs: Any) -> Any:
    received = wrapped(*args, **kwargs)
    frame(socket, received)
    return received
