"""What nobody else measures: how deep the queues are, whether the ComfyUI servers answer.

In a worker, a daemon thread does it where OTEL_PIPELINE_SAMPLE_QUEUES or OTEL_PIPELINE_SAMPLE_BACKENDS is set. Beside
the workers, a command does, with the exporter that the environment names (OTEL_EXPORTER_OTLP_ENDPOINT ...):

    python -m otel_pipeline.worker.samplers --redis-url redis://redis:6379/0 --queue video_orchestrator:queue \\
        --queue tts:jobs=tts --backend local=http://comfyui:8188

A queue is `key` or `key=stage`, a backend `URL` or `name=URL`. Values older than three rounds are not shown any more.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry import metrics
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.metrics import CallbackOptions, Observation

from otel_pipeline import __version__
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.settings import settings

ANSWER_S_MAX: Final = 5.0
"""How long a server may take to answer; after that it counts as away."""
ROUNDS_SHOWN: Final = 3
STAGE: Final = "waiting"
"""Of a queue for which no stage is given."""
ACTIVE: Final = "active"
"""Elements of a stream that a consumer holds and has not acknowledged."""
GROUPS_MAX: Final = 100
"""Consumer groups of a stream that are looked at."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Queue:
    """A Redis key."""

    key: str
    stage: str = STAGE

    @classmethod
    def parse(cls, text: str) -> Queue:
        key, _, stage = text.partition("=")
        return cls(key, stage or STAGE)


@dataclass(frozen=True, slots=True)
class Backend:
    """A ComfyUI server."""

    name: str
    url: str

    @classmethod
    def parse(cls, text: str) -> Backend:
        name, separator, url = text.partition("=")
        if not separator or "://" in name:
            name, url = "", text
        url = url if "://" in url else f"http://{url}"
        return cls(name or urlsplit(url).netloc.rpartition("@")[2], url.rstrip("/"))


