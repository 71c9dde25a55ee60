"""The gateway as its operator meets it: start, mistakes, signals, probes, a backend that is away, restarts."""

from __future__ import annotations

import json
import signal
import socket
import time
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # generated without types
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from tests.benchmarks.process import free_ports
from tests.e2e.gateway import (
    Client,
    Gateway,
    Ports,
    Sink,
    balances,
    configuration,
    own_metrics,
    run_to_end,
    to_sink,
)
from tests.e2e.support import HOST, Launcher, Server, environment, get, python, until
from tests.support.otlp import traces

STOP_S_MAX = 14.0
"""The drain deadline, and what it takes to stop threads and servers behind it."""
MALFORMED = b"\x0a\x03\x0a\x7f\x00"
"""A resource that claims 127 bytes where 1 is left."""


def spans(first: int, count: int = 10, **attributes: Any) -> bytes:
    return traces([f"span {number}" for number in range(first, first + count)], attributes or None, first=first)


def ids(first: int, count: int) -> dict[bytes, int]:
    """Each of these spans once."""
    return {number.to_bytes(8, "big"): 1 for number in range(first, first + count)}


def started(launcher: Launcher, sink: Sink, **more: Any) -> Gateway:
    ports = Ports.free()
    return Gateway(launcher, ports, configuration(ports, to_sink(sink.port), **more))


def started_by_default(launcher: Launcher) -> tuple[Server, Ports]:
    """Without a configuration, but for the ports."""
    ports = Ports.free()
    places = {
        "receivers.otlp.protocols.grpc.endpoint": ports.grpc,
        "receivers.otlp.protocols.http.endpoint": ports.http,
        "extensions.health_check.endpoint": ports.health,
        "service.telemetry.metrics.address": ports.telemetry,
        "exporters.prometheus.endpoint": ports.metrics,
    }
    moved = [word for key, port in places.items() for word in ("--set", f"{key}={HOST}:{port}")]
    env = environment(XDG_STATE_HOME=str(launcher.folder))
    server = launcher.start("gateway", python("otel_pipeline", "gateway", *moved), env)
    server.wait_until(lambda: get(f"http://{HOST}:{ports.health}/readyz")[0] == 200, "ready")
    return server, ports


# -- start -------------------------------------------------------------------------------------------------------------


def test_without_a_file_it_starts_with_the_defaults(launcher: Launcher) -> None:
    server, ports = started_by_default(launcher)
    with Client(ports.grpc) as client:
        assert client.send(spans(1)) == b""
    assert (launcher.folder / "otel-pipeline" / "outbox" / "data.mdb").exists()
    page = f"http://{HOST}:{ports.metrics}/metrics"
    server.wait_until(lambda: b"traces_span_metrics_calls_total" in get(page)[1], "metrics of the spans")
    server.terminate()
    assert server.wait(STOP_S_MAX) == 0


def test_by_default_spans_of_hosts_without_gpus_wait_for_no_samples(launcher: Launcher) -> None:
    server, ports = started_by_default(launcher)
    jobs = {"otel_pipeline.job.outcome": "completed", "otel_pipeline.stage.name": "render"}
    with Client(ports.grpc) as client:
        client.send(spans(1, **jobs))
    passed = ("traces", "debug")
    server.wait_until(lambda: balances(ports.telemetry)[passed].exported == 10, "all spans")
    counts = own_metrics(ports.telemetry)["otel_pipeline_gpu_spans_total"]
    assert {labels["status"]: value for labels, value in counts if labels["status"] == "parked"} == {"parked": 0}


def test_every_mistake_is_told_at_once(launcher: Launcher) -> None:
    wrong = {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": "nowhere"}}}},
        "exporters": {"otlp": {"endpoint": f"{HOST}:1", "compresion": "gzip"}, "jaeger": {}},
        "service": {"pipelines": {"traces": {"receivers": ["otlp"], "processors": ["btch"], "exporters": ["otlp"]}}},
        "outbox": {"sync": "sometimes"},
    }
    server = run_to_end(launcher, "gateway", "gateway", "--config", "yaml:" + json.dumps(wrong))
    assert server.process.returncode == 1
    places = {line.partition(": ")[0] for line in server.text().splitlines()}
    assert places == {
        "receivers.otlp.protocols.grpc.endpoint",
        "exporters.otlp.compresion",
        "exporters.jaeger",
        "service.pipelines.traces.processors[0]",
        "outbox.sync",
    }


