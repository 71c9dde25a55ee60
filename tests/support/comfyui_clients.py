"""A worker that walks through every capture with one HTTP library and, if wanted, one WebSocket library.

Run in a process of its own, because it patches them. Says as JSON which spans came of it.

    python -m tests.support.comfyui_clients URL RUN HTTP_LIBRARY [WEBSOCKET_LIBRARY]
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_pipeline.worker import activation, guard
from otel_pipeline.worker.jobs import Origin, job_end, job_start
from otel_pipeline.worker.spans import JobAttributes
from tests.support.comfyui_replay import captures, frames, labels

Send = Callable[[str, str, Any], Awaitable[bytes]]
"""Method, URL, body: the body of the answer."""


class Sockets:
    """The captured sockets, read one message at a time."""

    def __init__(self, library: str, url: str, capture: Mapping[str, Any]) -> None:
        self._library, self._url, self._capture = library, url.replace("http", "ws", 1), capture
        self._open: dict[str | None, Any] = {}
        self._read: dict[str | None, int] = {}
        self._session: Any = None

    async def start(self) -> None:
        """Opens all sockets that are not a reconnection."""
        for label in labels(self._capture):
            if label != "second":
                await self._connect(label)

    async def until(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Reads on until the last wanted message."""
        for label in labels(self._capture):
            messages = [message for _, message in frames(self._capture, label)]
            last = max((place for place, message in enumerate(messages) if wanted(message)), default=-1)
            if label not in self._open and last >= 0:
                await self._connect(label)
            while self._read.get(label, 0) <= last:
                await recv(self._library, self._open[label])
                self._read[label] += 1

    async def close(self) -> None:
        for socket in self._open.values():
            done = socket.close()
            if hasattr(done, "__await__"):
                await done
        if self._session is not None:
            await self._session.close()

    async def _connect(self, label: str | None) -> None:
        url = f"{self._url}/ws?clientId={label}"
        if self._library == "aiohttp" and self._session is None:
            aiohttp = import_module("aiohttp")

            self._session = aiohttp.ClientSession()
        self._open[label] = await connect(self._library, url, self._session, len(frames(self._capture, label)))
        self._read[label] = 0


async def connect(library: str, url: str, session: Any, total: int) -> Any:
    if library == "aiohttp":
        return await session.ws_connect(url.replace("ws", "http", 1))
    if library == "websocket":
        websocket = import_module("websocket")

        return websocket.create_connection(url, timeout=20)
    if library == "websocketapp":
        return App(url, total)
    if library == "websockets.sync":
        return import_module("websockets.sync.client").connect(url).__enter__()
    return await import_module("websockets.asyncio.client").connect(url)


