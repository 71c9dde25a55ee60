"""OTLP over gRPC, against a real server and real clients. The ids in the names are the specification's rules."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # generated without types
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from otel_pipeline.contracts import Accepted, Rejected, RetryLater
from otel_pipeline.event_loop import EventLoop
from otel_pipeline.outbox import Outbox
from otel_pipeline.pipeline import DataPath, Pipeline
from otel_pipeline.receivers import otlp_grpc
from otel_pipeline.receivers.otlp import GrpcConfig, HttpConfig, OtlpReceiver, Protocols
from otel_pipeline.receivers.otlp_grpc import OtlpGrpcServer
from otel_pipeline.settings import TlsServer
from otel_pipeline.stats import Stats
from otel_pipeline.wire.signal import Signal
from tests.support.fakes import MeetingEntrance, RememberingEntrance
from tests.support.net import Certificates, PeakMemory, context, free_endpoint
from tests.support.otlp import logs, metrics, span_names, traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from otel_pipeline.contracts import Entrance, Verdict

REQUESTS = {Signal.TRACES: traces(), Signal.METRICS: metrics(), Signal.LOGS: logs()}
TIMEOUT_S = 20.0
MIB = 1024 * 1024


class Served:
    """A running server and a channel to it."""

    def __init__(self, stack: ExitStack, entrances: Mapping[Signal, Entrance], **settings: Any) -> None:
        self.endpoint = free_endpoint()
        self.loop = EventLoop()
        self.loop.start()
        stack.callback(self.loop.stop)
        self.server = OtlpGrpcServer(GrpcConfig(endpoint=self.endpoint, **settings), entrances, self.loop)
        self.server.start()
        stack.callback(self.server.stop, 0.0)
        self.channel = stack.enter_context(grpc.insecure_channel(self.endpoint))

    def export(self, body: bytes, signal: Signal = Signal.TRACES, **options: Any) -> bytes:
        call: Any = self.channel.unary_unary(f"/{signal.value.service}/Export")
        answer = call(body, timeout=TIMEOUT_S, **options)
        assert isinstance(answer, bytes)
        return answer

    def refused(self, body: bytes, signal: Signal = Signal.TRACES) -> Any:
        with pytest.raises(grpc.RpcError) as caught:
            self.export(body, signal)
        return caught.value


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:
        yield lambda entrance=None, **settings: Served(
            stack, {Signal.TRACES: entrance or RememberingEntrance()}, **settings
        )


def trailers(error: Any) -> dict[str, bytes]:
    return {key: value for key, value in error.trailing_metadata() if key.endswith("-bin")}


# -- what is accepted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", list(Signal))
def test_G5_each_signal_has_its_service_and_hands_the_bytes_on(signal: Signal) -> None:
    entrances = {one: RememberingEntrance() for one in Signal}
    with ExitStack() as stack:
        served = Served(stack, entrances)
        assert served.export(REQUESTS[signal], signal) == b""
    assert {one: entrance.bodies for one, entrance in entrances.items() if entrance.bodies} == {
        signal: [REQUESTS[signal]]
    }


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_C1_requests_come_plain_and_gzipped(serve: Callable[..., Served], compression: grpc.Compression) -> None:
    entrance = RememberingEntrance()
    body = traces(["job"] * 500)
    serve(entrance).export(body, compression=compression)
    assert entrance.bodies == [body]


def test_G7_the_answer_to_success_has_nothing_set(serve: Callable[..., Served]) -> None:
    answer = Signal.TRACES.value.response.FromString(serve().export(traces()))
    assert not answer.HasField("partial_success")


def test_G8_an_empty_request_succeeds(serve: Callable[..., Served]) -> None:
    assert serve().export(b"") == b""


@pytest.mark.parametrize("signal", list(Signal))
def test_G9_a_partial_success_says_how_many_and_why(signal: Signal) -> None:
    with ExitStack() as stack:
        served = Served(stack, {signal: RememberingEntrance(Accepted(3, "bad ids; 16 bytes are allowed"))})
        partial = signal.value.response.FromString(served.export(b"", signal)).partial_success  # type: ignore[attr-defined]
    assert getattr(partial, signal.value.rejected_field) == 3
    assert partial.error_message == "bad ids; 16 bytes are allowed"


def test_G5_calls_are_served_at_the_same_time(serve: Callable[..., Served]) -> None:
    served = serve(MeetingEntrance(16))
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(served.export, [traces()] * 16)) == [b""] * 16


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_G1_G4_a_request_above_the_limit_is_refused_for_good(serve: Callable[..., Served]) -> None:
    entrance = RememberingEntrance()
    served = serve(entrance, max_recv_msg_size_mib=1)
    error = served.refused(bytes(MIB + 1))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert trailers(error) == {}
    served.export(bytes(MIB))
    assert [len(body) for body in entrance.bodies] == [MIB]


def test_G2_the_limit_is_64_mib_by_default(serve: Callable[..., Served]) -> None:
    entrance = RememberingEntrance()
    serve(entrance).export(bytes(64 * MIB), compression=grpc.Compression.Gzip)
    assert [len(body) for body in entrance.bodies] == [64 * MIB]


BOMB = """
import grpc, sys
with grpc.insecure_channel(sys.argv[1]) as channel:
    try:
        export = channel.unary_unary(f"/{sys.argv[2]}/Export")
        export(bytes(int(sys.argv[3])), compression=grpc.Compression.Gzip, timeout=60)
    except grpc.RpcError as error:
        print(error.code().name, [key for key, _ in error.trailing_metadata()])
