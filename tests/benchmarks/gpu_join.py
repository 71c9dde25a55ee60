"""CPU time and memory of the GPU timelines: python -m tests.benchmarks.gpu_join.

8 GPUs with utilisation, memory, power and energy at 10 Hz. Process CPU time, medians: of joining spans of some seconds
and of some minutes by the number of spans in one call, of adding samples by the number in one call, and the memory
after a day. The searches grow with what is kept, so all of it is measured after that day.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Final

import numpy as np

from otel_pipeline.gpu.join import Spans, join, ready
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.gpu.timeline import Timelines

SECOND_NS: Final = 1_000_000_000
STEP_NS: Final = SECOND_NS // 10
START_NS: Final = 1_750_000_000 * SECOND_NS
GPUS: Final = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--repeats", type=int, default=21)
    arguments = parser.parse_args()
    timelines = Timelines()
    source = Load()
    begin = time.process_time()
    for _ in range(int(arguments.hours * 3600 / 100)):
        source.feed(timelines, 1_000)
    cost = (time.process_time() - begin) / (source.rows * GPUS * len(Quantity))
    print(f"{GPUS} GPUs, {arguments.hours:g} h at 10 Hz: {source.rows * GPUS * len(Quantity):,} samples")
    print(f"memory {timelines.size_bytes / 1e6:.1f} MB, {timelines.size_bytes / 1e6 / GPUS:.2f} MB a GPU")
    print(f"added 1000 at a time: {cost * 1e6:.2f} us a sample")
    for rows in (1, 10, 50):
        print(
            f"added {rows:4} at a time, joined after each: {_adding(timelines, source, rows, arguments.repeats):.2f} us"
        )
    for seconds, ended_s in ((5.0, 60), (5.0, 2_400), (300.0, 2_400)):
        print(f"spans of some {seconds:g} s that ended within {ended_s} s:")
        for count in (1, 64, 512, 4_096, 8_192):
            spans = source.spans(timelines, count, seconds, ended_s)
            cost = _median(lambda spans=spans: join(timelines, spans), arguments.repeats) / count
            wait = _median(lambda spans=spans: ready(timelines, spans), arguments.repeats) / count
            print(f"  join of {count:5}: {cost * 1e6:7.3f} us a span, ready {wait * 1e6:6.3f}")


class Load:
    """Samples as an agent takes them, and spans that ended a short time ago."""

    def __init__(self) -> None:
        self.rows = 0
        self._random = np.random.default_rng(1)
        self._energy = np.zeros(GPUS)

    def feed(self, timelines: Timelines, rows: int) -> None:
        times = START_NS + (self.rows + np.arange(rows)) * STEP_NS
        self.rows += rows
        for gpu in range(GPUS):
            power = self._random.uniform(100, 600, rows)
            energy = self._energy[gpu] + np.cumsum(power) / 10
            self._energy[gpu] = energy[-1]
            columns = (
                (Quantity.UTILIZATION, self._random.random(rows)),
                (Quantity.MEMORY_USED, self._random.uniform(1e9, 8e10, rows)),
                (Quantity.POWER, power),
                (Quantity.ENERGY, energy),
            )
            for quantity, values in columns:
                timelines.add("host", f"GPU-{gpu}", quantity, times, values)

    def spans(self, timelines: Timelines, count: int, seconds: float, ended_s: int) -> Spans:
        numbers = np.array([timelines.gpu("host", f"GPU-{gpu}") for gpu in range(GPUS)])
        ends = START_NS + self.rows * STEP_NS - self._random.integers(SECOND_NS, ended_s * SECOND_NS, count)
        lengths = (self._random.uniform(0.1, 2.0, count) * seconds * SECOND_NS).astype(np.int64)
        return Spans.on_one_gpu(ends - lengths, ends, self._random.choice(numbers, count))


def _adding(timelines: Timelines, source: Load, rows: int, repeats: int) -> float:
    """us a sample; the join that follows brings the totals up to date, as after each push of an agent."""
    spans = source.spans(timelines, GPUS, 5.0, 60)
    alone = _median(lambda: join(timelines, spans), repeats)

    def work() -> None:
        source.feed(timelines, rows)
        join(timelines, spans)

    return (_median(work, repeats) - alone) / (rows * GPUS * len(Quantity)) * 1e6


def _median(work: Callable[[], object], repeats: int) -> float:
    """Seconds of CPU."""
    found = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        found.append(time.process_time() - begin)
    return median(found)


if __name__ == "__main__":
    main()
