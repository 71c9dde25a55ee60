"""Beside the real OpenTelemetry Collector: one configuration for both, and the Collector in front of the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from otel_pipeline.wire.values import any_value
from tests.benchmarks.payloads import SpanRequests
from tests.benchmarks.process import free_ports
from tests.e2e.gateway import Client, Gateway, Ports, Sink, configuration, to_sink
from tests.e2e.support import HOST, REPOSITORY, Launcher, Server, environment, get, peer, python, until

START_NS = 1_795_294_144_000_000_000
TYPICAL = REPOSITORY / "tests" / "e2e" / "collector.yaml"
FORWARD = REPOSITORY / "collector-config" / "otelcol-forward.yaml"


def attributes(target: Any, **values: Any) -> None:
    for key, value in values.items():
        target.attributes.add(key=key.replace("__", ".")).value.CopyFrom(any_value(value))


def request() -> ExportTraceServiceRequest:
    """Two workers and an API, with everything that a span may have, and three spans that the filters drop."""
    message = ExportTraceServiceRequest()
    number = 0
    for service in ("worker", "worker", "api"):
        group = message.resource_spans.add(schema_url="https://opentelemetry.io/schemas/1.37.0")
        attributes(group.resource, service__name=service, process__command_args=["python", "worker.py"])
        for scope_name in ("httpx", "job"):
            scope = group.scope_spans.add(schema_url="https://opentelemetry.io/schemas/1.37.0")
            scope.scope.name, scope.scope.version = scope_name, "1.2.3"
            attributes(scope.scope, short=True)
            for name in ("POST", "render", "GET /metrics"):
                number += 1
                _fill(scope.spans.add(), number, name)
    return message


def _fill(span: Span, number: int, name: str) -> None:
    span.name, span.kind, span.trace_state, span.flags = (
        name,
        Span.SpanKind.ValueType(1 + number % 5),
        "vendor=1",
        0x101,
    )
    span.trace_id, span.span_id = number.to_bytes(16, "big"), number.to_bytes(8, "big")
    span.parent_span_id = (number - 1).to_bytes(8, "big") if number > 1 else b""
    span.start_time_unix_nano, span.end_time_unix_nano = START_NS + number, START_NS + number * 1_000_000
    attributes(span, user__email="a@example.com", gen_ai__provider__name="fal", steps=30, cfg=7.5, retries=number % 2)
    attributes(span, prompts=["a lighthouse", "ein größerer Leuchtturm"], cached=False)
    if number == 5:
        attributes(span, http__route="/healthz")
    event = span.events.add(name="exception", time_unix_nano=START_NS + number, dropped_attributes_count=1)
    attributes(event, exception__type="OutOfMemoryError", exception__message="CUDA out of memory")
    link = span.links.add(trace_id=bytes(range(16)), span_id=bytes(range(8)), trace_state="a=b", flags=0x301)
    attributes(link, why="queued")
    if number % 3 == 0:
        span.status.code, span.status.message = Status.STATUS_CODE_ERROR, "it failed"


Row = tuple[Any, ...]


def rows(requests: Sequence[ExportTraceServiceRequest]) -> list[Row]:
    """Each span with its resource and scope, in an order that does not depend on batches."""
    found = []
    for message in requests:
        for group in message.resource_spans:
            resource = (_pairs(group.resource.attributes), group.schema_url)
            for scope in group.scope_spans:
                where = (scope.scope.name, scope.scope.version, _pairs(scope.scope.attributes), scope.schema_url)
                found += [(span.span_id, resource, where, _normal(span)) for span in scope.spans]
    return sorted(found)


def _pairs(values: Sequence[KeyValue]) -> tuple[tuple[str, bytes], ...]:
    return tuple(sorted((one.key, one.value.SerializeToString(deterministic=True)) for one in values))


def _normal(span: Span) -> tuple[Any, ...]:
    """A span's fields, and its attributes, whose order means nothing, sorted."""
    rest = Span()
    rest.CopyFrom(span)
    del rest.attributes[:]
    rest.status.SetInParent()  # the Collector writes an empty status where there was none
    return _pairs(span.attributes), rest.SerializeToString(deterministic=True)


