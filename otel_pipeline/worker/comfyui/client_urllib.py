"""urllib: `OpenerDirector.open`, which urlopen and urlretrieve end in.

A refused prompt comes as an HTTPError; its body is peeked at where it lies in the buffer, so that the host reads it as
if nothing had been.
"""

from __future__ import annotations

import copy
import functools
import http.client
import select
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final
from urllib.error import HTTPError

import wrapt

from otel_pipeline.worker.comfyui import exchange as exchanges
from otel_pipeline.worker.comfyui.exchange import Exchange
from otel_pipeline.worker.comfyui.streams import Watch, chunk, end, watch
from otel_pipeline.worker.guard import hook

PEEK_WAIT_S: Final = 0.2
"""The body of an error follows its head at once; a server that stalls must not hold up the host."""


def patch(module: ModuleType) -> None:
    """`module` is urllib.request."""
    wrapt.wrap_function_wrapper(module.OpenerDirector, "open", _open)


def _open(wrapped: Callable[..., Any], _opener: Any, args: Any, kwargs: Any) -> Any:
    exchange: Any = _begin(args, kwargs)
    args, kwargs = _changed(exchange, args, kwargs) or (args, kwargs)
    try:
        response = wrapped(*args, **kwargs)
    except BaseException as error:
        _failed(exchange, error)
        raise
    finally:
        exchanges.leave(exchange)
    _answered(exchange, response)
    return response


def _given(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """What to open, and the data that is sent."""
    target = args[0] if args else kwargs.get("fullurl")
    data = args[1] if len(args) > 1 else kwargs.get("data")
    return target, data if data is not None or isinstance(target, str) else target.data


@hook("urllib.begin")
def _begin(args: Any, kwargs: Any) -> Exchange | None:
    target, data = _given(args, kwargs)
    if isinstance(target, str):
        return exchanges.begin("GET" if data is None else "POST", target, lambda: data)
    method = "POST" if data is not None and not hasattr(target, "method") else target.get_method()
    return exchanges.begin("POST" if method == "GET" and data is not None else method, target.full_url, lambda: data)


@hook("urllib.change")
def _changed(exchange: Exchange, args: Any, kwargs: Any) -> Any:
    """The arguments with another body; the host's Request stays as it is."""
    target, data = _given(args, kwargs)
    body = exchanges.request_body(exchange, data)
    if not isinstance(body, bytes):
        return None
    if not isinstance(target, str):
        changed = copy.copy(target)
        changed.headers, changed.unredirected_hdrs = dict(target.headers), dict(target.unredirected_hdrs)
        changed.data = body
        target = changed
    kwargs = {name: value for name, value in kwargs.items() if name not in {"fullurl", "data"}}
    return (target, body, *args[2:]), kwargs


@hook("urllib.failed")
def _failed(exchange: Exchange, error: BaseException) -> None:
    if not isinstance(error, HTTPError):
        exchanges.failed(exchange, error)
        return
    exchanges.answered(exchange, error.code, error.headers.get)
    if exchange.wants_body:
        exchanges.received(exchange, _peek(error.fp, PEEK_WAIT_S) or b"")
    exchanges.finished(exchange)


@hook("urllib.answered")
def _answered(exchange: Exchange, response: Any) -> None:
    exchanges.answered(exchange, response.status, response.headers.get)
    watched = watch(exchange, response.headers.get("content-encoding"))
    if watched is not None and isinstance(response, http.client.HTTPResponse):
        _watch(response, watched)


def _watch(response: Any, watched: Watch) -> None:
    """On this one response: reading, and the end of its connection.

    By a class of its own, because a bound method keeps its response alive while it reads: `urlopen(url).read()` leaves
    no other reference. A function on the object would either keep it alive for ever or not at all.
    """
    response._otel_pipeline_watch = watched
    response._otel_pipeline_length = response.length or 0
    response._otel_pipeline_reading = False
    kind: Any = type(response)
    response.__class__ = _watched_kind(kind)


@functools.cache
def _watched_kind(kind: Any) -> Any:
    def read(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._otel_pipeline_reading = True
        try:
            data = kind.read(self, *args, **kwargs)
        except BaseException as error:
            end(self._otel_pipeline_watch, error)
            raise
        finally:
            self._otel_pipeline_reading = False
        chunk(self._otel_pipeline_watch, data)
        if _is_closed(self):
            end(self._otel_pipeline_watch)
        return data

    def close_conn(self: Any) -> Any:
        if not self._otel_pipeline_reading:
            _unread(self._otel_pipeline_watch, self)
        return kind._close_conn(self)

    own = {"read": read, "_close_conn": close_conn, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind,), own)


@hook("urllib.is_closed")
def _is_closed(response: Any) -> bool:
    return bool(response.isclosed())


@hook("urllib.unread")
def _unread(watched: Watch, response: Any) -> None:
    """The host closes what it did not read with `read`."""
    if watched.keep and not watched.kept:
        chunk(watched, _peek(response, 0.0) or b"")
    end(watched, size=response._otel_pipeline_length)


@hook("urllib.peek")
def _peek(response: Any, wait_s: float) -> bytes:
    """What lies in the response's buffer, without taking it out.

    Not of a chunked body: the library gives up the connection if it finds no whole head of a chunk.
    """
    if not isinstance(response, http.client.HTTPResponse) or response.fp is None or response.chunked:
        return b""
    sock = response.fp.raw._sock  # type: ignore[attr-defined]  # of socket.SocketIO
    timeout = sock.gettimeout()
    sock.settimeout(0)
    try:
        found = response.peek()
        if not found and wait_s and response.length and select.select([sock], [], [], wait_s)[0]:
            found = response.peek()
    finally:
        sock.settimeout(timeout)
    return found[: response.length] if response.length is not None else found
