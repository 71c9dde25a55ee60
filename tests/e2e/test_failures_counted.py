"""Groups of failures over kills of the gateway: what was acknowledged is counted, once."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.gateway import Client, Gateway, Ports, Sink, configuration, to_sink
from tests.e2e.support import python

if TYPE_CHECKING:
    from tests.e2e.support import Launcher

FAILURES = (
    ("redis.exceptions.ConnectionError", "Error 111 connecting to 10.0.0.{}:6379. Connection refused."),
    ("torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate {}.00 MiB"),
    ("app.SceneError", "scene {} has no camera"),
)
ROUNDS = 6
SPANS = 30


def failing(first: int, service: str = "worker") -> bytes:
    """A request whose spans fail in turn in each way, each in a trace of its own."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = service
    scope = group.scope_spans.add()
    for number in range(first, first + SPANS):
        kind, message = FAILURES[number % len(FAILURES)]
        now_ns = time.time_ns()
        span = scope.spans.add(
            trace_id=number.to_bytes(16, "big"),
            span_id=number.to_bytes(8, "big"),
            name="render",
            start_time_unix_nano=now_ns - 1000,
            end_time_unix_nano=now_ns,
        )
        span.status.code = 2  # type: ignore[assignment]  # an enum's number
        event = span.events.add(name="exception", time_unix_nano=now_ns)
        event.attributes.add(key="exception.type").value.string_value = kind
        event.attributes.add(key="exception.message").value.string_value = message.format(number)
    return request.SerializeToString()


def command(gateway: Gateway, *arguments: str) -> str:
    asked = python("otel_pipeline", "errors", *arguments, "--data-dir", str(gateway.data_dir))
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def groups(gateway: Gateway) -> dict[str, dict[str, Any]]:
    """By class."""
    return {one["class"]: one for one in json.loads(command(gateway, "list", "--format", "json"))}


def until(gateway: Gateway, spans: int) -> dict[str, dict[str, Any]]:
    """The groups, as soon as they hold so many spans."""
    deadline_s = time.monotonic() + 30
    while True:
        found = groups(gateway)
        if sum(one["count"] for one in found.values()) >= spans:
            return found
        assert time.monotonic() < deadline_s, found
        time.sleep(0.2)


def gateway_with_groups(launcher: Launcher, sink: Sink) -> Gateway:
    ports = Ports.free()
    config = configuration(ports, to_sink(sink.port), {"error_class": {}})
    config["service"]["pipelines"]["logs"] = {**config["service"]["pipelines"]["traces"]}
    return Gateway(launcher, ports, config)


def test_kills_and_repeated_requests_change_no_count(launcher: Launcher, sink: Sink) -> None:
    gateway = gateway_with_groups(launcher, sink)
    for number in range(ROUNDS):
        request = failing(number * SPANS + 1)
        with Client(gateway.ports.grpc) as client:
            client.send(request)
            if number % 2:
                client.send(request)
        gateway.server.kill()
        gateway.restart()
    found = until(gateway, ROUNDS * SPANS)
    each = ROUNDS * SPANS // len(FAILURES)
    assert {name: (one["count"], one["traces"], one["state"]) for name, one in found.items()} == {
        "DATABASE_ERROR": (each, each, "open"),
        "GPU_OOM_ERROR": (each, each, "open"),
        "UNKNOWN_ERROR": (each, each, "open"),
    }
    assert found["UNKNOWN_ERROR"]["exception_type"] == "app.SceneError"


def test_a_resolved_group_that_comes_again_is_news(launcher: Launcher, sink: Sink) -> None:
    gateway = gateway_with_groups(launcher, sink)
    with Client(gateway.ports.grpc) as client:
        client.send(failing(1))
        found = until(gateway, SPANS)
        command(gateway, "resolve", found["GPU_OOM_ERROR"]["fingerprint"])
        command(gateway, "ignore", found["UNKNOWN_ERROR"]["fingerprint"])
        client.send(failing(1000))
        found = until(gateway, 2 * SPANS)
    assert {name: one["state"] for name, one in found.items()} == {
        "DATABASE_ERROR": "open",
        "GPU_OOM_ERROR": "regressed",
        "UNKNOWN_ERROR": "ignored",
    }
    events = {
        labels["event"]: value for labels, value in gateway.own_metrics()["otel_pipeline_error_group_events_total"]
    }
    assert (events["new"], events["regressed"]) == (3, 1)
    gateway.server.wait_until(lambda: len(told(sink)) == 4, "told of")
    assert sorted(told(sink)) == ["new", "new", "new", "regressed"]


def told(sink: Sink) -> list[str]:
    """The events about groups that came as log records."""
    bodies = [body for body in sink.bodies() if b"otel_pipeline.error_group." in body]
    requests = [ExportLogsServiceRequest.FromString(body) for body in bodies]
    records = [
        record
        for request in requests
        for group in request.resource_logs
        for s in group.scope_logs
        for record in s.log_records
    ]
    prefix = "otel_pipeline.error_group."
    return [one.event_name.removeprefix(prefix) for one in records if one.event_name.startswith(prefix)]
