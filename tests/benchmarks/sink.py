"""The backend behind every gateway: an OTLP gRPC server that remembers how much arrived, and with --verify which spans.

Reports over HTTP on a port of its own: GET /stats (totals) and GET /seen (ranges of span numbers). The first line on
stdout is {"grpc": port, "http": port}.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.benchmarks import ranges
from tests.benchmarks.payloads import Numbers, count_spans, span_numbers
from tests.benchmarks.raw_grpc import SIGNALS, STOP_GRACE_S, Context, Export, announce, raw_server, wait_for_sigterm

NUMBERS_MAX = 1 << 27  # One byte for each number: 128 MiB at most; more than an hour at 30k spans/s.
_NUMBERS_AT_START = 1 << 20


@dataclass(slots=True)
class Totals:
    """What arrived; `duplicates` and `foreign` (spans that the load generator did not number) only with --verify."""

    requests: int = 0
    body_bytes: int = 0
    spans: int = 0
    duplicates: int = 0
    foreign: int = 0
    first_at_s: float = 0.0
    last_at_s: float = 0.0


class Seen:
    """The set of span numbers that arrived."""

    def __init__(self) -> None:
        self._flags = np.zeros(_NUMBERS_AT_START, dtype=np.bool_)

    def add(self, numbers: Numbers) -> tuple[int, int]:
        """Record the numbers; returns how many were seen before and how many cannot be ours."""
        own = numbers[numbers < NUMBERS_MAX].astype(np.intp)
        distinct = np.unique(own)
        if len(distinct):
            self._reserve(int(distinct[-1]) + 1)
        fresh = int(np.count_nonzero(~self._flags[distinct]))
        self._flags[distinct] = True
        return len(own) - fresh, len(numbers) - len(own)

    def ranges(self) -> ranges.Ranges:
        return ranges.from_flags(self._flags)

    def _reserve(self, size: int) -> None:
        if size > len(self._flags):
            grown = np.zeros(min(max(size, 2 * len(self._flags)), NUMBERS_MAX), dtype=np.bool_)
            grown[: len(self._flags)] = self._flags
            self._flags = grown


class Sink:
    """Counts under one lock; the parse that --verify asks for runs outside of it."""

    def __init__(self, *, verify: bool) -> None:
        self._verify = verify
        self._lock = threading.Lock()
        self._totals = Totals()
        self._seen = Seen()

    def export_for(self, signal_name: str) -> Export:
        is_trace = signal_name == "trace"

        def export(body: bytes, _: Context) -> bytes:
            self.record(body, is_trace=is_trace)
            return b""

        return export

    def record(self, body: bytes, *, is_trace: bool = True) -> None:
        numbers = _numbers(body) if self._verify and is_trace else None
        spans = count_spans(body) if numbers is None else len(numbers)
        now_s = time.time()
        with self._lock:
            totals = self._totals
            totals.requests += 1
            totals.body_bytes += len(body)
            totals.spans += spans
            totals.first_at_s = totals.first_at_s or now_s
            totals.last_at_s = now_s
            if numbers is not None:
                duplicates, foreign = self._seen.add(numbers)
                totals.duplicates += duplicates
                totals.foreign += foreign

    def stats(self) -> dict[str, float]:
        with self._lock:
            return asdict(self._totals)

    def seen(self) -> ranges.Ranges:
        with self._lock:
            return self._seen.ranges()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:0", help="host:port of OTLP gRPC, port 0 takes a free one")
    parser.add_argument("--verify", action="store_true", help="parse every request and record the span numbers")
    arguments = parser.parse_args()
    sink = Sink(verify=arguments.verify)
    server, grpc_port = raw_server({name: sink.export_for(name) for name in SIGNALS}, arguments.listen)
    web = ThreadingHTTPServer(("127.0.0.1", 0), _pages({"/stats": sink.stats, "/seen": sink.seen}))
    web_thread = threading.Thread(target=web.serve_forever, daemon=True)
    web_thread.start()
    server.start()
    announce(grpc=grpc_port, http=web.server_port)
    wait_for_sigterm()
    server.stop(STOP_GRACE_S).wait()
    web.shutdown()
    web_thread.join()


def _numbers(body: bytes) -> Numbers:
    request = ExportTraceServiceRequest.FromString(body)
    return span_numbers(
        span.span_id for group in request.resource_spans for scope in group.scope_spans for span in scope.spans
    )


def _pages(pages: dict[str, Callable[[], object]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path)
            body = b"" if page is None else json.dumps(page()).encode()
            self.send_response(404 if page is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named so by the base
            """No line per request: the parent polls."""

    return Handler


if __name__ == "__main__":
    main()
