"""The gateway as a process, and a backend in this process that remembers what it was given."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from types import TracebackType
from typing import Any, Final, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from tests.benchmarks.process import free_ports
from tests.benchmarks.raw_grpc import EXPORT_TRACES, SIGNALS, channel_options, raw_server
from tests.e2e.support import HOST, Json, Launcher, Server, environment, exchange, get, python

CALL_S_MAX: Final = 15.0
Samples = dict[str, list[tuple[dict[str, str], float]]]

PROTOBUF: Final = "application/x-protobuf"
NO_PROXY: Final = ("grpc.enable_http_proxy", 0)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where one gateway listens."""

    grpc: int
    http: int
    health: int
    telemetry: int
    metrics: int

    @classmethod
    def free(cls) -> Self:
        return cls(*free_ports(5))


@dataclass(frozen=True, slots=True)
class Balance:
    """What became of the items of one pipeline on their way to one exporter."""

    received: int
    exported: int
    filtered: int
    dropped: int
    queued: int
    parked: int = 0

    @property
    def holds(self) -> bool:
        return self.received == self.exported + self.filtered + self.dropped + self.queued + self.parked


def configuration(
    ports: Ports,
    exporters: Mapping[str, Any],
    processors: Mapping[str, Any] | None = None,
    http: Mapping[str, Any] | None = None,
) -> Json:
    """One traces pipeline through all processors to all exporters; `http` are settings of the HTTP receiver."""
    protocols = {
        "grpc": {"endpoint": f"{HOST}:{ports.grpc}"},
        "http": {"endpoint": f"{HOST}:{ports.http}", **(http or {})},
    }
    pipeline = {"receivers": ["otlp"], "processors": list(processors or {}), "exporters": list(exporters)}
    return {
        "receivers": {"otlp": {"protocols": protocols}},
        "processors": dict(processors or {}),
        "exporters": dict(exporters),
        "extensions": {"health_check": {"endpoint": f"{HOST}:{ports.health}"}},
        "service": {
            "extensions": ["health_check"],
            "telemetry": {"metrics": {"address": f"{HOST}:{ports.telemetry}"}},
            "pipelines": {"traces": pipeline},
        },
    }


def to_sink(port: int, **settings: Any) -> Json:
    """An `otlp` exporter that tries again soon."""
    quick = {"initial_interval": "50ms", "max_interval": "200ms"}
    return {"otlp": {"endpoint": f"{HOST}:{port}", "tls": {"insecure": True}, "retry_on_failure": quick, **settings}}


def own_metrics(port: int) -> Samples:
    """The samples of a gateway's own metrics by name."""
    status, body = get(f"http://{HOST}:{port}/metrics")
    assert status == 200, body
    samples: Samples = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


def balances(port: int) -> dict[tuple[str, str], Balance]:
    """The balance by pipeline and exporter, from one scrape of a gateway's own metrics."""
    samples = own_metrics(port)

    def total(name: str, **labels: str) -> int:
        return int(sum(value for own, value in samples.get(name, []) if labels.items() <= own.items()))

    found = {}
    for labels, queued in samples["otel_pipeline_queued_items"]:
        pipeline, exporter = labels["pipeline"], labels["exporter"]
        found[pipeline, exporter] = Balance(
            total("otel_pipeline_received_items_total", pipeline=pipeline),
            total("otel_pipeline_exported_items_total", pipeline=pipeline, exporter=exporter),
            total("otel_pipeline_filtered_items_total", pipeline=pipeline),
            total("otel_pipeline_dropped_items_total", pipeline=pipeline, exporter=exporter),
            int(queued),
            total("otel_pipeline_parked_items", pipeline=pipeline),
        )
    return found