"""


def test_G1_a_gzip_bomb_is_refused_and_costs_no_memory(serve: Callable[..., Served]) -> None:
    entrance = RememberingEntrance()
    served = serve(entrance, max_recv_msg_size_mib=1)
    served.export(b"", compression=grpc.Compression.Gzip)
    memory = PeakMemory()
    command = [sys.executable, "-c", BOMB, served.endpoint, Signal.TRACES.value.service, str(300 * MIB)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert said.strip() == "RESOURCE_EXHAUSTED []"
    assert memory.growth_mib() < 32
    assert entrance.bodies == [b""]


def test_G11_malformed_bytes_are_refused_with_the_offset_and_the_next_request_is_served(tmp_path: Path) -> None:
    stats = Stats()
    outbox = Outbox(tmp_path, {"traces": ("traces", ["sink"])}, bytes_max=16 * MIB, sync="off")
    path = DataPath(outbox, stats, lambda: False)
    with ExitStack() as stack:
        stack.callback(outbox.close)
        lane = path.lane("otlp", "grpc", Signal.TRACES, [Pipeline("traces", Signal.TRACES, [], stats)])
        served = Served(stack, {Signal.TRACES: lane})
        stack.callback(lambda: served.loop.run(path.stop()))
        error = served.refused(traces(["broken"]) + b"\x0a\xff")
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert f"at byte {len(traces(['broken'])) + 1}" in error.details()
        assert trailers(error) == {}
        assert served.export(traces(["good"])) == b""
        chunk = outbox.read("traces", 0, MIB)
    assert chunk is not None
    assert span_names(chunk.request) == ["good"]


def test_G11_a_signal_without_pipeline_is_unimplemented(serve: Callable[..., Served]) -> None:
    assert serve().refused(metrics(), Signal.METRICS).code() is grpc.StatusCode.UNIMPLEMENTED


def test_G11_a_rejection_is_final_and_says_why(serve: Callable[..., Served]) -> None:
    error = serve(RememberingEntrance(Rejected("no OTLP at byte 7"))).refused(b"x")
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "no OTLP at byte 7")


def test_G11_a_fault_of_our_own_costs_the_sender_no_data(serve: Callable[..., Served]) -> None:
    class Faulty:
        async def accept(self, _: bytes) -> Verdict:
            raise ZeroDivisionError

    error = serve(Faulty()).refused(traces())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "google.rpc.retryinfo-bin" in trailers(error)


def test_G12_later_means_unavailable_with_the_delay_in_both_trailers(serve: Callable[..., Served]) -> None:
    error = serve(RememberingEntrance(RetryLater(1.25, "the outbox is full"))).refused(traces())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the outbox is full"
    found = trailers(error)
    info = RetryInfo.FromString(found["google.rpc.retryinfo-bin"])
    assert (info.retry_delay.seconds, info.retry_delay.nanos) == (1, 250_000_000)
    status = Status.FromString(found["grpc-status-details-bin"])
    assert (status.code, status.message) == (14, "the outbox is full")
    detail = RetryInfo()
    assert status.details[0].Unpack(detail)
    assert detail == info


def test_G12_one_call_too_many_is_told_to_come_again(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp_grpc, "GRPC_CALLS_MAX", 2)
    inside, release = threading.Semaphore(0), threading.Event()

    class Slow:
        async def accept(self, _: bytes) -> Verdict:
            inside.release()
            assert await asyncio.to_thread(release.wait, TIMEOUT_S)
            return Accepted()

    served = serve(Slow())
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(served.export, traces()) for _ in range(2)]
        for _ in calls:
            assert inside.acquire(timeout=TIMEOUT_S)
        error = served.refused(traces())
        release.set()
        assert [call.result(TIMEOUT_S) for call in calls] == [b"", b""]
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "google.rpc.retryinfo-bin" in trailers(error)
    assert served.export(traces()) == b""


# -- real workers ------------------------------------------------------------------------------------------------------


def spans_through(exporter: OTLPSpanExporter, *names: str) -> None:
    """What a worker does: spans through a batch processor, flushed at the end."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("worker")
    for name in names:
        with tracer.start_as_current_span(name):
            pass
    assert provider.force_flush(20_000)
    provider.shutdown()


def test_the_python_sdk_exports_through_its_batch_processor(serve: Callable[..., Served]) -> None:
    entrance = RememberingEntrance()
    served = serve(entrance)
    spans_through(OTLPSpanExporter(endpoint=served.endpoint, insecure=True), "a", "b", "c")
    assert [span_names(body) for body in entrance.bodies] == [["a", "b", "c"]]


