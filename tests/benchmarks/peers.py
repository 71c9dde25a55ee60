"""The gateways that are compared: how each is configured and started, and when it is ready.

Every peer listens for OTLP gRPC on loopback and forwards to the sink over OTLP gRPC, with the same compression. What a
peer does by default it does here too: rotel batches and acknowledges from memory, the Collector queues in memory.
"""

from __future__ import annotations

import importlib.util
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.process import Child, accepts_connections, free_ports, python_module

REPOSITORY = Path(__file__).resolve().parents[2]
OTELCOL = REPOSITORY / ".cache" / "peers" / "bin" / "otelcol"
READY_TIMEOUT_S = 30.0
_HTTP_TIMEOUT_S = 2.0

_FULL_PROCESSORS: dict[str, Any] = {
    "resource": {"attributes": [{"key": "deployment.environment.name", "value": "production", "action": "upsert"}]},
    "attributes": {
        "actions": [
            {"key": "cloud.provider", "value": "example", "action": "insert"},
            {"key": "cloud.region", "value": "eu-central-1", "action": "insert"},
            {"key": "network.protocol.version", "value": "2", "action": "upsert"},
            {"key": "otel_pipeline.tenant.id", "value": "tenant-0001", "action": "upsert"},
        ]
    },
    "filter": {"traces": {"span": ['attributes["http.route"] == "/healthz"']}},  # Matches none.
    "span_metrics": {},
}


_PRIVATE_PROCESSORS: dict[str, Any] = {"redaction": {}, "error_class": {}}
_PRICED_PROCESSORS: dict[str, Any] = {"cost": {}}
"""With the ledger: each of these spans is a call of a model, or a job."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where one peer runs: its ports, its backend, a directory of its own."""

    grpc_port: int
    http_port: int
    health_port: int
    metrics_port: int
    sink_port: int
    directory: Path
    compression: str = "none"

    @property
    def listen(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def sink(self) -> str:
        return f"127.0.0.1:{self.sink_port}"


@dataclass(frozen=True, slots=True)
class Peer:
    """A gateway under test; `missing` says why it cannot run here, or nothing; `note` what a reader must know."""

    name: str
    command: Callable[[Site], list[str]]
    ready: Callable[[Site], bool]
    missing: Callable[[], str]
    note: str


def site(sink_port: int, directory: Path, compression: str = "none") -> Site:
    (directory / "data").mkdir(parents=True, exist_ok=True)
    grpc_port, http_port, health_port, metrics_port = free_ports(4)
    return Site(grpc_port, http_port, health_port, metrics_port, sink_port, directory, compression)


def start(peer: Peer, place: Site) -> Child:
    """The peer, ready to take spans; may be called again at the same place after the peer has gone."""
    child = Child(peer.command(place), place.directory / "log.txt")
    try:
        child.wait_until(lambda: peer.ready(place), READY_TIMEOUT_S)
    except BaseException:
        child.stop()
        raise
    return child


def select(names: list[str]) -> list[Peer]:
    unknown = sorted(set(names) - PEERS.keys())
    if unknown:
        raise ValueError(f"unknown peers {unknown}, allowed are {list(PEERS)}")
    return [PEERS[name] for name in names]


def variant() -> str:
    """Whether every leaf of otel_pipeline is an extension, and not the copy of its source that a build leaves."""
    sources = (REPOSITORY / "otel_pipeline" / "wire").glob("_*_py.py")
    specs = [_spec("otel_pipeline.wire." + source.stem.removesuffix("_py") + "_c") for source in sources]
    is_compiled = bool(specs) and all(spec and spec.origin.endswith(".so") for spec in specs)
    return "compiled" if is_compiled else "interpreted"


def _passthrough(place: Site) -> list[str]:
    return python_module("tests.benchmarks.passthrough", "--listen", place.listen, "--forward", place.sink)


def _otel_pipeline(processors: dict[str, Any]) -> Callable[[Site], list[str]]:
    def command(place: Site) -> list[str]:
        config = {
            "extensions": {"health_check": {"endpoint": f"127.0.0.1:{place.health_port}"}},
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": place.listen}}}},
            "processors": processors,
            "exporters": _otlp_exporter(place),
            "service": {
                "extensions": ["health_check"],
                "telemetry": {"metrics": {"address": f"127.0.0.1:{place.metrics_port}"}},
                "pipelines": {"traces": {"receivers": ["otlp"], "processors": list(processors), "exporters": ["otlp"]}},
            },
        }
        path = _write_config(place, config)
        data = str(place.directory / "data")
        return python_module("otel_pipeline", "gateway", "--config", path, "--data-dir", data)

    return command


def _otelcol(place: Site) -> list[str]:
    config = {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": place.listen}}}},
        "exporters": _otlp_exporter(place),
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp"]}},
        },
    }
    return [str(OTELCOL), "--config", _write_config(place, config)]


