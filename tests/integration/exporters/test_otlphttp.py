"""The otlphttp exporter against a real HTTP server. The ids in the names are the specification's rules."""

from __future__ import annotations

import asyncio
import email.utils
import gzip
import re
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from google.protobuf import json_format
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # generated without types

from otel_pipeline.errors import Refused, TooLarge, Unavailable
from otel_pipeline.event_loop import EventLoop
from otel_pipeline.exporters import otlphttp
from otel_pipeline.exporters.otlphttp import OtlpHttpExporter, delay_s
from otel_pipeline.exporters.sender import Batching, Sender
from otel_pipeline.limits import RESPONSE_BYTES_MAX
from otel_pipeline.outbox import Outbox
from otel_pipeline.outbox_state import Addition
from otel_pipeline.settings import Retry
from otel_pipeline.stats import Stats
from otel_pipeline.wire import otlp_json
from otel_pipeline.wire.responses import partial_success
from otel_pipeline.wire.signal import Signal
from tests.support.net import Certificates, context, free_endpoint
from tests.support.otlp import logs, metrics, span_names, traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TIMEOUT_S = 20.0
RETRIES = "otel_pipeline_exporter_requests_total"
NOW_S = 1_795_294_144.0
REQUESTS = {Signal.TRACES: traces(), Signal.METRICS: metrics(), Signal.LOGS: logs()}


class Backend:
    """A server that remembers requests and answers as it is told."""

    def __init__(self, host: EventLoop, endpoint: str, tls: ssl.SSLContext | None = None) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.answer: bytes | list[bytes] = b""
        self.answer_headers: dict[str, str] = {}
        self.gate = threading.Event()
        self.gate.set()
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._take)
        host.serve(app, endpoint, tls)

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append((request.path, await request.read()))
        self.headers.append({key.lower(): value for key, value in request.headers.items()})
        await asyncio.to_thread(self.gate.wait, TIMEOUT_S)
        if isinstance(self.answer, bytes):
            return web.Response(status=self.status, body=self.answer, headers=self.answer_headers)
        stream = web.StreamResponse(status=self.status, headers=self.answer_headers)
        await stream.prepare(request)
        for piece in self.answer:
            await stream.write(piece)
            await asyncio.sleep(0)
        return stream


class Bench:
    """A backend and exporters for it, each side with a loop of its own."""

    def __init__(self, stack: ExitStack) -> None:
        self.endpoint = free_endpoint()
        self._ours, self._theirs = EventLoop(), EventLoop()
        for host in (self._ours, self._theirs):
            host.start()
            stack.callback(host.stop)

    def backend(self, tls: ssl.SSLContext | None = None) -> Backend:
        return Backend(self._theirs, self.endpoint, tls)

    def exporter(self, scheme: str = "http", **settings: Any) -> OtlpHttpExporter:
        written = {"endpoint": f"{scheme}://{self.endpoint}", "timeout": TIMEOUT_S, **settings}
        config = OtlpHttpExporter.Config.model_validate(written)
        return OtlpHttpExporter(config, context(self._ours, lambda: NOW_S))


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)


# -- what goes out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize(("compression", "unpack"), [("gzip", gzip.decompress), ("none", bytes)])
@pytest.mark.parametrize(
    ("encoding", "content_type"), [("proto", "application/x-protobuf"), ("json", "application/json")]
)
def test_H3_C1_each_signal_goes_to_its_path_in_the_configured_form(
    bench: Bench,
    *,
    signal: Signal,
    compression: str,
    unpack: Callable[[bytes], bytes],
    encoding: str,
    content_type: str,
) -> None:
    backend = bench.backend()
    backend.answer = b"{}" if encoding == "json" else b""
    assert bench.exporter(compression=compression, encoding=encoding).deliver(signal, REQUESTS[signal]) == 0
    ((path, body),) = backend.bodies
    assert path == signal.value.path
    assert backend.headers[0]["content-type"] == content_type
    assert backend.headers[0].get("content-encoding", "none") == compression
    text = unpack(body)
    assert (otlp_json.decode(signal, text) if encoding == "json" else text) == REQUESTS[signal]


def test_X7_headers_are_sent_and_the_user_agent_names_us(bench: Bench) -> None:
    backend = bench.backend()
    bench.exporter(headers={"X-Api-Key": "secret"}).deliver(Signal.TRACES, traces())
    assert backend.headers[0]["x-api-key"] == "secret"
    assert re.match(r"OTel-OTLP-Exporter-otel-pipeline/\d", backend.headers[0]["user-agent"])


def test_X7_a_url_for_a_signal_is_used_as_it_is_and_a_base_gets_the_path(bench: Bench) -> None:
    backend = bench.backend()
    exporter = bench.exporter(
        endpoint=f"http://{bench.endpoint}/base/", traces_endpoint=f"http://{bench.endpoint}/exactly/here"
    )
    exporter.deliver(Signal.TRACES, traces())
    exporter.deliver(Signal.LOGS, logs())
    assert [path for path, _ in backend.bodies] == ["/exactly/here", "/base/v1/logs"]


