"""CPU time of the processor `gpu_stats`: python -m tests.benchmarks.gpu_stats.

Process CPU time per span, medians. The spans are GPU stages of some seconds that just ended on one host; an hour of
samples of its GPUs at 10 Hz is in. What is measured beside the scan is the processor and the splicing of what it sets.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_pipeline.contracts import Context, Shared
from otel_pipeline.exposition.families import Exposition
from otel_pipeline.gpu.hardware import to_request
from otel_pipeline.gpu.ingest import Block, Device, Samples
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.memory import keep_freed_memory
from otel_pipeline.nvml.samples import Device as Seen
from otel_pipeline.nvml.samples import Quantity as Told
from otel_pipeline.nvml.samples import Reading, Series
from otel_pipeline.outbox_state import ParkedEntry
from otel_pipeline.processors.gpu_stats import GpuStatsProcessor
from otel_pipeline.stats import Stats
from otel_pipeline.wire.batch import Batch
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import any_value
from tests.benchmarks.payloads import SpanRequests

SECOND_NS: Final = 1_000_000_000
START_NS: Final = 1_790_000_000 * SECOND_NS
ROWS: Final = 36_000
"""Samples of each quantity: an hour at 10 Hz."""
NOW_NS: Final = START_NS + ROWS * SECOND_NS // 10
REQUESTS: Final = 16
SENT: Final = (Told.UTILIZATION, Told.MEMORY_UTILIZATION, Told.MEMORY_USED, Told.POWER, Told.ENERGY)
"""By the agent at full rate."""


def uuid(number: int) -> str:
    return f"GPU-{number:08d}-1111-2222-3333-444444444444"


class Bench:
    """The traces' half of a processor with samples of a host."""

    def __init__(self, gpus: int, directory: Path | None = None) -> None:
        self._shared = Shared()
        self.processor = self.half(Signal.TRACES, directory)
        self.reader = BatchReader(Signal.TRACES, self.processor.attributes(Signal.TRACES))
        chance = np.random.default_rng(1)
        times = START_NS + np.arange(1, ROWS + 1) * (SECOND_NS // 10)
        samples = Samples()
        for number in range(gpus):
            power = chance.uniform(100, 600, ROWS)
            columns = {
                Quantity.UTILIZATION: chance.random(ROWS),
                Quantity.MEMORY_USED: chance.uniform(1e9, 4e10, ROWS),
                Quantity.POWER: power,
                Quantity.ENERGY: np.cumsum(power) / 10,
            }
            samples.devices.append(Device(("pod",), uuid(number), number, "NVIDIA L40S"))
            samples.blocks += [Block(("pod",), uuid(number), key, times, one, "") for key, one in columns.items()]
        self.processor._take(samples, NOW_NS)

    def half(self, signal: Signal, directory: Path | None = None) -> GpuStatsProcessor:
        loop: Any = None
        context = Context(
            "gpu_stats", Stats(), Exposition(), loop, lambda: NOW_NS / 1e9, directory, signal, shared=self._shared
        )
        return GpuStatsProcessor(GpuStatsProcessor.Config(), context)

    def scan(self, request: bytes) -> Batch:
        return self.reader.read([request])[0]

    def process(self, batch: Batch) -> None:
        self.processor.process(batch)
        self.processor._unexplained.clear()

    def whole(self, request: bytes) -> bytes:
        batch = self.scan(request)
        self.process(batch)
        return batch.encode()


def requests(count: int, gpus: int, host: str = "pod", ended_s: float = 60.0, style: str = "text") -> list[bytes]:
    """Stages that ended 10 to `ended_s` seconds ago; on several GPUs each names its own, as text or as an array."""
    chance = np.random.default_rng(2)
    source = SpanRequests(count)
    found = []
    for number in range(REQUESTS):
        request = ExportTraceServiceRequest.FromString(source.request(number * count, NOW_NS))
        for group in request.resource_spans:
            group.resource.attributes.add(key="host.id").value.string_value = host
            for span in (span for scope in group.scope_spans for span in scope.spans):
                span.end_time_unix_nano = NOW_NS - int(chance.uniform(min(10.0, ended_s), ended_s) * SECOND_NS)
                span.start_time_unix_nano = span.end_time_unix_nano - int(chance.uniform(0.1, 10) * SECOND_NS)
                if gpus > 1 and style != "none":
                    gpu = uuid(int(chance.integers(gpus)))
                    key = "hw.id" if style == "text" else "otel_pipeline.gpu.ids"
                    span.attributes.add(key=key).value.CopyFrom(any_value(gpu if style == "text" else [gpu]))
        found.append(request.SerializeToString())
    return found


def main() -> None:
    keep_freed_memory()  # as the gateway does
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=512, help="spans in a batch")
    parser.add_argument("--repeats", type=int, default=300)
    options = parser.parse_args()
    count: int = options.spans
    print(f"{count} spans a batch, load {os.getloadavg()[0]:.1f}; us CPU per span, median (best)")
    for title, gpus, style in (
        ("1 GPU, the host's only one", 1, "text"),
        ("8 GPUs, each span names one as text", 8, "text"),
        ("8 GPUs, each span names one in an array", 8, "array"),
        ("8 GPUs, no span names one: ambiguous", 8, "none"),
    ):
        bench, sent = Bench(gpus), requests(count, gpus, style=style)
        scan = measured(sent, options.repeats, lambda one: one, bench.scan)
        process = measured(sent, options.repeats, bench.scan, bench.process)
        whole = measured(sent, options.repeats, lambda one: one, bench.whole)
        print(f"{title}:")
        for name, (middle, best) in (("scan alone", scan), ("processor", process), ("scan to bytes", whole)):
            print(f"  {name:<14} {middle / count:7.3f} ({best / count:.3f})", flush=True)
    bench = Bench(8)
    elsewhere = measured(requests(count, 8, host="elsewhere"), options.repeats, bench.scan, bench.process)
    print(f"a batch of hosts without GPUs: {elsewhere[0]:.1f} us a batch, {elsewhere[0] / count:.3f} a span")
    with tempfile.TemporaryDirectory() as folder:
        kept = Bench(8, Path(folder))
        sent = requests(count, 8, style="none")
        told = measured(sent, options.repeats, kept.scan, kept.process)
        print(f"ambiguous, and why is remembered: {told[0] / count:.3f} a span")
        kept.processor._journal.close()  # type: ignore[union-attr]
    parking(bench, count, options.repeats)
    taking(options.repeats)