class App:
    """websocket-client's WebSocketApp in a thread, as many workers run it."""

    def __init__(self, url: str, total: int) -> None:
        websocket = import_module("websocket")
        self._count, self._total, self._seen, self._got = 0, total, 0, threading.Condition()
        self._app = websocket.WebSocketApp(url, on_message=self._on_message, on_data=None)
        self._thread = threading.Thread(target=self._app.run_forever, daemon=True)
        self._thread.start()

    def _on_message(self, app: Any, _message: Any) -> None:
        with self._got:
            self._count += 1
            self._got.notify_all()
        if self._count == self._total:
            app.close()

    def recv(self) -> None:
        self._seen += 1
        with self._got:
            assert self._got.wait_for(lambda: self._count >= self._seen, 20)

    def close(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


async def recv(library: str, socket: Any) -> None:
    if library == "aiohttp":
        await socket.receive()
    elif library == "websockets":
        await socket.recv()
    else:
        socket.recv()


def sender(library: str) -> tuple[Send, Callable[[], Any]]:
    """How to send with it, and how to close it."""
    return {
        "httpx": _httpx,
        "httpx.async": _httpx_async,
        "requests": _requests,
        "aiohttp": _aiohttp,
        "urllib": _urllib,
    }[library]()


def _httpx() -> tuple[Send, Callable[[], Any]]:
    httpx = import_module("httpx")

    client = httpx.Client()

    async def send(method: str, url: str, body: Any) -> bytes:
        form = {"content": body} if isinstance(body, str) else {} if body is None else {"json": body}
        return bytes(client.request(method, url, **form).content)

    return send, client.close


def _httpx_async() -> tuple[Send, Callable[[], Any]]:
    httpx = import_module("httpx")

    client = httpx.AsyncClient()

    async def send(method: str, url: str, body: Any) -> bytes:
        form = {"content": body} if isinstance(body, str) else {} if body is None else {"json": body}
        async with client.stream(method, url, **form) as answer:
            return bytes(await answer.aread())

    return send, client.aclose


def _requests() -> tuple[Send, Callable[[], Any]]:
    requests = import_module("requests")

    session = requests.Session()

    async def send(method: str, url: str, body: Any) -> bytes:
        data = body if body is None or isinstance(body, str) else json.dumps(body)
        with session.request(method, url, data=data, stream="/view" in url) as answer:
            return bytes(answer.content)

    return send, session.close


def _aiohttp() -> tuple[Send, Callable[[], Any]]:
    aiohttp = import_module("aiohttp")

    session: Any = None

    async def send(method: str, url: str, body: Any) -> bytes:
        nonlocal session
        session = session or aiohttp.ClientSession()
        form = {"data": body} if isinstance(body, str) else {} if body is None else {"json": body}
        async with session.request(method, url, **form) as answer:
            return bytes(await answer.read())

    async def close() -> None:
        await session.close()

    return send, close


def _urllib() -> tuple[Send, Callable[[], Any]]:
    async def send(method: str, url: str, body: Any) -> bytes:
        data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        if method == "POST" and data is None:
            data = b""
        request = urllib.request.Request(url, data=data, method=method)  # noqa: S310  loopback
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            error.close()
            return b""

    return send, lambda: None


async def walk(number: str, base: str, send: Send, library: str | None) -> None:
    """One capture, as one job."""
    capture = captures()[number]
    sockets = Sockets(library, base, capture) if library else None
    job = job_start(Origin("test", number), job_id=number)
    if sockets is not None:
        await sockets.start()
    for exchange in capture["http"]:
        name = exchange["path"].rsplit("/", 1)[-1]
        answer = exchange["response_body"]
        answered = bool(answer) and "in_progress" not in answer.values() if isinstance(answer, dict) else False
        if sockets is not None and exchange["method"] == "GET" and answered and len(name) == 36:
            await sockets.until(functools.partial(_is_about, name))
        await send(exchange["method"], base + exchange["path"], exchange["request_body"])
    if sockets is not None:
        await sockets.until(lambda _: True)
    if number == "01":
        await send("GET", f"{base}/view?filename=probe_00001_.png&subfolder=&type=output", None)
    job_end(job)
    if sockets is not None:
        await sockets.close()


def _is_about(prompt_id: str, message: Mapping[str, Any]) -> bool:
    return bool(message.get("data", {}).get("prompt_id") == prompt_id)


async def walk_all(url: str, run: str, http: str, library: str | None) -> None:
    send, close = sender(http)
    for number in captures():
        await walk(number, f"{url}/{run}/{number}", send, library)
    done = close()
    if hasattr(done, "__await__"):
        await done


def told(span: ReadableSpan) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace": span.context.trace_id,
        "id": span.context.span_id,
        "parent": span.parent.span_id if span.parent else None,
        "attributes": dict(span.attributes or {}),
        "status": span.status.status_code.name,
        "events": [[event.name, dict(event.attributes or {})] for event in span.events],
        "start_ns": span.start_time,
        "end_ns": span.end_time,
    }


def counted(reader: InMemoryMetricReader) -> dict[str, float]:
    """Requests by endpoint and status."""
    data, found = reader.get_metrics_data(), {}
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name == "comfyui.requests":
                    for point in metric.data.data_points:
                        labels_ = dict(point.attributes or {})
                        found[f"{labels_['endpoint']} {labels_['status']}"] = getattr(point, "value", 0)
    return found


def main() -> None:
    url, run, http, *rest = sys.argv[1:]
    exporter, provider, reader = InMemorySpanExporter(), TracerProvider(), InMemoryMetricReader()
    provider.add_span_processor(JobAttributes())  # type: ignore[arg-type]  # it has the shape
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([reader]))
    if http.startswith("httpx"):
        import_module("opentelemetry.instrumentation.httpx").HTTPXClientInstrumentor().instrument()
    activation.activate()
    asyncio.run(walk_all(url, run, http, rest[0] if rest else None))
    failures = {name: each.failures for name, each in guard.HOOKS.items() if each.failures}
    spans = [told(span) for span in exporter.get_finished_spans()]
    print(json.dumps({"spans": spans, "failures": failures, "counted": counted(reader)}))


if __name__ == "__main__":
    main()