def test_a_signal_without_url_is_refused(bench: Bench) -> None:
    exporter = bench.exporter(endpoint="", traces_endpoint=f"http://{bench.endpoint}/x")
    with pytest.raises(Refused, match="no URL for logs"):
        exporter.deliver(Signal.LOGS, logs())


@pytest.mark.parametrize(
    ("written", "reason"),
    [({}, "endpoint is missing"), ({"endpoint": "a:4318"}, "is no URL"), ({"logs_endpoint": "ftp://a"}, "is no URL")],
)
def test_a_configuration_without_a_usable_url_is_a_mistake(written: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        OtlpHttpExporter.Config.model_validate(written)


def test_X1_a_request_above_the_limit_is_not_sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = bench.backend()
    monkeypatch.setattr(otlphttp, "REQUEST_BYTES_MAX", 10)
    with pytest.raises(TooLarge, match="10 are allowed"):
        bench.exporter().deliver(Signal.TRACES, traces())
    assert backend.bodies == []


def test_a_batch_that_cannot_be_written_as_json_is_refused_not_tried_for_ever(bench: Bench) -> None:
    with pytest.raises(Refused, match="cannot be written as JSON"):
        bench.exporter(encoding="json").deliver(Signal.TRACES, b"\x0a\xff")


# -- what comes back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize("encoding", ["proto", "json"])
def test_X3_a_partial_success_is_counted_and_its_reason_logged(
    bench: Bench, signal: Signal, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    response = partial_success(signal, 3, "bad ids")
    text = json_format.MessageToJson(response).encode()
    bench.backend().answer = text if encoding == "json" else response.SerializeToString()
    assert bench.exporter(encoding=encoding).deliver(signal, REQUESTS[signal]) == 3
    assert f"3 {signal.value.items} rejected: bad ids" in caplog.text


def test_X3_an_answer_that_comes_in_pieces_is_read_to_its_end(bench: Bench) -> None:
    body = partial_success(Signal.TRACES, 3, "x" * 1000).SerializeToString()
    bench.backend().answer = [body[at : at + 300] for at in range(0, len(body), 300)]
    assert bench.exporter().deliver(Signal.TRACES, traces()) == 3


@pytest.mark.parametrize("encoding", ["proto", "json"])
@pytest.mark.parametrize("answer", [b"\x0a\xff", b"<html>hello</html>", b"[]", b""])
def test_an_answer_that_cannot_be_read_is_a_success_all_the_same(bench: Bench, encoding: str, answer: bytes) -> None:
    bench.backend().answer = answer
    assert bench.exporter(encoding=encoding).deliver(Signal.TRACES, traces()) == 0


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_H10_these_are_for_later(bench: Bench, status: int) -> None:
    backend = bench.backend()
    backend.status, backend.answer = status, Status(message="too busy").SerializeToString()
    with pytest.raises(Unavailable, match=f"HTTP {status}: too busy") as caught:
        bench.exporter().deliver(Signal.TRACES, traces())
    assert caught.value.delay_s is None


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 408, 413, 415, 422, 500, 501])
def test_H10_all_others_are_final(bench: Bench, status: int) -> None:
    backend = bench.backend()
    backend.status, backend.answer = status, b"\x0a<html>never</html>"
    backend.answer_headers = {"Location": "/elsewhere", "Retry-After": "1"}
    with pytest.raises(Refused, match=f"HTTP {status}: .*never") as caught:
        bench.exporter().deliver(Signal.TRACES, traces())
    assert isinstance(caught.value, TooLarge) is (status == 413)
    assert len(backend.bodies) == 1


