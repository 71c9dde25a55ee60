"""Parts of the process's end that need no process."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from otel_pipeline.worker.process import draining, lifecycle
from otel_pipeline.worker.settings import Settings


def test_the_first_process_of_a_container_survives_a_sigterm_as_without_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel ignores a signal whose action is the default there; its jobs may still come to their end."""
    killed: list[Any] = []
    asked: list[str] = []
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
    monkeypatch.setattr(draining, "request", asked.append)
    before = signal.getsignal(signal.SIGTERM)
    lifecycle._on_sigterm(signal.SIGTERM, None)
    assert (killed, asked) == ([], ["traces", "logs", "metrics"])
    assert signal.getsignal(signal.SIGTERM) is before


def test_it_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "settings", lambda: Settings(adapters_disabled=("lifecycle",)))
    before = signal.getsignal(signal.SIGTERM)
    lifecycle.install()
    assert signal.getsignal(signal.SIGTERM) is before
    assert not lifecycle._State.installed


def test_an_exit_is_waited_for_less_than_what_was_promised() -> None:
    assert Settings().exit_timeout_s * lifecycle.EXIT_SHARE < 3
