"""OTLP over HTTP, against a real server and real clients. The ids in the names are the specification's rules."""

from __future__ import annotations

import gzip
import http.client
import json
import ssl
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import json_format
from google.rpc.error_details_pb2 import BadRequest  # type: ignore[import-untyped]  # generated without types
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from otel_pipeline.contracts import Accepted, Rejected, RetryLater
from otel_pipeline.event_loop import EventLoop
from otel_pipeline.receivers.otlp import Cors, HttpConfig, OtlpReceiver, Protocols
from otel_pipeline.receivers.otlp_http import OtlpHttpServer
from otel_pipeline.settings import TlsServer
from otel_pipeline.wire import otlp_json
from otel_pipeline.wire.signal import Signal
from tests.support.fakes import MeetingEntrance, RememberingEntrance
from tests.support.net import Certificates, PeakMemory, context, free_endpoint
from tests.support.otlp import logs, metrics, span_names, traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from otel_pipeline.contracts import Entrance, Verdict

REQUESTS = {Signal.TRACES: traces(), Signal.METRICS: metrics(), Signal.LOGS: logs()}
PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
TIMEOUT_S = 20.0
MIB = 1024 * 1024


class Answer:
    """A response that was read."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.type = response.headers.get_content_type()
        self.body = response.read()

    @property
    def error(self) -> Any:
        """The google.rpc.Status that every failure has for a body."""
        if self.type == "application/json":
            return json_format.Parse(self.body, Status())
        assert self.type == "application/x-protobuf"
        return Status.FromString(self.body)


class Served:
    """A running server for traces, by default, and how to ask it."""

    def __init__(self, host: EventLoop, entrances: Mapping[Signal, Entrance], **settings: Any) -> None:
        self.endpoint = free_endpoint()
        self.server = OtlpHttpServer(HttpConfig(endpoint=self.endpoint, **settings), entrances, host)
        self.server.start()

    def ask(self, method: str, path: str, body: Any = None, tls: ssl.SSLContext | None = None, **more: Any) -> Answer:
        if tls:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self.endpoint, timeout=TIMEOUT_S, context=tls
            )
        else:
            connection = http.client.HTTPConnection(self.endpoint, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body, more.pop("headers", {}), **more)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def post(self, body: Any, headers: Mapping[str, str] = PROTOBUF, path: str = "/v1/traces", **more: Any) -> Answer:
        return self.ask("POST", path, body, headers=dict(headers), **more)


@pytest.fixture
def host() -> Iterator[EventLoop]:
    one = EventLoop()
    one.start()
    yield one
    one.stop()


@pytest.fixture
def serve(host: EventLoop) -> Callable[..., Served]:
    return lambda entrance=None, **settings: Served(
        host, {Signal.TRACES: entrance or RememberingEntrance()}, **settings
    )


# -- what is accepted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", list(Signal))
def test_H2_each_signal_has_its_path_and_hands_the_bytes_on(host: EventLoop, signal: Signal) -> None:
    entrances = {one: RememberingEntrance() for one in Signal}
    answer = Served(host, entrances).post(REQUESTS[signal], path=signal.value.path)
    assert (answer.status, answer.type, answer.body) == (200, "application/x-protobuf", b"")
    assert {one: entrance.bodies for one, entrance in entrances.items() if entrance.bodies} == {
        signal: [REQUESTS[signal]]
    }


@pytest.mark.parametrize("signal", list(Signal))
def test_H3_H13_json_comes_to_the_same_port_and_is_answered_in_json(host: EventLoop, signal: Signal) -> None:
    entrance = RememberingEntrance()
    body = otlp_json.encode(signal, REQUESTS[signal])
    answer = Served(host, {signal: entrance}).post(body, JSON, signal.value.path)
    assert (answer.status, answer.type, answer.body) == (200, "application/json", b"{}")
    assert entrance.bodies == [REQUESTS[signal]]


@pytest.mark.parametrize("written", ["application/json; charset=utf-8", "Application/JSON;charset=UTF-8"])
def test_H3_parameters_and_case_of_the_content_type_do_not_matter(serve: Callable[..., Served], written: str) -> None:
    answer = serve().post(otlp_json.encode(Signal.TRACES, traces()), {"Content-Type": written})
    assert (answer.status, answer.type) == (200, "application/json")


def test_H2_paths_can_be_configured(serve: Callable[..., Served]) -> None:
    served = serve(traces_url_path="/in/spans")
    assert served.post(traces(), path="/in/spans").status == 200
    assert served.post(traces()).status == 404


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
def test_H7_success_is_200_with_nothing_set(serve: Callable[..., Served], headers: dict[str, str]) -> None:
    answer = serve().post(b"{}" if headers is JSON else traces(), headers)
    assert (answer.status, answer.body) == (200, b"{}" if headers is JSON else b"")


def test_H7_an_empty_request_succeeds(serve: Callable[..., Served]) -> None:
    entrance = RememberingEntrance()
    assert serve(entrance).post(b"").status == 200
    assert entrance.bodies == [b""]


@pytest.mark.parametrize("signal", list(Signal))
def test_H8_a_partial_success_is_200_and_says_how_many_and_why(host: EventLoop, signal: Signal) -> None:
    served = Served(host, {signal: RememberingEntrance(Accepted(3, "bad ids"))})
    in_protobuf = served.post(b"", PROTOBUF, signal.value.path)
    partial = signal.value.response.FromString(in_protobuf.body).partial_success  # type: ignore[attr-defined]
    assert (in_protobuf.status, getattr(partial, signal.value.rejected_field)) == (200, 3)
    assert partial.error_message == "bad ids"
    in_json = served.post(b"{}", JSON, signal.value.path)
    words = signal.value.rejected_field.split("_")
    rejected = words[0] + "".join(word.title() for word in words[1:])
    assert json.loads(in_json.body) == {"partialSuccess": {rejected: "3", "errorMessage": "bad ids"}}


# -- compression -------------------------------------------------------------------------------------------------------


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


def two_members(data: bytes) -> bytes:
    middle = len(data) // 2
    return gzip.compress(data[:middle]) + gzip.compress(data[middle:]) + bytes(8)


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("gzip", two_members),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
    ],
)
def test_H4_compressed_bodies_are_understood(
    serve: Callable[..., Served], encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    entrance = RememberingEntrance()
    body = traces(["job"] * 5000)
    answer = serve(entrance).post(compress(body), {**PROTOBUF, "Content-Encoding": encoding})
    assert answer.status == 200
    assert entrance.bodies == [body]


def test_H4_a_compressed_body_may_come_in_chunks_of_any_size(serve: Callable[..., Served]) -> None:
    entrance = RememberingEntrance()
    body = traces(["job"] * 100)
    packed = two_members(body)
    pieces = (packed[at : at + 7] for at in range(0, len(packed), 7))
    headers = {**PROTOBUF, "Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}
    assert serve(entrance).post(pieces, headers, encode_chunked=True).status == 200
    assert entrance.bodies == [body]


@pytest.mark.parametrize(
    ("encoding", "body", "reason"),
    [
        ("gzip", b"no gzip at all", "corrupt"),
        ("gzip", gzip.compress(traces())[:-12], "ends early"),
        ("gzip", gzip.compress(traces()) + b"garbage", "corrupt"),
        ("gzip", gzip.compress(traces())[:-8] + bytes(8), "corrupt"),
        ("deflate", b"\x78no zlib", "corrupt"),
        ("deflate", zlib.compress(traces()) + b"garbage", "behind its end"),
    ],
)
def test_H4_a_corrupt_compressed_body_is_400(
    serve: Callable[..., Served], encoding: str, body: bytes, reason: str
) -> None:
    entrance = RememberingEntrance()
    answer = serve(entrance).post(body, {**PROTOBUF, "Content-Encoding": encoding})
    assert (answer.status, answer.error.code) == (400, 3)
    assert reason in answer.error.message
    assert entrance.bodies == []


@pytest.mark.parametrize("encoding", ["br", "zstd", "snappy", "gzip, gzip"])
def test_H14_an_unknown_content_encoding_is_415(serve: Callable[..., Served], encoding: str) -> None:
    answer = serve().post(b"whatever", {**PROTOBUF, "Content-Encoding": encoding})
    assert (answer.status, answer.error.code) == (415, 3)
    assert encoding in answer.error.message


# -- the limit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_H5_a_body_above_the_limit_is_413(serve: Callable[..., Served], encoding: str) -> None:
    entrance = RememberingEntrance()
    served = serve(entrance, max_request_body_size=1000)
    compress = gzip.compress if encoding == "gzip" else bytes
    answer = served.post(compress(bytes(1001)), {**PROTOBUF, "Content-Encoding": encoding})
    assert (answer.status, answer.error.code) == (413, 8)
    assert "1000 bytes are allowed" in answer.error.message
    assert served.post(compress(bytes(1000)), {**PROTOBUF, "Content-Encoding": encoding}).status == 200
    assert [len(body) for body in entrance.bodies] == [1000]


def test_H5_the_limit_holds_for_bodies_of_unknown_length(serve: Callable[..., Served]) -> None:
    headers = {**PROTOBUF, "Transfer-Encoding": "chunked"}
    answer = serve(max_request_body_size=1000).post((bytes(100) for _ in range(11)), headers, encode_chunked=True)
    assert answer.status == 413


def test_H5_a_gzip_bomb_is_413_and_costs_no_memory(serve: Callable[..., Served]) -> None:
    entrance = RememberingEntrance()
    served = serve(entrance, max_request_body_size=MIB)
    bomb = gzip.compress(bytes(300 * MIB))
    memory = PeakMemory()
    answer = served.post(bomb, {**PROTOBUF, "Content-Encoding": "gzip"})
    assert (answer.status, answer.error.code) == (413, 8)
    assert memory.growth_mib() < 32
    assert entrance.bodies == []


def test_H5_data_without_content_has_an_end(serve: Callable[..., Served]) -> None:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    empty = b"".join(stream.flush(zlib.Z_FULL_FLUSH) + b"\x00\x00\x00\xff\xff" for _ in range(1000))
    answer = serve(max_request_body_size=1000).post(empty, {**PROTOBUF, "Content-Encoding": "deflate"})
    assert answer.status == 413


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
def test_H9_an_unknown_path_is_404_with_a_status(serve: Callable[..., Served], headers: dict[str, str]) -> None:
    answer = serve().post(b"", headers, "/v1/profiles")
    assert (answer.status, answer.type, answer.error.code) == (404, headers["Content-Type"], 5)


@pytest.mark.parametrize(
    ("headers", "answered"),
    [(PROTOBUF, "application/x-protobuf"), (JSON, "application/json"), ({}, "application/x-protobuf")],
)
def test_H9_H14_another_method_is_405_with_a_status(
    serve: Callable[..., Served], headers: dict[str, str], answered: str
) -> None:
    answer = serve().ask("GET", "/v1/traces", headers=headers)
    assert (answer.status, answer.type, answer.error.code) == (405, answered, 12)
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "application/grpc", ""])
def test_H9_H14_another_content_type_is_415_in_protobuf(serve: Callable[..., Served], content_type: str) -> None:
    entrance = RememberingEntrance()
    answer = serve(entrance).post(b"x", {"Content-Type": content_type} if content_type else {})
    assert (answer.status, answer.type, answer.error.code) == (415, "application/x-protobuf", 3)
    assert "application/json is allowed" in answer.error.message
    assert entrance.bodies == []


def test_H9_who_asks_for_json_gets_the_status_in_json(serve: Callable[..., Served]) -> None:
    answer = serve().post(b"x", {"Content-Type": "text/plain", "Accept": "application/json"})
    assert (answer.status, answer.type, answer.error.code) == (415, "application/json", 3)


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
def test_H10_H12_later_is_503_with_a_status_and_retry_after(
    serve: Callable[..., Served], headers: dict[str, str]
) -> None:
    answer = serve(RememberingEntrance(RetryLater(2.2, "the outbox is full"))).post(b"{}", headers)
    assert (answer.status, answer.type, answer.headers["Retry-After"]) == (503, headers["Content-Type"], "2")
    assert (answer.error.code, answer.error.message) == (14, "the outbox is full")


def test_H12_retry_after_is_never_zero(serve: Callable[..., Served]) -> None:
    assert serve(RememberingEntrance(RetryLater(0.1, "later"))).post(b"").headers["Retry-After"] == "1"


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
def test_H11_what_is_no_otlp_is_400_with_details(serve: Callable[..., Served], headers: dict[str, str]) -> None:
    answer = serve(RememberingEntrance(Rejected("varint cut short at byte 7"))).post(b"{}", headers)
    assert (answer.status, answer.type) == (400, headers["Content-Type"])
    assert (answer.error.code, answer.error.message) == (3, "varint cut short at byte 7")
    detail = BadRequest()
    assert answer.error.details[0].Unpack(detail)
    assert detail.field_violations[0].description == "varint cut short at byte 7"


def test_H11_what_is_no_json_is_400_with_the_offset_and_the_next_request_is_served(
    serve: Callable[..., Served],
) -> None:
    served = serve()
    answer = served.post(b'{"resourceSpans": nonsense}', JSON)
    assert (answer.status, answer.type, answer.error.code) == (400, "application/json", 3)
    assert "at byte 18" in answer.error.message
    assert served.post(b"{}", JSON).status == 200


def test_H9_a_fault_of_our_own_costs_the_sender_no_data(
    serve: Callable[..., Served], caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty:
        async def accept(self, _: bytes) -> Verdict:
            raise ZeroDivisionError

    answer = serve(Faulty()).post(traces())
    assert (answer.status, answer.error.code, answer.headers["Retry-After"]) == (503, 14, "1")
    assert "ZeroDivisionError" in caplog.text


def test_a_client_that_leaves_in_the_middle_of_its_body_disturbs_nobody(serve: Callable[..., Served]) -> None:
    entrance = RememberingEntrance()
    served = serve(entrance)
    connection = http.client.HTTPConnection(served.endpoint, timeout=TIMEOUT_S)
    connection.putrequest("POST", "/v1/traces")
    connection.putheader("Content-Type", "application/x-protobuf")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"only a part")
    connection.close()
    assert served.post(traces()).status == 200
    assert entrance.bodies == [traces()]


def test_requests_are_served_at_the_same_time(serve: Callable[..., Served]) -> None:
    served = serve(MeetingEntrance(16))
    with ThreadPoolExecutor(16) as pool:
        assert [answer.status for answer in pool.map(served.post, [traces()] * 16)] == [200] * 16


# -- web pages ---------------------------------------------------------------------------------------------------------

CORS = Cors(allowed_origins=["https://*.example.com", "http://[::1]:3000"], allowed_headers=["x-tenant"], max_age=60)


def preflight(served: Served, origin: str) -> Answer:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return served.ask("OPTIONS", "/v1/traces", headers=headers)


@pytest.mark.parametrize("origin", ["https://shop.example.com", "HTTPS://Shop.Example.com", "http://[::1]:3000"])
def test_a_preflight_of_an_allowed_origin_is_answered(serve: Callable[..., Served], origin: str) -> None:
    answer = preflight(serve(cors=CORS), origin)
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert answer.headers["Access-Control-Allow-Methods"] == "POST"
    assert {"content-type", "x-tenant"} <= set(answer.headers["Access-Control-Allow-Headers"].split(", "))
    assert answer.headers["Access-Control-Max-Age"] == "60"
    assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize("origin", ["https://example.com.evil.org", "http://shop.example.com", "http://:", "null"])
def test_another_origin_gets_no_permission(serve: Callable[..., Served], origin: str) -> None:
    served = serve(cors=CORS)
    answer = preflight(served, origin)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (405, None)
    assert served.post(traces(), {**PROTOBUF, "Origin": origin}).headers["Access-Control-Allow-Origin"] is None


def test_without_cors_no_origin_gets_permission(serve: Callable[..., Served]) -> None:
    assert preflight(serve(), "https://shop.example.com").status == 405


@pytest.mark.parametrize(("path", "status"), [("/v1/traces", 200), ("/v1/nothing", 404)])
def test_answers_to_an_allowed_origin_may_be_read_by_it(serve: Callable[..., Served], path: str, status: int) -> None:
    answer = serve(cors=CORS).post(traces(), {**PROTOBUF, "Origin": "https://a.example.com"}, path)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (status, "https://a.example.com")


# -- TLS, addresses, ending --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


def test_tls_serves_clients_that_trust_the_authority(serve: Callable[..., Served], certificates: Certificates) -> None:
    served = serve(tls=TlsServer(cert_file=certificates.cert_file, key_file=certificates.key_file))
    trusting = ssl.create_default_context(cafile=certificates.ca_file)
    assert served.post(traces(), tls=trusting).status == 200


def test_mutual_tls_serves_clients_with_a_certificate_only(
    serve: Callable[..., Served], certificates: Certificates
) -> None:
    files = {"cert_file": certificates.cert_file, "key_file": certificates.key_file}
    served = serve(tls=TlsServer(**files, client_ca_file=certificates.ca_file))
    known = ssl.create_default_context(cafile=certificates.ca_file)
    known.load_cert_chain(certificates.client_cert_file, certificates.client_key_file)
    assert served.post(traces(), tls=known).status == 200
    with pytest.raises(OSError):  # noqa: PT011 - a reset or an alert, as the race goes
        served.post(traces(), tls=ssl.create_default_context(cafile=certificates.ca_file))


def test_a_certificate_that_cannot_be_used_is_named(serve: Callable[..., Served], certificates: Certificates) -> None:
    with pytest.raises(OSError, match="missing.pem"):
        serve(tls=TlsServer(cert_file="missing.pem", key_file=certificates.key_file))


def test_a_taken_port_is_an_error_that_names_the_address(host: EventLoop, serve: Callable[..., Served]) -> None:
    served = serve()
    second = OtlpHttpServer(HttpConfig(endpoint=served.endpoint), {}, host)
    with pytest.raises(OSError, match=served.endpoint):
        second.start()
    second.stop(0.0)


def test_stop_lets_requests_end_and_may_be_called_twice(serve: Callable[..., Served]) -> None:
    inside, release = threading.Event(), threading.Event()

    class Slow:
        async def accept(self, _: bytes) -> Verdict:
            inside.set()
            assert release.wait(TIMEOUT_S)
            return Accepted()

    served = serve(Slow())
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(served.post, traces())
        assert inside.wait(TIMEOUT_S)
        stopping = pool.submit(served.server.stop, TIMEOUT_S)
        release.set()
        assert call.result(TIMEOUT_S).status == 200
        stopping.result(TIMEOUT_S)
    served.server.stop(0.0)
    with pytest.raises(ConnectionRefusedError):
        served.post(traces())


def test_the_receiver_serves_http_where_it_is_configured(host: EventLoop) -> None:
    endpoint = free_endpoint()
    entrance = RememberingEntrance()
    config = OtlpReceiver.Config(protocols=Protocols(http=HttpConfig(endpoint=endpoint)))
    receiver = OtlpReceiver(config, context(host), {"grpc": {}, "http": {Signal.TRACES: entrance}})
    receiver.start()
    exporter = OTLPSpanExporter(endpoint=f"http://{endpoint}/v1/traces")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    with provider.get_tracer("worker").start_as_current_span("by the SDK"):
        pass
    assert provider.force_flush(20_000)
    provider.shutdown()
    receiver.stop(1.0)
    assert [span_names(body) for body in entrance.bodies] == [["by the SDK"]]


@pytest.mark.parametrize("path", ["v1/traces", "/v1/{signal}", "/v1/traces?x=1", ""])
def test_a_path_that_cannot_be_served_is_a_mistake(path: str) -> None:
    with pytest.raises(ValueError, match="traces_url_path"):
        HttpConfig(traces_url_path=path)


def test_one_path_for_two_signals_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="must differ"):
        HttpConfig(logs_url_path="/v1/traces")
