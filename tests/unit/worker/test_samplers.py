"""Queue depths and backends: what is asked for, and what is shown of it."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.metrics import CallbackOptions

from otel_pipeline.worker import samplers
from otel_pipeline.worker.samplers import Backend, Queue, Readings, Sampler, depth_of


class Redis:
    """Answers as a server with these keys would."""

    def __init__(self, kind: str, groups: list[dict[str, Any]] | None = None) -> None:
        self._kind = kind
        self._groups = groups or []

    def type(self, _: str) -> bytes:
        return self._kind.encode()

    def llen(self, _: str) -> int:
        return 3

    def zcard(self, _: str) -> int:
        return 4

    def xlen(self, _: str) -> int:
        return 5

    def xinfo_groups(self, _: str) -> list[dict[str, Any]]:
        return self._groups


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (Redis("list"), {"waiting": 3}),
        (Redis("zset"), {"waiting": 4}),
        (Redis("none"), {"waiting": 0}),
        (Redis("hash"), {"waiting": 0}),
        (Redis("stream"), {"waiting": 5}),
        (Redis("stream", [{"lag": None, "pending": 1}]), {"waiting": 5}),
        (Redis("stream", [{"lag": 2, "pending": 1}, {"lag": 0, "pending": 3}]), {"waiting": 2, "active": 3}),
    ],
    ids=["list", "zset", "none", "hash", "stream", "lag-unknown", "groups"],
)
def test_the_depth_is_that_of_the_kind_of_key(client: Redis, expected: dict[str, int]) -> None:
    assert depth_of(client, "q") == expected


def test_queues_and_backends_are_written_short() -> None:
    assert Queue.parse("video:queue") == Queue("video:queue", "waiting")
    assert Queue.parse("tts:jobs=tts") == Queue("tts:jobs", "tts")
    assert Backend.parse("http://10.0.0.1:8188/") == Backend("10.0.0.1:8188", "http://10.0.0.1:8188")
    assert Backend.parse("local=comfyui:8188") == Backend("local", "http://comfyui:8188")
    assert Backend.parse("https://u:p@host/x?a=b").name == "host"


def test_a_value_that_is_old_is_not_shown() -> None:
    now_s = [0.0]
    readings = Readings(30.0, lambda: now_s[0])
    readings.set("queue_depth", 7, queue="q", stage="waiting")
    callback = readings.observe("queue_depth")
    assert [(each.value, each.attributes) for each in callback(CallbackOptions())] == [
        (7, {"queue": "q", "stage": "waiting"})
    ]
    now_s[0] = 31.0
    assert list(callback(CallbackOptions())) == []


def test_one_that_fails_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = Sampler("redis://127.0.0.1:1/0", [Queue("q")], [Backend("a", "http://a"), Backend("b", "http://b")], 1.0)
    counted: list[int] = []
    monkeypatch.setattr(
        sampler, "_redis_errors", type("Counter", (), {"add": lambda _, amount: counted.append(amount)})()
    )
    monkeypatch.setattr(samplers, "answers", lambda url: url == "http://b")
    monkeypatch.setattr(sampler, "_client", lambda: (_ for _ in ()).throw(ConnectionError("injected")))
    sampler.round()
    shown = {
        (each.attributes or {})["backend"]: each.value
        for each in sampler._readings.observe("comfyui_backend_health")(CallbackOptions())
    }
    assert (shown, counted) == ({"a": 0.0, "b": 1.0}, [1])


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x", "http://127.0.0.1:1", "http://[bad"])
def test_what_is_no_http_server_does_not_answer(url: str) -> None:
    assert not samplers.answers(url)


def test_nothing_to_sample_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        samplers.main([])
    assert caught.value.code == 2
    assert "give --queue or --backend" in capsys.readouterr().err
