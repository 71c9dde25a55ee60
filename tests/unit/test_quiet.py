"""Warnings that repeat are logged once a minute with a count."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from otel_pipeline.quiet import KINDS_MAX, PERIOD_S, Quiet

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quiet(clock: Clock) -> Quiet:
    return Quiet(logging.getLogger("tests.quiet"), clock)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


def test_the_first_of_a_kind_is_logged_the_next_ones_are_not(quiet: Quiet, said: Callable[[], list[str]]) -> None:
    for number in range(5):
        quiet.warning("no %s: %d", "luck", number)
    assert said() == ["no luck: 0"]


def test_after_a_minute_the_next_one_tells_how_many_were_held_back(
    quiet: Quiet, clock: Clock, said: Callable[[], list[str]]
) -> None:
    for number in range(5):
        quiet.error("no luck: %d", number)
    clock.now_s += PERIOD_S
    quiet.error("no luck: %d", 5)
    clock.now_s += PERIOD_S
    quiet.error("no luck: %d", 6)
    assert said() == ["no luck: 0", "no luck: 5 (4 more of these in the last minute)", "no luck: 6"]


def test_kinds_do_not_silence_each_other(quiet: Quiet, said: Callable[[], list[str]]) -> None:
    quiet.warning("one")
    quiet.warning("two")
    assert said() == ["one", "two"]


def test_an_exception_is_logged_with_its_stack(quiet: Quiet, caplog: pytest.LogCaptureFixture) -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        quiet.exception("failed")
    assert caplog.records[0].levelno == logging.ERROR
    assert "ZeroDivisionError" in caplog.text


def test_the_number_of_kinds_is_bounded(quiet: Quiet, said: Callable[[], list[str]]) -> None:
    for number in range(KINDS_MAX + 1):
        quiet.warning(f"kind {number}")
    quiet.warning("kind 0")
    assert said().count("kind 0") == 2
