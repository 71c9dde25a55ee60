"""requests: `Session.send`. The host's prepared request stays as it is; a streamed body is never read by us."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import wrapt

from otel_pipeline.worker.comfyui import exchange as http
from otel_pipeline.worker.comfyui.exchange import Exchange
from otel_pipeline.worker.comfyui.streams import Watch, chunk, end, watch
from otel_pipeline.worker.guard import hook


def patch(module: ModuleType) -> None:
    """`module` is requests.sessions."""
    wrapt.wrap_function_wrapper(module.Session, "send", _send)


def _send(wrapped: Callable[..., Any], _session: Any, args: Any, kwargs: Any) -> Any:
    request = args[0] if args else kwargs.get("request")
    exchange: Any = _begin(request)
    changed: Any = _changed(exchange, request)
    if changed is not None:
        args, kwargs = ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "request": changed})
    try:
        response = wrapped(*args, **kwargs)
    except BaseException as error:
        _restore(changed, error, request)
        http.failed(exchange, error)
        raise
    finally:
        http.leave(exchange)
    _restore(changed, response, request)
    _answered(exchange, response)
    return response


@hook("requests.begin")
def _begin(request: Any) -> Exchange | None:
    return http.begin(request.method or "GET", request.url or "", lambda: request.body)


@hook("requests.change")
def _changed(exchange: Exchange, request: Any) -> Any:
    """The request that goes out instead of the host's."""
    body = http.request_body(exchange, request.body)
    if not isinstance(body, bytes | str):
        return None
    changed = request.copy()
    changed.body = body
    if "Content-Length" in changed.headers:
        changed.headers["Content-Length"] = str(len(body.encode() if isinstance(body, str) else body))
    return changed


@hook("requests.restore")
def _restore(changed: Any, holder: Any, request: Any) -> None:
    """The response or the error names the request that the host made."""
    if getattr(holder, "request", None) is changed:
        holder.request = request


@hook("requests.answered")
def _answered(exchange: Exchange, response: Any) -> None:
    http.answered(exchange, response.status_code, response.headers.get)
    if getattr(response, "_content_consumed", False):
        body = response.content or b""
        http.received(exchange, body)
        http.counted(exchange, len(body))
        http.finished(exchange)
        return
    watched = watch(exchange)
    if watched is not None:
        _watch(response, watched)


def _watch(response: Any, watched: Watch) -> None:
    """On this one response: its iterator, from which `content` comes too, and the ends of the connection below.

    By classes of their own, because a bound method keeps its object alive: `get(url, stream=True).iter_content()`
    leaves no other reference to the response.
    """
    raw = response.raw
    response._otel_pipeline_watch = watched
    kind: Any = type(response)
    response.__class__ = _response_kind(kind)
    if hasattr(raw, "release_conn") and hasattr(raw, "tell"):  # else it is an adapter of the host's own
        raw._otel_pipeline_watch = watched
        kind = type(raw)
        raw.__class__ = _raw_kind(kind)


@functools.cache
def _response_kind(kind: Any) -> Any:
    def iter_content(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        self._otel_pipeline_watch.iterated = True
        return _pieces(kind.iter_content(self, *args, **kwargs), self._otel_pipeline_watch)

    def reduce(self: Any, protocol: Any) -> Any:
        self.__class__ = kind  # a pickle names the class
        return kind.__reduce_ex__(self, protocol)

    return _like(kind, {"iter_content": iter_content, "__reduce_ex__": reduce})


@functools.cache
def _raw_kind(kind: Any) -> Any:
    def release_conn(self: Any) -> Any:
        _released(self._otel_pipeline_watch, self)
        return kind.release_conn(self)

    def close(self: Any) -> Any:
        _released(self._otel_pipeline_watch, self)
        return kind.close(self)

    return _like(kind, {"release_conn": release_conn, "close": close})


def _like(kind: Any, own: dict[str, Any]) -> Any:
    return type(kind.__name__, (kind,), {**own, "__module__": kind.__module__, "__qualname__": kind.__qualname__})


def _pieces(pieces: Iterator[Any], watched: Watch) -> Iterator[Any]:
    try:
        for piece in pieces:
            _piece(watched, piece)
            yield piece
    except BaseException as error:
        end(watched, error)
        raise
    end(watched)


@hook("requests.piece")
def _piece(watched: Watch, piece: Any) -> None:
    chunk(watched, piece.encode() if isinstance(piece, str) else piece)


@hook("requests.released")
def _released(watched: Watch, raw: Any) -> None:
    """The connection is done with. Who iterates gets the last piece after that: then the end is told there."""
    if not watched.iterated:
        end(watched, size=raw.tell() or int(raw.headers.get("content-length") or 0))
