"""The GPUs of a rented pod or a serverless worker, where no agent can run on the host: the worker samples them and
sends the same metrics as an agent, through the exporter that the process has for its own metrics.

OTEL_PIPELINE_GPU_SAMPLING: `auto` samples where pynvml is installed, NVML shows GPUs, and nobody else samples them: no
agent in the same network namespace has announced it, and no other worker was first (`nvml/claims.py`). `on` samples
whatever others do, and reports when there is nothing to sample; `off` does not.

Two daemon threads: one samples, one sends. A gateway that is away costs the oldest readings, not the next ones.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_pipeline import __version__
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.process import lifecycle
from otel_pipeline.worker.settings import settings

if TYPE_CHECKING:
    from otel_pipeline.nvml.conventions import Instrument, Points
    from otel_pipeline.nvml.samples import Reading

FLUSH_S: Final = 2.0
"""How often readings are sent: a serverless worker may be stopped a few seconds after its job."""
READINGS_MAX: Final = 60
"""Readings that wait for the exporter: two minutes, about 1 MB for each GPU at 10 Hz."""
DATA: Final = "opentelemetry.sdk.metrics.export"


HOPELESS: Final = frozenset({"LIBRARY_NOT_FOUND", "NO_PYNVML"})
"""There is no driver in this container, and none will come."""


@hook("gpu_sampling.install")
def install() -> None:
    """Starts it if it is wanted and possible."""
    chosen = settings().gpu_sampling
    if chosen == "off" or importlib.util.find_spec("pynvml") is None or not _readers():
        return
    sampling = Sampling(is_asked_for=chosen == "on")
    os.register_at_fork(after_in_child=functools.partial(_forget, sampling))
    lifecycle.closing.append(functools.partial(_stop, sampling))
    sampling.start()


@hook("gpu_sampling.forget")
def _forget(sampling: Sampling) -> None:
    sampling.claims.release()


@hook("gpu_sampling.stop")
def _stop(sampling: Sampling) -> None:
    sampling.stop(settings().flush_timeout_s / 2)


class Sampling:
    """Both threads, and what waits between them."""

    def __init__(self, *, is_asked_for: bool) -> None:
        from otel_pipeline.nvml.claims import Claims  # noqa: PLC0415  who does not sample does not load it
        from otel_pipeline.nvml.runner import Runner  # noqa: PLC0415
        from otel_pipeline.nvml.sampler import Sampler  # noqa: PLC0415
        from otel_pipeline.nvml.samples import Quantity  # noqa: PLC0415

        self._pid = os.getpid()
        self.claims = Claims("worker")
        self._is_asked_for = is_asked_for
        takes = self.claims.announce if is_asked_for else self.claims.take
        # In a container the driver tells the host's process ids, which mean nothing here.
        wanted = frozenset(Quantity) - {Quantity.PROCESS_MEMORY, Quantity.PROCESS_UTILIZATION}
        self._runner = Runner(Sampler(quantities=wanted, takes=takes), self._put, FLUSH_S)
        self._waiting: deque[Reading | None] = deque(maxlen=READINGS_MAX)
        self._filled = threading.Event()
        self._sender = threading.Thread(target=self._run, name="otel_pipeline-gpus-out", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._sender.start()
        self._runner.start()

    def stop(self, timeout_s: float) -> None:
        """Send what was sampled and end, as far as there is time for it. A forked child has nothing to end: the threads
        are its parent's, and their locks may have been held when it was forked.
        """
        if os.getpid() != self._pid:
            return
        deadline_s = time.monotonic() + timeout_s
        self._runner.stop(timeout_s)
        self._hand_over(None)
        if self._sender.is_alive():
            self._sender.join(max(0.0, deadline_s - time.monotonic()))

    def _put(self, reading: Reading) -> None:
        """In the sampler's thread. A reading that tells of no device is not worth a request."""
        if not self._is_asked_for and any(failure.code in HOPELESS for failure in reading.failures):
            self._runner.stop(0.0)
            self._hand_over(None)
        elif reading.devices or (self._is_asked_for and reading.failures):
            self._hand_over(reading)

    def _hand_over(self, reading: Reading | None) -> None:
        self._waiting.append(reading)
        self._filled.set()

    def _run(self) -> None:
        with suppress_instrumentation():
            while True:
                self._filled.wait()
                self._filled.clear()
                while self._waiting:
                    reading = self._waiting.popleft()
                    if reading is None:
                        return
                    _send(reading)


@hook("gpu_sampling.send")
def _send(reading: Reading) -> bool:
    """Through every exporter that the process's own metrics leave by."""
    for reader, provider in _readers():
        with reader._export_lock:
            reader._exporter.export(to_data(reading, provider._sdk_config.resource))
    return True


def _readers() -> list[tuple[Any, Any]]:
    """Readers of the SDK that push, each with its provider; none where metrics are off or scraped."""
    provider = metrics.get_meter_provider()
    if DATA not in sys.modules or not hasattr(provider, "_sdk_config"):
        return []
    readers = getattr(provider, "_metric_readers", ())
    return [
        (reader, provider) for reader in readers if hasattr(reader, "_exporter") and hasattr(reader, "_export_lock")
    ]


def to_data(reading: Reading, resource: Any) -> Any:
    """The reading as the SDK's MetricsData, with a data point for each sample."""
    from otel_pipeline.nvml import conventions  # noqa: PLC0415

    sdk = sys.modules[DATA]
    scope = sys.modules["opentelemetry.sdk.util.instrumentation"].InstrumentationScope(conventions.SCOPE, __version__)
    own_clock = type(resource)({conventions.SENT_TIME: reading.taken_unix_nano})
    told = [_metric(sdk, instrument, points) for instrument, points in conventions.metrics(reading).items()]
    of_scope = sdk.ScopeMetrics(scope, told, "")
    return sdk.MetricsData([sdk.ResourceMetrics(resource.merge(own_clock), [of_scope], "")])


def _metric(sdk: Any, instrument: Instrument, all_points: list[Points]) -> Any:
    points = []
    for one in all_points:
        attributes = dict(one.attributes)
        points += [
            sdk.NumberDataPoint(attributes, one.started_unix_nano, time_ns, value)
            for time_ns, value in zip(one.times_unix_nano, one.values, strict=True)
        ]
    kind = instrument.kind.value
    data = (
        sdk.Gauge(points)
        if kind == "gauge"
        else sdk.Sum(points, sdk.AggregationTemporality.CUMULATIVE, kind == "counter")
    )
    return sdk.Metric(instrument.name, instrument.text, instrument.unit, data)
