# ruff: noqa: PLC0415
# A flow imports its library itself: with our hooks in place, and only if it is run.
"""What programs call of ours, and what is asked or let go behind their backs."""

from __future__ import annotations

import functools
import gc
from typing import Any

from tests.support.worker_battery.core import TEXT, World, asynchronous, flow, in_a_job

KEY = "current_comfyui_url"


class Away:
    """A client whose server is away."""

    def get(self, _: str) -> None:
        raise ConnectionError("refused")


@in_a_job
def urls(world: World) -> Any:
    from otel_pipeline.worker.comfyui.discovery import ComfyUIURL

    client = world.redis()
    client.set(KEY, "http://gpu-1:8188/")
    known, away = ComfyUIURL(client), ComfyUIURL(Away(), default="http://gpu-2:8188")
    seen = [known.get(), known.get(), known.failures, away.get(), away.get(), away.failures]
    client.close()
    return seen


@asynchronous
async def urls_awaited(world: World) -> Any:
    from otel_pipeline.worker.comfyui.discovery import AsyncComfyUIURL

    client = world.async_redis()
    await client.flushdb()
    await client.set(KEY, "http://gpu-1:8188/")
    known, away = AsyncComfyUIURL(client), AsyncComfyUIURL(Away())
    seen = [await known.get(), await known.get(), known.failures, await away.get(), away.failures]
    await client.aclose()
    return seen


@flow
def metrics_read(_: World) -> Any:
    """A reader of metrics, with one of the program's own."""
    from opentelemetry.metrics import Observation

    from tests.support.worker_battery.server_flows import _execution

    reader, meter = _metrics()
    queue = _execution().PromptQueue()
    queue.queue, queue.currently_running = [1, 2], {}
    queue.put((0, "prompt-1", {}, {}, ["9"]))
    meter.create_observable_gauge("host.busy", [lambda _: [Observation(3)]])
    found = reader.get_metrics_data()
    values = [
        (metric.name, [point.value for point in metric.data.data_points])
        for of_resource in found.resource_metrics
        for of_scope in of_resource.scope_metrics
        for metric in of_scope.metrics
        if metric.name.startswith("host.")
    ]
    return [values, queue.items]


@functools.cache
def _metrics() -> tuple[Any, Any]:
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    return reader, metrics.get_meter("host")


@flow
def batches_given_up(world: World) -> Any:
    """Read in part, then let go of; nothing but the collector finds the rest."""
    import threading

    client, seen = world.redis(), list[Any]()
    client.rpush("jobs:queue", TEXT, "second", "third", "fourth")

    def work() -> None:
        batch = client.lpop("jobs:queue", 3)
        for each in batch:
            seen.append(each)
            break
        circle = [batch]
        circle.append(circle)

    gc.disable()
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        gc.collect()
    finally:
        gc.enable()
    seen.append(client.lpop("jobs:queue"))
    client.close()
    return seen
