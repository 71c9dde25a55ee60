"""A RabbitMQ node of a test's own: loopback, ports that the system chose, data in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import pika
import pytest

from tests.support.net import free_endpoint

SERVER: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Not the one on PATH: that changes to the user of the system's service."""
START_S: Final = 60.0


def _free_port() -> int:
    return int(free_endpoint().rpartition(":")[2])


class RabbitMq:
    """Starts with the constructor."""

    def __init__(self, folder: Path) -> None:
        if not SERVER.exists():
            if os.environ.get("CI"):
                pytest.fail("no RabbitMQ: scripts/install-peers rabbitmq")
            pytest.skip("no RabbitMQ: scripts/install-peers rabbitmq")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = _free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        (folder / "plugins").write_text("[].\n", "utf-8")
        (folder / "rabbitmq.conf").write_text("loopback_users = none\nlog.console = true\n", "utf-8")
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),  # of the Erlang cookie
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(_free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
            "ERL_EPMD_PORT": str(_free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        with (folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [str(SERVER)], env=self._environment, stdout=output, stderr=output, start_new_session=True
            )
        self._output = folder / "output"
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(pika.exceptions.AMQPError):
                pika.BlockingConnection(pika.URLParameters(self.url)).close()
                return
            time.sleep(0.1)
        self.stop()
        raise AssertionError(f"RabbitMQ did not start\n{self._output.read_text('utf-8')[-2000:]}")

    def stop(self) -> None:
        """Ends the node and the port mapper that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        mapper = shutil.which("epmd")
        if mapper is not None:
            subprocess.run([mapper, "-kill"], env=self._environment, capture_output=True, check=False, timeout=10)
