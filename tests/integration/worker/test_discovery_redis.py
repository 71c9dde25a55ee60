from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis

from otel_pipeline.demo.redis_server import redis_server
from otel_pipeline.worker.comfyui.discovery import ComfyUIURL
from tests.support.net import free_endpoint

KEY = "current_comfyui_url"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with redis_server() as found:
        yield found


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url) as connected:
        connected.delete(KEY)
        yield connected


@contextmanager
def publisher(url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = (sys.executable, "-m", "otel_pipeline.worker.comfyui.discovery", "publish", *options)
    process = subprocess.Popen(command, env={**os.environ, "REDIS_URL": url}, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def eventually(condition: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return condition()


def test_a_published_url_is_renewed_and_goes_with_its_publisher(url: str, client: redis.Redis) -> None:
    with publisher(url, "--url", "http://pod-1:8188", "--ttl", "30", "--interval", "0.05") as process:
        assert eventually(lambda: client.exists(KEY) == 1)
        assert ComfyUIURL(client).get() == "http://pod-1:8188"
        assert 0 < client.ttl(KEY) <= 30
        client.delete(KEY)
        assert eventually(lambda: client.exists(KEY) == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert client.get(KEY) is None


def test_a_publisher_leaves_the_url_of_another_pod(url: str, client: redis.Redis) -> None:
    with publisher(url, "--url", "http://pod-1:8188", "--ttl", "300", "--interval", "200") as process:
        assert eventually(lambda: client.exists(KEY) == 1)
        client.set(KEY, "http://pod-2:8188")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert client.get(KEY) == b"http://pod-2:8188"


def test_nothing_is_published_while_comfyui_does_not_answer(url: str, client: redis.Redis) -> None:
    nobody = f"http://{free_endpoint()}"
    with publisher(url, "--url", "http://pod-1:8188", "--check", nobody, "--once") as process:
        assert process.wait(20) == 1
    assert client.get(KEY) is None


def test_a_worker_outlives_redis() -> None:
    with redis_server() as url:
        client = redis.Redis.from_url(url, retry=None, socket_timeout=1)
        client.set(KEY, "http://pod-1:8188")
        clock = [0.0]
        known = ComfyUIURL(client, clock=lambda: clock[0])
        assert known.get() == "http://pod-1:8188"
    clock[0] += 61
    assert known.get() == "http://pod-1:8188"
    assert known.failures == 1
    client.close()
