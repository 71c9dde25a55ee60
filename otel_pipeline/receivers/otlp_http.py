"""OTLP over HTTP, protobuf and JSON, one path a signal, with CORS for web pages.

aiohttp inflates bodies and stops at the limit. Every failure has a google.rpc.Status as its body, in the request's own content
type. The rules' ids (H5 ...) are those of the OTLP specification as the tests name them.
"""

from __future__ import annotations

import asyncio
import fnmatch
import ssl
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from google.protobuf import json_format
from google.rpc.status_pb2 import Status

from otel_pipeline.contracts import Accepted, Rejected
from otel_pipeline.errors import WireError
from otel_pipeline.wire import otlp_json
from otel_pipeline.wire.responses import partial_success

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from google.protobuf.message import Message

    from otel_pipeline.contracts import Entrance
    from otel_pipeline.http_host import HttpHost
    from otel_pipeline.receivers.otlp import Cors, HttpConfig
    from otel_pipeline.settings import TlsServer
    from otel_pipeline.wire.signal import Signal

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
INVALID_ARGUMENT: Final = 3
CODES: Final = {400: 3, 404: 5, 405: 12, 413: 8, 415: 3, 500: 13, 503: 14}
"""google.rpc codes for the HTTP status codes that we answer."""
BROWSER_HEADERS: Final = (
    "content-type",
    "content-encoding",
    "traceparent",
    "tracestate",
    "baggage",
    "x-correlation-id",
)


class OtlpHttpServer:
    """Serves the path of each signal that has an entrance; other paths are 404."""

    def __init__(self, config: HttpConfig, entrances: Mapping[Signal, Entrance], host: HttpHost) -> None:
        self._config = config
        self._host = host
        self._handle: int | None = None
        self._app = web.Application(
            client_max_size=config.max_request_body_size, middlewares=[_failures, _cors(config.cors)]
        )
        for signal, entrance in entrances.items():
            path = getattr(config, f"{signal.word}_url_path")
            self._app.router.add_post(path, _export(signal, entrance))

    def start(self) -> None:
        """Listen; raises OSError if the address cannot be had."""
        tls = _ssl_context(self._config.tls) if self._config.tls else None
        self._handle = self._host.serve(self._app, self._config.endpoint, tls)

    def stop(self, grace_s: float) -> None:
        """Stop listening, let running requests end."""
        if self._handle is not None:
            self._host.unserve(self._handle, grace_s)
            self._handle = None


def _export(signal: Signal, entrance: Entrance) -> Callable[[web.Request], Awaitable[web.Response]]:
    """The handler of one signal's path."""

    async def export(request: web.Request) -> web.Response:
        if request.content_type not in (PROTOBUF, JSON):
            raise web.HTTPUnsupportedMediaType(
                text=f"content type {request.content_type}: {PROTOBUF} or {JSON} is allowed"
            )
        encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower()
        if encoding not in ("identity", "gzip", "deflate"):
            raise web.HTTPUnsupportedMediaType(text=f"content encoding {encoding}: gzip or none is allowed")
        body = await _body(request)
        if request.content_type == JSON:
            body = await asyncio.to_thread(otlp_json.decode, signal, body)
        verdict = await asyncio.to_thread(entrance.accept, body)
        if isinstance(verdict, Accepted):
            rejected = verdict.rejected
            message = partial_success(signal, rejected, verdict.message) if rejected else signal.value.response()
            return _answer(request, 200, message)
        if isinstance(verdict, Rejected):
            raise web.HTTPBadRequest(text=verdict.reason)
        retry_after = {hdrs.RETRY_AFTER: str(max(1, round(verdict.delay_s)))}
        raise web.HTTPServiceUnavailable(text=verdict.reason, headers=retry_after)

    return export


async def _body(request: web.Request) -> bytes:
    try:
        return await request.read()
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise web.HTTPBadRequest(text=f"the body cannot be read: {error}") from None


def _answer(request: web.Request, status: int, message: Message) -> web.Response:
    """A message in the request's own content type (H3)."""
    if request.content_type == JSON:
        return web.Response(status=status, text=json_format.MessageToJson(message, indent=None), content_type=JSON)
    return web.Response(status=status, body=message.SerializeToString(), content_type=PROTOBUF)


@web.middleware
async def _failures(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """H9: every 4xx and 5xx has a google.rpc.Status as its body."""
    try:
        return await handler(request)
    except WireError as error:
        return _answer(request, 400, Status(code=INVALID_ARGUMENT, message=str(error)))
    except web.HTTPException as error:
        text = error.text or error.reason
        response = _answer(request, error.status, Status(code=CODES.get(error.status, 2), message=text))
        for name in (hdrs.RETRY_AFTER, hdrs.ALLOW):
            if name in error.headers:
                response.headers[name] = error.headers[name]
        return response


def _cors(cors: Cors | None) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Answers preflight requests and marks answers for the origins on the list; without a list it does nothing."""

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN)
        if cors is None or origin is None or not _allowed(cors, origin):
            return await handler(request)
        if request.method == hdrs.METH_OPTIONS:
            response: web.StreamResponse = web.Response(status=204)
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "POST"
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = ", ".join((*BROWSER_HEADERS, *cors.allowed_headers))
            response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(cors.max_age)
        else:
            response = await _failures(request, handler)
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.VARY] = hdrs.ORIGIN
        return response

    return middleware


def _allowed(cors: Cors, origin: str) -> bool:
    return any(fnmatch.fnmatchcase(origin.lower(), pattern.lower()) for pattern in cors.allowed_origins)


def _ssl_context(tls: TlsServer) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.cert_file, tls.key_file)
    if tls.client_ca_file:
        context.load_verify_locations(tls.client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
