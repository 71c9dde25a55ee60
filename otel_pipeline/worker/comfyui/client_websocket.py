"""websocket-client: `WebSocket.recv_data_frame`.

The one level that every way of receiving goes through exactly once, that of WebSocketApp too, and where the fragments
of a message are already put together.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import wrapt

from otel_pipeline.worker.comfyui.sockets import frame
from otel_pipeline.worker.guard import hook

TEXT: Final = 1
BINARY: Final = 2


def patch(module: ModuleType) -> None:
    wrapt.wrap_function_wrapper(module.WebSocket, "recv_data_frame", _recv)


def _recv(wrapped: Callable[..., Any], socket: Any, args: Any, kwargs: Any) -> Any:
    received = wrapped(*args, **kwargs)
    _message(socket, received)
    return received


@hook("websocket.message")
def _message(socket: Any, received: Any) -> None:
    opcode, abnf = received
    if opcode in {TEXT, BINARY}:
        frame(socket, abnf.data, opcode == TEXT)
