"""The GPUs of the demo: samples as an agent's, of a driver that is made up and says so."""

from __future__ import annotations

import httpx
import pytest

from otel_pipeline.demo import gpus
from otel_pipeline.gpu.hardware import to_request
from otel_pipeline.gpu.ingest import Samples
from otel_pipeline.gpu.ingest import read as read_samples
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.nvml.pacing import Clock
from otel_pipeline.nvml.sampler import Sampler
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal

UNIX_NS = 1_790_000_000 * 10**9
HOST = {"host.id": "h1"}


class Machine:
    """Two simulated GPUs on a clock that stands still, and what a gateway reads of their samples."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.is_busy = False
        clock = Clock(self._unix_ns, self._steady_ns, self._steady_ns)
        boards = [
            gpus.Board(gpus.BUSY_ID, lambda: self.is_busy, self._now_s),
            gpus.Board(gpus.IDLE_ID, lambda: False, self._now_s),
        ]
        self._sampler = Sampler(module=lambda: gpus.driver(boards), clock=clock)

    def run(self, seconds: float) -> None:
        """Sample for so long."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self._sampler.poll()
            self.now_s = round(self.now_s + 0.1, 3)

    def samples(self) -> Samples:
        request = to_request(self._sampler.take(), HOST)
        return read_samples(BatchReader(Signal.METRICS, frozenset()).read([request])[0])

    def _now_s(self) -> float:
        return self.now_s

    def _steady_ns(self) -> int:
        return int(self.now_s * 1e9)

    def _unix_ns(self) -> int:
        return UNIX_NS + self._steady_ns()


def of(samples: Samples, gpu: str, quantity: Quantity) -> list[float]:
    return [
        float(value)
        for block in samples.blocks
        if (block.gpu, block.quantity) == (gpu, quantity)
        for value in block.values
    ]


def test_a_gateway_reads_two_gpus_whose_names_say_that_they_are_simulated() -> None:
    machine = Machine()
    machine.run(1)
    devices = {device.gpu: device for device in machine.samples().devices if device.name}
    assert devices.keys() == {gpus.BUSY_ID, gpus.IDLE_ID}
    assert {device.hosts for device in devices.values()} == {("h1",)}
    assert all(device.name.startswith("Simulated ") for device in devices.values())


def test_only_one_of_them_is_busy_and_only_while_there_is_work() -> None:
    machine = Machine()
    machine.run(2)
    assert set(of(machine.samples(), gpus.BUSY_ID, Quantity.UTILIZATION)) == {0.0}
    machine.is_busy = True
    machine.run(2)
    samples = machine.samples()
    assert set(of(samples, gpus.BUSY_ID, Quantity.UTILIZATION)) == {gpus.BUSY_PERCENT / 100}
    assert set(of(samples, gpus.IDLE_ID, Quantity.UTILIZATION)) == {0.0}


def test_its_energy_is_its_power_over_time() -> None:
    machine = Machine()
    machine.run(1)
    first = of(machine.samples(), gpus.BUSY_ID, Quantity.ENERGY)
    machine.is_busy = True
    machine.run(3)
    last = of(machine.samples(), gpus.BUSY_ID, Quantity.ENERGY)
    assert first == sorted(first)
    assert last[-1] - last[0] == pytest.approx(gpus.BUSY_W * 2.9, abs=0.01)


@pytest.mark.parametrize(
    ("answer", "works"),
    [
        (httpx.Response(200, json={"exec_info": {"queue_remaining": 1}}), True),
        (httpx.Response(200, json={"exec_info": {"queue_remaining": 0}}), False),
        (httpx.Response(502, text="bad gateway"), False),
    ],
)
def test_work_is_what_waits_or_runs_in_comfyui(answer: httpx.Response, works: bool) -> None:  # noqa: FBT001
    with httpx.Client(transport=httpx.MockTransport(lambda _: answer)) as http:
        assert gpus.is_working(http, "http://comfyui") is works


def test_a_comfyui_that_is_away_has_no_work() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with httpx.Client(transport=httpx.MockTransport(refuse)) as http:
        assert gpus.is_working(http, "http://comfyui") is False
