"""CPU time of redaction by itself, beside the bare engine in the same run: python -m tests.benchmarks.redaction.

Process CPU time per span, median of the repeats, for requests without secrets, with one in 1 % of the spans (the key
of an API in a URL) and with one in each span.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from statistics import median
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_pipeline.memory import keep_freed_memory
from otel_pipeline.secrets.build import VALUE_BYTES_MAX, request_cleaner
from otel_pipeline.secrets.keys import USER_KEYS
from otel_pipeline.secrets.prefilter import FAST
from otel_pipeline.secrets.requests import RequestCleaner
from otel_pipeline.secrets.rules import KINDS, Kind
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from tests.benchmarks.payloads import SpanRequests

REQUESTS: Final = 16
START_NS: Final = 1_750_000_000_000_000_000
READ: Final = ("gen_ai.provider.name", "gen_ai.request.model", "http.response.status_code")
WITHOUT_DIGITS: Final = tuple(kind for kind in KINDS if kind not in {"card", "phone"})


def main() -> None:
    keep_freed_memory()  # as the gateway does
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=512, help="spans in a request")
    parser.add_argument("--repeats", type=int, default=10, help="rounds over all requests for each line")
    arguments = parser.parse_args()
    source = SpanRequests(arguments.spans)
    clean = [source.request(index * arguments.spans, START_NS) for index in range(REQUESTS)]
    loads = {"without hits": clean, "1 % hits": _spoiled(clean, 100), "all hits": _spoiled(clean, 1)}
    reader = BatchReader(Signal.TRACES, READ)
    print(f"us of CPU per span, {arguments.spans} spans a request, {len(clean[0]) // arguments.spans} bytes a span,")
    print(f"engine: {'hyperscan' if FAST else 'google-re2'}")
    print(f"{'scan of the bare engine':44} {_measure(lambda one: reader.read([one]), clean, arguments):8.3f}")
    for title, kinds in (("all kinds", KINDS), ("without card and phone", WITHOUT_DIGITS)):
        cleaner = _cleaner(kinds)
        for load, requests in loads.items():
            cost = _measure(lambda one, by=cleaner: by.rewrite(Signal.TRACES, one), requests, arguments)
            print(f"{f'redaction, {title}, {load}':44} {cost:8.3f}")


def _cleaner(kinds: tuple[Kind, ...]) -> RequestCleaner:
    return request_cleaner(
        kinds=kinds,
        denied_keys=(),
        user_keys=USER_KEYS,
        hash_key=b"",
        pseudonym_key=b"k",
        value_bytes_max=VALUE_BYTES_MAX,
        count=lambda _kind, _times: None,
    )


def _spoiled(requests: list[bytes], every: int) -> list[bytes]:
    found = []
    for request in requests:
        message = ExportTraceServiceRequest.FromString(request)
        for index, span in enumerate(message.resource_spans[0].scope_spans[0].spans):
            if index % every == 0:
                text = f"https://api.example.com/v1/predict?api_key=aBcDeF{index:010x}x9&seed=7"
                span.attributes.add(key="http.url").value.string_value = text
        found.append(message.SerializeToString())
    return found


def _measure(work: Callable[[bytes], object], requests: list[bytes], arguments: argparse.Namespace) -> float:
    for request in requests:
        work(request)
    gc.collect()
    gc.disable()
    try:
        costs = []
        for request in requests * arguments.repeats:
            start_ns = time.process_time_ns()
            work(request)
            costs.append((time.process_time_ns() - start_ns) / 1e3 / arguments.spans)
    finally:
        gc.enable()
    return median(costs)


if __name__ == "__main__":
    main()
