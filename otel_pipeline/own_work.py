"""What processors do besides looking at batches: they hand in requests of their own, and release what they parked.

Each such work is a task on the event loop, from before the receivers start until after they stop.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

from otel_pipeline.errors import OutboxError
from otel_pipeline.limits import COALESCE_BYTES_MAX
from otel_pipeline.quiet import Quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from otel_pipeline.contracts import Originator, Parker, Processor
    from otel_pipeline.outbox import Outbox
    from otel_pipeline.outbox_state import ParkedEntry
    from otel_pipeline.pipeline import DataPath, Pipeline

log = logging.getLogger(__name__)


class OwnWork:
    """The tasks of all processors of a gateway. `start` and `stop` are for the event loop."""

    def __init__(self, path: DataPath, outbox: Outbox) -> None:
        self._path = path
        self._outbox = outbox
        self._works: list[tuple[str, Callable[[], Coroutine[None, None, None]]]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, pipeline: Pipeline, component_id: str, processor: Processor) -> None:
        """What this processor does on its own, if it does; before the start."""
        if hasattr(processor, "originate"):
            entrance = self._path.lane(component_id, "internal", pipeline.signal, [pipeline])
            originator = cast("Originator", processor)
            self._works.append((component_id, lambda: originator.originate(entrance)))
        if hasattr(processor, "attend"):
            parking = ParkingOf(self._path, self._outbox, pipeline, component_id)
            parker = cast("Parker", processor)
            self._works.append((component_id, lambda: parker.attend(parking)))

    async def start(self) -> None:
        """Begin all."""
        self._tasks = [asyncio.create_task(_guarded(*work)) for work in self._works]

    async def stop(self) -> None:
        """Cancel all and wait for their ends. May be called twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class ParkingOf:
    """contracts.Parking of one processor."""

    def __init__(self, path: DataPath, outbox: Outbox, pipeline: Pipeline, processor: str) -> None:
        self._path = path
        self._outbox = outbox
        self._pipeline = pipeline
        self._processor = processor
        self._quiet = Quiet(log)

    def entries(self) -> Sequence[ParkedEntry]:
        """The oldest first."""
        return self._outbox.parked.entries(self._pipeline.id, self._processor)

    async def release(self, numbers: Sequence[int]) -> bool:
        """In batches of the usual size, so that the event loop is not held."""
        wanted = set(numbers)
        together: list[int] = []
        size = 0
        for entry in [*(one for one in self.entries() if one.number in wanted), None]:
            if together and (entry is None or size + entry.size_bytes > COALESCE_BYTES_MAX):
                if not self._take_on(together):
                    return False
                together, size = [], 0
                await asyncio.sleep(0)
            if entry is not None:
                together.append(entry.number)
                size += entry.size_bytes
        return True

    def _take_on(self, numbers: Sequence[int]) -> bool:
        try:
            self._path.release(self._pipeline, self._processor, numbers)
        except OutboxError as error:
            self._quiet.warning("what %s has parked stays parked: %s", self._processor, error)
            return False
        return True


async def _guarded(component_id: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
    try:
        await work()
    except Exception:
        log.exception("processor %s does nothing of its own any more", component_id)
