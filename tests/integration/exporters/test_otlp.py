"""The otlp exporter against a real gRPC server. The ids in the names are the specification's rules."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest, RetryInfo  # type: ignore[import-untyped]  # no types
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from otel_pipeline.errors import Refused, TooLarge, Unavailable
from otel_pipeline.event_loop import EventLoop
from otel_pipeline.exporters.otlp import OtlpExporter
from otel_pipeline.exporters.sender import Batching, Sender
from otel_pipeline.limits import REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX
from otel_pipeline.outbox import Outbox
from otel_pipeline.outbox_state import Addition
from otel_pipeline.settings import Retry
from otel_pipeline.stats import Stats
from otel_pipeline.wire.responses import partial_success
from otel_pipeline.wire.signal import Signal
from tests.support.net import Certificates, context, free_endpoint
from tests.support.otlp import logs, metrics, span_names, traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIMEOUT_S = 20.0
RETRIES = "otel_pipeline_exporter_requests_total"
REQUESTS = {Signal.TRACES: traces(), Signal.METRICS: metrics(), Signal.LOGS: logs()}


class Backend:
    """A server that remembers calls and answers as it is told."""

    def __init__(self, endpoint: str, credentials: grpc.ServerCredentials | None, *, raw: bool) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        self.metadata: list[dict[str, Any]] = []
        self.answer: Callable[[grpc.ServicerContext], bytes] = lambda _: b""
        self._pool = ThreadPoolExecutor(4)
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.per_message_decompression", int(not raw)),
        ]
        self.server = grpc.server(self._pool, options=options)
        for signal in Signal:
            method: Any = grpc.unary_unary_rpc_method_handler(self._export(signal.word))
            self.server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(signal.value.service, {"Export": method}),)
            )
        if credentials:
            self.server.add_secure_port(endpoint, credentials)
        else:
            self.server.add_insecure_port(endpoint)
        self.server.start()

    def stop(self) -> None:
        self.server.stop(0).wait()
        self._pool.shutdown()

    def _export(self, word: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def export(body: bytes, call: grpc.ServicerContext) -> bytes:
            self.bodies.append((word, body))
            self.metadata.append({key: value for key, value in call.invocation_metadata()})  # noqa: C416 - pairs
            return self.answer(call)

        return export


class Bench:
    """A backend and exporters for it."""

    def __init__(self, stack: ExitStack) -> None:
        self.endpoint = free_endpoint()
        self._stack = stack
        self.http = EventLoop()
        stack.callback(self.http.stop)

    def backend(self, credentials: grpc.ServerCredentials | None = None, *, raw: bool = False) -> Backend:
        backend = Backend(self.endpoint, credentials, raw=raw)
        self._stack.callback(backend.stop)
        return backend

    def exporter(self, **settings: Any) -> OtlpExporter:
        written = {"endpoint": self.endpoint, "tls": {"insecure": True}, "timeout": TIMEOUT_S, **settings}
        exporter = OtlpExporter(OtlpExporter.Config.model_validate(written), context(self.http))
        self._stack.callback(exporter.close)
        return exporter


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)


def failing(code: grpc.StatusCode, *details: Any, text: str = "no") -> Callable[[grpc.ServicerContext], bytes]:
    """Ends calls with a code and, where there are details, a status in the trailers."""

    def answer(call: grpc.ServicerContext) -> bytes:
        if details:
            status = Status(code=code.value[0], message=text)
            for detail in details:
                packed = AnyMessage()
                packed.Pack(detail)
                status.details.append(packed)
            call.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        call.abort(code, text)
        raise AssertionError

    return answer


def retry_info(seconds: int, nanos: int = 0) -> Any:
    info = RetryInfo()
    info.retry_delay.seconds, info.retry_delay.nanos = seconds, nanos
    return info


# -- what goes out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_C1_each_signal_goes_to_its_service(bench: Bench, signal: Signal, compression: str) -> None:
    backend = bench.backend()
    assert bench.exporter(compression=compression).deliver(signal, REQUESTS[signal]) == 0
    assert backend.bodies == [(signal.word, REQUESTS[signal])]


@pytest.mark.parametrize(("compression", "magic"), [("gzip", b"\x1f\x8b"), ("none", b"\x0a")])
def test_C1_what_is_on_the_wire_is_compressed_as_configured(bench: Bench, compression: str, magic: bytes) -> None:
    backend = bench.backend(raw=True)
    bench.exporter(compression=compression).deliver(Signal.TRACES, traces(["job"] * 1000))
    assert backend.bodies[0][1].startswith(magic)


def test_X7_headers_are_metadata_and_the_user_agent_names_us(bench: Bench) -> None:
    backend = bench.backend()
    bench.exporter(headers={"X-Api-Key": "secret", "tenant": "a"}).deliver(Signal.TRACES, traces())
    metadata = backend.metadata[0]
    assert (metadata["x-api-key"], metadata["tenant"]) == ("secret", "a")
    assert re.match(r"OTel-OTLP-Exporter-otel-pipeline/\d", metadata["user-agent"])


def test_X1_a_request_above_the_limit_is_not_sent(bench: Bench) -> None:
    backend = bench.backend()
    with pytest.raises(TooLarge, match="are allowed"):
        bench.exporter().deliver(Signal.TRACES, bytes(REQUEST_BYTES_MAX + 1))
    assert backend.bodies == []


# -- what comes back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", list(Signal))
def test_X3_a_partial_success_is_counted_and_its_reason_logged(
    bench: Bench, signal: Signal, caplog: pytest.LogCaptureFixture
) -> None:
    bench.backend().answer = lambda _: partial_success(signal, 3, "bad ids").SerializeToString()
    assert bench.exporter().deliver(signal, REQUESTS[signal]) == 3
    assert f"3 {signal.value.items} rejected: bad ids" in caplog.text


def test_G10_a_warning_is_logged_and_nothing_counts_as_lost(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.backend().answer = lambda _: partial_success(Signal.LOGS, 0, "soon obsolete").SerializeToString()
    assert bench.exporter().deliver(Signal.LOGS, logs()) == 0
    assert "soon obsolete" in caplog.text


def test_an_answer_that_is_no_protobuf_is_a_success_all_the_same(bench: Bench) -> None:
    bench.backend().answer = lambda _: b"\x0a\xff"
    assert bench.exporter().deliver(Signal.TRACES, traces()) == 0


RETRYABLE = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_G11_each_code_means_later_or_never(bench: Bench, code: grpc.StatusCode) -> None:
    bench.backend().answer = failing(code)
    expected = Unavailable if code.name in RETRYABLE else Refused
    with pytest.raises(expected, match=f"{code.name}: no") as caught:
        bench.exporter().deliver(Signal.TRACES, traces())
    assert isinstance(caught.value, TooLarge) is (code is grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert getattr(caught.value, "delay_s", None) is None


@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE])
def test_X4_the_servers_retry_info_is_read(bench: Bench, code: grpc.StatusCode) -> None:
    bench.backend().answer = failing(code, BadRequest(), retry_info(7, 500_000_000))
    with pytest.raises(Unavailable) as caught:
        bench.exporter().deliver(Signal.TRACES, traces())
    assert caught.value.delay_s == 7.5


def test_G11_a_retry_info_does_not_make_a_final_code_retryable(bench: Bench) -> None:
    bench.backend().answer = failing(grpc.StatusCode.INVALID_ARGUMENT, retry_info(7))
    with pytest.raises(Refused):
        bench.exporter().deliver(Signal.TRACES, traces())


@pytest.mark.parametrize(
    "value", [b"\xff\xff", Status(details=[AnyMessage(type_url="x/google.rpc.RetryInfo", value=b"\xff")])]
)
def test_details_that_cannot_be_read_say_nothing(bench: Bench, value: Any) -> None:
    trailer = value if isinstance(value, bytes) else value.SerializeToString()

    def answer(call: grpc.ServicerContext) -> bytes:
        call.set_trailing_metadata((("other-bin", b"x"), ("grpc-status-details-bin", trailer)))
        call.abort(grpc.StatusCode.UNAVAILABLE, "no")
        raise AssertionError

    bench.backend().answer = answer
    with pytest.raises(Unavailable) as caught:
        bench.exporter().deliver(Signal.TRACES, traces())
    assert caught.value.delay_s is None


def test_X2_an_answer_above_the_limit_is_final_and_no_reason_to_split(bench: Bench) -> None:
    bench.backend().answer = lambda _: bytes(RESPONSE_BYTES_MAX + 1)
    with pytest.raises(Refused, match="larger than max") as caught:
        bench.exporter().deliver(Signal.TRACES, traces())
    assert not isinstance(caught.value, TooLarge)


def test_a_backend_that_does_not_answer_in_time_is_for_later(bench: Bench) -> None:
    release = threading.Event()

    def answer(_: grpc.ServicerContext) -> bytes:
        release.wait(TIMEOUT_S)
        return b""

    bench.backend().answer = answer
    with pytest.raises(Unavailable, match="DEADLINE_EXCEEDED"):
        bench.exporter(timeout=0.1).deliver(Signal.TRACES, traces())
    release.set()


def test_a_backend_that_is_not_there_is_for_later(bench: Bench) -> None:
    with pytest.raises(Unavailable, match="UNAVAILABLE"):
        bench.exporter().deliver(Signal.TRACES, traces())


def test_a_backend_that_comes_up_gets_everything_once(bench: Bench, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, {"traces": ("traces", ["otlp"])}, bytes_max=16 << 20, sync="off")
    stats = Stats()
    sender = Sender("otlp", bench.exporter(), outbox, stats)
    sender.add("traces", Signal.TRACES, Batching(), Retry(initial_interval=0.02, max_interval=0.05))
    sender.start()
    try:
        for name in "ab":
            outbox.append([Addition("traces", traces([name]), 1, 1, {}, {})])
        outcome = {"exporter": "otlp", "outcome": "retry"}
        assert until(lambda: (stats.registry.get_sample_value(RETRIES, outcome) or 0) >= 2)
        backend = bench.backend()
        assert until(lambda: len(backend.bodies) == 1)
    finally:
        sender.stop(float("inf"))
        outbox.close()
    assert [span_names(body) for _, body in backend.bodies] == [["a", "b"]]


def until(done: Callable[[], bool]) -> bool:
    """Look every few milliseconds, for a bounded time."""
    pause = threading.Event()
    return any(done() or pause.wait(0.01) for _ in range(int(TIMEOUT_S / 0.01)))


def test_close_cuts_off_a_call_under_way(bench: Bench) -> None:
    release = threading.Event()

    def answer(_: grpc.ServicerContext) -> bytes:
        release.wait(TIMEOUT_S)
        return b""

    backend = bench.backend()
    backend.answer = answer
    exporter = bench.exporter()
    with ThreadPoolExecutor(1) as pool:
        delivery = pool.submit(exporter.deliver, Signal.TRACES, traces())
        assert until(lambda: bool(backend.bodies))
        exporter.close()
        with pytest.raises(Unavailable, match="CANCELLED"):
            delivery.result(TIMEOUT_S / 2)
        release.set()


# -- TLS and addresses -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


def server_credentials(certificates: Certificates, *, mutual: bool) -> grpc.ServerCredentials:
    pair = (Path(certificates.key_file).read_bytes(), Path(certificates.cert_file).read_bytes())
    ca = Path(certificates.ca_file).read_bytes() if mutual else None
    return grpc.ssl_server_credentials([pair], ca, mutual)


def test_tls_with_an_authority_of_our_own(bench: Bench, certificates: Certificates) -> None:
    backend = bench.backend(server_credentials(certificates, mutual=False))
    bench.exporter(tls={"ca_file": certificates.ca_file}).deliver(Signal.TRACES, traces())
    assert len(backend.bodies) == 1


def test_tls_does_not_trust_an_unknown_authority(bench: Bench, certificates: Certificates, tmp_path: Path) -> None:
    backend = bench.backend(server_credentials(certificates, mutual=False))
    stranger = Certificates(tmp_path)
    with pytest.raises(Unavailable):
        bench.exporter(tls={"ca_file": stranger.ca_file}).deliver(Signal.TRACES, traces())
    assert backend.bodies == []


def test_tls_with_a_client_certificate(bench: Bench, certificates: Certificates) -> None:
    backend = bench.backend(server_credentials(certificates, mutual=True))
    with pytest.raises(Unavailable):
        bench.exporter(tls={"ca_file": certificates.ca_file}).deliver(Signal.TRACES, traces())
    own = {"cert_file": certificates.client_cert_file, "key_file": certificates.client_key_file}
    bench.exporter(tls={"ca_file": certificates.ca_file, **own}).deliver(Signal.TRACES, traces())
    assert len(backend.bodies) == 1


@pytest.mark.parametrize(("name", "works"), [("localhost", True), ("backend.example.com", False)])
def test_tls_expects_the_name_that_is_configured(
    bench: Bench, certificates: Certificates, name: str, *, works: bool
) -> None:
    bench.backend(server_credentials(certificates, mutual=False))
    exporter = bench.exporter(tls={"ca_file": certificates.ca_file, "server_name_override": name})
    if works:
        assert exporter.deliver(Signal.TRACES, traces()) == 0
    else:
        with pytest.raises(Unavailable):
            exporter.deliver(Signal.TRACES, traces())


@pytest.mark.parametrize("path", ["", "/"])
def test_X7_a_scheme_http_is_plain_text(bench: Bench, path: str) -> None:
    backend = bench.backend()
    bench.exporter(endpoint=f"http://{bench.endpoint}{path}", tls={}).deliver(Signal.TRACES, traces())
    assert len(backend.bodies) == 1


@pytest.mark.parametrize("insecure", [True, False])
def test_X7_a_scheme_https_is_tls_whatever_insecure_says(
    bench: Bench, certificates: Certificates, *, insecure: bool
) -> None:
    backend = bench.backend(server_credentials(certificates, mutual=False))
    tls = {"ca_file": certificates.ca_file, "insecure": insecure}
    bench.exporter(endpoint=f"https://{bench.endpoint}", tls=tls).deliver(Signal.TRACES, traces())
    assert len(backend.bodies) == 1


def test_what_grpc_cannot_do_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="gRPC always checks"):
        OtlpExporter.Config.model_validate({"endpoint": "a:1", "tls": {"insecure_skip_verify": True}})