def test_a_second_gateway_on_the_same_data_is_refused(launcher: Launcher, sink: Sink) -> None:
    first = started(launcher, sink)
    other = Ports.free()
    config = "yaml:" + json.dumps(configuration(other, to_sink(sink.port)))
    second = run_to_end(launcher, "second", "gateway", "--config", config, "--data-dir", str(first.data_dir))
    assert second.process.returncode == 1
    assert f"another gateway uses {first.data_dir / 'outbox'}" in second.text()
    with Client(first.ports.grpc) as client:
        assert client.send(spans(1)) == b""


@pytest.mark.parametrize("taken", ["grpc", "http", "health", "telemetry", "metrics"])
def test_a_port_that_is_taken_is_named(taken: str, launcher: Launcher, sink: Sink) -> None:
    ports = Ports.free()
    config = configuration(ports, to_sink(sink.port))
    config["exporters"]["prometheus"] = {"endpoint": f"{HOST}:{ports.metrics}"}
    config["service"]["pipelines"]["metrics"] = {"receivers": ["otlp"], "exporters": ["prometheus"]}
    port = getattr(ports, taken)
    with socket.create_server((HOST, port)):
        options = ("--config", "yaml:" + json.dumps(config), "--data-dir", str(launcher.folder / "data"))
        server = run_to_end(launcher, "gateway", "gateway", *options)
    assert server.process.returncode == 1
    [reason] = [line for line in server.text().splitlines() if "cannot start" in line]
    assert str(port) in reason
    assert "Traceback" not in server.text()


def test_an_exporter_that_cannot_be_built_ends_the_start(launcher: Launcher) -> None:
    config = configuration(Ports.free(), {"file": {"path": str(launcher.folder / "missing" / "traces.jsonl")}})
    options = ("--config", "yaml:" + json.dumps(config), "--data-dir", str(launcher.folder / "data"))
    server = run_to_end(launcher, "gateway", "gateway", *options)
    assert server.process.returncode == 1
    assert "cannot start" in server.text()
    assert "missing/traces.jsonl" in server.text()


# -- stop --------------------------------------------------------------------------------------------------------------


def test_an_idle_gateway_stops_at_once(launcher: Launcher, sink: Sink) -> None:
    gateway = started(launcher, sink)
    before_s = time.monotonic()
    gateway.server.terminate()
    assert gateway.server.wait(STOP_S_MAX) == 0
    assert time.monotonic() - before_s < 2.0


def test_ctrl_c_is_a_stop_like_any_other(launcher: Launcher, sink: Sink) -> None:
    gateway = started(launcher, sink)
    gateway.server.process.send_signal(signal.SIGINT)
    assert gateway.server.wait(STOP_S_MAX) == 0
    assert "Traceback" not in gateway.server.text()


def test_sigterm_delivers_what_a_batch_gathers(launcher: Launcher, sink: Sink) -> None:
    gateway = started(launcher, sink, processors={"batch": {"timeout": "60s", "send_batch_size": 100_000}})
    with Client(gateway.ports.grpc) as client:
        client.send(spans(1, 50))
    until(lambda: gateway.queued() == 50, "in the outbox")
    gateway.server.terminate()
    assert gateway.server.wait(STOP_S_MAX) == 0
    assert sink.ids() == ids(1, 50)


def test_sigterm_is_seen_however_busy_the_threads_of_grpc_are(launcher: Launcher, backend: Sink) -> None:
    """The kernel may hand the signal to any thread; one that is not Python's would not wake the main thread."""
    for turn in range(15):
        ports = Ports.free()
        gateway = Gateway(launcher, ports, configuration(ports, to_sink(backend.port)), name=f"gateway-{turn}")
        with Client(ports.grpc) as client:
            client.send(spans(1))
        gateway.server.terminate()
        assert gateway.server.wait(STOP_S_MAX) == 0


