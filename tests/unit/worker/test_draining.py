"""Flushes that keep their time, whatever the exporter does."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from otel_pipeline.worker.process import draining
from otel_pipeline.worker.process.draining import Flusher, Keeper, Unsent


class Provider:
    """Flushes as long as it is told to."""

    def __init__(self) -> None:
        self.flushes = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def force_flush(self) -> bool:
        self.flushes += 1
        self.go_on.wait(20)
        return True

    def shutdown(self) -> None:
        self.go_on.wait(20)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    made = Provider()
    monkeypatch.setattr(draining, "providers", lambda names=draining.SIGNALS: {"traces": made})  # noqa: ARG005
    monkeypatch.setattr(Unsent, "watched", True)
    monkeypatch.setattr(Unsent, "since_flush", True)
    monkeypatch.setattr(draining, "_flushers", {})
    yield made
    made.go_on.set()


def test_a_flush_is_cheap_when_there_is_nothing_new(provider: Provider) -> None:
    assert draining.flush(10)
    assert draining.flush(10)
    assert provider.flushes == 1
    Unsent.note()
    assert draining.flush(10)
    assert provider.flushes == 2


def test_a_flush_returns_in_time_and_is_tried_again(provider: Provider) -> None:
    provider.go_on.clear()
    began_s = time.monotonic()
    assert not draining.flush(0.05)
    assert not draining.flush(0.05)
    assert time.monotonic() - began_s < 5
    assert provider.flushes == 1, "one thread at a time"
    provider.go_on.set()
    assert draining.flush(10)
    assert provider.flushes in {2, 3}, "what was asked for in vain is made up for"


def test_a_flush_that_began_before_does_not_count(provider: Provider) -> None:
    provider.go_on.clear()
    flusher = Flusher("traces")
    first = flusher.request()
    while not provider.flushes:
        time.sleep(0.001)
    second = flusher.request()
    provider.go_on.set()
    assert flusher.wait(first, time.monotonic() + 10)
    assert flusher.wait(second, time.monotonic() + 10)
    assert provider.flushes == 2


def test_a_shutdown_keeps_its_deadline(provider: Provider) -> None:
    provider.go_on.clear()
    began_s = time.monotonic()
    draining.shut_down(began_s + 0.05)
    assert time.monotonic() - began_s < 5


def test_a_flush_where_no_thread_can_be_had_fails_at_once(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    assert not draining.flush(10)
    assert Unsent.since_flush
    draining.shut_down(time.monotonic() + 10)
    assert provider.flushes == 0


def test_a_keeper_works_when_it_is_asked() -> None:
    assert Keeper().run(10, lambda: True)
    assert not Keeper().run(10, lambda: False)
    never = threading.Event()
    assert not Keeper().run(0.05, lambda: never.wait(20))
    never.set()


def test_work_that_fails_is_no_success() -> None:
    def fail() -> bool:
        raise ValueError("injected")

    assert not draining.within(10, fail)
