"""The `otlp` receiver: its settings as in the Collector; the servers are in `otlp_grpc.py` and `otlp_http.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Self, TypeAlias

from pydantic import Field, model_validator

from otel_pipeline.contracts import Settings
from otel_pipeline.limits import REQUEST_BYTES_MAX
from otel_pipeline.receivers.otlp_grpc import OtlpGrpcServer
from otel_pipeline.receivers.otlp_http import OtlpHttpServer
from otel_pipeline.settings import Duration, Endpoint, TlsServer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline.contracts import Context, Entrance
    from otel_pipeline.wire.signal import Signal

REQUEST_MIB_MAX: Final = REQUEST_BYTES_MAX // (1024 * 1024)
UrlPath: TypeAlias = Annotated[str, Field(pattern=r"^/[^{}?#\s]*$")]
"""A path begins with a slash; braces would be a pattern."""


class GrpcConfig(Settings):
    """OTLP over gRPC."""

    endpoint: Endpoint = "127.0.0.1:4317"
    """Address to listen on."""
    tls: TlsServer | None = None
    """Serve TLS; with client_ca_file also check client certificates."""
    max_recv_msg_size_mib: Annotated[int, Field(ge=1, le=REQUEST_MIB_MAX)] = REQUEST_MIB_MAX
    """Largest request after decompression; a larger one gets RESOURCE_EXHAUSTED."""
    max_concurrent_streams: Annotated[int, Field(ge=1)] = 100
    """Calls under way on one connection."""

    without_effect: ClassVar[dict[str, str]] = {
        "keepalive": "gRPC's own defaults apply",
        "read_buffer_size": "gRPC sizes its buffers itself",
        "write_buffer_size": "gRPC sizes its buffers itself",
        "include_metadata": "no component reads request metadata",
        "transport": "always tcp",
    }


class Cors(Settings):
    """Which web pages may send telemetry."""

    allowed_origins: list[str] = Field(default_factory=list)
    """Origins, with * as a wildcard inside; empty: none."""
    allowed_headers: list[str] = Field(default_factory=list)
    """Request headers besides the usual ones."""
    max_age: Annotated[int, Field(ge=0)] = 7200
    """Seconds for which a browser may remember the answer."""


class HttpConfig(Settings):
    """OTLP over HTTP, protobuf and JSON."""

    endpoint: Endpoint = "127.0.0.1:4318"
    """Address to listen on."""
    tls: TlsServer | None = None
    """Serve TLS; with client_ca_file also check client certificates."""
    cors: Cors | None = None
    """Allow requests from web pages."""
    max_request_body_size: Annotated[int, Field(ge=1, le=REQUEST_BYTES_MAX)] = REQUEST_BYTES_MAX
    """Largest body in bytes after decompression; a larger one gets 413."""
    traces_url_path: UrlPath = "/v1/traces"
    """Path for traces."""
    metrics_url_path: UrlPath = "/v1/metrics"
    """Path for metrics."""
    logs_url_path: UrlPath = "/v1/logs"
    """Path for logs."""
    read_header_timeout: Duration = 10.0
    """Longest wait for a request's headers on an idle connection."""

    without_effect: ClassVar[dict[str, str]] = {
        "include_metadata": "no component reads request metadata",
        "compression_algorithms": "gzip and deflate are always understood",
        "read_timeout": "bodies are bounded by size",
        "write_timeout": "answers are small",
        "idle_timeout": "read_header_timeout applies",
        "keep_alives_enabled": "connections are always kept",
    }

    @model_validator(mode="after")
    def _has_a_path_for_each(self) -> Self:
        if len({self.traces_url_path, self.metrics_url_path, self.logs_url_path}) < 3:
            raise ValueError("traces_url_path, metrics_url_path and logs_url_path must differ")
        return self


class Protocols(Settings):
    """Which protocols to serve. A key without a value means the defaults."""

    grpc: GrpcConfig | None = None
    """OTLP over gRPC; absent: not served."""
    http: HttpConfig | None = None
    """OTLP over HTTP; absent: not served."""

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if self.grpc is None and self.http is None:
            raise ValueError("at least one of grpc and http is needed")
        return self


class OtlpReceiver:
    """Starts and stops the servers of the configured protocols."""

    class Config(Settings):
        """Takes traces, metrics and logs by OTLP."""

        protocols: Protocols = Field(default_factory=lambda: Protocols(grpc=GrpcConfig(), http=HttpConfig()))
        """The protocols to serve; at least one."""

    def __init__(self, config: Config, context: Context, entrances: Mapping[str, Mapping[Signal, Entrance]]) -> None:
        """`entrances` has for each transport, grpc and http, an entrance for each signal that some pipeline takes."""
        self._servers: list[OtlpGrpcServer | OtlpHttpServer] = []
        if config.protocols.grpc is not None:
            self._servers.append(OtlpGrpcServer(config.protocols.grpc, entrances["grpc"], context.loop))
        if config.protocols.http is not None:
            self._servers.append(OtlpHttpServer(config.protocols.http, entrances["http"], context.loop))

    def start(self) -> None:
        """Listen on all protocols."""
        for server in self._servers:
            server.start()

    def stop(self, grace_s: float) -> None:
        """Stop all servers."""
        for server in self._servers:
            server.stop(grace_s)