@pytest.mark.parametrize("encoding", ["proto", "json"])
def test_a_reason_is_short_whatever_the_backend_sends(bench: Bench, encoding: str) -> None:
    backend = bench.backend()
    backend.status, backend.answer = 400, Status(message="x" * 100_000).SerializeToString()
    with pytest.raises(Refused) as caught:
        bench.exporter(encoding=encoding).deliver(Signal.TRACES, traces())
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("written", "expected_s"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        (email.utils.formatdate(NOW_S + 20, usegmt=True), 20.0),
        (email.utils.formatdate(NOW_S - 20, usegmt=True), 0.0),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("Mon, 01 Jan 99999 00:00:00 GMT", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_X4_retry_after_is_read_as_seconds_or_date(
    bench: Bench, status: int, written: str, expected_s: float | None
) -> None:
    backend = bench.backend()
    backend.status, backend.answer_headers = status, {"Retry-After": written}
    with pytest.raises(Unavailable) as caught:
        bench.exporter().deliver(Signal.TRACES, traces())
    assert caught.value.delay_s == expected_s


def test_X4_a_date_without_a_clock_is_measured_from_now() -> None:
    assert delay_s(email.utils.formatdate(0.0, usegmt=True)) == 0.0
    assert delay_s(None) is None


@pytest.mark.parametrize("status", [200, 503])
def test_X2_an_answer_above_the_limit_is_final_if_the_batch_was_taken(bench: Bench, status: int) -> None:
    backend = bench.backend()
    backend.status, backend.answer = status, bytes(RESPONSE_BYTES_MAX + 1)
    with pytest.raises(Refused if status == 200 else Unavailable):
        bench.exporter().deliver(Signal.TRACES, traces())


def test_X2_a_compressed_answer_counts_as_large_as_it_is_inflated(bench: Bench) -> None:
    backend = bench.backend()
    backend.answer = gzip.compress(bytes(50 << 20))
    backend.answer_headers = {"Content-Encoding": "gzip"}
    with pytest.raises(Refused, match="bytes"):
        bench.exporter().deliver(Signal.TRACES, traces())


def test_a_backend_that_does_not_answer_in_time_is_for_later(bench: Bench) -> None:
    backend = bench.backend()
    backend.gate.clear()
    with pytest.raises(Unavailable, match="Timeout"):
        bench.exporter(timeout=0.1).deliver(Signal.TRACES, traces())
    backend.gate.set()


def test_a_backend_that_is_not_there_is_for_later(bench: Bench) -> None:
    with pytest.raises(Unavailable, match=bench.endpoint):
        bench.exporter().deliver(Signal.TRACES, traces())


def test_a_backend_that_comes_up_gets_everything_once(bench: Bench, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, {"traces": ("traces", ["otlphttp"])}, bytes_max=16 << 20, sync="off")
    stats = Stats()
    sender = Sender("otlphttp", bench.exporter(compression="none"), outbox, stats)
    sender.add("traces", Signal.TRACES, Batching(), Retry(initial_interval=0.02, max_interval=0.05))
    sender.start()
    pause = threading.Event()
    try:
        for name in "ab":
            outbox.append([Addition("traces", traces([name]), 1, 1, {}, {})])
        outcome = {"exporter": "otlphttp", "outcome": "retry"}
        assert any(
            (stats.registry.get_sample_value(RETRIES, outcome) or 0) >= 2 or pause.wait(0.01) for _ in range(2000)
        )
        backend = bench.backend()
        assert any(backend.bodies or pause.wait(0.01) for _ in range(2000))
    finally:
        sender.stop(float("inf"))
        outbox.close()
    assert [span_names(body) for _, body in backend.bodies] == [["a", "b"]]


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


def server_tls(certificates: Certificates, *, mutual: bool) -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates.cert_file, certificates.key_file)
    if mutual:
        tls.load_verify_locations(certificates.ca_file)
        tls.verify_mode = ssl.CERT_REQUIRED
    return tls


@pytest.mark.parametrize(
    ("tls", "works"),
    [
        ({"ca_file": "ours"}, True),
        ({"ca_file": "ours", "server_name_override": "localhost"}, True),
        ({"ca_file": "ours", "server_name_override": "backend.example.com"}, False),
        ({"insecure_skip_verify": True}, True),
        ({}, False),
    ],
)
def test_tls_checks_the_backend_as_configured(
    bench: Bench, certificates: Certificates, tls: dict[str, Any], *, works: bool
) -> None:
    backend = bench.backend(server_tls(certificates, mutual=False))
    written = {**tls, "ca_file": certificates.ca_file} if "ca_file" in tls else tls
    exporter = bench.exporter("https", tls=written)
    if works:
        exporter.deliver(Signal.TRACES, traces())
    else:
        with pytest.raises(Unavailable, match="Certificate"):
            exporter.deliver(Signal.TRACES, traces())
    assert len(backend.bodies) == works


def test_tls_with_a_client_certificate(bench: Bench, certificates: Certificates) -> None:
    backend = bench.backend(server_tls(certificates, mutual=True))
    with pytest.raises(Unavailable):
        bench.exporter("https", tls={"ca_file": certificates.ca_file}).deliver(Signal.TRACES, traces())
    own = {"cert_file": certificates.client_cert_file, "key_file": certificates.client_key_file}
    bench.exporter("https", tls={"ca_file": certificates.ca_file, **own}).deliver(Signal.TRACES, traces())
    assert len(backend.bodies) == 1


def test_close_cuts_off_a_request_under_way(bench: Bench) -> None:
    backend = bench.backend()
    backend.gate.clear()
    exporter = bench.exporter()
    with ThreadPoolExecutor(1) as pool:
        delivery = pool.submit(exporter.deliver, Signal.TRACES, traces())
        pause = threading.Event()
        assert any(backend.bodies or pause.wait(0.01) for _ in range(2000))
        exporter.close()
        with pytest.raises(Unavailable, match="cut off"):
            delivery.result(TIMEOUT_S / 2)
        backend.gate.set()


def test_close_leaves_the_gateways_client_alone(bench: Bench) -> None:
    bench.backend()
    exporter = bench.exporter()
    exporter.close()
    assert bench.exporter().deliver(Signal.TRACES, traces()) == 0
