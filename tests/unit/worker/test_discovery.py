from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_pipeline.worker import names
from otel_pipeline.worker.comfyui import discovery
from otel_pipeline.worker.comfyui.discovery import AsyncComfyUIURL, ComfyUIURL, Publisher, own_url
from otel_pipeline.worker.jobs import Origin, job_end, job_start
from tests.support.worker_spans import Spans, attributes

URL = "https://user:secret@pod-1.example:8188/"
FOUND = "https://user:secret@pod-1.example:8188"


class Redis:
    """Remembers what it is asked; `away` is raised instead of an answer."""

    def __init__(self, value: object = URL) -> None:
        self.value = value
        self.away: Exception | None = None
        self.reads: list[str] = []
        self.silent: list[bool] = []
        self.writes: list[Any] = []

    def get(self, name: str) -> object:
        self.reads.append(name)
        self.silent.append(not is_instrumentation_enabled())
        if self.away is not None:
            raise self.away
        return self.value

    def set(self, name: str, value: str, px: int) -> None:
        if self.away is not None:
            raise self.away
        self.writes.append((name, value, px))

    def eval(self, script: str, keys: int, *arguments: str) -> None:
        if self.away is not None:
            raise self.away
        self.writes.append((script[:2], keys, *arguments))


class AsyncRedis(Redis):
    async def get(self, name: str) -> object:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().get(name)


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_url_is_read_once_in_its_time(kind: str, clock: Clock) -> None:
    redis = Redis() if kind == "sync" else AsyncRedis()
    known: Any = (ComfyUIURL if kind == "sync" else AsyncComfyUIURL)(redis, ttl_s=60, clock=clock)

    def get() -> object:
        return known.get() if kind == "sync" else asyncio.run(known.get())

    assert [get(), get()] == [FOUND, FOUND]
    clock.now_s += 59
    assert (get(), len(redis.reads)) == (FOUND, 1)
    clock.now_s += 2
    redis.value = b"http://10.0.0.2:8188"
    assert (get(), redis.reads) == ("http://10.0.0.2:8188", ["current_comfyui_url"] * 2)
    assert redis.silent == [True, True]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_while_redis_is_away_the_last_url_is_used(kind: str, clock: Clock) -> None:
    redis = Redis() if kind == "sync" else AsyncRedis()
    known: Any = (ComfyUIURL if kind == "sync" else AsyncComfyUIURL)(redis, ttl_s=60, clock=clock)

    def get() -> object:
        return known.get() if kind == "sync" else asyncio.run(known.get())

    assert get() == FOUND
    redis.away = ConnectionError("refused")
    clock.now_s += 61
    assert [get(), get()] == [FOUND, FOUND]
    assert (known.failures, len(redis.reads)) == (1, 2)
    clock.now_s += discovery.RETRY_S + 1
    redis.away = None
    redis.value = "http://new:1"
    assert get() == "http://new:1"


def test_before_the_first_answer_the_default_is_used(clock: Clock) -> None:
    redis = Redis()
    redis.away = TimeoutError()
    known = ComfyUIURL(redis, default="http://fallback:8188", clock=clock)
    assert (known.get(), known.failures) == ("http://fallback:8188", 1)


@pytest.mark.parametrize("value", [None, b"", "", "pod:8188", "ftp://pod", "http://", "http://[::1", "x" * 5000, 5])
def test_without_a_published_url_the_default_is_used(value: object, clock: Clock) -> None:
    known = ComfyUIURL(Redis(), default="http://fallback:8188", clock=clock)
    assert known.get() == FOUND
    clock.now_s += 61
    known._redis = Redis(value)
    assert known.get() == "http://fallback:8188"
    assert ComfyUIURL(Redis(value)).get() is None


def test_the_backend_is_on_the_job_and_on_the_span_without_the_password(spans: Spans) -> None:
    known = ComfyUIURL(Redis())
    job = job_start(Origin("redis", "q"), b'{"id": "1"}')
    with trace.get_tracer("test").start_as_current_span("stage"):
        known.get()
    job_end(job)
    assert attributes(spans.one("stage"))[names.BACKEND] == "pod-1.example:8188"
    assert attributes(spans.one("process q"))[names.BACKEND] == "pod-1.example:8188"


def test_threads_do_not_ask_at_once(clock: Clock) -> None:
    asked, answer = threading.Event(), threading.Event()

    class Slow(Redis):
        def get(self, name: str) -> object:
            asked.set()
            answer.wait(10)
            return super().get(name)

    redis = Slow()
    known = ComfyUIURL(redis, default="http://fallback:8188", clock=clock)
    first = threading.Thread(target=known.get)
    first.start()
    assert asked.wait(10)
    assert known.get() == "http://fallback:8188"
    answer.set()
    first.join(10)
    assert (known.get(), len(redis.reads)) == (FOUND, 1)


def test_a_publisher_writes_while_comfyui_answers_and_withdraws_its_own() -> None:
    redis, healthy, stop = Redis(), [True, False, True], threading.Event()

    def check() -> bool:
        if len(healthy) == 1:
            stop.set()
        return healthy.pop(0)

    Publisher(redis, "key", "http://pod:1", 60, check).run(0.001, stop)
    assert redis.writes == [
        ("key", "http://pod:1", 60_000),
        ("key", "http://pod:1", 60_000),
        ("if", 1, "key", "http://pod:1"),
    ]


def test_a_publisher_survives_redis_being_away(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    redis = Redis()
    redis.away = ConnectionError()
    publisher = Publisher(redis, "key", "http://pod:1", 60, lambda: True)
    assert [publisher.publish(), publisher.publish()] == [False, False]
    publisher.withdraw()
    redis.away = None
    assert publisher.publish()
    assert [record.message for record in caplog.records] == [
        "Redis is away: ConnectionError",
        "not withdrawn: ConnectionError",
        "published pod:1 as key",
    ]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RUNPOD_POD_ID": "abc"}, "https://abc-8188.proxy.runpod.net"),
        ({"PUBLIC_IPADDR": "1.2.3.4", "VAST_TCP_PORT_8188": "40001"}, "http://1.2.3.4:40001"),
        ({"POD_IP": "10.1.2.3"}, "http://10.1.2.3:8188"),
    ],
)
def test_a_pod_knows_its_own_url(environment: dict[str, str], expected: str) -> None:
    assert own_url(environment, 8188) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        ("--url", "pod"),
        ("--check", "file:///x", "--url", "http://a"),
        ("--ttl", "5", "--interval", "9"),
        ("--ttl", "0"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        discovery.main(["publish", *wrong])
    assert stopped.value.code == 2
    assert "error" in capsys.readouterr().err