class Readings:
    """The newest values of each gauge, with their time."""

    def __init__(self, kept_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept_s = kept_s
        self._clock = clock
        self._values: dict[str, dict[Labels, tuple[float, float]]] = {}
        self._lock = threading.Lock()

    def set(self, gauge: str, value: float, **labels: str) -> None:
        """Keeps one value."""
        with self._lock:
            self._values.setdefault(gauge, {})[tuple(sorted(labels.items()))] = (value, self._clock())

    def observe(self, gauge: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """The callback of an instrument."""

        def callback(_options: CallbackOptions) -> Iterable[Observation]:
            now_s = self._clock()
            with self._lock:
                current = list(self._values.get(gauge, {}).items())
            return [
                Observation(value, dict(labels)) for labels, (value, at_s) in current if now_s - at_s < self._kept_s
            ]

        return callback


class Sampler:
    """Reads all queues and backends, round after round."""

    def __init__(self, redis_url: str, queues: Sequence[Queue], backends: Sequence[Backend], interval_s: float) -> None:
        self._redis_url = redis_url
        self._queues = queues
        self._backends = backends
        self._interval_s = interval_s
        self._readings = Readings(interval_s * ROUNDS_SHOWN)
        self._redis: Any = None
        meter = metrics.get_meter("otel_pipeline.worker", __version__)
        self._redis_errors = meter.create_counter("redis.errors", description="Redis commands that failed.")
        for name, text in GAUGES.items():
            meter.create_observable_gauge(name, [self._readings.observe(name)], description=text)

    def run(self, stop: threading.Event) -> None:
        """Samples until it is told to stop."""
        with suppress_instrumentation():
            while True:
                self.round()
                if stop.wait(self._interval_s):
                    return

    def round(self) -> None:
        """Reads each once; one that fails leaves the others alone."""
        for queue in self._queues:
            if _depth(self, queue) is None:
                self._redis_errors.add(1)
        for backend in self._backends:
            self._readings.set("comfyui_backend_health", float(answers(backend.url)), backend=backend.name)

    def depth(self, queue: Queue) -> bool:
        """Reads one queue."""
        depths = depth_of(self._client(), queue.key)
        stages = {queue.stage if stage == STAGE else stage: count for stage, count in depths.items()}
        for stage, count in stages.items():
            self._readings.set("queue_depth", count, queue=queue.key, stage=stage)
        self._readings.set("job_queue_size", sum(stages.values()), queue_name=queue.key)
        return True

    def _client(self) -> Any:
        if self._redis is None:
            import redis  # noqa: PLC0415  the worker's own, if it has one

            self._redis = redis.Redis.from_url(
                self._redis_url, socket_timeout=ANSWER_S_MAX, socket_connect_timeout=ANSWER_S_MAX
            )
        return self._redis


GAUGES: Final = {
    "queue_depth": "Jobs in a queue.",
    "job_queue_size": "Jobs in a queue, all stages together.",
    "comfyui_backend_health": "1 if the server answers, 0 if not.",
}


@hook("samplers.depth")
def _depth(sampler: Sampler, queue: Queue) -> bool:
    return sampler.depth(queue)


def depth_of(client: Any, key: str) -> Mapping[str, int]:
    """Elements of a list, sorted set or stream by stage; those of a stream that a group still has to read or to
    acknowledge, if it tells: a stream keeps what is done.
    """
    kind = client.type(key)
    kind = kind.decode() if isinstance(kind, bytes) else kind
    if kind == "list":
        return {STAGE: client.llen(key)}
    if kind == "zset":
        return {STAGE: client.zcard(key)}
    if kind != "stream":
        return {STAGE: 0}
    groups = client.xinfo_groups(key)[:GROUPS_MAX]
    lags = [group.get("lag") for group in groups]
    if not groups or None in lags:
        return {STAGE: client.xlen(key)}
    return {STAGE: max(lags), ACTIVE: max(int(group.get("pending", 0)) for group in groups)}


def answers(url: str) -> bool:
    """Whether a ComfyUI server answers; any way in which it does not is the same."""
    if not url.startswith(("http://", "https://")):
        return False
    try:
        with urllib.request.urlopen(f"{url}/system_stats", timeout=ANSWER_S_MAX) as answer:  # noqa: S310  see above
            return bool(answer.status == 200)
    except Exception:  # noqa: BLE001  refused, timed out, no HTTP, a status of an error
        return False


# -- in a worker -------------------------------------------------------------------------------------------------------


@hook("samplers.install")
def install() -> None:
    """Starts the thread if the operator asks for it."""
    set_up = settings()
    queues = [Queue.parse(text) for text in set_up.sample_queues] if set_up.sample_redis_url else []
    backends = [Backend.parse(text) for text in set_up.sample_backends]
    if not queues and not backends:
        return
    sampler = Sampler(set_up.sample_redis_url, queues, backends, set_up.sample_interval_s)
    threading.Thread(target=sampler.run, args=(threading.Event(),), name="otel_pipeline-sampler", daemon=True).start()


# -- as a command ------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Samples until SIGTERM or SIGINT; the exit code."""
    parser = argparse.ArgumentParser("otel_pipeline.worker.samplers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--redis-url", default=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
    parser.add_argument("--queue", action="append", default=[], metavar="KEY[=STAGE]")
    parser.add_argument("--backend", action="append", default=[], metavar="[NAME=]URL")
    parser.add_argument("--interval", type=float, default=settings().sample_interval_s, metavar="SECONDS")
    given = parser.parse_args(arguments)
    if not given.queue and not given.backend:
        parser.error("nothing to sample: give --queue or --backend")
    if given.interval <= 0:
        parser.error("--interval is a positive number of seconds")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    provider = _provider(given.interval)
    queues, backends = [Queue.parse(text) for text in given.queue], [Backend.parse(text) for text in given.backend]
    Sampler(given.redis_url, queues, backends, given.interval).run(stop)
    if provider is not None:
        provider.shutdown(timeout_millis=settings().exit_timeout_s * 1000)
    return 0


def _provider(interval_s: float) -> Any:
    """A meter provider with the exporter of the environment, unless opentelemetry-instrument has set one."""
    if callable(getattr(metrics.get_meter_provider(), "force_flush", None)):
        return None
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415  only the command needs an SDK
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415

    reader = PeriodicExportingMetricReader(_exporter(), export_interval_millis=interval_s * 1000)
    os.environ.setdefault("OTEL_SERVICE_NAME", "otel_pipeline-samplers")
    provider = MeterProvider([reader], Resource.create(), shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return provider


def _exporter() -> Any:
    name = "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"
    protocol = os.environ.get(name) or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: PLC0415

        return OTLPMetricExporter()
    from opentelemetry.exporter.otlp.proto.http import metric_exporter  # noqa: PLC0415

    return metric_exporter.OTLPMetricExporter()


if __name__ == "__main__":
    raise SystemExit(main())
