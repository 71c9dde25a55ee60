# ruff: noqa: PLC0415, S501
# A flow imports its library itself: with our hooks in place, and only if it is run. All servers are on loopback.
"""Clients of ComfyUI that watch a WebSocket."""

from __future__ import annotations

import json
from typing import Any

from tests.support.worker_battery.comfyui_http_flows import BROADCAST, own_body, until_over
from tests.support.worker_battery.core import (
    World,
    attempt,
    awaited,
    in_a_job,
)


@in_a_job
def comfyui_websocket_client(world: World) -> Any:
    import httpx
    import websocket

    seen: list[Any] = []
    address = world.comfyui.replace("http", "ws")
    for kind in ("ok", "error"):
        socket = websocket.WebSocket()
        socket.connect(f"{address}/ws?clientId=wsc")
        httpx.Client(verify=False).post(f"{world.comfyui}/prompt", json=own_body(kind, client_id="wsc"))
        kinds = []
        while True:
            message = json.loads(socket.recv())
            kinds.append(message["type"])
            if message["type"] == "executing" and message["data"]["node"] is None:
                break
        socket.settimeout(0.01)
        seen.append([each for each in kinds if each not in BROADCAST])
        seen.append(attempt(socket.recv)[0] if not kinds else None)
        socket.close()
    return seen


@in_a_job
def comfyui_websocket_app(world: World) -> Any:
    import httpx
    import websocket

    kinds: list[str] = []

    def on_open(_: Any) -> None:
        httpx.Client(verify=False).post(f"{world.comfyui}/prompt", json=own_body("ok", client_id="app"))

    def on_message(app: Any, text: str) -> None:
        message = json.loads(text)
        kinds.append(message["type"])
        if message["type"] == "executing" and message["data"]["node"] is None:
            app.close()

    app = websocket.WebSocketApp(
        world.comfyui.replace("http", "ws") + "/ws?clientId=app", on_open=on_open, on_message=on_message
    )
    ended = app.run_forever()
    return [ended, [each for each in kinds if each not in BROADCAST]]


@in_a_job
def comfyui_websockets_sync(world: World) -> Any:
    import httpx
    from websockets.sync.client import connect

    kinds: list[str] = []
    with connect(world.comfyui.replace("http", "ws") + "/ws?clientId=sync") as socket:
        httpx.Client(verify=False).post(f"{world.comfyui}/prompt", json=own_body("ok", client_id="sync"))
        for text in socket:
            message = json.loads(text)
            kinds.append(message["type"])
            if message["type"] == "executing" and message["data"]["node"] is None:
                break
        late = attempt(socket.recv, timeout=0.01)
    return [[each for each in kinds if each not in BROADCAST], late[0] if isinstance(late, list) else "status"]


@in_a_job
@awaited
async def comfyui_websockets(world: World) -> Any:
    import httpx
    from websockets.asyncio.client import connect

    async with (
        connect(world.comfyui.replace("http", "ws") + "/ws?clientId=wss") as socket,
        httpx.AsyncClient(verify=False) as http,
    ):
        await http.post(f"{world.comfyui}/prompt", json=own_body("error", client_id="wss"))
        first = json.loads(await socket.recv())["type"]
        return [first in BROADCAST, await until_over(socket)]


@in_a_job
def comfyui_left_alone(world: World) -> Any:
    """Nobody waits for the prompt."""
    import httpx

    return httpx.Client(verify=False).post(f"{world.comfyui}/prompt", json=own_body("ok")).status_code