def start_with_variables(launcher: Launcher, name: str, command: Sequence[str], sink: Sink) -> tuple[Server, int]:
    """Starts either with the typical configuration; its gRPC port."""
    grpc, http, health, metrics = free_ports(4)
    variables = {
        "TEST_OTLP_GRPC": f"{HOST}:{grpc}",
        "TEST_OTLP_HTTP": f"{HOST}:{http}",
        "TEST_HEALTH": f"{HOST}:{health}",
        "TEST_METRICS_PORT": str(metrics),
        "TEST_BACKEND": f"{HOST}:{sink.port}",
    }
    server = launcher.start(name, (*command, "--config", str(TYPICAL)), environment(**variables))
    server.wait_until(lambda: get(f"http://{HOST}:{health}/")[0] == 200, "ready")
    return server, grpc


def delivered(launcher: Launcher, name: str, command: Sequence[str], sink: Sink, expected: int) -> list[Row]:
    """What arrives at the sink of a request sent through a server with the typical configuration."""
    server, port = start_with_variables(launcher, name, command, sink)
    with Client(port) as client:
        client.send(request().SerializeToString())
    server.wait_until(lambda: len(sink.spans()) >= expected, "delivery")
    server.stop()
    return rows(sink.requests())


@pytest.fixture
def second_sink() -> Any:
    sink = Sink()
    sink.up()
    yield sink
    sink.down()


def test_a_typical_configuration_does_the_same_in_both(launcher: Launcher, sink: Sink, second_sink: Sink) -> None:
    dropped = {5, 3, 6, 9, 12}  # the probe, and the scrapes of the two workers
    kept = sorted(span.span_id for span in _spans(request()) if int.from_bytes(span.span_id, "big") not in dropped)
    theirs = delivered(launcher, "otelcol", (peer("otelcol"),), sink, len(kept))
    data = ("--data-dir", str(launcher.folder / "data"))
    ours = delivered(launcher, "gateway", (*python("otel_pipeline", "gateway"), *data), second_sink, len(kept))
    assert [row[0] for row in ours] == kept
    assert ours == theirs


def test_our_gateway_only_warns_of_what_has_no_effect(launcher: Launcher, sink: Sink) -> None:
    command = (*python("otel_pipeline", "gateway"), "--data-dir", str(launcher.folder / "data"))
    server, _ = start_with_variables(launcher, "gateway", command, sink)
    lines = [line for line in server.text().splitlines() if " WARNING " in line or " ERROR " in line]
    assert all("accepted without effect" in line for line in lines), lines
    assert any("keepalive" in line for line in lines)


def test_a_collector_in_front_of_the_gateway_changes_nothing(launcher: Launcher, sink: Sink) -> None:
    ports = Ports.free()
    gateway = Gateway(launcher, ports, configuration(ports, to_sink(sink.port)))
    grpc, http, health, metrics = free_ports(4)
    variables = {
        "OTELCOL_OTLP_GRPC": f"{HOST}:{grpc}",
        "OTELCOL_OTLP_HTTP": f"{HOST}:{http}",
        "OTELCOL_HEALTH": f"{HOST}:{health}",
        "OTELCOL_METRICS_PORT": str(metrics),
        "OTELCOL_STORAGE": str(launcher.folder / "otelcol"),
        "OTEL_PIPELINE_ENDPOINT": f"{HOST}:{ports.grpc}",
    }
    server = launcher.start("otelcol", (peer("otelcol"), "--config", str(FORWARD)), environment(**variables))
    server.wait_until(lambda: get(f"http://{HOST}:{health}/")[0] == 200, "ready")
    sent = [request()]
    load = SpanRequests(200)
    sent += [ExportTraceServiceRequest.FromString(load.request(first, START_NS)) for first in range(0, 2000, 200)]
    with Client(grpc) as client:
        for message in sent:
            client.send(message.SerializeToString())
    until(lambda: len(sink.spans()) >= sum(len(_spans(message)) for message in sent), "delivery")
    assert rows(sink.requests()) == rows(sent)
    until(lambda: gateway.queued() == 0, "an empty outbox")


def _spans(message: ExportTraceServiceRequest) -> list[Span]:
    return [span for group in message.resource_spans for scope in group.scope_spans for span in scope.spans]
