"""Processors that hand in requests of their own."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from otel_pipeline.gateway import Originators
from tests.support.fakes import RememberingEntrance

if TYPE_CHECKING:
    from otel_pipeline.contracts import Entrance


class Once:
    """Hands in one request and waits for the end."""

    def __init__(self) -> None:
        self.ended = False

    async def originate(self, entrance: Entrance) -> None:
        try:
            await entrance.accept(b"own")
            await asyncio.sleep(60)
        finally:
            self.ended = True


class Failing:
    """Is broken."""

    async def originate(self, _: Entrance) -> None:
        raise ValueError("injected")


def test_they_run_from_start_to_stop_and_one_that_fails_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    entrance, once = RememberingEntrance(), Once()
    originators = Originators()
    originators.add("failing", Failing(), entrance)
    originators.add("once", once, entrance)

    async def live() -> None:
        await originators.start()
        while not entrance.bodies:
            await asyncio.sleep(0)
        await originators.stop()
        await originators.stop()

    with caplog.at_level(logging.ERROR):
        asyncio.run(live())
    assert entrance.bodies == [b"own"]
    assert once.ended
    assert [record.getMessage() for record in caplog.records] == [
        "processor failing hands in nothing of its own any more"
    ]


def test_without_any_it_starts_and_stops() -> None:
    async def live() -> int:
        originators = Originators()
        await originators.start()
        running = len(asyncio.all_tasks()) - 1
        await originators.stop()
        return running

    assert asyncio.run(live()) == 0
