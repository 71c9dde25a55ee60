"""A development server of Temporal of a test's own: loopback, ports that the system chose, data in memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.net import free_endpoint

ROOT: Final = Path(__file__).resolve().parents[2]
PEERS: Final = Path(os.environ.get("OTEL_PIPELINE_PEERS", ROOT / ".cache/peers")) / "bin"
START_S: Final = 60.0


@contextmanager
def temporal_server(folder: Path) -> Iterator[str]:
    """Its address."""
    program = shutil.which("temporal", path=os.pathsep.join([str(PEERS), os.environ["PATH"]]))
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Temporal: scripts/install-peers temporal")
    address, metrics = free_endpoint(), free_endpoint()
    port, metrics_port = address.rpartition(":")[2], metrics.rpartition(":")[2]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            f"{program} server start-dev --headless --ip 127.0.0.1 --port {port}"
            f" --metrics-port {metrics_port} --log-level error".split(),
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            stdout=output,
            stderr=output,
        )
    try:
        _wait(program, address, process)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _wait(program: str, address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        asked = [program, "operator", "namespace", "describe", "default", "--address", address]
        if subprocess.run(asked, capture_output=True, check=False, timeout=20).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError("Temporal did not start")
