"""The `otlphttp` exporter: OTLP over HTTP, protobuf or JSON, to any backend or vendor that speaks it."""

from __future__ import annotations

import asyncio
import email.utils
import gzip
import logging
import math
import time
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

import aiohttp
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # generated without types
from pydantic import Field, model_validator

from otel_pipeline import __version__
from otel_pipeline.contracts import Settings
from otel_pipeline.errors import Refused, TooLarge, Unavailable, WireError
from otel_pipeline.limits import EXPORT_BYTES_MAX, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX
from otel_pipeline.quiet import Quiet
from otel_pipeline.settings import Duration, Headers, Retry, SendingQueue, TlsClient
from otel_pipeline.wire import otlp_json
from otel_pipeline.wire.responses import rejected_items

if TYPE_CHECKING:
    from otel_pipeline.contracts import Context
    from otel_pipeline.wire.signal import Signal

log = logging.getLogger(__name__)

RETRYABLE: Final = frozenset({429, 502, 503, 504})
GZIP_LEVEL: Final = 1
"""Telemetry shrinks to a tenth at level 1 already; higher levels cost several times the CPU."""
PIECE_BYTES: Final = 65536
REASON_CHARS_MAX: Final = 200


class OtlpHttpExporter:
    """Posts requests on the gateway's HTTP client."""

    class Config(Settings):
        """Sends traces, metrics and logs by OTLP over HTTP."""

        endpoint: str = ""
        """Base URL; /v1/traces and so on are appended."""
        traces_endpoint: str = ""
        """URL for traces, used as it is."""
        metrics_endpoint: str = ""
        """URL for metrics, used as it is."""
        logs_endpoint: str = ""
        """URL for logs, used as it is."""
        encoding: Literal["proto", "json"] = "proto"
        """Body format."""
        tls: TlsClient = Field(default_factory=TlsClient)
        """For https URLs."""
        headers: Headers = Field(default_factory=dict)
        """Headers of every request, such as a vendor's key."""
        compression: Literal["gzip", "none"] = "gzip"
        """How bodies are compressed."""
        timeout: Duration = 30.0
        """Longest wait for an answer."""
        retry_on_failure: Retry = Field(default_factory=Retry)
        """How long to wait between tries."""
        sending_queue: SendingQueue = Field(default_factory=SendingQueue)
        """Accepted for the Collector's sake: the outbox is the queue."""
        max_request_bytes: int = Field(default=EXPORT_BYTES_MAX, ge=1024, le=REQUEST_BYTES_MAX)
        """Batches are merged up to this size before compression."""

        without_effect: ClassVar[dict[str, str]] = {
            "read_buffer_size": "the HTTP client sizes its buffers itself",
            "write_buffer_size": "the HTTP client sizes its buffers itself",
            "max_idle_conns": "the HTTP client keeps what it needs",
            "idle_conn_timeout": "the HTTP client's default applies",
        }

        @model_validator(mode="after")
        def _has_url(self) -> Self:
            urls = (self.endpoint, self.traces_endpoint, self.metrics_endpoint, self.logs_endpoint)
            if not any(urls):
                raise ValueError("endpoint is missing: an http:// or https:// URL is needed")
            for url in filter(None, urls):
                if not url.startswith(("http://", "https://")):
                    raise ValueError(f"{url!r} is no URL: http:// or https:// is needed")
            return self

        def url(self, signal: Signal) -> str:
            """Where requests of a signal go; empty if nowhere."""
            own: str = getattr(self, f"{signal.word}_endpoint")
            return own or (self.endpoint.rstrip("/") + signal.value.path if self.endpoint else "")

    def __init__(self, config: Config, context: Context) -> None:
        self.request_bytes_max: Final = config.max_request_bytes
        self._config = config
        self._id = context.component_id
        self._quiet = Quiet(log)
        self._loop = context.loop
        self._clock = context.clock
        self._under_way: asyncio.Task[Any] | None = None
        self._tls = config.tls.ssl_context()
        self._timeout = aiohttp.ClientTimeout(total=config.timeout)
        self._headers = {name: value.get_secret_value() for name, value in config.headers.items()}
        self._headers["User-Agent"] = f"OTel-OTLP-Exporter-otel-pipeline/{__version__}"
        self._headers["Content-Type"] = "application/json" if config.encoding == "json" else "application/x-protobuf"
        if config.compression == "gzip":
            self._headers["Content-Encoding"] = "gzip"

    def deliver(self, signal: Signal, request: bytes) -> int:
        """Post one request; returns how many items the backend rejected."""
        url = self._config.url(signal)
        if not url:
            raise Refused(f"no URL for {signal.word} is configured")
        body = self._encoded(signal, request)
        if len(body) > REQUEST_BYTES_MAX:
            raise TooLarge(f"{len(body)} bytes, {REQUEST_BYTES_MAX} are allowed")
        if self._config.compression == "gzip":
            body = gzip.compress(body, GZIP_LEVEL)
        try:
            status, retry_after, answer = self._loop.run(self._post(url, body))
        except CancelledError:
            raise Unavailable(f"{url}: cut off, the gateway stops") from None
        return self._judge(signal, status, retry_after, answer)

    def close(self) -> None:
        """Cut off a request under way. The client is the gateway's."""
        if self._loop.running:
            self._loop.run(self._cut_off())

    async def _cut_off(self) -> None:
        if self._under_way:
            self._under_way.cancel()

    def _encoded(self, signal: Signal, request: bytes) -> bytes:
        if self._config.encoding == "proto":
            return request
        try:
            return otlp_json.encode(signal, request).encode()
        except WireError as error:
            raise Refused(f"cannot be written as JSON: {error}") from error

    async def _post(self, url: str, body: bytes) -> tuple[int, str | None, bytes]:
        self._under_way = asyncio.current_task()
        try:
            async with self._loop.session().post(
                url,
                data=body,
                headers=self._headers,
                timeout=self._timeout,
                ssl=self._tls,
                server_hostname=self._config.tls.server_name_override,
                allow_redirects=False,
            ) as response:
                answer = bytearray()
                async for piece in response.content.iter_chunked(PIECE_BYTES):
                    answer += piece
                    if len(answer) > RESPONSE_BYTES_MAX:
                        break
                return response.status, response.headers.get("Retry-After"), bytes(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{url}: {type(error).__name__} {error}") from error
        finally:
            self._under_way = None

    def _judge(self, signal: Signal, status: int, retry_after: str | None, answer: bytes) -> int:
        if 200 <= status < 300:
            return self._rejected(signal, answer)
        reason = f"HTTP {status}: {self._reason(answer)}"
        if status in RETRYABLE:
            raise Unavailable(reason, delay_s(retry_after, self._clock()))
        if status == 413:
            raise TooLarge(reason)
        raise Refused(reason)

    def _rejected(self, signal: Signal, answer: bytes) -> int:
        """Rejected items of a partial success; an answer that cannot be read says nothing."""
        if len(answer) > RESPONSE_BYTES_MAX:
            raise Refused(f"the answer has more than {RESPONSE_BYTES_MAX} bytes")  # X2
        if self._config.encoding == "json":
            try:
                answer = otlp_json.decode_response(signal, answer)
            except WireError:
                return 0
        rejected, message = rejected_items(signal, answer)
        if rejected or message:
            self._quiet.warning("exporter %s: %d %s rejected: %s", self._id, rejected, signal.value.items, message)
        return rejected

    def _reason(self, answer: bytes) -> str:
        text = ""
        if self._config.encoding == "proto":
            with suppress(DecodeError):
                text = Status.FromString(answer).message
        text = text or answer[: REASON_CHARS_MAX * 4].decode(errors="replace")
        return " ".join(text.split())[:REASON_CHARS_MAX]


def delay_s(retry_after: str | None, now_s: float | None = None) -> float | None:
    """A Retry-After header, seconds or a date, in seconds from now."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        pass
    else:
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        at = email.utils.parsedate_to_datetime(retry_after).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, at - (time.time() if now_s is None else now_s))
