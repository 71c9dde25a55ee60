"""An OTLP/HTTP backend in this process that remembers spans, log records and metrics; and one that never answers."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_pipeline.wire.values import python_value


@dataclass(frozen=True, slots=True)
class Received:
    """A span, log record or data point."""

    name: str
    """Of a span or metric, the event name of a log record."""
    trace_id: str
    span_id: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    value: Any = None
    """Body of a log record, number of a data point."""

    def get(self, name: str) -> Any:
        return self.attributes.get(name)


class WorkerSink:
    """What workers sent here."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.logs: list[Received] = []
        self.points: list[Received] = []
        self._arrived = threading.Condition()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sink.take(self.path, gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, path: str, body: bytes) -> None:
        with self._arrived:
            if path == "/v1/traces":
                self.spans += list(_spans(body))
            elif path == "/v1/logs":
                self.logs += list(_logs(body))
            else:
                self.points += list(_points(body))
            self._arrived.notify_all()

    def wait(self, done: Callable[[], Any], timeout_s: float = 20.0) -> Any:
        """Waits until something arrived that makes it true; its value."""
        with self._arrived:
            if not self._arrived.wait_for(done, timeout_s):
                raise AssertionError(f"not within {timeout_s:.0f} s; spans: {[span.name for span in self.spans]}")
            return done()

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Received:
        found = self.named(name)
        assert len(found) == 1, f"{len(found)} {name!r} among {[span.name for span in self.spans]}"
        return found[0]

    def point(self, name: str) -> Received:
        """The newest data point of a metric."""
        return next(point for point in reversed(self.points) if point.name == name)


@contextmanager
def worker_sink() -> Iterator[WorkerSink]:
    sink = WorkerSink()
    try:
        yield sink
    finally:
        sink.close()


@contextmanager
def black_hole() -> Iterator[str]:
    """The URL of a server that accepts and never answers."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    listener.settimeout(0.1)
    open_until_the_end: list[socket.socket] = []
    stop = threading.Event()

    def accept() -> None:
        while not stop.is_set():
            try:
                open_until_the_end.append(listener.accept()[0])
            except TimeoutError:
                continue

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        thread.join()
        for each in (listener, *open_until_the_end):
            each.close()


def until(done: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
    """Asks until the answer is true, and returns it."""
    deadline_s = time.monotonic() + timeout_s
    while not (answer := done()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.02)
    return answer


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: python_value(pair.value) for pair in pairs}


def _spans(body: bytes) -> Iterator[Received]:
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                ids = span.trace_id.hex(), span.span_id.hex()
                yield Received(span.name, *ids, _attributes(span.attributes), resource, span.status.code)


def _logs(body: bytes) -> Iterator[Received]:
    for group in ExportLogsServiceRequest.FromString(body).resource_logs:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_logs:
            for record in scope.log_records:
                ids = record.trace_id.hex(), record.span_id.hex()
                known = _attributes(record.attributes)
                yield Received(record.event_name, *ids, known, resource, python_value(record.body))


def _points(body: bytes) -> Iterator[Received]:
    for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                for point in (*metric.gauge.data_points, *metric.sum.data_points):
                    number = point.as_int if point.HasField("as_int") else point.as_double
                    yield Received(metric.name, "", "", _attributes(point.attributes), resource, number)
