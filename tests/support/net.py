"""Ports, certificates and memory readings for tests over real sockets, all on loopback."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import trustme

from otel_pipeline.contracts import Context
from otel_pipeline.exposition.families import Exposition
from otel_pipeline.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline.event_loop import EventLoop


def free_endpoint() -> str:
    """An address on which nobody listens right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def context(http: EventLoop, clock: Callable[[], float] | None = None) -> Context:
    """What the gateway would hand to a component."""
    if clock is None:
        return Context("otlp", Stats(), Exposition(), http)
    return Context("otlp", Stats(), Exposition(), http, clock)


class Certificates:
    """An authority with a certificate for 127.0.0.1 and localhost and one for a client, as PEM files."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.ca_file = str(directory / "ca.pem")
        self.cert_file, self.key_file = str(directory / "server.pem"), str(directory / "server.key")
        self.client_cert_file, self.client_key_file = str(directory / "client.pem"), str(directory / "client.key")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        for issued, cert, key in (
            (authority.issue_cert("127.0.0.1", "localhost"), self.cert_file, self.key_file),
            (authority.issue_cert("worker@example.com"), self.client_cert_file, self.client_key_file),
        ):
            Path(cert).write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
            issued.private_key_pem.write_to_path(key)


class PeakMemory:
    """The highest resident size since it was made, in MiB above that moment's."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _status_kib("VmRSS")

    def growth_mib(self) -> float:
        """How far the peak is above the start."""
        return (_status_kib("VmHWM") - self._before) / 1024


def _status_kib(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(f"no {name}")