class Gateway:
    """`otel-pipeline gateway` with a configuration and a data directory; may be started again in its place."""

    def __init__(self, launcher: Launcher, ports: Ports, config: Json, name: str = "gateway") -> None:
        self.ports = ports
        self.data_dir = launcher.folder / f"{name}-data"
        self.config = launcher.folder / f"{name}.yaml"
        self.config.write_text(json.dumps(config))  # JSON is YAML
        self._name = name
        self._launcher = launcher
        self.server = self.start()
        self.until_ready()

    def start(self) -> Server:
        """Start, without waiting until it is ready."""
        command = python("otel_pipeline", "gateway", "--config", str(self.config), "--data-dir", str(self.data_dir))
        self.server = self._launcher.start(self._name, command)
        return self.server

    def until_ready(self) -> None:
        self.server.wait_until(lambda: self.health("/readyz") == 200, "ready")

    def restart(self) -> None:
        self.start()
        self.until_ready()

    def health(self, path: str) -> int:
        """The status of a probe; 0 if nobody answers."""
        return get(f"http://{HOST}:{self.ports.health}{path}")[0]

    def post(
        self, body: bytes, path: str = "/v1/traces", method: str = "POST", **headers: str
    ) -> tuple[int, bytes, Message]:
        """Send over HTTP, protobuf unless a header says otherwise; `_` in a header's name stands for `-`."""
        named = {"Content-Type": PROTOBUF, **{name.replace("_", "-"): value for name, value in headers.items()}}
        url = f"http://{HOST}:{self.ports.http}{path}"
        return exchange(urllib.request.Request(url, body or None, named, method=method))

    def own_metrics(self) -> Samples:
        return own_metrics(self.ports.telemetry)

    def balances(self) -> dict[tuple[str, str], Balance]:
        return balances(self.ports.telemetry)

    def queued(self) -> int:
        """Items that wait, for all exporters."""
        return sum(balance.queued for balance in self.balances().values())


class Client:
    """Sends trace requests over one gRPC connection."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"{HOST}:{port}", [*channel_options(), NO_PROXY])
        self._export: Any = self._channel.unary_unary(EXPORT_TRACES)

    def send(self, request: bytes, compression: grpc.Compression | None = None) -> bytes:
        """The response's bytes; raises grpc.RpcError."""
        answer: bytes = self._export(request, timeout=CALL_S_MAX, compression=compression, wait_for_ready=True)
        return answer

    def refusal(self, request: bytes, compression: grpc.Compression | None = None) -> tuple[grpc.StatusCode, str]:
        """Code and message of a call that fails."""
        try:
            self.send(request, compression)
        except grpc.RpcError as error:
            return error.code(), error.details() or ""
        raise AssertionError("the request was accepted")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()


class Sink:
    """An OTLP/gRPC backend on a port of its own, which stays the same while the backend is down."""

    def __init__(self) -> None:
        [self.port] = free_ports(1)
        self._lock = threading.Lock()
        self._bodies: list[bytes] = []
        self._server: Any = None

    def up(self) -> None:
        server, port = raw_server(dict.fromkeys(SIGNALS, self._export), f"{HOST}:{self.port}")
        assert port == self.port
        server.start()
        self._server = server

    def down(self) -> None:
        """Close the connections; may be called twice."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def bodies(self) -> list[bytes]:
        with self._lock:
            return list(self._bodies)

    def requests(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies()]

    def spans(self) -> list[Span]:
        """All spans in the order of their arrival."""
        return list(spans_of(self.requests()))

    def ids(self) -> Counter[bytes]:
        """How often each span id arrived."""
        return Counter(span.span_id for span in self.spans())

    def _export(self, body: bytes, _: Any) -> bytes:
        with self._lock:
            self._bodies.append(body)
        return b""


def spans_of(requests: Iterable[ExportTraceServiceRequest]) -> Iterable[Span]:
    """The spans of requests, without their resources."""
    return (
        span for request in requests for group in request.resource_spans for s in group.scope_spans for span in s.spans
    )


def run_to_end(launcher: Launcher, name: str, *arguments: str, **env: str) -> Server:
    """Runs a command of `otel-pipeline` until it ends by itself."""
    server = launcher.start(name, python("otel_pipeline", *arguments), environment(**env))
    server.wait()
    return server
