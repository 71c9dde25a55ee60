"""The thread between the outbox and one exporter: reads, merges, delivers, retries, splits, settles.

Shared by all that push. An exporter may stand in several pipelines; each is a stream with a cursor of its own and
waits on its own after a failure: a backend that takes traces but is down for metrics still gets its traces. Nothing
is dropped for its age: a batch leaves when the backend took it or refused it for good.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from otel_pipeline.errors import Refused, TooLarge, Unavailable
from otel_pipeline.exporters.stream import Stream
from otel_pipeline.limits import ENTRIES_MERGED_MAX, SPLITS_MAX
from otel_pipeline.quiet import Quiet
from otel_pipeline.wire.halves import halves

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline.contracts import Exporter
    from otel_pipeline.outbox import Outbox
    from otel_pipeline.outbox_state import Chunk, Entry
    from otel_pipeline.settings import Retry
    from otel_pipeline.stats import Stats
    from otel_pipeline.wire.signal import Signal

log = logging.getLogger(__name__)

IDLE_S: Final = 5.0
"""How long to sleep at most when there is nothing to do; an arrival wakes the thread."""
OVERSIZE: Final = 2
"""A batch of so many times the exporter's size is split first; a full one with attributes added goes as it is."""


@dataclass(frozen=True, slots=True)
class Batching:
    """When to send: at once (the default), or when so many items wait or the oldest waited so long. From `batch`."""

    items_min: int = 0
    wait_s: float = 0.0
    items_max: int = 0
    """At most so many items in a merged request; 0: as many as fit."""


