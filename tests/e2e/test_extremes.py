"""What no test bed sends and every platform does one day: huge requests, browsers, a backend that is killed."""

from __future__ import annotations

import gzip
import json
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.benchmarks.drive import LoadProcess
from tests.benchmarks.load import Plan
from tests.benchmarks.payloads import SpanRequests
from tests.e2e.gateway import Client, Gateway, Ports, Sink, configuration, to_sink
from tests.e2e.support import HOST, Jaeger, Json, Launcher, until
from tests.support.otlp import START_NS, traces

MIB = 1024 * 1024
ORIGIN = "https://studio.example.com"
PAGE = {"cors": {"allowed_origins": ["https://*.example.com"], "allowed_headers": ["x-tenant"]}}


def started(launcher: Launcher, exporters: Json, http: Json | None = None) -> Gateway:
    ports = Ports.free()
    return Gateway(launcher, ports, configuration(ports, exporters, http=http))


# -- size --------------------------------------------------------------------------------------------------------------


def test_an_attribute_of_a_mebibyte_arrives_whole(launcher: Launcher, sink: Sink) -> None:
    gateway = started(launcher, to_sink(sink.port))
    value = "ü" * (MIB // 2)
    with Client(gateway.ports.grpc) as client:
        client.send(traces(["small", "large", "small"], {"prompt": value}))
    until(lambda: len(sink.spans()) == 3, "delivery")
    assert all(span.attributes[0].value.string_value == value for span in sink.spans())


def test_ten_thousand_spans_in_one_request_arrive_once(launcher: Launcher, sink: Sink) -> None:
    gateway = started(launcher, to_sink(sink.port))
    body = ten_thousand_spans()
    with Client(gateway.ports.grpc) as client:
        assert client.send(body) == b""
    until(lambda: len(sink.spans()) >= 10_000, "delivery")
    assert set(sink.ids().values()) == {1}
    sent = {span.SerializeToString() for span in spans_in(body)}
    assert {span.SerializeToString() for span in sink.spans()} == sent


def test_ten_thousand_spans_reach_a_jaeger_that_takes_four_mebibytes(launcher: Launcher) -> None:
    """Jaeger's and the Collector's default limit: what is larger is halved until it fits."""
    jaeger = Jaeger(launcher, request_mib_max=4)
    gateway = started(launcher, to_sink(jaeger.otlp))
    body = ten_thousand_spans()
    assert len(body) > 4 * MIB
    with Client(gateway.ports.grpc) as client:
        client.send(body)
    until(lambda: gateway.queued() == 0, "delivery")
    [balance] = gateway.balances().values()
    assert (balance.exported, balance.dropped) == (10_000, 0)


def test_a_span_that_no_jaeger_takes_is_lost_under_a_name_and_costs_no_other(launcher: Launcher) -> None:
    jaeger = Jaeger(launcher, request_mib_max=4)
    gateway = started(launcher, to_sink(jaeger.otlp, compression="none"))
    with Client(gateway.ports.grpc) as client:
        client.send(traces(["before"], first=1) + traces(["huge"], {"x": "x" * 5 * MIB}, first=2) + traces(first=3))
        client.send(traces(["after"], first=4))
    until(lambda: gateway.queued() == 0, "delivery")
    [balance] = gateway.balances().values()
    assert (balance.received, balance.exported, balance.dropped, balance.holds) == (4, 3, 1, True)
    dropped = {labels["reason"]: count for labels, count in gateway.own_metrics()["otel_pipeline_dropped_items_total"]}
    assert dropped == {"too_large": 1}
    for number in (1, 3, 4):
        assert jaeger.api.trace(f"{number:032x}")["resourceSpans"]


def test_a_request_beyond_the_limit_is_refused_and_the_next_is_served(launcher: Launcher, sink: Sink) -> None:
    gateway = started(launcher, to_sink(sink.port))
    huge = traces(["huge"], {"prompt": "x" * (65 * MIB)})
    with Client(gateway.ports.grpc) as client:
        assert client.refusal(huge)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert client.refusal(huge, grpc.Compression.Gzip)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert gateway.post(gzip.compress(huge, 1), Content_Encoding="gzip")[0] == 413
        assert client.send(traces(["small"])) == b""
    until(lambda: len(sink.spans()) == 1, "the next request")


# -- gzip --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exporter", ["otlp", "otlphttp"])
def test_gzip_in_and_out(exporter: str, launcher: Launcher) -> None:
    jaeger = Jaeger(launcher)
    endpoint = f"{HOST}:{jaeger.otlp}" if exporter == "otlp" else f"http://{HOST}:{jaeger.otlp_http}"
    settings: dict[str, Any] = {"endpoint": endpoint, "compression": "gzip", "tls": {"insecure": True}}
    gateway = started(launcher, {exporter: settings})
    first, second = (traces(["zipped"] * 20, {"prompt": "x" * 1000}, first=1 + 100 * turn) for turn in range(2))
    with Client(gateway.ports.grpc) as client:
        client.send(first, grpc.Compression.Gzip)
    assert gateway.post(gzip.compress(second), Content_Encoding="gzip")[0] == 200
    until(lambda: gateway.queued() == 0, "delivery")
    for number in (1, 101):
        [group] = jaeger.api.trace(f"{number:032x}")["resourceSpans"]
        [span] = group["scopeSpans"][0]["spans"]
        assert (span["spanId"], span["name"]) == (f"{number:016x}", "zipped")


def test_a_body_that_is_no_gzip_is_refused(launcher: Launcher, sink: Sink) -> None:
    gateway = started(launcher, to_sink(sink.port))
    assert gateway.post(b"\x1f\x8b no gzip at all", Content_Encoding="gzip")[0] == 400
    assert gateway.post(gzip.compress(traces(["cut"]))[:-12], Content_Encoding="gzip")[0] == 400
    assert gateway.post(traces(["small"]))[0] == 200


# -- a browser ---------------------------------------------------------------------------------------------------------


def browser_span(name: str = "click") -> Json:
    span = {
        "traceId": "5B8EFFF798038103D269B633813FC60C",
        "spanId": "eee19b7ec3c1b174",
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(START_NS),
        "endTimeUnixNano": START_NS + 1_000_000,
        "attributes": [{"key": "page", "value": {"intValue": "7"}}],
        "inventedLater": {"a": [1]},
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "studio"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "web"}, "spans": [span]}]}]}


