"""CPU time of the processor `cost` by itself: python -m tests.benchmarks.cost.

Process CPU time per span, median of the repeats, all prices cached, records for the ledger included; beside it the scan
of the same requests. Reading the request is not counted, writing it neither.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_pipeline.contracts import Context
from otel_pipeline.exposition.families import Exposition
from otel_pipeline.processors.cost import CostProcessor
from otel_pipeline.stats import Stats
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import any_value
from tests.benchmarks.engine import START_NS, _commit
from tests.benchmarks.payloads import SPANS_PER_JOB, SpanRequests

if TYPE_CHECKING:
    from collections.abc import Callable

GPU: Final = "GPU-6d2f0e2c-0000-4000-8000-00000000000"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=512, help="spans in a request")
    parser.add_argument("--repeats", type=int, default=60, help="requests for each line")
    options = parser.parse_args()
    print(f"commit {_commit()}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
    print(f"{options.spans} spans a request, us CPU per span, median:  scan   cost")
    for name, change in LINES.items():
        scan, cost = _measure(options.spans, options.repeats, change)
        print(f"{name:<56}{scan:8.3f}{cost:8.3f}", flush=True)


def _measure(spans: int, repeats: int, change: Callable[[int, Span], None] | None) -> tuple[float, float]:
    loop: Any = None
    book: Any = None
    context = Context("cost", Stats(), Exposition(), loop, books={"ledger": book})
    processor = CostProcessor(CostProcessor.Config(), context)
    reader = BatchReader(Signal.TRACES, processor.attributes(Signal.TRACES))
    bare = BatchReader(Signal.TRACES, frozenset())
    source = SpanRequests(spans, failing="none")
    scans, costs = [], []
    for number in range(repeats):
        request = source.request(number * spans, START_NS)
        if change is not None:
            request = _changed(request, change)
        scans.append(_timed(lambda: bare.read([request])))  # noqa: B023  called at once
        batch = reader.read([request])[0]
        costs.append(_timed(lambda: processor.process(batch)))  # noqa: B023  called at once
    return median(scans) / spans, median(costs) / spans


def _timed(work: Callable[[], object]) -> float:
    start_ns = time.process_time_ns()
    work()
    return (time.process_time_ns() - start_ns) / 1e3


def _changed(request: bytes, change: Callable[[int, Span], None]) -> bytes:
    parsed = ExportTraceServiceRequest.FromString(request)
    for group in parsed.resource_spans:
        group.resource.attributes.add(key="cloud.provider").value.string_value = "runpod"
        group.resource.attributes.add(key="cloud.platform").value.string_value = "runpod_pod"
        for number, span in enumerate(span for scope in group.scope_spans for span in scope.spans):
            change(number, span)
    return parsed.SerializeToString()


def _put(span: Span, **values: Any) -> None:
    for key, value in values.items():
        span.attributes.add(key=key.replace("__", ".")).value.CopyFrom(any_value(value))


def _on_gpus(number: int, span: Span) -> None:
    """A worker: jobs and stages on one of four GPUs."""
    kept = [one for one in span.attributes if not one.key.startswith("gen_ai.provider")]
    del span.attributes[:]
    span.attributes.extend(kept)
    gpu = f"{GPU}{number // SPANS_PER_JOB % 4}"
    span.kind = Span.SPAN_KIND_INTERNAL
    _put(span, otel_pipeline__gpu__ids=[gpu], otel_pipeline__gpu__name="NVIDIA H100 80GB HBM3")
    _put(span, otel_pipeline__gpu__status="ok", otel_pipeline__gpu__energy=300.0 + number)
    _put(span, enduser__pseudo__id=f"u{number // SPANS_PER_JOB % 20:015x}", otel_pipeline__job__tier="pro")
    _put(span, otel_pipeline__workflow__name="portrait")
    if number % SPANS_PER_JOB == 0:
        _put(span, otel_pipeline__job__outcome="completed", otel_pipeline__job__attempt=1)


def _tokens(number: int, span: Span) -> None:
    """A client of a model: each call with numbers of its own."""
    del span.attributes[:]
    _put(span, gen_ai__provider__name="openai", gen_ai__request__model="gpt-4o-mini", gen_ai__operation__name="chat")
    _put(span, gen_ai__usage__input_tokens=1000 + number, gen_ai__usage__output_tokens=10 + 7 * number)


def _plain(number: int, span: Span) -> None:  # noqa: ARG001  as the others
    """A web service."""
    del span.attributes[:]
    _put(span, http__request__method="GET", url__full="https://shop.example/", http__response__status_code=200)


LINES: Final[dict[str, Callable[[int, Span], None] | None]] = {
    "spans that cost nothing": _plain,
    "calls of 15 models, no quantities": None,
    "jobs and stages on 4 GPUs": _on_gpus,
    "calls by the token, no two alike": _tokens,
}

if __name__ == "__main__":
    main()