class Sender:
    """Delivers the streams of one exporter in order, one request at a time."""

    def __init__(
        self,
        exporter_id: str,
        exporter: Exporter,
        outbox: Outbox,
        stats: Stats,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._id = exporter_id
        self._exporter = exporter
        self._outbox = outbox
        self._stats = stats
        self._clock = clock
        self._wall_clock = wall_clock
        self._jitter = jitter
        self._streams: list[Stream] = []
        self._quiet = Quiet(log)
        self._stopping = threading.Event()
        self._closed = False
        self._deadline_s = math.inf
        self._thread = threading.Thread(target=self._run, name=f"send-{exporter_id}")
        self._attempts = {
            outcome: stats.attempts.labels(exporter_id, outcome) for outcome in ("ok", "retry", "refused", "too_large")
        }
        self._in_flight = stats.in_flight.labels(exporter_id)

    def add(self, pipeline: str, signal: Signal, batching: Batching, retry: Retry) -> None:
        """Deliver a pipeline's stream; before `start`."""
        self._streams.append(Stream(pipeline, signal, batching, retry, self._outbox.position(pipeline, self._id)))

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """Deliver what is there until the deadline (monotonic), cut off what is under way, end. May be called twice."""
        self._deadline_s = deadline_s
        self._stopping.set()
        self._outbox.wake()
        if self._thread.is_alive():
            self._thread.join(min(max(0.0, deadline_s - self._clock()), threading.TIMEOUT_MAX))
        if not self._closed:
            self._closed = True
            self._exporter.close()
        if self._thread.is_alive():
            self._thread.join()

    def turn(self) -> bool:
        """Send at most one merged request of each stream that is due; False if there was nothing to do."""
        progress = False
        for stream in self._streams:
            if stream.due_s <= self._clock() and not self._closed:
                progress = self._advance(stream) or progress
        return progress

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            stopping = self._stopping.is_set()
            progress = self.turn()
            if stopping and (not progress or self._clock() >= self._deadline_s):
                return
            if not progress:
                self._sleep()

    def _sleep(self) -> None:
        """Wait for an arrival, but no longer than until a stream is due."""
        now_s = self._clock()
        idle = [stream for stream in self._streams if stream.due_s <= now_s]
        ends_s = [stream.gathered_s if stream in idle else stream.due_s for stream in self._streams]
        timeout_s = max(0.0, min([IDLE_S, *(end_s - now_s for end_s in ends_s)]))
        self._outbox.wait([(stream.pipeline, stream.awaited) for stream in idle], timeout_s, self._stopping.is_set)

    def _advance(self, stream: Stream) -> bool:
        """Deliver the next entries of a stream; False if there was nothing to do or it must wait."""
        try:
            chunk = self._read(stream, stream.position)
            if chunk is None or self._must_gather(stream, chunk):
                return False
            return self._try(stream, chunk)
        except Exception:  # noqa: BLE001 - it is logged
            self._quiet.exception("exporter %s failed; the batch stays in the outbox", self._id)
            stream.postpone(None, self._clock(), self._jitter)
            return False

    def _try(self, stream: Stream, chunk: Chunk) -> bool:
        """Deliver; False if the backend is not available."""
        try:
            self._deliver(stream, chunk)
        except Unavailable as error:
            if stream.retry.enabled or self._closed:
                delay_s = stream.postpone(error.delay_s, self._clock(), self._jitter)
                self._quiet.warning("exporter %s: %s; next try in %.1f s", self._id, error, delay_s)
                return False
            left = [entry for entry in chunk.entries if entry.sequence >= stream.position]
            self._quiet.error("exporter %s: %s; %d items are lost, no retry is wanted", self._id, error, _items(left))
            self._settle(stream, left[-1], 0, {"retry_disabled": _items(left)})
        stream.recovered()
        return True

    def _read(self, stream: Stream, start: int, entries_max: int = ENTRIES_MERGED_MAX) -> Chunk | None:
        """Entries to merge: within the exporter's size and the `batch` processor's count."""
        bytes_max = self._exporter.request_bytes_max
        chunk = self._outbox.read(stream.pipeline, start, bytes_max, entries_max)
        items_max = stream.batching.items_max
        if chunk is None or not items_max:
            return chunk
        fitting = sum(items <= items_max for items in accumulate(entry.items for entry in chunk.entries))
        if len(chunk.entries) <= max(1, fitting):
            return chunk
        return self._outbox.read(stream.pipeline, start, bytes_max, max(1, fitting))

    def _must_gather(self, stream: Stream, chunk: Chunk) -> bool:
        """Whether the `batch` settings ask to wait for more; there is no more to wait for if the chunk is full."""
        batching = stream.batching
        stream.awaited, stream.gathered_s = stream.position, math.inf
        if not batching.wait_s or self._stopping.is_set() or _items(chunk.entries) >= batching.items_min:
            return False
        left_s = batching.wait_s - (self._wall_clock() - chunk.entries[0].created_ms / 1000)
        if left_s <= 0 or self._is_full(stream, chunk):
            return False
        missing = _missing(chunk, batching.items_min, self._exporter.request_bytes_max)
        stream.awaited = chunk.entries[-1].sequence + missing
        stream.gathered_s = self._clock() + left_s
        return True

    def _is_full(self, stream: Stream, chunk: Chunk) -> bool:
        """Whether the next entry does not fit in; one that would has arrived since the chunk was read."""
        following = self._outbox.read(stream.pipeline, chunk.entries[-1].sequence + 1, 0, 1)
        if following is None:
            return False
        size = len(chunk.request) + len(following.request)
        items = _items(chunk.entries) + _items(following.entries)
        crowded = size > self._exporter.request_bytes_max or 0 < stream.batching.items_max < items
        return crowded or len(chunk.entries) >= ENTRIES_MERGED_MAX

    # -- one request ---------------------------------------------------------------------------------------------------

    def _deliver(self, stream: Stream, chunk: Chunk) -> None:
        """Deliver entries merged; if they are refused together, by halves, so that one bad entry costs no other."""
        entries = chunk.entries
        items = _items(entries)
        if len(entries) == 1:
            exported, dropped = self._deliver_one(stream, chunk.request, items, SPLITS_MAX)
        else:
            try:
                rejected = self._attempt(stream.signal, chunk.request, items)
            except Refused:
                middle = len(entries) // 2
                for part in (entries[:middle], entries[middle:]):
                    half = self._read(stream, part[0].sequence, len(part))
                    assert half is not None  # it stands in the outbox until it is settled
                    self._deliver(stream, half)
                return
            exported, dropped = items - rejected, _lost("rejected_by_backend", rejected)
        self._settle(stream, entries[-1], exported, dropped)

    def _deliver_one(self, stream: Stream, request: bytes, items: int, splits: int) -> tuple[int, dict[str, int]]:
        """Deliver one entry, halving it as long as it is too large; returns items taken and items lost."""
        oversize = len(request) > self._exporter.request_bytes_max * OVERSIZE
        if splits and (oversize or 0 < stream.batching.items_max < items):
            parts = halves(stream.signal, request)
            if len(parts) == 2:
                return self._deliver_parts(stream, parts, splits)
        try:
            rejected = self._attempt(stream.signal, request, items)
        except TooLarge as error:
            parts = halves(stream.signal, request) if splits else []
            if len(parts) == 2:
                return self._deliver_parts(stream, parts, splits)
            self._quiet.error("exporter %s: a single item is too large and is lost: %s", self._id, error)
            return 0, {"too_large": items}
        except Refused as error:
            self._quiet.error("exporter %s: %d items are refused for good and lost: %s", self._id, items, error)
            return 0, {"refused_by_backend": items}
        return items - rejected, _lost("rejected_by_backend", rejected)

    def _deliver_parts(
        self, stream: Stream, parts: Sequence[tuple[bytes, int]], splits: int
    ) -> tuple[int, dict[str, int]]:
        exported, dropped = 0, Counter[str]()
        for part, items in parts:
            done, lost = self._deliver_one(stream, part, items, splits - 1)
            exported += done
            dropped.update(lost)
        return exported, dropped

    def _attempt(self, signal: Signal, request: bytes, items: int) -> int:
        """One call of the exporter; returns how many of the items the backend rejected."""
        with self._in_flight.track_inprogress():
            try:
                rejected = self._exporter.deliver(signal, request)
            except TooLarge:
                self._attempts["too_large"].inc()
                raise
            except Refused:
                self._attempts["refused"].inc()
                raise
            except Unavailable:
                self._attempts["retry"].inc()
                raise
        self._attempts["ok"].inc()
        return min(max(rejected, 0), items)  # a backend that miscounts must not spoil the balance

    def _settle(self, stream: Stream, entry: Entry, exported: int, dropped: dict[str, int]) -> None:
        self._outbox.settle(stream.pipeline, self._id, entry, exported, dropped)
        stream.position = stream.awaited = entry.sequence + 1
        self._stats.sent[stream.signal].labels(self._id).inc(exported)
        if dropped:
            self._stats.send_failed[stream.signal].labels(self._id).inc(sum(dropped.values()))


def _missing(chunk: Chunk, items_min: int, bytes_max: int) -> int:
    """How many more entries like these it takes until the request is large enough."""
    count = len(chunk.entries)
    items = _items(chunk.entries)
    by_items = math.ceil((items_min - items) * count / items)
    by_bytes = (bytes_max - len(chunk.request)) * count // len(chunk.request)
    return max(1, min(by_items, by_bytes, ENTRIES_MERGED_MAX - count))


def _lost(reason: str, count: int) -> dict[str, int]:
    return {reason: count} if count else {}


def _items(entries: Sequence[Entry]) -> int:
    return sum(entry.items for entry in entries)
