"""httpx: `Client.send` and `AsyncClient.send`, through which every request goes. Also httpx2, which has the same shape.

The host's request object stays as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import wrapt

from otel_pipeline.worker.comfyui import exchange as http
from otel_pipeline.worker.comfyui.exchange import Exchange
from otel_pipeline.worker.comfyui.streams import Watch, chunk, end, watch
from otel_pipeline.worker.guard import hook


def patch(module: ModuleType) -> None:
    """Wraps both clients."""
    library = _Library(module)

    def send(wrapped: Callable[..., Any], _client: Any, args: Any, kwargs: Any) -> Any:
        request = _request(args, kwargs)
        exchange: Any = _begin(request)
        changed: Any = _changed(exchange, library, request)
        try:
            response = wrapped(*_args(args, changed), **_kwargs(kwargs, changed))
        except BaseException as error:
            _restore(changed, error, request)
            http.failed(exchange, error)
            raise
        finally:
            http.leave(exchange)
        _restore(changed, response, request)
        _answered(exchange, library, response)
        return response

    async def send_async(wrapped: Callable[..., Any], _client: Any, args: Any, kwargs: Any) -> Any:
        request = _request(args, kwargs)
        exchange: Any = _begin(request)
        changed: Any = _changed(exchange, library, request)
        try:
            response = await wrapped(*_args(args, changed), **_kwargs(kwargs, changed))
        except BaseException as error:
            _restore(changed, error, request)
            http.failed(exchange, error)
            raise
        finally:
            http.leave(exchange)
        _restore(changed, response, request)
        _answered(exchange, library, response)
        return response

    wrapt.wrap_function_wrapper(module.Client, "send", send)
    wrapt.wrap_function_wrapper(module.AsyncClient, "send", send_async)


class _Library:
    """The module, and streams of ours that are streams to it."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.sync_stream = type("WatchedStream", (_Stream, module.SyncByteStream), {})
        self.async_stream = type("AsyncWatchedStream", (_AsyncStream, module.AsyncByteStream), {})


class _Stream:
    def __init__(self, inner: Any, watched: Watch) -> None:
        self._inner, self._watched = inner, watched

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._inner:
                chunk(self._watched, piece)
                yield piece
        except BaseException as error:
            end(self._watched, error)
            raise
        end(self._watched)

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            end(self._watched)


class _AsyncStream:
    def __init__(self, inner: Any, watched: Watch) -> None:
        self._inner, self._watched = inner, watched

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._inner:
                chunk(self._watched, piece)
                yield piece
        except BaseException as error:
            end(self._watched, error)
            raise
        end(self._watched)

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            end(self._watched)


def _request(args: Any, kwargs: Any) -> Any:
    return args[0] if args else kwargs.get("request")


def _args(args: Any, changed: Any) -> Any:
    return args if changed is None or not args else (changed, *args[1:])


def _kwargs(kwargs: Any, changed: Any) -> Any:
    return kwargs if changed is None or "request" not in kwargs else {**kwargs, "request": changed}


@hook("httpx.begin")
def _begin(request: Any) -> Exchange | None:
    return http.begin(request.method, str(request.url), lambda: _content(request))


def _content(request: Any) -> object:
    """What is to be sent, if it is in memory."""
    return getattr(request, "_content", None)


@hook("httpx.change")
def _changed(exchange: Exchange, library: _Library, request: Any) -> Any:
    """The request that goes out instead of the host's."""
    body = http.request_body(exchange, _content(request))
    if not isinstance(body, bytes):
        return None
    module = library.module
    changed = module.Request(
        request.method,
        request.url,
        headers=request.headers,
        stream=module.ByteStream(body),
        extensions=request.extensions,
    )
    changed.headers["content-length"] = str(len(body))
    changed.read()
    return changed


@hook("httpx.restore")
def _restore(changed: Any, holder: Any, request: Any) -> None:
    """The response or the error names the request that the host made."""
    if getattr(holder, "_request", None) is changed:
        holder.request = request


@hook("httpx.answered")
def _answered(exchange: Exchange, library: _Library, response: Any) -> None:
    http.answered(exchange, response.status_code, response.headers.get)
    if response.is_stream_consumed or response.is_closed:
        http.received(exchange, response.content)
        http.counted(exchange, len(response.content))
        http.finished(exchange)
        return
    watched = watch(exchange, response.headers.get("content-encoding"))
    if watched is not None:
        sync = isinstance(response.stream, library.module.SyncByteStream)
        response.stream = (library.sync_stream if sync else library.async_stream)(response.stream, watched)