def test_sigterm_does_not_wait_for_a_backend_that_is_down(launcher: Launcher, backend: Sink) -> None:
    gateway = started(launcher, backend)
    with Client(gateway.ports.grpc) as client:
        client.send(spans(1))
    gateway.server.terminate()
    assert gateway.server.wait(STOP_S_MAX) == 0


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_sigterm_keeps_its_deadline_with_a_backend_that_never_answers(protocol: str, launcher: Launcher) -> None:
    with socket.create_server((HOST, 0)) as silent:
        port = silent.getsockname()[1]
        http = {"otlphttp": {"endpoint": f"http://{HOST}:{port}", "timeout": "60s"}}
        ports = Ports.free()
        config = configuration(ports, to_sink(port, timeout="60s") if protocol == "grpc" else http)
        gateway = Gateway(launcher, ports, config)
        with Client(ports.grpc) as client:
            client.send(spans(1))
        gateway.server.terminate()
        assert gateway.server.wait(STOP_S_MAX) == 0


def test_while_draining_it_lives_but_is_not_ready(launcher: Launcher) -> None:
    with socket.create_server((HOST, 0)) as silent:
        ports = Ports.free()
        gateway = Gateway(launcher, ports, configuration(ports, to_sink(silent.getsockname()[1], timeout="4s")))
        with Client(ports.grpc) as client:
            client.send(spans(1))
        assert (gateway.health("/livez"), gateway.health("/readyz"), gateway.health("/")) == (200, 200, 200)
        until(lambda: any(v for _, v in gateway.own_metrics()["otelcol_exporter_in_flight_requests"]), "sending")
        gateway.server.terminate()
        gateway.server.wait_until(lambda: gateway.health("/readyz") == 503, "not ready any more")
        assert (gateway.health("/livez"), gateway.health("/")) == (200, 503)
        assert gateway.server.wait(STOP_S_MAX) == 0


# -- a backend that is away --------------------------------------------------------------------------------------------


def test_a_backend_that_is_down_costs_nothing_once_it_is_up(launcher: Launcher, backend: Sink) -> None:
    gateway = started(launcher, backend)
    with Client(gateway.ports.grpc) as client:
        for first in range(1, 1001, 10):
            assert client.send(spans(first)) == b""
    assert gateway.queued() == 1000
    backend.up()
    until(lambda: gateway.queued() == 0, "delivered")
    assert backend.ids() == ids(1, 1000)


def test_queue_shows_what_waits_beside_the_running_gateway(launcher: Launcher, backend: Sink) -> None:
    gateway = started(launcher, backend)
    with Client(gateway.ports.grpc) as client:
        client.send(spans(1, 7))
        client.send(spans(8, 3))
    shown = run_to_end(launcher, "queue", "queue", "--data-dir", str(gateway.data_dir), "--format", "json")
    [row] = json.loads(shown.text())
    assert (row["pipeline"], row["signal"], row["exporter"]) == ("traces", "traces", "otlp")
    assert (row["batches"], row["items"], row["exported"], row["dropped"]) == (2, 10, 0, 0)
    table = run_to_end(
        launcher, "queue-table", "queue", "--config", str(gateway.config), "--data-dir", str(gateway.data_dir)
    )
    assert table.process.returncode == 0
    assert "otlp" in table.text()
    assert gateway.health("/readyz") == 200


@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
def test_a_restart_goes_on_with_the_queue(end: str, launcher: Launcher, backend: Sink) -> None:
    gateway = started(launcher, backend)
    with Client(gateway.ports.grpc) as client:
        client.send(spans(1, 100))
    gateway.server.process.send_signal(signal.Signals[end])
    gateway.server.wait(STOP_S_MAX)
    gateway.restart()
    assert gateway.queued() == 100
    with Client(gateway.ports.grpc) as client:
        client.send(spans(101, 100))
    backend.up()
    until(lambda: gateway.queued() == 0, "delivered")
    assert backend.ids() == ids(1, 200)
    [balance] = gateway.balances().values()
    assert (balance.received, balance.exported, balance.holds) == (200, 200, True)