def test_a_page_may_send_json_after_its_preflight(launcher: Launcher, sink: Sink) -> None:
    gateway = started(launcher, to_sink(sink.port), http=PAGE)
    asks = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "content-type,x-tenant"}
    status, _, headers = gateway.post(b"", method="OPTIONS", Origin=ORIGIN, **asks)
    assert status in (200, 204)
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "POST" in headers["Access-Control-Allow-Methods"]
    allowed = {name.strip().lower() for name in headers["Access-Control-Allow-Headers"].split(",")}
    assert {"content-type", "x-tenant"} <= allowed
    body = json.dumps(browser_span()).encode()
    status, answer, headers = gateway.post(body, Origin=ORIGIN, Content_Type="application/json; charset=utf-8")
    assert (status, json.loads(answer)) == (200, {})
    assert headers["Content-Type"].startswith("application/json")
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    [span] = until(sink.spans, "delivery")
    assert (span.trace_id.hex(), span.span_id.hex()) == ("5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174")
    assert (span.name, span.attributes[0].value.int_value) == ("click", 7)


def test_a_page_can_read_why_it_was_refused(launcher: Launcher, sink: Sink) -> None:
    gateway = started(launcher, to_sink(sink.port), http=PAGE)
    status, answer, headers = gateway.post(b'{"resourceSpans": 5}', Origin=ORIGIN, Content_Type="application/json")
    assert status == 400
    assert json.loads(answer)["message"]
    assert headers["Access-Control-Allow-Origin"] == ORIGIN


def test_a_page_of_somebody_else_is_not_invited(launcher: Launcher, sink: Sink) -> None:
    gateway = started(launcher, to_sink(sink.port), http=PAGE)
    asks = {"Access_Control_Request_Method": "POST"}
    for method, body in (("OPTIONS", b""), ("POST", traces())):
        _, _, headers = gateway.post(body, method=method, Origin="https://evil.test", **asks)
        assert "Access-Control-Allow-Origin" not in headers


# -- a backend killed under load ---------------------------------------------------------------------------------------


def test_a_jaeger_killed_under_load_costs_nothing_that_it_did_not_take(launcher: Launcher) -> None:
    """Jaeger keeps traces in memory, so what it took before is gone with it; what came after must all be there."""
    jaeger = Jaeger(launcher)
    gateway = started(launcher, to_sink(jaeger.otlp))
    plan = Plan(f"{HOST}:{gateway.ports.grpc}", spans_per_request=100, seconds=6.0, rate_spans_s=5_000.0, in_flight=8)
    with LoadProcess(plan, launcher.folder / "load.txt") as load:
        load.go()
        until(lambda: gateway.balances()["traces", "otlp"].exported > 2_000, "some delivered")
        jaeger.server.kill()
        until(lambda: gateway.queued() > 5_000, "a queue")
        jaeger.start()
        result = load.result()
    assert (result.errors, result.retries) == ({}, 0), "the senders notice nothing"
    until(lambda: gateway.queued() == 0, "delivery")
    balance = gateway.balances()["traces", "otlp"]
    assert (balance.exported, balance.dropped, balance.holds) == (result.spans, 0, True)


def ten_thousand_spans() -> bytes:
    """Joined requests are one request."""
    load = SpanRequests(5_000)
    return load.request(0, START_NS) + load.request(5_000, START_NS)


def spans_in(body: bytes) -> list[Any]:
    message = ExportTraceServiceRequest.FromString(body)
    return [span for group in message.resource_spans for scope in group.scope_spans for span in scope.spans]