def test_G12_the_python_sdk_reads_the_delay_comes_again_and_succeeds(serve: Callable[..., Served]) -> None:
    entrance = RememberingEntrance(RetryLater(0.02, "the outbox is full"), Accepted())
    served = serve(entrance)
    # Without the delay from the trailer it would wait for a second or more and give up here.
    spans_through(OTLPSpanExporter(endpoint=served.endpoint, insecure=True, timeout=0.7), "again")
    assert [span_names(body) for body in entrance.bodies] == [["again"], ["again"]]


# -- TLS, addresses, ending --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


def secure_export(endpoint: str, certificates: Certificates, *, as_client: bool) -> bytes:
    ca = Path(certificates.ca_file).read_bytes()
    key = Path(certificates.client_key_file).read_bytes() if as_client else None
    chain = Path(certificates.client_cert_file).read_bytes() if as_client else None
    with grpc.secure_channel(endpoint, grpc.ssl_channel_credentials(ca, key, chain)) as channel:
        call: Any = channel.unary_unary(f"/{Signal.TRACES.value.service}/Export")
        answer = call(traces(), timeout=TIMEOUT_S)
    assert isinstance(answer, bytes)
    return answer


def test_tls_serves_clients_that_trust_the_authority(serve: Callable[..., Served], certificates: Certificates) -> None:
    tls = TlsServer(cert_file=certificates.cert_file, key_file=certificates.key_file)
    served = serve(tls=tls)
    assert secure_export(served.endpoint, certificates, as_client=False) == b""
    assert served.refused(traces()).code() is grpc.StatusCode.UNAVAILABLE


def test_mutual_tls_serves_clients_with_a_certificate_only(
    serve: Callable[..., Served], certificates: Certificates
) -> None:
    files = (certificates.cert_file, certificates.key_file, certificates.ca_file)
    served = serve(tls=TlsServer(**dict(zip(("cert_file", "key_file", "client_ca_file"), files, strict=True))))
    assert secure_export(served.endpoint, certificates, as_client=True) == b""
    with pytest.raises(grpc.RpcError) as caught:
        secure_export(served.endpoint, certificates, as_client=False)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_taken_port_is_an_error_that_names_the_address(serve: Callable[..., Served]) -> None:
    served = serve()
    second = OtlpGrpcServer(GrpcConfig(endpoint=served.endpoint), {}, served.loop)
    with pytest.raises(OSError, match=served.endpoint):
        second.start()
    second.stop(0.0)


def test_a_certificate_that_is_missing_is_named(
    serve: Callable[..., Served], tmp_path: Path, certificates: Certificates
) -> None:
    missing = str(tmp_path / "missing.pem")
    tls = TlsServer(cert_file=missing, key_file=certificates.key_file)
    server = OtlpGrpcServer(GrpcConfig(endpoint=free_endpoint(), tls=tls), {}, serve().loop)
    with pytest.raises(OSError, match="missing.pem"):
        server.start()
    server.stop(0.0)


def test_stop_ends_running_calls_and_may_be_called_twice(serve: Callable[..., Served]) -> None:
    inside, release = threading.Event(), threading.Event()

    class Slow:
        async def accept(self, _: bytes) -> Verdict:
            inside.set()
            assert await asyncio.to_thread(release.wait, TIMEOUT_S)
            return Accepted()

    served = serve(Slow())
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(served.export, traces())
        assert inside.wait(TIMEOUT_S)
        stopping = pool.submit(served.server.stop, TIMEOUT_S)
        release.set()
        assert call.result(TIMEOUT_S) == b""
        stopping.result(TIMEOUT_S)
    served.server.stop(0.0)
    assert served.refused(traces()).code() is grpc.StatusCode.UNAVAILABLE


def test_the_receiver_starts_and_stops_the_protocols_that_are_configured() -> None:
    endpoint = free_endpoint()
    entrance = RememberingEntrance()
    config = OtlpReceiver.Config(protocols=Protocols(grpc=GrpcConfig(endpoint=endpoint)))
    http = EventLoop()
    http.start()
    receiver = OtlpReceiver(config, context(http), {"grpc": {Signal.LOGS: entrance}, "http": {}})
    receiver.start()
    with grpc.insecure_channel(endpoint) as channel:
        call: Any = channel.unary_unary(f"/{Signal.LOGS.value.service}/Export")
        call(logs(), timeout=TIMEOUT_S)
    receiver.stop(0.0)
    receiver.stop(0.0)
    http.stop()
    assert entrance.bodies == [logs()]


def test_G13_H15_the_ports_are_those_of_otlp_on_loopback_by_default() -> None:
    assert (GrpcConfig().endpoint, HttpConfig().endpoint) == ("127.0.0.1:4317", "127.0.0.1:4318")


def test_a_receiver_without_protocols_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one of grpc and http"):
        Protocols()