def test_a_full_outbox_refuses_with_a_delay_and_takes_again_when_there_is_room(
    launcher: Launcher, backend: Sink
) -> None:
    ports = Ports.free()
    config = configuration(ports, to_sink(backend.port)) | {"outbox": {"max_size_mib": 16}}
    gateway = Gateway(launcher, ports, config)
    with Client(ports.grpc) as client:
        accepted = fill(client)
        refused = refusal(client, spans(accepted + 1, 1))
        assert refused.code() is grpc.StatusCode.UNAVAILABLE
        trailers = dict(refused.trailing_metadata())
        delay = RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"]).retry_delay
        assert 0 < delay.ToTimedelta().total_seconds() <= 5
        status, _, headers = gateway.post(spans(accepted + 1, 1))
        assert (status, headers["Retry-After"]) == (503, "1")
        assert gateway.health("/readyz") == 503
        assert gateway.queued() == accepted
        backend.up()
        until(lambda: gateway.queued() == 0, "delivered")
        assert gateway.health("/readyz") == 200
        assert client.send(spans(accepted + 1, 1)) == b""
    until(lambda: len(backend.ids()) == accepted + 1, "delivered")
    assert set(backend.ids().values()) == {1}


def test_an_outbox_that_cannot_be_read_is_set_aside(launcher: Launcher, sink: Sink) -> None:
    gateway = started(launcher, sink)
    gateway.server.stop()
    file = gateway.data_dir / "outbox" / "data.mdb"
    file.write_bytes(b"no database" * 1000)
    gateway.restart()
    with Client(gateway.ports.grpc) as client:
        client.send(spans(1))
    until(lambda: sink.ids() == ids(1, 10), "delivered")
    [aside] = file.parent.glob("data.mdb.unreadable-*")
    assert aside.read_bytes().startswith(b"no database")
    assert "cannot be read" in gateway.server.text()


def test_giving_up_a_dead_exporter_makes_room_in_a_full_outbox(launcher: Launcher, sink: Sink) -> None:
    ports = Ports.free()
    small = {"outbox": {"max_size_mib": 16}}
    both = {**to_sink(sink.port), "otlp/dead": to_sink(1)["otlp"]}
    gateway = Gateway(launcher, ports, configuration(ports, both) | small)
    with Client(ports.grpc) as client:
        accepted = fill(client)
    until(lambda: gateway.balances()["traces", "otlp"].queued == 0, "delivered to one of two")
    assert gateway.balances()["traces", "otlp/dead"].queued == accepted
    gateway.server.stop()
    gateway.config.write_text(json.dumps(configuration(ports, to_sink(sink.port)) | small))
    gateway.restart()
    assert "otlp/dead is configured no more" in gateway.server.text()
    with Client(ports.grpc) as client:
        assert refusal(client, spans(accepted + 1, 1)) is None
    until(lambda: len(sink.ids()) == accepted + 1, "delivered")
    assert set(sink.ids().values()) == {1}


def fill(client: Client) -> int:
    """Sends spans, smaller and smaller ones, until not even the smallest is accepted; how many were."""
    accepted = 0
    for size in (1 << 20, 1 << 16, 1):
        while refusal(client, spans(accepted + 1, 1, prompt="x" * size)) is None:
            accepted += 1
            assert accepted < 1000, "the outbox was never full"
    return accepted


def refusal(client: Client, request: bytes) -> Any:
    """The error of a request, if it has one."""
    try:
        client.send(request)
    except grpc.RpcError as error:
        return error
    return None


# -- malformed requests ------------------------------------------------------------------------------------------------


def test_a_malformed_request_over_grpc_is_refused_with_its_offset(launcher: Launcher, sink: Sink) -> None:
    gateway = started(launcher, sink)
    with Client(gateway.ports.grpc) as client:
        code, reason = client.refusal(MALFORMED)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert reason.endswith("at byte 3"), reason
        assert client.send(spans(1)) == b""
    until(lambda: sink.ids() == ids(1, 10), "the next request")


def test_a_malformed_request_over_http_is_refused_with_its_offset(launcher: Launcher, sink: Sink) -> None:
    gateway = started(launcher, sink)
    status, body, headers = gateway.post(MALFORMED)
    assert (status, headers["Content-Type"]) == (400, "application/x-protobuf")
    answer = Status.FromString(body)
    assert answer.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert answer.message.endswith("at byte 3"), answer.message
    assert gateway.post(spans(1))[0] == 200
    until(lambda: sink.ids() == ids(1, 10), "the next request")


def test_ports_of_the_tests_are_no_default_ports() -> None:
    assert not {4317, 4318, 8888, 8889, 13133} & set(free_ports(50))
