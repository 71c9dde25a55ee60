"""OTLP over gRPC: a request's bytes go to the pipeline as they came; no protobuf object is made of them.

grpc itself does compression and the size limit (after decompression, too); a call waits in `accept`, on the event
loop, until the batch is durable. The rules' ids (G7 ...) are those of the OTLP specification as the tests name them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # generated without types
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from otel_pipeline.contracts import Accepted, Rejected, RetryLater
from otel_pipeline.endpoints import split_endpoint
from otel_pipeline.limits import GRPC_CALLS_MAX, RESPONSE_BYTES_MAX, RETRY_DELAY_S
from otel_pipeline.quiet import Quiet
from otel_pipeline.wire.responses import partial_success

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from otel_pipeline.contracts import Entrance, Verdict
    from otel_pipeline.event_loop import EventLoop
    from otel_pipeline.receivers.otlp import GrpcConfig
    from otel_pipeline.settings import TlsServer
    from otel_pipeline.wire.signal import Signal

    Call: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]

log = logging.getLogger(__name__)

REFUSED_SLACK: Final = 8
"""grpc's own bound is so many times ours: it says RESOURCE_EXHAUSTED, at which most senders drop their data (G4)."""


class OtlpGrpcServer:
    """Serves the Export method of each signal that has an entrance; the others are UNIMPLEMENTED."""

    def __init__(self, config: GrpcConfig, entrances: Mapping[Signal, Entrance], loop: EventLoop) -> None:
        self._config = config
        self._entrances = entrances
        self._loop = loop
        self._server: grpc.aio.Server | None = None

    def start(self) -> None:
        """Listen; raises OSError if the address cannot be had."""
        self._loop.run(self._start())

    def stop(self, grace_s: float) -> None:
        """Refuse new calls, let running ones end."""
        if self._server is not None:
            self._loop.run(self._server.stop(grace_s))
            self._server = None

    async def _start(self) -> None:
        config = self._config
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", config.max_recv_msg_size_mib * 1024 * 1024),
                ("grpc.max_send_message_length", RESPONSE_BYTES_MAX),
                ("grpc.max_concurrent_streams", config.max_concurrent_streams),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=GRPC_CALLS_MAX * REFUSED_SLACK,
        )
        quiet = Quiet(log)
        for signal, entrance in self._entrances.items():
            method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
                _export(signal, entrance, quiet)
            )
            handler = grpc.method_handlers_generic_handler(signal.value.service, {"Export": method})
            server.add_generic_rpc_handlers((handler,))
        host, port = split_endpoint(config.endpoint)
        address = config.endpoint if host else f"[::]:{port}"
        try:
            if config.tls is None:
                server.add_insecure_port(address)
            else:
                server.add_secure_port(address, _credentials(config.tls))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {config.endpoint}: {error}") from error
        await server.start()
        self._server = server


def _export(signal: Signal, entrance: Entrance, quiet: Quiet) -> Callable[[bytes, Call], Awaitable[bytes]]:
    """The Export method: request bytes in, response bytes out."""
    accept = entrance.accept
    under_way = 0

    async def verdict_on(body: bytes) -> Verdict:
        nonlocal under_way
        if under_way >= GRPC_CALLS_MAX:
            return RetryLater(RETRY_DELAY_S, f"{under_way} calls are under way")
        under_way += 1
        try:
            return await accept(body)
        except Exception:  # noqa: BLE001 - it is logged
            quiet.exception("a request could not be answered")
            return RetryLater(RETRY_DELAY_S, "internal error")  # grpc would say UNKNOWN, and the sender drop it
        finally:
            under_way -= 1

    async def export(body: bytes, call: Call) -> bytes:
        verdict = await verdict_on(body)
        if isinstance(verdict, Accepted):
            if verdict.rejected:
                return partial_success(signal, verdict.rejected, verdict.message).SerializeToString()
            return b""  # G7: a response with nothing set is an empty message
        if isinstance(verdict, Rejected):
            await call.abort(grpc.StatusCode.INVALID_ARGUMENT, verdict.reason)
        await call.abort(grpc.StatusCode.UNAVAILABLE, verdict.reason, _retry_trailers(verdict))
        raise AssertionError("abort raises")

    return export


def _retry_trailers(verdict: RetryLater) -> tuple[tuple[str, bytes], ...]:
    """The delay in both forms: Go, Java and Rust read the status details, Python reads the RetryInfo itself."""
    seconds = int(verdict.delay_s)
    info = RetryInfo(retry_delay=Duration(seconds=seconds, nanos=int((verdict.delay_s - seconds) * 1e9)))
    detail = AnyMessage()
    detail.Pack(info)
    status = Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message=verdict.reason, details=[detail])
    return (
        ("google.rpc.retryinfo-bin", info.SerializeToString()),
        ("grpc-status-details-bin", status.SerializeToString()),
    )


def _credentials(tls: TlsServer) -> grpc.ServerCredentials:
    client_ca = Path(tls.client_ca_file).read_bytes() if tls.client_ca_file else None
    pair = (Path(tls.key_file).read_bytes(), Path(tls.cert_file).read_bytes())
    return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)
