"""Simulated GPUs: this machine may have none. Their samples go to the gateway over OTLP as an agent's would.

Sampler, metrics and resource are those of the receiver `nvml`; only the driver below them is made up, and each GPU says
so in its name. One is busy while the ComfyUI stand-in has prompts, the other is there, and nobody uses it.

    python -m otel_pipeline.demo.gpus --comfyui http://127.0.0.1:8188 --gateway http://127.0.0.1:4318
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import httpx

from otel_pipeline.gpu.hardware import host_attributes, to_request
from otel_pipeline.nvml.runner import Runner
from otel_pipeline.nvml.sampler import Sampler

if TYPE_CHECKING:
    from otel_pipeline.nvml.samples import Reading

NAME: Final = "Simulated RTX 4090"
BUSY_ID: Final = "GPU-51300000-0000-4000-8000-000000000001"
IDLE_ID: Final = "GPU-51300000-0000-4000-8000-000000000002"
SERVICE: Final = "simulated-gpus"
DRIVER_VERSION: Final = "simulated"

MEMORY_TOTAL_BYTES: Final = 24 * 1024**3
MEMORY_BUSY_BYTES: Final = 14 * 1024**3
MEMORY_IDLE_BYTES: Final = 1024**3
BUSY_W: Final = 320.0
IDLE_W: Final = 30.0
BUSY_PERCENT: Final = 97

FLUSH_S: Final = 0.5
"""Twice as often as an agent sends: spans wait for the samples of their last moments, and somebody watches."""
ASK_S_MAX: Final = 1.0
STOP_S_MAX: Final = 5.0


@dataclass(slots=True)
class Board:
    """One GPU: what its driver tells depends on whether it is busy when it is asked. For one thread."""

    uuid: str
    is_busy: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic
    _busy: bool = False
    _energy_j: float = 0.0
    _until_s: float | None = None

    def energy_mj(self) -> int:
        """The counter. Asked first of all in each round, so it is here that time goes on."""
        now_s, watts = self.clock(), self.power_w()
        if self._until_s is not None:
            self._energy_j += watts * (now_s - self._until_s)
        self._until_s, self._busy = now_s, self.is_busy()
        return int(self._energy_j * 1000)

    def power_w(self) -> float:
        return BUSY_W if self._busy else IDLE_W

    def memory(self) -> SimpleNamespace:
        return SimpleNamespace(total=MEMORY_TOTAL_BYTES, used=MEMORY_BUSY_BYTES if self._busy else MEMORY_IDLE_BYTES)

    def utilization(self) -> SimpleNamespace:
        """Percent."""
        return SimpleNamespace(gpu=BUSY_PERCENT if self._busy else 0, memory=0)


def driver(boards: Sequence[Board]) -> Any:
    """What stands for the module pynvml. It has a few of its functions; the sampler takes the others as not told."""
    return SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: DRIVER_VERSION,
        nvmlDeviceGetCount=lambda: len(boards),
        nvmlDeviceGetHandleByIndex=lambda index: boards[index],
        nvmlDeviceGetUUID=lambda board: board.uuid,
        nvmlDeviceGetName=lambda _board: NAME,
        nvmlDeviceGetSerial=lambda _board: "",
        nvmlDeviceGetMigMode=lambda _board: (0, 0),
        nvmlDeviceGetMemoryInfo=Board.memory,
        nvmlDeviceGetUtilizationRates=Board.utilization,
        nvmlDeviceGetPowerUsage=lambda board: board.power_w() * 1000,
        nvmlDeviceGetTotalEnergyConsumption=Board.energy_mj,
    )


def is_working(http: httpx.Client, comfyui: str) -> bool:
    """Whether the ComfyUI server there has prompts."""
    try:
        status = http.get(f"{comfyui}/prompt").json()
    except (httpx.HTTPError, ValueError):
        return False
    return bool(status["exec_info"]["queue_remaining"])


def sampling(http: httpx.Client, comfyui: str, gateway: str) -> Runner:
    """What samples both GPUs and sends the samples, once it is started. A request that fails is given up."""
    resource = {"service.name": SERVICE, **host_attributes()}
    boards = [Board(BUSY_ID, lambda: is_working(http, comfyui)), Board(IDLE_ID, lambda: False)]

    def send(reading: Reading) -> None:
        headers = {"content-type": "application/x-protobuf"}
        http.post(f"{gateway}/v1/metrics", content=to_request(reading, resource), headers=headers).raise_for_status()

    return Runner(Sampler(module=lambda: driver(boards)), send, FLUSH_S)


def main() -> None:
    parser = argparse.ArgumentParser(description="Sends samples of simulated GPUs to a gateway, as an agent would.")
    parser.add_argument("--comfyui", required=True, help="base URL of the ComfyUI server that keeps the GPU busy")
    parser.add_argument("--gateway", required=True, help="base URL of the gateway, OTLP over HTTP")
    arguments = parser.parse_args()
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    with httpx.Client(timeout=ASK_S_MAX, trust_env=False) as http:
        runner = sampling(http, arguments.comfyui, arguments.gateway)
        runner.start()
        over.wait()
        runner.stop(STOP_S_MAX)


if __name__ == "__main__":
    main()
