"""Plays recordings of a real ComfyUI server strictly: the recorded answers in the recorded order, the recorded messages
to the recorded sockets, and no message before its cause (the POST of its prompt, the interruption).

A capture is served under `/<run>/<capture>`, so that one server serves all of them to several clients; `/<run>` is
a name that a client chooses for its own passage.
"""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from tests.support.net import free_endpoint

ROOT = Path(__file__).parents[2]
DIRECTORIES = (ROOT / "otel_pipeline" / "demo" / "captures", ROOT / "tests" / "captures")
CAUSES = {"execution_interrupted": ("/interrupt", "/cancel")}
"""Messages that somebody asked for."""


@cache
def captures() -> Mapping[str, Mapping[str, Any]]:
    """All recordings by their number, as `05`."""
    files = [path for directory in DIRECTORIES for path in directory.glob("[0-9][0-9]_*.json")]
    return {path.name[:2]: json.loads(path.read_text()) for path in sorted(files, key=lambda path: path.name)}


def frames(capture: Mapping[str, Any], label: str | None) -> list[tuple[str | bytes, Mapping[str, Any]]]:
    """What one socket received: text or bytes, and the recorded message."""
    made: list[tuple[str | bytes, Mapping[str, Any]]] = []
    for message in capture["ws"]:
        if message.get("client") == label:
            text = message.get("text")
            made.append((json.dumps(text) if text is not None else _binary(message), text or {}))
    return made


def labels(capture: Mapping[str, Any]) -> list[str | None]:
    """The sockets, in the order of their opening."""
    return list(dict.fromkeys(message.get("client") for message in capture["ws"]))


def _binary(message: Mapping[str, Any]) -> bytes:
    """The recording has only the head of the image; the length is made right with zeros."""
    head = bytes.fromhex(message.get("head_hex", "")) or struct.pack(">I", message["binary_event_type"])
    return head.ljust(message["length"], b"\0")


class Passage:
    """One client's way through one capture."""

    def __init__(self, capture: Mapping[str, Any]) -> None:
        self.capture = capture
        self.served: dict[tuple[str, str], int] = defaultdict(int)
        self.received: list[tuple[str, str, str]] = []
        """Method, path, body."""
        self.changed = asyncio.Event()
        self.sockets = 0

    def answer(self, method: str, path: str) -> Mapping[str, Any] | None:
        """The next recorded answer for this request; the last one again and again."""
        found: list[Mapping[str, Any]] = [
            each for each in self.capture["http"] if (each["method"], each["path"]) == (method, path)
        ]
        if not found:
            return None
        index = min(self.served[method, path], len(found) - 1)
        self.served[method, path] += 1
        return found[index]

    def happened(self, message: Mapping[str, Any]) -> bool:
        """Whether what causes the message was asked for."""
        causes = CAUSES.get(message.get("type", ""))
        if causes and not any(path.endswith(causes) for _, path, _ in self.received):
            return False
        prompt_id = message.get("data", {}).get("prompt_id")
        if prompt_id is None:
            return True
        posts = [each for each in self.capture["http"] if (each["method"], each["path"]) == ("POST", "/prompt")]
        place = [_id(each) for each in posts].index(prompt_id)
        return self.served["POST", "/prompt"] > place


def _id(exchange: Mapping[str, Any]) -> Any:
    answer = exchange["response_body"]
    return answer.get("prompt_id") if isinstance(answer, dict) else None


class Replay:
    """The server, in a thread of its own."""

    def __init__(self) -> None:
        self.passages: dict[tuple[str, str], Passage] = {}
        self.headers: dict[str, str] = {}
        """Added to each answer."""
        self.stopped = False

    def stop(self) -> None:
        """Lets go of sockets that still wait for something to happen."""
        self.stopped = True
        for passage in self.passages.values():
            passage.changed.set()

    def passage(self, run: str, number: str) -> Passage:
        key = run, number
        if key not in self.passages:
            self.passages[key] = Passage(captures()[number])
        return self.passages[key]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        run, number = request.match_info["run"], request.match_info["number"]
        passage = self.passage(run, number)
        path = "/" + request.match_info["path"]
        if path == "/ws":
            return await self._socket(request, passage)
        if path == "/view":
            return web.Response(body=b"\x89PNG" + b"x" * 4096, content_type="image/png")
        full = path + (f"?{request.query_string}" if request.query_string else "")
        passage.received.append((request.method, path, (await request.read()).decode("utf-8", "replace")))
        recorded = passage.answer(request.method, full)
        passage.changed.set()
        if recorded is None:
            return web.Response(status=404, headers=self.headers)
        body, kind = recorded["response_body"], recorded.get("response_content_type") or ""
        text = body if isinstance(body, str) else json.dumps(body)
        kind = kind.split(";", maxsplit=1)[0] or "application/octet-stream"
        return web.Response(status=recorded["status"], body=text.encode(), content_type=kind, headers=self.headers)

    async def _socket(self, request: web.Request, passage: Passage) -> web.StreamResponse:
        known = labels(passage.capture)
        label = known[min(passage.sockets, len(known) - 1)] if known else None
        passage.sockets += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for data, message in frames(passage.capture, label):
            while not passage.happened(message):
                if self.stopped:
                    return socket
                passage.changed.clear()
                await passage.changed.wait()
            await (socket.send_str(data) if isinstance(data, str) else socket.send_bytes(data))
        async for sent in socket:
            if sent.type is WSMsgType.CLOSE:
                break
        return socket


@contextmanager
def replay() -> Iterator[tuple[str, Replay]]:
    """A running server: its URL and itself."""
    server, endpoint = Replay(), free_endpoint()
    host, port = endpoint.split(":")
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{run}/{number}/{path:.*}", server.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, host, int(port)).start()
        ready.set()
        await stop.wait()
        server.stop()
        await runner.cleanup()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield f"http://{endpoint}", server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
