"""Real processes for the end-to-end tests: on free loopback ports, stopped by their own pid, logs kept for failures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import pytest

from tests.benchmarks.process import free_ports

T = TypeVar("T")
Json = dict[str, Any]

HOST: Final = "127.0.0.1"
REPOSITORY: Final = Path(__file__).resolve().parents[2]
PEERS: Final = Path(os.environ.get("OTEL_PIPELINE_PEERS") or REPOSITORY / ".cache" / "peers") / "bin"
READY_S_MAX: Final = 30.0
STOP_S_MAX: Final = 20.0
POLL_S: Final = 0.02
HTTP_S_MAX: Final = 10.0
LOG_CHARACTERS_SHOWN: Final = 4000


def until(condition: Callable[[], T], what: str, timeout_s: float = READY_S_MAX) -> T:
    """Asks until the answer is true, and returns it; the test fails when it is not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > deadline_s:
            pytest.fail(f"not within {timeout_s:.0f} s: {what}; the last answer was {answer!r}")
        time.sleep(POLL_S)
    return answer


def peer(name: str) -> str:
    """The path of a server to test against. Without it the test is skipped, and fails in CI."""
    found = shutil.which(name, path=os.pathsep.join((str(PEERS), os.environ.get("PATH", ""))))
    if found is None:
        reason = f"{name} is missing: run scripts/install-peers"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def get(url: str) -> tuple[int, bytes]:
    """Status and body; (0, reason) if nobody answers."""
    return fetch(urllib.request.Request(url))  # noqa: S310 - loopback


def fetch(request: urllib.request.Request) -> tuple[int, bytes]:
    """Sends a request, past any proxy; an answer with an error status is an answer."""
    status, body, _ = exchange(request)
    return status, body


def exchange(request: urllib.request.Request) -> tuple[int, bytes, Message]:
    """Status, body and headers of the answer; status 0 and the reason if there is none."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=HTTP_S_MAX) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers
    except OSError as error:
        return 0, str(error).encode(), Message()


def get_json(url: str) -> Any:
    """The body of a 200 answer."""
    status, body = get(url)
    assert status == 200, f"{url}: {status} {body[:500]!r}"
    return json.loads(body)


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """A command that runs a module with the interpreter of the tests."""
    return (sys.executable, "-m", module, *arguments)


def environment(**more: str) -> dict[str, str]:
    """That of the tests, without settings of OpenTelemetry that would make two runs differ."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "JAEGER_"))}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "NO_PROXY": HOST, "no_proxy": HOST, **more}


class Server:
    """A process that runs until it is stopped."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait_until(self, condition: Callable[[], T], what: str, timeout_s: float = READY_S_MAX) -> T:
        """As `until`; the end of the process is a failure at once."""

        def alive_and_true() -> T:
            if self.ended:
                pytest.fail(f"{self.name} ended with {self.process.returncode}, not {what}:\n{self.text()[-2000:]}")
            return condition()

        return until(alive_and_true, f"{self.name}: {what}", timeout_s)

    def wait(self, timeout_s: float = STOP_S_MAX) -> int:
        """The exit code, once the process ends by itself."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} was still running after {timeout_s:.0f} s:\n{self.text()[-2000:]}")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait until its ports are free."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after a while; may be called twice."""
        if not self.ended:
            self.terminate()
            try:
                self.process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self.kill()

    def text(self) -> str:
        """All it has printed."""
        return self.log.read_text("utf-8", "replace")


class Launcher(AbstractContextManager["Launcher"]):
    """Starts processes in a folder of its own, stops them in reverse order, and remembers their logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: list[Server] = []

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> Server:
        server = Server(name, command, self.folder, environment() if env is None else env)
        self.servers.append(server)
        return server

    def logs(self) -> list[tuple[str, str]]:
        """The end of every log; a process that was started again continues its log."""
        by_name = {server.name: server for server in self.servers}
        return [(name, server.text()[-LOG_CHARACTERS_SHOWN:]) for name, server in by_name.items()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server in reversed(self.servers):
            server.stop()


class Jaeger:
    """Jaeger v2 with traces in memory; `kill` and `start` leave the ports and lose the traces."""

    def __init__(self, launcher: Launcher, request_mib_max: int = 64) -> None:
        self._launcher = launcher
        self._binary = peer("jaeger")
        self._limit = f"yaml:receivers::otlp::protocols::grpc::max_recv_msg_size_mib: {request_mib_max}"
        self.otlp, self.otlp_http, self._query, self._query_grpc, self._health = free_ports(5)
        self.server = self.start()

    def start(self) -> Server:
        ports = {
            "JAEGER_OTLP_GRPC_PORT": self.otlp,
            "JAEGER_OTLP_HTTP_PORT": self.otlp_http,
            "JAEGER_QUERY_HTTP_PORT": self._query,
            "JAEGER_QUERY_GRPC_PORT": self._query_grpc,
            "JAEGER_HEALTH_PORT": self._health,
        }
        env = environment(OTEL_TRACES_SAMPLER="always_off", **{name: str(port) for name, port in ports.items()})
        config = REPOSITORY / "tests" / "e2e" / "jaeger.yaml"
        self.server = self._launcher.start(
            "jaeger", (self._binary, "--config", str(config), "--config", self._limit), env
        )
        self.server.wait_until(lambda: get(f"http://{HOST}:{self._health}/status")[0] == 200, "ready")
        return self.server

    @property
    def api(self) -> JaegerApi:
        return JaegerApi(self._query)


@dataclass(frozen=True, slots=True)
class JaegerApi:
    """What Jaeger's query API on this port has stored."""

    port: int

    def traces(self, service: str, limit: int = 1000) -> list[Json]:
        """The traces of a service, as Jaeger's page shows them."""
        url = f"http://{HOST}:{self.port}/api/traces?service={service}&limit={limit}&lookback=1h"
        return list(get_json(url)["data"] or [])

    def trace(self, trace_id: str) -> Json:
        """One trace, as OTLP JSON."""
        result: Json = get_json(f"http://{HOST}:{self.port}/api/v3/traces/{trace_id}")["result"]
        return result


class Prometheus:
    """Scrapes the targets every second, and keeps exemplars."""

    def __init__(self, launcher: Launcher, targets: Mapping[str, int]) -> None:
        [port] = free_ports(1)
        self.url = f"http://{HOST}:{port}"
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"{HOST}:{target}"]}]}
                for job, target in targets.items()
            ],
        }
        path = launcher.folder / "prometheus.yaml"
        path.write_text(json.dumps(config))
        command = (
            peer("prometheus"),
            f"--config.file={path}",
            f"--storage.tsdb.path={launcher.folder / 'prometheus'}",
            f"--web.listen-address={HOST}:{port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        )
        self.server = launcher.start("prometheus", command)
        self.server.wait_until(lambda: get(f"{self.url}/-/ready")[0] == 200, "ready")

    def query(self, expression: str) -> list[Json]:
        """The result of a PromQL expression now."""
        answer = get_json(f"{self.url}/api/v1/query?query={quote(expression)}")
        return list(answer["data"]["result"])

    def number(self, expression: str) -> float:
        """The one number that the expression has as its result; nothing is 0."""
        result = self.query(expression)
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else 0.0

    def exemplars(self, expression: str) -> list[Json]:
        """The exemplars of the last hour."""
        now = int(time.time())
        span = f"start={now - 3600}&end={now + 60}"
        return list(get_json(f"{self.url}/api/v1/query_exemplars?query={quote(expression)}&{span}")["data"])
