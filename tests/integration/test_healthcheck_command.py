"""`otel-pipeline healthcheck` against a server that answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from click.testing import CliRunner, Result

from otel_pipeline.commands import command_line


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(command_line, arguments)


@dataclass
class Health:
    port: int
    status: int = 200
    body: bytes = b'{"status": "ready"}'


@pytest.fixture
def health() -> Iterator[Health]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer.status if self.path == "/" else 404)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        answer = Health(server.server_port)
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield answer
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "", "0.0.0.0"])  # noqa: S104  nothing listens there
def test_healthcheck_ends_with_0_when_ready(health: Health, host: str) -> None:
    result = invoke("healthcheck", "--endpoint", f"{host}:{health.port}")
    assert (result.exit_code, result.stdout) == (0, '200 OK: {"status": "ready"}\n')


def test_healthcheck_ends_with_1_and_the_reason_when_not_ready(health: Health) -> None:
    health.status, health.body = 503, b"outbox: full"
    result = invoke("healthcheck", "--endpoint", f"127.0.0.1:{health.port}")
    assert (result.exit_code, result.stderr) == (1, "503 Service Unavailable: outbox: full\n")


def test_healthcheck_ends_with_1_when_nobody_answers(health: Health) -> None:
    unused = invoke("healthcheck", "--endpoint", "127.0.0.1:1")
    assert unused.exit_code == 1
    assert unused.stderr.startswith("127.0.0.1:1 does not answer")
    assert invoke("healthcheck", "--endpoint", f"127.0.0.1:{health.port}", "--path", "/x").exit_code == 1
