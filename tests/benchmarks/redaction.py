"""CPU time of redaction by itself, beside the bare engine in the same run: python -m tests.benchmarks.redaction.

Process CPU time per span, median over the requests. Each request is new: trace, span and job ids and the URLs that hold
them differ from all before; what the workers of a platform share (names, models, hosts) is the same. Loads: without
secrets, with one in 1 % of the spans (a key in a URL, each time another), with one in each span, and one in which every
string differs from all before it, so that nothing that the sieve remembers helps.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
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

WARM_UP: Final = 16
"""Requests before the measured ones: what repeats is known by then."""
START_NS: Final = 1_750_000_000_000_000_000
READ: Final = ("gen_ai.provider.name", "gen_ai.request.model", "http.response.status_code")
WITHOUT_DIGITS: Final = tuple(kind for kind in KINDS if kind not in {"card", "phone"})


def main() -> None:
    keep_freed_memory()  # as the gateway does
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=512, help="spans in a request")
    parser.add_argument("--requests", type=int, default=100, help="measured for each line")
    arguments = parser.parse_args()
    loads: dict[str, Callable[[bytes, int], bytes]] = {
        "without hits": lambda request, _number: request,
        "1 % hits": lambda request, number: _spoiled(request, number, 100),
        "all hits": lambda request, number: _spoiled(request, number, 1),
        "every string unique": _unique,
    }
    size = len(next(_requests(arguments.spans, loads["without hits"]))) // arguments.spans
    print(f"us of CPU per span, {arguments.spans} spans a request, {size} bytes a span,")
    print(f"engine: {'hyperscan' if FAST else 'google-re2'}")
    reader = BatchReader(Signal.TRACES, READ)
    for load, change in loads.items():
        cost = _measure(lambda one: reader.read([one]), _requests(arguments.spans, change), arguments)
        print(f"{f'scan of the bare engine, {load}':54} {cost:8.3f}", flush=True)
    for title, kinds in (("all kinds", KINDS), ("without card and phone", WITHOUT_DIGITS)):
        cleaner = _cleaner(kinds)
        for load, change in loads.items():
            requests = _requests(arguments.spans, change)
            cost = _measure(partial(cleaner.rewrite, Signal.TRACES), requests, arguments)
            print(f"{f'redaction, {title}, {load}':54} {cost:8.3f}", flush=True)


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


def _requests(spans: int, change: Callable[[bytes, int], bytes]) -> Iterator[bytes]:
    source = SpanRequests(spans)
    for number in count():
        yield change(source.request(number * spans, START_NS + number * 50_000_000), number)


def _spoiled(request: bytes, number: int, every: int) -> bytes:
    """With a key of an API in a URL in one of so many spans."""
    message = ExportTraceServiceRequest.FromString(request)
    for index, span in enumerate(message.resource_spans[0].scope_spans[0].spans):
        if index % every == 0:
            text = f"https://api.example.com/v1/predict?api_key=aBcDeF{number:06x}{index:04x}x9&seed=7"
            span.attributes.add(key="http.url").value.string_value = text
    return message.SerializeToString()


def _unique(request: bytes, number: int) -> bytes:
    """With a mark of its own in every name and every text of an attribute."""
    message = ExportTraceServiceRequest.FromString(request)
    for index, span in enumerate(message.resource_spans[0].scope_spans[0].spans):
        mark = f".{number:x}x{index:03x}"
        span.name += mark
        for place, attribute in enumerate(span.attributes):
            if attribute.value.string_value:
                attribute.value.string_value += f"{mark}g{place}"
    return message.SerializeToString()


def _measure(work: Callable[[bytes], object], requests: Iterator[bytes], arguments: argparse.Namespace) -> float:
    """In us a span."""
    for request in islice(requests, WARM_UP):
        work(request)
    gc.collect()
    gc.disable()
    try:
        costs: list[float] = []
        for request in islice(requests, arguments.requests):
            start_ns = time.process_time_ns()
            work(request)
            costs.append((time.process_time_ns() - start_ns) / 1e3 / int(arguments.spans))
    finally:
        gc.enable()
    return median(costs)


if __name__ == "__main__":
    main()
