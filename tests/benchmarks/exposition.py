"""What it costs to count a batch of spans: a counter and a histogram with four label columns, and all of span_metrics.

Run as `python -m tests.benchmarks.exposition`. Prints the median of each part in us a batch and us a row. Bare families
see 20 label combinations a batch, the processor sees the batches of `payloads`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

from otel_pipeline.contracts import Context
from otel_pipeline.event_loop import EventLoop
from otel_pipeline.exposition.families import Exemplars, Exposition
from otel_pipeline.exposition.label_columns import group_rows
from otel_pipeline.processors.span_metrics import SpanMetricsProcessor
from otel_pipeline.stats import Stats
from otel_pipeline.wire.batch import Batch, Strings
from otel_pipeline.wire.kernel import kernel
from otel_pipeline.wire.scan import COMPILED, BatchReader
from otel_pipeline.wire.signal import Signal
from tests.benchmarks.payloads import SpanRequests

if TYPE_CHECKING:
    from collections.abc import Callable

KERNEL = kernel()
BUCKETS = SpanMetricsProcessor.Config().buckets
LABELS = ("service_name", "span_name", "span_kind", "status_code")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3000)
    arguments = parser.parse_args()
    print(f"{arguments.rows} rows a batch, {arguments.rounds} rounds, compiled kernel: {COMPILED}")
    for name, work in {
        "group + counter + histogram": counting(arguments.rows, with_exemplars=False),
        "the same with exemplars": counting(arguments.rows, with_exemplars=True),
        "span_metrics, names already read": span_metrics(arguments.rows, names_read=True),
        "span_metrics, first to read the names": span_metrics(arguments.rows, names_read=False),
    }.items():
        median_us = measure(work, arguments.rounds)
        print(f"{name:40} {median_us:8.1f} us/batch {median_us / arguments.rows:8.3f} us/row")


def counting(rows: int, *, with_exemplars: bool) -> Callable[[], None]:
    """The families alone: columns are ready, every second call sees other values."""
    random = np.random.default_rng(1)
    columns = [
        Strings(random.integers(0, len(values), rows).astype(np.int32), values)
        for values in (["api", "worker"], ["job", "queue", "load", "infer", "upload"], ["SERVER"], ["UNSET", "ERROR"])
    ]
    mask = np.ones(rows, np.bool_)
    durations = random.lognormal(0.0, 1.5, rows)
    exposition = Exposition()
    calls = exposition.counter("calls_total", "Calls.", LABELS)
    seconds = exposition.histogram("duration_seconds", "Duration.", LABELS, BUCKETS)
    exemplars = Exemplars(lambda row: (f"{row:032x}", f"{row:016x}")) if with_exemplars else None

    def work() -> None:
        groups = group_rows(columns, mask)
        calls.add(groups)
        seconds.observe(groups, durations, exemplars)

    return work


def span_metrics(rows: int, *, names_read: bool) -> Callable[[], None]:
    """The processor on a scanned batch; a column of strings is read once, by whichever processor asks first."""
    context = Context("span_metrics", Stats(), Exposition(), EventLoop())
    processor = SpanMetricsProcessor(SpanMetricsProcessor.Config(), context)
    reader = BatchReader(Signal.TRACES, processor.attributes(Signal.TRACES))
    request = SpanRequests(rows).request(0, time.time_ns())
    scanned, _ = reader.read([request])

    def work() -> None:
        if names_read:
            processor.process(scanned)
        else:
            tables = scanned.rows, scanned.scopes, scanned.groups
            processor.process(Batch(scanned.signal, scanned.data, tables, {}, KERNEL))

    return work


def measure(work: Callable[[], None], rounds: int) -> float:
    """The median time of a call, in us."""
    for _ in range(rounds // 10):
        work()
    times_ns = []
    for _ in range(rounds):
        start_ns = time.perf_counter_ns()
        work()
        times_ns.append(time.perf_counter_ns() - start_ns)
    return statistics.median(times_ns) / 1000


if __name__ == "__main__":
    main()
