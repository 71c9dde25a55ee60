"""aiohttp: `ClientSession._request`, through which every request goes, the reading of responses, and its WebSocket."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import wrapt

from otel_pipeline.worker.comfyui import exchange as http
from otel_pipeline.worker.comfyui.exchange import Exchange
from otel_pipeline.worker.comfyui.sockets import frame
from otel_pipeline.worker.guard import hook

UNREAD_BYTES_MAX: Final = 64 * 1024
"""Of a body that arrived, but that the host did not read: an error, before `raise_for_status`; fire and forget."""

_exchanges: Final[weakref.WeakKeyDictionary[Any, Exchange]] = weakref.WeakKeyDictionary()
"""By response, while its body is of interest."""


def patch(module: ModuleType) -> None:
    """`module` is aiohttp.client."""
    wrapt.wrap_function_wrapper(module.ClientSession, "_request", _request)
    wrapt.wrap_function_wrapper(module.ClientResponse, "read", _read)
    wrapt.wrap_function_wrapper(module.ClientResponse, "close", _close)
    wrapt.wrap_function_wrapper(module.ClientResponse, "release", _close)
    wrapt.wrap_function_wrapper(module.ClientWebSocketResponse, "receive", _receive)


async def _request(wrapped: Callable[..., Any], session: Any, args: Any, kwargs: Any) -> Any:
    exchange: Any = _begin(session, args, kwargs)
    kwargs = _changed(exchange, kwargs) or kwargs
    try:
        response = await wrapped(*args, **kwargs)
    except BaseException as error:
        _failed(exchange, error)
        raise
    finally:
        http.leave(exchange)
    _answered(exchange, response)
    return response


async def _read(wrapped: Callable[..., Any], response: Any, args: Any, kwargs: Any) -> Any:
    body = await wrapped(*args, **kwargs)
    if _exchanges:
        _was_read(response, body)
    return body


def _close(wrapped: Callable[..., Any], response: Any, args: Any, kwargs: Any) -> Any:
    if _exchanges:
        _closed(response)
    return wrapped(*args, **kwargs)


async def _receive(wrapped: Callable[..., Any], socket: Any, args: Any, kwargs: Any) -> Any:
    message = await wrapped(*args, **kwargs)
    _message(socket, message)
    return message


@hook("aiohttp.begin")
def _begin(session: Any, args: Any, kwargs: Any) -> Exchange | None:
    method = args[0] if args else kwargs.get("method", "")
    url = str(args[1] if len(args) > 1 else kwargs.get("str_or_url", ""))
    base = getattr(session, "_base_url", None)
    if base is not None and "://" not in url:
        url = str(session._build_url(url))
    return http.begin(str(method), url, lambda: _content(kwargs))


def _content(kwargs: Any) -> object:
    given = kwargs.get("json") if kwargs.get("json") is not None else kwargs.get("data")
    return given if isinstance(given, bytes | bytearray | str | dict) else None


@hook("aiohttp.change")
def _changed(exchange: Exchange, kwargs: Any) -> Any:
    """The arguments with another body. A form is never a prompt; a length that the host states would be wrong."""
    name = "json" if kwargs.get("json") is not None else "data"
    if name == "data" and isinstance(kwargs.get("data"), dict):
        return None
    if any(str(key).lower() == "content-length" for key in _names(kwargs.get("headers"))):
        return None
    body = http.request_body(exchange, _content(kwargs))
    return None if body is None else {**kwargs, name: body}


def _names(headers: Any) -> list[Any]:
    if headers is None:
        return []
    return list(headers) if hasattr(headers, "keys") else [each[0] for each in headers]


@hook("aiohttp.failed")
def _failed(exchange: Exchange, error: BaseException) -> None:
    status = getattr(error, "status", 0)
    if isinstance(status, int) and status >= 400 and exchange.prompt is not None:
        # `raise_for_status` of the session: an answer, whose body nobody will read.
        http.answered(exchange, status, lambda _name: None)
        http.received(exchange, b"")
        return
    http.failed(exchange, error)


@hook("aiohttp.answered")
def _answered(exchange: Exchange, response: Any) -> None:
    http.answered(exchange, response.status, response.headers.get)
    if exchange.wants_body:
        _exchanges[response] = exchange
    elif exchange.wants_size:
        _exchanges[response] = exchange
        response.content.on_eof(functools.partial(_arrived, exchange, response.content))
    else:
        http.finished(exchange)


@hook("aiohttp.arrived")
def _arrived(exchange: Exchange, content: Any) -> None:
    exchange.size = content.total_bytes
    http.finished(exchange)


@hook("aiohttp.read")
def _was_read(response: Any, body: Any) -> None:
    exchange = _exchanges.get(response)
    if exchange is not None and exchange.wants_body:
        http.received(exchange, body)
        _exchanges.pop(response, None)


@hook("aiohttp.closed")
def _closed(response: Any) -> None:
    """The host is done with the response."""
    exchange = _exchanges.pop(response, None)
    if exchange is None:
        return
    content = response.content
    if exchange.wants_body and exchange.prompt is not None:
        unread = b"".join(list(getattr(content, "_buffer", ())))
        if unread and len(unread) <= UNREAD_BYTES_MAX:
            http.received(exchange, unread)
    if exchange.wants_size:
        exchange.size = content.total_bytes
        http.finished(exchange, content.exception())


@hook("aiohttp.message")
def _message(socket: Any, message: Any) -> None:
    kind = message.type.name
    if kind in {"TEXT", "BINARY"}:
        frame(socket, message.data, kind == "TEXT")
