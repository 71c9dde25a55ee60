"""What processors do on their own: requests of theirs, and rows that they park and release."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from otel_pipeline.contracts import Accepted
from otel_pipeline.outbox import Outbox
from otel_pipeline.own_work import OwnWork
from otel_pipeline.pipeline import DataPath, Pipeline
from otel_pipeline.stats import Stats
from otel_pipeline.wire.batch import ABSENT, Constants
from otel_pipeline.wire.signal import Signal
from tests.support.otlp import span_names, traces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otel_pipeline.contracts import Entrance, Parking, Processor
    from otel_pipeline.outbox_state import StreamState
    from otel_pipeline.wire.batch import Batch

MIB = 1024 * 1024


class Passing:
    """Leaves every batch as it is."""

    def attributes(self, _: Signal) -> frozenset[str]:
        return frozenset()

    def process(self, batch: Batch) -> None:
        pass


class Once(Passing):
    """Hands in one request and waits for the end."""

    def __init__(self) -> None:
        self.ended = False

    async def originate(self, entrance: Entrance) -> None:
        try:
            await entrance.accept(traces(["own"]))
            await asyncio.sleep(60)
        finally:
            self.ended = True


class Failing(Passing):
    """Is broken."""

    async def originate(self, _: Entrance) -> None:
        raise ValueError("injected")


class ParkingLate(Passing):
    """Parks the spans named `late`; renames them when they come again."""

    def __init__(self) -> None:
        self.parking: Parking | None = None
        self.seen: list[tuple[list[str], bool]] = []

    async def attend(self, parking: Parking) -> None:
        self.parking = parking

    def process(self, batch: Batch) -> None:
        names = batch.name()
        self.seen.append((sorted({str(names.at(row)) for row in range(len(batch))}), batch.released))
        late = names.where("late".__eq__)
        if batch.released:
            batch.set_name(Constants(late.astype("int32") - 1, ["in time"]))
        elif late.any():
            assert batch.park(late, b"why") == int(late.sum())
            assert batch.park(late) == 0, "they are gone"


class Counting(Passing):
    """Counts the rows that it is shown."""

    def __init__(self) -> None:
        self.rows = 0

    def process(self, batch: Batch) -> None:
        self.rows += batch.items()


class Gateway:
    """A data path with one pipeline and what its processors do on their own."""

    def __init__(self, directory: Path, *processors: tuple[str, Processor]) -> None:
        self.outbox = Outbox(directory, {"traces": ("traces", ["sink"])}, bytes_max=16 * MIB, sync="off")
        self.path = DataPath(self.outbox, Stats(), lambda: False)
        self.pipeline = Pipeline("traces", Signal.TRACES, processors, Stats())
        self.lane = self.path.lane("otlp", "grpc", Signal.TRACES, [self.pipeline])
        self.work = OwnWork(self.path, self.outbox)
        for component_id, processor in processors:
            self.work.add(self.pipeline, component_id, processor)

    def state(self) -> StreamState:
        return self.outbox.states()[0]

    def stored(self) -> list[str]:
        chunk = self.outbox.read("traces", 0, 16 * MIB)
        return span_names(chunk.request) if chunk else []

    async def attended(self, processor: ParkingLate) -> Parking:
        await self.work.start()
        while processor.parking is None:
            await asyncio.sleep(0)
        return processor.parking

    def release_all(self, processor: ParkingLate) -> bool:
        async def live() -> bool:
            parking = await self.attended(processor)
            released = await parking.release([entry.number for entry in parking.entries()])
            await self.work.stop()
            return released

        return asyncio.run(live())


@pytest.fixture
def opened() -> Iterator[list[Gateway]]:
    gateways: list[Gateway] = []
    yield gateways
    for gateway in gateways:
        gateway.outbox.close()


def test_originators_run_from_start_to_stop_and_one_that_fails_is_told_of(
    tmp_path: Path, opened: list[Gateway], caplog: pytest.LogCaptureFixture
) -> None:
    once = Once()
    gateway = Gateway(tmp_path, ("failing", Failing()), ("once", once))
    opened.append(gateway)

    async def live() -> None:
        await gateway.work.start()
        while not gateway.stored():
            await asyncio.sleep(0.001)
        await gateway.work.stop()
        await gateway.work.stop()

    with caplog.at_level(logging.ERROR):
        asyncio.run(live())
    assert gateway.stored() == ["own"]
    assert once.ended
    assert [record.getMessage() for record in caplog.records] == ["processor failing does nothing of its own any more"]


def test_parked_rows_are_acknowledged_and_wait_and_the_others_go_on(tmp_path: Path, opened: list[Gateway]) -> None:
    behind = Counting()
    gateway = Gateway(tmp_path, ("park", ParkingLate()), ("behind", behind))
    opened.append(gateway)
    assert asyncio.run(gateway.lane.accept(traces(["a", "late", "b", "late"]))) == Accepted()
    assert gateway.stored() == ["a", "b"]
    assert behind.rows == 2
    state = gateway.state()
    assert (state.received, state.appended, state.parked, state.filtered) == (4, 2, 2, {})
    (entry,) = gateway.outbox.parked.entries("traces", "park")
    assert (entry.items, entry.note) == (2, b"why")


def test_released_rows_pass_their_processor_again_and_those_behind_it_but_none_before(
    tmp_path: Path, opened: list[Gateway]
) -> None:
    before, park, behind = Counting(), ParkingLate(), Counting()
    gateway = Gateway(tmp_path, ("before", before), ("park", park), ("behind", behind))
    opened.append(gateway)
    asyncio.run(gateway.lane.accept(traces(["a", "late"])))
    assert gateway.release_all(park)
    assert gateway.stored() == ["a", "in time"]
    assert (before.rows, behind.rows) == (2, 2)
    assert park.seen == [(["a", "late"], False), (["late"], True)]
    state = gateway.state()
    assert (state.received, state.appended, state.parked) == (2, 2, 0)
    assert gateway.outbox.parked.size_bytes == 0


def test_parked_rows_survive_a_restart(tmp_path: Path, opened: list[Gateway]) -> None:
    first = Gateway(tmp_path, ("park", ParkingLate()))
    asyncio.run(first.lane.accept(traces(["late"])))
    used = first.outbox.bytes_used
    first.outbox.close()
    park = ParkingLate()
    second = Gateway(tmp_path, ("park", park))
    opened.append(second)
    assert second.outbox.bytes_used == used > 0
    assert second.state().parked == 1
    asyncio.run(second.lane.accept(traces(["late"], first=5)))
    assert [entry.number for entry in second.outbox.parked.entries("traces", "park")] == [0, 1]
    assert second.release_all(park)
    assert second.stored() == ["in time", "in time"]
    assert second.state().received == 2


def test_edits_that_came_before_stay_with_parked_rows(tmp_path: Path, opened: list[Gateway]) -> None:
    class Renaming(Passing):
        def process(self, batch: Batch) -> None:
            codes = batch.name().where("x".__eq__).astype("int32") - 1
            assert ABSENT in codes
            batch.set_name(Constants(codes, ["late"]))

    park = ParkingLate()
    gateway = Gateway(tmp_path, ("rename", Renaming()), ("park", park))
    opened.append(gateway)
    asyncio.run(gateway.lane.accept(traces(["x", "y"])))
    assert gateway.stored() == ["y"]
    gateway.release_all(park)
    assert gateway.stored() == ["y", "in time"]


def test_a_full_outbox_keeps_parked_rows_parked(tmp_path: Path, opened: list[Gateway]) -> None:
    park = ParkingLate()
    gateway = Gateway(tmp_path, ("park", park))
    opened.append(gateway)
    asyncio.run(gateway.lane.accept(traces(["late"])))
    gateway.outbox.bytes_max = 1
    assert not gateway.release_all(park)
    assert gateway.state().parked == 1
    gateway.outbox.bytes_max = 16 * MIB
    assert gateway.release_all(park)
    assert gateway.state().parked == 0


def test_without_any_it_starts_and_stops(tmp_path: Path, opened: list[Gateway]) -> None:
    gateway = Gateway(tmp_path)
    opened.append(gateway)

    async def live() -> int:
        await gateway.work.start()
        running = len(asyncio.all_tasks()) - 1
        await gateway.work.stop()
        return running

    assert asyncio.run(live()) == 0
