"""The `nvml` receiver: samples the NVIDIA GPUs of this machine and hands the samples in as OTLP metrics.

A thread samples (`nvml/runner.py`) and makes a request of each reading. A task on the event loop hands the requests in,
one after the other: what the door refuses for now waits here, and of too much the oldest goes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from otel_pipeline.contracts import Accepted, Rejected, Settings
from otel_pipeline.gpu.hardware import host_attributes, to_request
from otel_pipeline.limits import NVML_WAITING_BYTES_MAX
from otel_pipeline.nvml.claims import Claims
from otel_pipeline.nvml.pacing import Pacing
from otel_pipeline.nvml.runner import Runner
from otel_pipeline.nvml.sampler import Sampler
from otel_pipeline.nvml.samples import Quantity
from otel_pipeline.quiet import Quiet
from otel_pipeline.settings import Duration
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline.contracts import Context, Entrance
    from otel_pipeline.nvml.conventions import Value
    from otel_pipeline.nvml.samples import Failure, Reading

log = logging.getLogger(__name__)

POLL_S: Final = 0.02


class NvmlReceiver:
    """Runs the sampler and hands in what it reads."""

    class Config(Settings):
        """Samples the NVIDIA GPUs of this machine; needs the package nvidia-ml-py (`otel-pipeline[nvidia]`). Without a
        driver it runs on, says so in `otel_pipeline.gpu.available`, and tries again."""

        collection_interval: Annotated[Duration, Field(ge=0.01, le=60)] = 0.1
        """How often utilization, power, energy and memory are sampled. What the driver samples by itself is fetched
        instead, and joined to this interval; the rest is sampled once a second or less often."""
        flush_interval: Annotated[Duration, Field(ge=0.1, le=10)] = 1.0
        """How often samples are handed in."""
        retry_interval: Annotated[Duration, Field(ge=1)] = 60.0
        """How long to wait before a driver that cannot be opened, or a GPU that is lost, is tried again."""
        quantities: list[Quantity] = Field(default_factory=lambda: list(Quantity), min_length=1)
        """What is sampled."""
        service_name: Annotated[str, Field(min_length=1)] = "otel_pipeline-gpus"
        """`service.name` of the metrics; the rest of their resource tells the host."""

    def __init__(self, config: Config, context: Context, entrances: Mapping[str, Mapping[Signal, Entrance]]) -> None:
        self._config = config
        self._loop = context.loop
        self._entrance = entrances["http"][Signal.METRICS]
        self._counted = context.stats.nvml_readings
        self._id = context.component_id
        self._quiet = Quiet(log)
        self._claims = Claims("agent")
        self._waiting = Waiting(NVML_WAITING_BYTES_MAX)
        self._resource: dict[str, Value] = {}
        self._failures: tuple[Failure, ...] = ()
        self._runner: Runner | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to sample. It never fails: a machine without a GPU may get one."""
        host = host_attributes()
        instance = str(host.get("host.id") or host.get("host.name") or "")
        self._resource = {"service.name": self._config.service_name, "service.instance.id": instance, **host}
        pacing = Pacing(self._config.collection_interval, retry_s=self._config.retry_interval)
        wanted = frozenset(self._config.quantities)
        sampler = Sampler(pacing, quantities=wanted, takes=self._claims.announce)
        self._runner = Runner(sampler, self._take, self._config.flush_interval)
        self._task = self._loop.run(self._begin())
        self._runner.start()

    def stop(self, grace_s: float) -> None:
        """Sample no more; what was sampled is handed in within the grace, or given up. May be called twice."""
        deadline_s = time.monotonic() + grace_s
        if self._runner is not None:
            self._runner.stop(grace_s / 2)
        while self._task is not None and self._waiting and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
        if self._task is not None and self._loop.running:
            self._loop.run(_ended(self._task))
        self._task = None
        self._claims.release()
        self._count("dropped", self._waiting.clear())

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _take(self, reading: Reading) -> None:
        self._tell(reading)
        self._count("dropped", self._waiting.put(to_request(reading, self._resource)))

    def _tell(self, reading: Reading) -> None:
        """Log what changed, once."""
        for failure in set(reading.failures) - set(self._failures):
            what = f"GPU {failure.device}" if failure.device else "GPUs"
            log.warning("receiver %s: %s cannot be read: %s: %s", self._id, what, failure.code, failure.reason)
        if self._failures and not reading.failures:
            log.info("receiver %s: all GPUs can be read again", self._id)
        self._failures = reading.failures

    # -- on the event loop ---------------------------------------------------------------------------------------------

    async def _begin(self) -> asyncio.Task[None]:
        self._waiting.attach()
        return asyncio.create_task(self._hand_in(), name="nvml")

    async def _hand_in(self) -> None:
        while True:
            request = await self._waiting.first()
            try:
                verdict = await self._entrance.accept(request)
            except Exception:  # noqa: BLE001 - the next one may do better
                self._quiet.exception("receiver %s: a reading cannot be handed in", self._id)
                verdict = Rejected("failed")
            if isinstance(verdict, Accepted | Rejected):
                self._waiting.done(request)
                self._count("ok" if isinstance(verdict, Accepted) else "rejected", 1)
            else:
                self._count("retry_later", 1)
                await asyncio.sleep(verdict.delay_s)

    def _count(self, outcome: str, readings: int) -> None:
        if readings:
            self._counted.labels(self._id, outcome).inc(readings)


class Waiting:
    """Requests that wait to be handed in, by bytes at most. `put` is for the sampler's thread, the rest for the loop,
    but for `clear` after both have ended.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._requests: deque[bytes] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._filled: asyncio.Event | None = None

    def __bool__(self) -> bool:
        return bool(self._requests)

    def attach(self) -> None:
        """On the event loop, before anything else."""
        self._loop, self._filled = asyncio.get_running_loop(), asyncio.Event()

    def put(self, request: bytes) -> int:
        """Add one; returns how many of the oldest had to go for it."""
        gone = 0
        with self._lock:
            self._requests.append(request)
            self._bytes += len(request)
            while self._bytes > self._bytes_max and len(self._requests) > 1:
                self._bytes -= len(self._requests.popleft())
                gone += 1
        if self._loop is not None and self._filled is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._filled.set)
        return gone

    async def first(self) -> bytes:
        """The oldest, when there is one. It stays until it is done."""
        assert self._filled is not None, "attach comes first"
        while True:
            self._filled.clear()
            with self._lock:
                if self._requests:
                    return self._requests[0]
            await self._filled.wait()

    def done(self, request: bytes) -> None:
        """This one was handed in. It may have had to go meanwhile."""
        with self._lock:
            if self._requests and self._requests[0] is request:
                self._bytes -= len(self._requests.popleft())

    def clear(self) -> int:
        """Drop all; returns how many."""
        with self._lock:
            gone, self._bytes = len(self._requests), 0
            self._requests.clear()
        return gone


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
