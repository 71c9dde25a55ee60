"""OTLP over HTTP, protobuf and JSON, one path a signal, with CORS for web pages.

Bodies are inflated while they arrive and no further than to the limit. Every failure has a google.rpc.Status as its
body, in the request's own content type. The rules' ids (H5 ...) are those of the OTLP specification as tests name them.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest  # type: ignore[import-untyped]  # generated without types
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from otel_pipeline.contracts import Accepted, Rejected
from otel_pipeline.errors import WireError
from otel_pipeline.limits import RETRY_DELAY_S
from otel_pipeline.quiet import Quiet
from otel_pipeline.wire import otlp_json
from otel_pipeline.wire.inflate import ENCODINGS, Inflater
from otel_pipeline.wire.responses import partial_success

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp.typedefs import Handler, Middleware
    from google.protobuf.message import Message

    from otel_pipeline.contracts import Entrance
    from otel_pipeline.event_loop import EventLoop
    from otel_pipeline.receivers.otlp import Cors, HttpConfig
    from otel_pipeline.settings import TlsServer
    from otel_pipeline.wire.signal import Signal

log = logging.getLogger(__name__)

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
CODES: Final = {400: 3, 404: 5, 405: 12, 413: 8, 415: 3, 503: 14}
"""google.rpc codes for the HTTP status codes that we answer."""
UNKNOWN: Final = 2
COMPRESSED_SLACK: Final = 2
"""A body may be so many times the limit before it is inflated: a stream of empty blocks would have no end."""
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

    def __init__(self, config: HttpConfig, entrances: Mapping[Signal, Entrance], host: EventLoop) -> None:
        self._config = config
        self._host = host
        self._handle: int | None = None
        failures = _failures(Quiet(log))
        self._app = web.Application(middlewares=[failures, _cors(config.cors, failures)])
        for signal, entrance in entrances.items():
            path = getattr(config, f"{signal.word}_url_path")
            self._app.router.add_post(path, _export(signal, entrance, config.max_request_body_size))

    def start(self) -> None:
        """Listen; raises OSError if the address cannot be had."""
        tls = _ssl_context(self._config.tls) if self._config.tls else None
        self._handle = self._host.serve(self._app, self._config.endpoint, tls, self._config.read_header_timeout)

    def stop(self, grace_s: float) -> None:
        """Stop listening, let running requests end."""
        if self._handle is not None:
            self._host.unserve(self._handle, grace_s)
            self._handle = None


def _export(signal: Signal, entrance: Entrance, bytes_max: int) -> Callable[[web.Request], Awaitable[web.Response]]:
    """The handler of one signal's path."""

    async def export(request: web.Request) -> web.Response:
        if request.content_type not in (PROTOBUF, JSON):
            raise web.HTTPUnsupportedMediaType(
                text=f"content type {request.content_type}: {PROTOBUF} or {JSON} is allowed"
            )
        body = await _body(request, bytes_max)
        if request.content_type == JSON:
            body = await asyncio.to_thread(otlp_json.decode, signal, body)
        verdict = await entrance.accept(body)
        if isinstance(verdict, Accepted):
            rejected = verdict.rejected
            message = partial_success(signal, rejected, verdict.message) if rejected else signal.value.response()
            return _answer(request, 200, message)
        if isinstance(verdict, Rejected):
            return _bad_request(request, verdict.reason)
        retry_after = {hdrs.RETRY_AFTER: str(max(1, round(verdict.delay_s)))}
        raise web.HTTPServiceUnavailable(text=verdict.reason, headers=retry_after)

    return export