def parking(bench: Bench, count: int, repeats: int) -> None:
    """Spans that ended just now are set aside, looked at, and joined when they are released."""
    sent = requests(count, 8, ended_s=0.01)
    park = measured(sent, repeats, bench.scan, bench.process)
    parked = bench.scan(sent[0])
    bench.processor.process(parked)
    (payload, items, note) = parked.parked[0]
    assert items == count

    def released(request: bytes) -> Batch:
        batch = bench.scan(request)
        batch.released = True
        return batch

    release = measured([payload], repeats, released, bench.process)
    scan = measured([payload], repeats, lambda one: one, bench.scan)
    print(
        f"parked: {park[0] / count:.3f} a span; released: scan {scan[0] / count:.3f}, joined {release[0] / count:.3f}"
    )
    entries = [ParkedEntry(number, NOW_NS // 1_000_000, 8, 4096, "gpu_stats", note) for number in range(1_000)]
    bench.processor._due(entries)
    look = measured([b""], max(10, repeats // 10), lambda _: entries, bench.processor._due)
    print(f"a look at 1,000 parked entries of 8 GPUs each: {look[0]:.0f} us")


def taking(repeats: int) -> None:
    """A second of 8 GPUs at 10 Hz, as the agent sends it, joined with after each."""
    bench = Bench(8)
    half = bench.half(Signal.METRICS)
    reader = BatchReader(Signal.METRICS)
    chance = np.random.default_rng(3)
    sent = [agents_request(NOW_NS + second * SECOND_NS, chance) for second in range(repeats)]
    position = iter(sent)
    took = measured([b""], repeats, lambda _: reader.read([next(position)])[0], half.process)
    print(f"a second of samples of 8 GPUs, {len(sent[0]) / 1e3:.0f} kB: {took[0] / 1e3:.2f} ms")


def agents_request(begin_ns: int, chance: np.random.Generator) -> bytes:
    times = [begin_ns + step * SECOND_NS // 10 for step in range(1, 11)]
    devices = tuple(Seen(uuid(number), number, "NVIDIA L40S") for number in range(8))
    series = tuple(
        Series(device.uuid, quantity, (), START_NS, times, chance.uniform(0.1, 1.0, 10).tolist())
        for device in devices
        for quantity in SENT
    )
    return to_request(Reading(times[-1], devices, series), {"host.id": "pod"})


def measured(
    sent: list[bytes], repeats: int, prepare: Callable[[bytes], Any], work: Callable[[Any], object]
) -> tuple[float, float]:
    """Median and best us of CPU of the work alone."""
    times_us = []
    gc.collect()
    gc.disable()
    try:
        for number in range(repeats):
            prepared = prepare(sent[number % len(sent)])
            begin = time.process_time()
            work(prepared)
            times_us.append((time.process_time() - begin) * 1e6)
    finally:
        gc.enable()
    return median(times_us), min(times_us)


if __name__ == "__main__":
    main()
