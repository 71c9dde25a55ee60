"""The wall between our code and the host program."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from otel_pipeline.worker import guard
from otel_pipeline.worker.guard import HOOKS, LOGGED_MAX, Hook, hook


@pytest.fixture
def broken() -> Iterator[Hook[[int], int]]:
    @hook("test.broken")
    def divide(number: int) -> int:
        return 1 // number

    yield divide
    del HOOKS["test.broken"]


def test_a_hook_returns_what_its_function_returns(broken: Hook[[int], int]) -> None:
    assert broken(1) == 1


def test_an_exception_becomes_none_and_is_counted(broken: Hook[[int], int]) -> None:
    assert broken(0) is None
    assert broken.failures == 1


def test_a_fault_that_is_injected_is_swallowed_too(broken: Hook[[int], int]) -> None:
    broken.fault = RuntimeError("injected")
    assert broken(1) is None
    assert broken.failures == 1


def test_none_from_the_hook_before_passes_through_without_a_failure(broken: Hook[[int], int]) -> None:
    assert broken(None) is None  # type: ignore[arg-type]  # what a hook that failed hands on
    assert broken.failures == 0


def test_the_end_of_the_program_is_not_swallowed(broken: Hook[[int], int]) -> None:
    broken.fault = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        broken(1)


def test_only_the_first_failures_are_logged(broken: Hook[[int], int], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "otel_pipeline.worker"):
        for _ in range(LOGGED_MAX + 5):
            broken(0)
    assert len(caplog.records) == LOGGED_MAX
    assert broken.failures == LOGGED_MAX + 5


def test_a_log_handler_that_fails_in_our_own_hook_does_not_recurse(broken: Hook[[int], int]) -> None:
    class Recursive(logging.Handler):
        calls = 0

        def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002  the signature of logging
            Recursive.calls += 1
            broken(0)

    log, handler = logging.getLogger("otel_pipeline.worker"), Recursive()
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        broken(0)
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    assert Recursive.calls == 1


def test_two_hooks_of_one_name_are_a_mistake(broken: Hook[[int], int]) -> None:
    with pytest.raises(ValueError, match=r"test\.broken"):
        hook("test.broken")(lambda: None)
    assert guard.HOOKS["test.broken"] is broken
