"""The `otlp` exporter: OTLP over gRPC to any backend that speaks it. Requests go out as they are in the outbox."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # generated without types
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from pydantic import Field, model_validator

from otel_pipeline import __version__
from otel_pipeline.contracts import Settings
from otel_pipeline.errors import DeliveryError, Refused, TooLarge, Unavailable
from otel_pipeline.limits import EXPORT_BYTES_MAX, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX
from otel_pipeline.quiet import Quiet
from otel_pipeline.settings import Duration, Endpoint, Headers, Retry, SendingQueue, TlsClient, Url
from otel_pipeline.wire.responses import rejected_items
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline.contracts import Context

log = logging.getLogger(__name__)

RETRYABLE: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""The OTLP specification's table (G11); RESOURCE_EXHAUSTED only with a RetryInfo."""
RECONNECT_MS_MAX: Final = 5_000
"""gRPC's own is two minutes, in which calls fail at once; how long a backend is left alone is the sender's decision."""


class OtlpExporter:
    """One channel to one backend."""

    class Config(Settings):
        """Sends traces, metrics and logs by OTLP over gRPC."""

        endpoint: Endpoint | Url
        """host:port of the backend; a scheme http:// or https:// is allowed, as in the Collector."""
        tls: TlsClient = Field(default_factory=TlsClient)
        """TLS is on unless `insecure`."""
        headers: Headers = Field(default_factory=dict)
        """Metadata of every request, such as a vendor's key."""
        compression: Literal["gzip", "none"] = "gzip"
        """How requests are compressed."""
        timeout: Duration = 10.0
        """Longest wait for an answer."""
        retry_on_failure: Retry = Field(default_factory=Retry)
        """How long to wait between tries."""
        sending_queue: SendingQueue = Field(default_factory=SendingQueue)
        """Accepted for the Collector's sake: the outbox is the queue."""
        max_request_bytes: int = Field(default=EXPORT_BYTES_MAX, ge=1024, le=REQUEST_BYTES_MAX)
        """Batches are merged up to this size; most servers take 4 MiB."""

        without_effect: ClassVar[dict[str, str]] = {
            "keepalive": "gRPC's own defaults apply",
            "read_buffer_size": "gRPC sizes its buffers itself",
            "write_buffer_size": "gRPC sizes its buffers itself",
            "wait_for_ready": "the outbox waits",
            "balancer_name": "gRPC's default applies",
            "authority": "use tls.server_name_override",
        }

        @model_validator(mode="after")
        def _can_be_had(self) -> Self:
            if self.tls.insecure_skip_verify:
                raise ValueError("tls.insecure_skip_verify: gRPC always checks; allowed: ca_file, server_name_override")
            return self

    def __init__(self, config: Config, context: Context) -> None:
        self.request_bytes_max: Final = config.max_request_bytes
        self._id = context.component_id
        self._quiet = Quiet(log)
        self._timeout_s = config.timeout
        self._compression = grpc.Compression.Gzip if config.compression == "gzip" else grpc.Compression.NoCompression
        self._metadata = tuple((name.lower(), value.get_secret_value()) for name, value in config.headers.items())
        self._channel = _channel(config)
        self._export: dict[Signal, Callable[..., bytes]] = {
            signal: self._channel.unary_unary(f"/{signal.value.service}/Export") for signal in Signal
        }

    def deliver(self, signal: Signal, request: bytes) -> int:
        """Send one request; returns how many items the backend rejected."""
        if len(request) > REQUEST_BYTES_MAX:
            raise TooLarge(f"{len(request)} bytes, {REQUEST_BYTES_MAX} are allowed")
        try:
            response = self._export[signal](
                request, timeout=self._timeout_s, metadata=self._metadata, compression=self._compression
            )
        except grpc.RpcError as error:
            raise translate(error) from error
        rejected, message = rejected_items(signal, response)
        if rejected or message:
            self._quiet.warning("exporter %s: %d %s rejected: %s", self._id, rejected, signal.value.items, message)
        return rejected

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def translate(error: Any) -> DeliveryError:  # grpc's RpcError is a Call, too, which its types don't say
    """What a failed call means: later, never, or in smaller pieces."""
    code = error.code()
    reason = f"{code.name}: {error.details()}"
    delay_s = _retry_delay_s(error.trailing_metadata() or ())
    if code in RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and delay_s is not None):
        return Unavailable(reason, delay_s)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "CLIENT: Received message larger" not in reason:
        return TooLarge(reason)  # without a delay it is the size in nearly every server; a half tells
    return Refused(reason)  # X2: so is an answer that our own side found too large


def _retry_delay_s(trailers: Any) -> float | None:
    """The RetryInfo among a failed call's trailers, in seconds."""
    for key, value in trailers:
        if key == "grpc-status-details-bin":
            try:
                details = Status.FromString(value).details
                for detail in details:
                    info = RetryInfo()
                    if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
                        return float(info.retry_delay.seconds + info.retry_delay.nanos * 1e-9)
            except DecodeError:
                return None
    return None


def _channel(config: OtlpExporter.Config) -> grpc.Channel:
    parts = urlsplit(config.endpoint) if "://" in config.endpoint else None
    target = parts.netloc if parts else config.endpoint
    scheme = parts.scheme if parts else ""
    options: list[tuple[str, str | int]] = [
        ("grpc.primary_user_agent", f"OTel-OTLP-Exporter-otel-pipeline/{__version__}"),
        ("grpc.max_receive_message_length", RESPONSE_BYTES_MAX),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
    ]
    if scheme == "http" or (config.tls.insecure and scheme != "https"):
        return grpc.insecure_channel(target, options)
    if config.tls.server_name_override:
        options.append(("grpc.ssl_target_name_override", config.tls.server_name_override))
    return grpc.secure_channel(target, _credentials(config.tls), options)


def _credentials(tls: TlsClient) -> grpc.ChannelCredentials:
    ca, key, cert = (Path(name).read_bytes() if name else None for name in (tls.ca_file, tls.key_file, tls.cert_file))
    return grpc.ssl_channel_credentials(ca, key, cert)