async def _body(request: web.Request, bytes_max: int) -> bytes:
    """The body as it was before compression; nothing of it is read if it is refused for what its headers say."""
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
    if encoding not in ("identity", *ENCODINGS):
        raise web.HTTPUnsupportedMediaType(text=f"content encoding {encoding}: gzip, deflate or none is allowed")
    inflater = Inflater(encoding) if encoding in ENCODINGS else None
    arriving_max = bytes_max * COMPRESSED_SLACK if inflater else bytes_max
    arrived = request.content_length or 0
    body = bytearray()
    if arrived <= arriving_max:
        arrived = 0
        async for piece in request.content.iter_any():
            arrived += len(piece)
            body += inflater.feed(piece, bytes_max + 1 - len(body)) if inflater else piece
            if len(body) > bytes_max or arrived > arriving_max:
                break
    if len(body) > bytes_max or arrived > arriving_max:
        raise web.HTTPRequestEntityTooLarge(bytes_max, text=f"the body is too large: {bytes_max} bytes are allowed")
    if inflater:
        inflater.finish()
    return bytes(body)


def _wants_json(request: web.Request) -> bool:
    """H3, H9: the request's own type counts; where it has none of ours, protobuf, unless JSON was asked for."""
    if request.content_type in (PROTOBUF, JSON):
        return request.content_type == JSON
    return JSON in request.headers.get(hdrs.ACCEPT, "")


def _answer(request: web.Request, status: int, message: Message) -> web.Response:
    if _wants_json(request):
        return web.Response(status=status, text=json_format.MessageToJson(message, indent=None), content_type=JSON)
    return web.Response(status=status, body=message.SerializeToString(), content_type=PROTOBUF)


def _bad_request(request: web.Request, reason: str) -> web.Response:
    """H11: never again, and why."""
    detail = AnyMessage()
    detail.Pack(BadRequest(field_violations=[BadRequest.FieldViolation(description=reason)]))
    return _answer(request, 400, Status(code=CODES[400], message=reason, details=[detail]))


def _failures(quiet: Quiet) -> Middleware:
    """H9: every 4xx and 5xx has a google.rpc.Status as its body."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except WireError as error:
            return _bad_request(request, str(error))
        except web.RequestPayloadError as error:
            return _bad_request(request, f"the body cannot be read: {error}")
        except web.HTTPException as error:
            return _status(request, error)
        except OSError:
            raise  # the connection is gone
        except Exception:  # noqa: BLE001 - it is logged
            quiet.exception("a request could not be answered")
            later = {hdrs.RETRY_AFTER: str(round(RETRY_DELAY_S))}  # a 500 would make the sender drop it
            return _status(request, web.HTTPServiceUnavailable(text="internal error", headers=later))

    return middleware


def _status(request: web.Request, error: web.HTTPException) -> web.Response:
    text = error.text or error.reason
    response = _answer(request, error.status, Status(code=CODES.get(error.status, UNKNOWN), message=text))
    for name in (hdrs.RETRY_AFTER, hdrs.ALLOW):
        if name in error.headers:
            response.headers[name] = error.headers[name]
    return response


def _cors(cors: Cors | None, failures: Middleware) -> Middleware:
    """Answers preflight requests and marks answers for the origins on the list; without a list it does nothing."""
    origins = [_wildcard(pattern) for pattern in cors.allowed_origins] if cors else []

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN)
        if cors is None or origin is None or not any(pattern.fullmatch(origin) for pattern in origins):
            return await handler(request)
        if request.method == hdrs.METH_OPTIONS:
            response: web.StreamResponse = web.Response(status=204)
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "POST"
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = ", ".join((*BROWSER_HEADERS, *cors.allowed_headers))
            response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(cors.max_age)
        else:
            response = await failures(request, handler)
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.VARY] = hdrs.ORIGIN
        return response

    return middleware


def _wildcard(pattern: str) -> re.Pattern[str]:
    """`*` stands for anything; whatever else an origin has, such as the brackets of an IPv6 host, for itself."""
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.IGNORECASE)


def _ssl_context(tls: TlsServer) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file)
        if tls.client_ca_file:
            context.load_verify_locations(tls.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl's errors are of this kind; none names its file
        files = ", ".join(filter(None, (tls.cert_file, tls.key_file, tls.client_ca_file)))
        raise OSError(f"cannot use {files}: {error}") from error
    return context
