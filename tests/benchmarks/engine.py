"""CPU time of the wire engine by itself, beside protobuf in the same run: python -m tests.benchmarks.engine.

Process CPU time per span, median of the repeats. The requests are those of `payloads`; several are read in turn, so
that no cache sees the same bytes again at once.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_pipeline.memory import keep_freed_memory
from otel_pipeline.wire.batch import Batch, Constants
from otel_pipeline.wire.kernel import Kernel, variants
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from tests.benchmarks.payloads import SpanRequests

READ: Final = ("gen_ai.provider.name", "gen_ai.request.model", "http.response.status_code")
WRITTEN: Final = ("gpu.name", "gpu.energy_j", "gpu.index", "cost.usd")
REQUESTS: Final = 16
START_NS: Final = 1_750_000_000_000_000_000

Work = Callable[[bytes], object]


def main() -> None:
    keep_freed_memory()  # as the gateway does
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=512, help="spans in a request")
    parser.add_argument("--repeats", type=int, default=600, help="requests for each line; 1/200 of it interpreted")
    options = parser.parse_args()
    source = SpanRequests(options.spans)
    requests = [source.request(index * options.spans, START_NS + index * 10**9) for index in range(REQUESTS)]
    names = ", ".join(variant.name for variant in variants())
    print(f"commit {_commit()}, {names}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
    print(f"{options.spans} spans x {len(requests[0]) / options.spans:.0f} B, us CPU per span, median (best)")
    for name, work, repeats in _contest(options.repeats):
        middle, best = _measure(work, requests, repeats)
        print(f"{name:<58} {middle / options.spans:9.3f} ({best / options.spans:.3f})", flush=True)


def _contest(repeats: int) -> Iterator[tuple[str, Work, int]]:
    for variant in reversed(variants()):
        few = repeats if variant.name == "compiled" else max(3, repeats // 200)
        for name, work in _ours(variant):
            yield f"{variant.name}: {name}", work, few
    yield "protobuf: parse + serialize", _protobuf_round_trip, repeats // 4
    yield "protobuf: parse + loop adding 4 attributes + serialize", _protobuf_loop, max(3, repeats // 20)


def _ours(variant: Kernel) -> list[tuple[str, Work]]:
    reader = BatchReader(Signal.TRACES, (*READ, *WRITTEN), variant)

    def scan(request: bytes) -> Batch:
        return reader.read([request])[0]

    def splice(request: bytes) -> object:
        batch = scan(request)
        _add_attributes(batch)
        return batch.encode()

    def columns(request: bytes) -> object:
        batch = scan(request)
        return [batch.name(), *(batch.strings(key) for key in READ)]

    return [
        (f"scan, {len(READ) + len(WRITTEN)} keys", scan),
        ("scan + 4 attributes spliced into each span", splice),
        ("scan + dictionary encoding of name and 3 columns", columns),
    ]


def _add_attributes(batch: Batch) -> None:
    """What the GPU join and the cost processor do, without their thinking."""
    codes = (batch.kind % 2).astype(np.int32)
    batch.set("gpu.name", Constants(codes, ("NVIDIA H100 80GB HBM3", "NVIDIA L40S")))
    batch.set("gpu.energy_j", batch.duration_s * 350.0)
    batch.set("gpu.index", Constants(codes, (0, 1)))
    batch.set("cost.usd", batch.duration_s * 0.0011)


def _protobuf_round_trip(request: bytes) -> bytes:
    return ExportTraceServiceRequest.FromString(request).SerializeToString()


def _protobuf_loop(request: bytes) -> bytes:
    message: Any = ExportTraceServiceRequest.FromString(request)
    for group in message.resource_spans:
        for scope in group.scope_spans:
            for span in scope.spans:
                duration_s = (span.end_time_unix_nano - span.start_time_unix_nano) * 1e-9
                span.attributes.add(key="gpu.name").value.string_value = "NVIDIA L40S"
                span.attributes.add(key="gpu.energy_j").value.double_value = duration_s * 350.0
                span.attributes.add(key="gpu.index").value.int_value = 1
                span.attributes.add(key="cost.usd").value.double_value = duration_s * 0.0011
    serialized: bytes = message.SerializeToString()
    return serialized


def _measure(work: Work, requests: list[bytes], repeats: int) -> tuple[float, float]:
    """Median and best CPU time of one call in microseconds."""
    for request in requests[: min(repeats, len(requests))]:
        work(request)
    gc.collect()
    gc.disable()
    try:
        times_us = []
        for request, _ in zip(cycle(requests), range(repeats), strict=False):
            start_ns = time.process_time_ns()
            work(request)
            times_us.append((time.process_time_ns() - start_ns) / 1e3)
    finally:
        gc.enable()
    return median(times_us), min(times_us)


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
