"""A ComfyUI server without a GPU: it plays back what a real one answered and sent (scenarios.py says which recording).

As on the real server, prompts run one after the other, GET /history/{id} is `{}` until the prompt is over, and messages
go to the WebSocket that has the prompt's client_id.

    python -m otel_pipeline.demo.comfyui --port 8188
"""

from __future__ import annotations

import argparse
import itertools
import json
import struct
import time
import uuid
import zlib
from contextlib import suppress
from typing import Any, Final

from aiohttp import WSMsgType, web

from otel_pipeline.demo.executor import Executor
from otel_pipeline.demo.loopback import serve_forever
from otel_pipeline.demo.playback import NodeCache, Run
from otel_pipeline.demo.scenarios import JsonObject, load

BODY_BYTES_MAX: Final = 16 * 1024 * 1024
SOCKETS_MAX: Final = 1000
"""WebSocket clients; more are refused with 503."""


def make_app(speed: float = 1.0, run_s_min: float = 0.3) -> web.Application:
    """The server as an application. `speed` divides recorded times; a prompt that executes nodes lasts `run_s_min`."""
    server = _Server(speed, run_s_min)
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    for prefix in ("", "/api"):
        app.router.add_post(f"{prefix}/prompt", server.post_prompt)
        app.router.add_post(f"{prefix}/interrupt", server.post_interrupt)
        app.router.add_get(f"{prefix}/prompt", server.get_prompt)
        app.router.add_get(f"{prefix}/queue", server.get_queue)
        app.router.add_get(f"{prefix}/history", server.get_history_list)
        app.router.add_get(f"{prefix}/history/{{prompt_id}}", server.get_history)
        app.router.add_get(f"{prefix}/view", server.get_view)
        app.router.add_get(f"{prefix}/system_stats", server.get_recorded)
        app.router.add_get(f"{prefix}/features", server.get_recorded)
        app.router.add_get(f"{prefix}/ws", server.websocket)
    app.cleanup_ctx.append(server.executor.lifetime)
    return app


def png(color: int, side: int = 16) -> bytes:
    """A real PNG of one color (0xRRGGBB), `side` pixels wide and high."""
    row = b"\0" + (color & 0xFFFFFF).to_bytes(3, "big") * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    image = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(row * side)), (b"IEND", b"")):
        image += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return image


class _Server:
    def __init__(self, speed: float, run_s_min: float) -> None:
        self._library = load()
        self._cache = NodeCache()
        self._numbers = itertools.count()
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self.executor = Executor(self._library.interrupted, self._deliver, speed=speed, run_s_min=run_s_min)

    async def post_prompt(self, request: web.Request) -> web.Response:
        body = _json(await request.read())
        workflow: Any = body.get("prompt") if isinstance(body, dict) else None
        recording = self._library.choose(body, self._cache.state(workflow))
        if not isinstance(recording.answer, dict):
            return web.Response(status=recording.status, text=recording.answer)
        number = self._number(body)  # a refused prompt uses up a number too
        if recording.status != 200:
            return web.json_response(recording.answer, status=recording.status)
        run = Run(
            recording=recording,
            prompt_id=_prompt_id(body),
            number=number,
            workflow=workflow,
            extra_data=_extra_data(body),
            file_number=self._cache.remember(workflow),
        )
        self.executor.post(run)
        return web.json_response(run.answer())

    async def post_interrupt(self, request: web.Request) -> web.Response:
        """Empty 200 in every case, as recorded: also if there is nothing to interrupt."""
        body = _json(await request.read())
        self.executor.interrupt(body.get("prompt_id") if isinstance(body, dict) else None)
        return web.Response()

    async def get_prompt(self, _request: web.Request) -> web.Response:
        return web.json_response(self.executor.status()["status"])

    async def get_queue(self, _request: web.Request) -> web.Response:
        running = [self.executor.current] if self.executor.current else []
        queues = {"queue_running": running, "queue_pending": self.executor.pending}
        return web.json_response({name: [run.queue_item() for run in runs] for name, runs in queues.items()})

    async def get_history(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["prompt_id"]
        entry = self.executor.history.get(prompt_id)
        return web.json_response({prompt_id: entry} if entry else {})

    async def get_history_list(self, request: web.Request) -> web.Response:
        entries, wanted = list(self.executor.history.items()), request.query.get("max_items", "")
        newest = int(wanted) if wanted.isdecimal() else len(entries)
        return web.json_response(dict(entries[max(0, len(entries) - newest) :]))

    async def get_view(self, request: web.Request) -> web.Response:
        name = request.query.get("filename", "")
        if name not in self.executor.files:
            return web.Response(status=404)
        return web.Response(body=png(zlib.crc32(name.encode())), content_type="image/png")

    async def get_recorded(self, request: web.Request) -> web.Response:
        return web.json_response(self._library.idle[request.path.removeprefix("/api")])

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        if len(self._sockets) >= SOCKETS_MAX:
            return web.Response(status=503)
        client_id = request.query.get("clientId") or uuid.uuid4().hex
        socket = self._sockets[client_id] = web.WebSocketResponse()
        await socket.prepare(request)
        try:
            await socket.send_json({"type": "status", "data": self.executor.status() | {"sid": client_id}})
            current = self.executor.current
            if current and current.node and current.client_id == client_id:
                # A client that comes back learns where its prompt is; what it missed stays missed.
                await socket.send_json({"type": "executing", "data": {"node": current.node}})
            async for message in socket:
                if message.type is WSMsgType.TEXT and '"feature_flags"' in message.data:
                    await socket.send_json({"type": "feature_flags", "data": self._library.idle["/features"]})
        finally:
            if self._sockets.get(client_id) is socket:
                del self._sockets[client_id]
        return socket

    async def _deliver(self, message: JsonObject, client_id: str | None) -> None:
        for socket in [each for key, each in self._sockets.items() if client_id in (None, key)]:
            # A client that is leaving or has not shaken hands yet loses the message, as on the real server.
            with suppress(ConnectionError, RuntimeError):
                await socket.send_json(message)

    def _number(self, body: JsonObject) -> float:
        if "number" in body:
            return float(body["number"])
        number = next(self._numbers)
        return -number if body.get("front") else number


def _json(body: bytes) -> Any:
    """The parsed body, or None if it is no JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def _extra_data(body: JsonObject) -> JsonObject:
    client = {"client_id": body["client_id"]} if "client_id" in body else {}
    return {**(body.get("extra_data") or {}), **client, "create_time": time.time_ns() // 1_000_000}


def _prompt_id(body: JsonObject) -> str:
    """The id the client chose, if it is a canonical UUID; else a fresh one."""
    wanted = str(body.get("prompt_id"))
    try:
        canonical = str(uuid.UUID(wanted)) == wanted
    except ValueError:
        canonical = False
    return wanted if canonical else str(uuid.uuid4())


def main() -> None:
    parser = argparse.ArgumentParser(description="Plays back recordings of a real ComfyUI server.")
    parser.add_argument("--port", type=int, default=8188)
    parser.add_argument("--speed", type=float, default=1.0, help="divides the recorded times")
    parser.add_argument("--run-seconds-min", type=float, default=0.3, help="least time of a prompt that executes nodes")
    arguments = parser.parse_args()
    serve_forever(make_app(arguments.speed, arguments.run_seconds_min), arguments.port)


if __name__ == "__main__":
    main()