def _rotel(place: Site) -> list[str]:
    return [
        str(_rotel_binary()),
        "start",
        *("--otlp-grpc-endpoint", place.listen),
        *("--otlp-http-endpoint", f"127.0.0.1:{place.http_port}"),
        *("--exporter", "otlp"),
        *("--otlp-exporter-endpoint", f"http://{place.sink}"),
        *("--otlp-exporter-protocol", "grpc"),
        *("--otlp-exporter-compression", place.compression),
        *("--pid-file", str(place.directory / "rotel.pid")),
        *("--log-file", str(place.directory / "rotel.log")),
    ]


def _rotel_binary() -> Path | None:
    spec = _spec("rotel")
    binary = Path(spec.origin).with_name("rotel-agent") if spec and spec.origin else None
    return binary if binary and binary.exists() else None


def _otlp_exporter(place: Site) -> dict[str, Any]:
    return {"otlp": {"endpoint": place.sink, "compression": place.compression, "tls": {"insecure": True}}}


def _write_config(place: Site, config: dict[str, Any]) -> str:
    path = place.directory / "config.yaml"
    path.write_text(json.dumps(config, indent=1))  # JSON is YAML.
    return str(path)


def _is_listening(place: Site) -> bool:
    return accepts_connections(place.grpc_port)


def _is_healthy(place: Site) -> bool:
    url = f"http://127.0.0.1:{place.health_port}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=_HTTP_TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _spec(module: str) -> Any:
    try:
        return importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None


def _otel_pipeline_missing() -> str:
    return "" if _spec("otel_pipeline.__main__") else "otel_pipeline has no __main__ yet"


def _otelcol_missing() -> str:
    return "" if OTELCOL.exists() else "no Collector: run scripts/install-peers"


def _rotel_missing() -> str:
    return "" if _rotel_binary() else "no rotel: pip install rotel"


_DURABLE = "acknowledges what its outbox holds"

PEERS = {
    peer.name: peer
    for peer in (
        Peer("passthrough", _passthrough, _is_listening, lambda: "", "acknowledges after delivery, never compresses"),
        Peer("otel_pipeline-bare", _otel_pipeline({}), _is_healthy, _otel_pipeline_missing, _DURABLE),
        Peer("otel_pipeline-full", _otel_pipeline(_FULL_PROCESSORS), _is_healthy, _otel_pipeline_missing, _DURABLE),
        Peer(
            "otel_pipeline-private", _otel_pipeline(_PRIVATE_PROCESSORS), _is_healthy, _otel_pipeline_missing, _DURABLE
        ),
        Peer("otel_pipeline-priced", _otel_pipeline(_PRICED_PROCESSORS), _is_healthy, _otel_pipeline_missing, _DURABLE),
        # 0.0.1a15 ignores the option that switches compression off: 47 B/span on the wire with gzip and with none.
        Peer("rotel", _rotel, _is_listening, _rotel_missing, "acknowledges from memory, compresses with gzip always"),
        Peer("otelcol", _otelcol, _is_listening, _otelcol_missing, "acknowledges from memory"),
    )
}

USUAL = [name for name in PEERS if name not in ("otel_pipeline-private", "otel_pipeline-priced")]
"""What is compared if nothing is chosen."""
