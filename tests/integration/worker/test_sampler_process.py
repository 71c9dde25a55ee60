"""The samplers against a real Redis, as a command and within a worker; names as they are on the gateway's page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis

from otel_pipeline.demo.redis_server import redis_server
from otel_pipeline.exposition.names import metric_name
from tests.support.worker_program import ROOT, start
from tests.support.worker_sink import WorkerSink, worker_sink


@pytest.fixture
def sink() -> Iterator[WorkerSink]:
    with worker_sink() as found:
        yield found


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as url, redis.Redis.from_url(url) as client:
        client.rpush("video:queue", "a", "b")
        client.zadd("delayed", {"a": 1})
        client.xadd("stream", {"a": 1})
        client.xadd("stream", {"a": 2})
        client.xgroup_create("stream", "workers", id="0")
        client.xreadgroup("workers", "w1", {"stream": ">"}, count=1)
        yield url


@pytest.fixture
def comfyui() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/system_stats" else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def values(sink: WorkerSink, name: str) -> dict[tuple[Any, ...], Any]:
    return {tuple(point.attributes.values()): point.value for point in sink.points if point.name == name}


def test_the_command_measures_and_stops_on_sigterm(
    tmp_path: Path, sink: WorkerSink, redis_url: str, comfyui: str
) -> None:
    arguments = ["--redis-url", redis_url, "--interval", "0.1", "--backend", f"local={comfyui}"]
    queues = ["--queue", "video:queue", "--queue", "delayed=later", "--queue", "stream", "--queue", "absent"]
    away = ["--backend", "away=http://127.0.0.1:1"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    process = subprocess.Popen(
        (sys.executable, "-m", "otel_pipeline.worker.samplers", *arguments, *queues, *away),
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(ROOT), "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "NO_PROXY": "127.0.0.1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        sink.wait(lambda: len(values(sink, "queue_depth")) == 5 and len(values(sink, "comfyui_backend_health")) == 2)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait(10)
    assert (process.returncode, errors) == (0, "")
    depths = {
        (point.get("queue"), point.get("stage")): point.value for point in sink.points if point.name == "queue_depth"
    }
    assert depths == {
        ("video:queue", "waiting"): 2,
        ("delayed", "later"): 1,
        ("stream", "waiting"): 1,
        ("stream", "active"): 1,
        ("absent", "waiting"): 0,
    }
    assert values(sink, "job_queue_size")[("stream",)] == 2
    assert values(sink, "comfyui_backend_health") == {("local",): 1.0, ("away",): 0.0}
    assert sink.spans == []


def test_a_redis_that_is_away_is_counted_and_the_backends_are_measured(
    tmp_path: Path, sink: WorkerSink, comfyui: str
) -> None:
    more = {
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
        "OTEL_PIPELINE_SAMPLE_INTERVAL_S": "0.1",
        "OTEL_PIPELINE_SAMPLE_QUEUES": "video:queue",
        "OTEL_PIPELINE_SAMPLE_REDIS_URL": "redis://127.0.0.1:1/0",
        "OTEL_PIPELINE_SAMPLE_BACKENDS": comfyui,
    }
    process = start(tmp_path, "time.sleep(60)", sink.url, **more)
    try:
        sink.wait(lambda: values(sink, "redis.errors") and values(sink, "comfyui_backend_health"))
    finally:
        process.kill()
        process.communicate(timeout=10)
    assert sink.point("redis.errors").value >= 1
    assert sink.point("comfyui_backend_health").value == 1
    assert sink.spans == []


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [
        ("queue_depth", "gauge", "queue_depth"),
        ("job_queue_size", "gauge", "job_queue_size"),
        ("comfyui_backend_health", "gauge", "comfyui_backend_health"),
        ("worker_active", "gauge", "worker_active"),
        ("redis.errors", "counter", "redis_errors_total"),
    ],
)
def test_the_names_on_the_gateways_page_are_those_that_dashboards_use(name: str, kind: str, shown: str) -> None:
    assert metric_name(name, "", kind)[0] == shown
