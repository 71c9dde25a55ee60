"""Loopback only: free ports, and aiohttp applications that live as long as a `with` block."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

HOST: Final = "127.0.0.1"
SHUTDOWN_S: Final = 1.0
"""How long a stand-in waits for open requests when it stops; aiohttp's 60 s would hold up every stop."""


@asynccontextmanager
async def serving(app: web.Application, port: int = 0) -> AsyncIterator[str]:
    """Serves the application and yields its base URL; port 0 takes any free one."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def serve_forever(app: web.Application, port: int) -> None:
    """Serves the application until Ctrl-C or SIGTERM."""
    print(f"http://{HOST}:{port}", flush=True)
    web.run_app(app, host=HOST, port=port, print=None, access_log=None)


def free_ports(wanted: Mapping[str, int]) -> dict[str, int]:
    """A port for each name, all different: the wanted one, or any free one if somebody listens there (0: any)."""
    ports: dict[str, int] = {}
    for name, wish in wanted.items():
        port = wish
        while port == 0 or port in ports.values() or not _is_free(port):
            port = _any_port()
        ports[name] = port
    return ports


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    # Asked for all addresses: somebody who listens on 0.0.0.0 does not keep us from binding 127.0.0.1 everywhere.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
