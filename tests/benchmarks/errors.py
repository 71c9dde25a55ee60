"""CPU time of the processor `error_class` by itself: python -m tests.benchmarks.errors.

Process CPU time per span, median of the repeats: no failure, one in a hundred, all of them the same one, all
different (a storm in which nothing can be remembered). Reading the request is not counted, writing it neither.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from itertools import count
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from otel_pipeline.contracts import Context
from otel_pipeline.exposition.families import Exposition
from otel_pipeline.processors.error_class import ErrorClassProcessor
from otel_pipeline.stats import Stats
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from tests.benchmarks.engine import START_NS, _commit
from tests.benchmarks.payloads import SpanRequests

if TYPE_CHECKING:
    from collections.abc import Callable

STACK: Final = "Traceback (most recent call last):\n" + "".join(
    f'  File "/app/worker/step_{number}.py", line {number}, in run\n    return step(context)\n' for number in range(20)
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=512, help="spans in a request")
    parser.add_argument("--repeats", type=int, default=40, help="requests for each line")
    options = parser.parse_args()
    print(f"commit {_commit()}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
    print(f"{options.spans} spans a request, us CPU per span, median")
    fresh = count()
    lines: list[tuple[str, int, Callable[[], str]]] = [
        ("no errors", 0, lambda: ""),
        ("1 % errors, the same", 100, lambda: "Allocation on device"),
        ("all errors, the same", 1, lambda: "Allocation on device"),
        ("all errors, all different", 1, lambda: f"step {next(fresh)} broke in a way of its own"),
    ]
    for name, every, message in lines:
        print(f"{name:<28} {_measure(options.spans, options.repeats, every, message):8.3f}", flush=True)


def _measure(spans: int, repeats: int, every: int, message: Callable[[], str]) -> float:
    loop: Any = None
    book: Any = None
    context = Context("error_class", Stats(), Exposition(), loop, books={"error_groups": book})
    processor = ErrorClassProcessor(ErrorClassProcessor.Config(), context)
    reader = BatchReader(Signal.TRACES, processor.attributes(Signal.TRACES))
    source = SpanRequests(spans)
    times_us = []
    for number in range(repeats):
        batch = reader.read([_broken(source.request(number * spans, START_NS), every, message)])[0]
        start_ns = time.process_time_ns()
        processor.process(batch)
        times_us.append((time.process_time_ns() - start_ns) / 1e3)
    return median(times_us) / spans


def _broken(request: bytes, every: int, message: Callable[[], str]) -> bytes:
    """The request with the status error and an exception in each so many spans; 0: in none."""
    parsed = ExportTraceServiceRequest.FromString(request)
    spans = [span for group in parsed.resource_spans for scope in group.scope_spans for span in scope.spans]
    for number, span in enumerate(spans):
        span.ClearField("status")
        if every and number % every == 0:
            text = message()
            span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR))
            event = span.events.add(name="exception")
            stack = f"{STACK}RuntimeError: {text}\n"
            for key, value in (("type", "RuntimeError"), ("message", text), ("stacktrace", stack)):
                event.attributes.add(key=f"exception.{key}").value.string_value = value
    return parsed.SerializeToString()


if __name__ == "__main__":
    main()
