"""The thread between the outbox and one exporter: reads, merges, delivers, retries, splits, settles. Shared by all that push.

An exporter may stand in several pipelines; each is a stream with a cursor of its own and waits on its own after a failure, so
that a backend that takes traces but is down for metrics still gets its traces. Nothing is dropped for its age: a batch leaves
when the backend took it or refused it for good.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otel_pipeline.errors import Refused, TooLarge, Unavailable
from otel_pipeline.limits import ENTRIES_MERGED_MAX, SPLITS_MAX
from otel_pipeline.quiet import Quiet
from otel_pipeline.wire.scan import BatchReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline.contracts import Exporter
    from otel_pipeline.outbox import Outbox
    from otel_pipeline.outbox_state import Chunk, Entry
    from otel_pipeline.settings import Retry
    from otel_pipeline.stats import Stats
    from otel_pipeline.wire.signal import Signal

log = logging.getLogger(__name__)

IDLE_S: Final = 5.0
"""How long to sleep at most when there is nothing to do; an arrival wakes the thread."""


@dataclass(frozen=True, slots=True)
class Batching:
    """When to send: at once (the default), or when so many items wait or the oldest waited so long. From the `batch` processor."""

    items_min: int = 0
    wait_s: float = 0.0
    items_max: int = 0
    """At most so many items in a merged request; 0: as many as fit."""


class Stream:
    """One pipeline's stream as this exporter sees it."""

    def __init__(self, pipeline: str, signal: Signal, batching: Batching, retry: Retry, position: int) -> None:
        self.pipeline: Final = pipeline
        self.signal: Final = signal
        self.batching: Final = batching
        self.position = position
        self.due_s = 0.0
        self.retry: Final = retry
        self._delay_s = retry.initial_interval

    def postpone(self, asked_s: float | None, now_s: float) -> float:
        """Wait longer after each failure, at least what the backend asked for; returns the delay."""
        spread = self.retry.randomization_factor
        delay_s = max(self._delay_s * random.uniform(1 - spread, 1 + spread), asked_s or 0.0)  # noqa: S311 - jitter
        self._delay_s = min(self._delay_s * self.retry.multiplier, self.retry.max_interval)
        self.due_s = now_s + delay_s
        return delay_s

    def recovered(self) -> None:
        """The backend took something: the next failure begins with a short delay again."""
        self._delay_s = self.retry.initial_interval
        self.due_s = 0.0


class Sender:
    """Delivers the streams of one exporter in order, one request at a time."""

    def __init__(self, exporter_id: str, exporter: Exporter, outbox: Outbox, stats: Stats) -> None:
        self._id = exporter_id
        self._exporter = exporter
        self._outbox = outbox
        self._stats = stats
        self._streams: list[Stream] = []
        self._quiet = Quiet(log)
        self._stopping = threading.Event()
        self._deadline_s = float("inf")
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
        """Deliver what is there until the deadline (monotonic), then end. May be called twice."""
        self._deadline_s = deadline_s
        self._stopping.set()
        self._outbox.wake()
        if self._thread.is_alive():
            self._thread.join()
            self._exporter.close()

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            progress = False
            for stream in self._streams:
                if stream.due_s <= time.monotonic():
                    progress = self._advance(stream) or progress
            now_s = time.monotonic()
            if self._stopping.is_set() and (now_s >= self._deadline_s or not progress):
                return
            if not progress:
                self._sleep(now_s)

    def _sleep(self, now_s: float) -> None:
        """Wait for an arrival, but no longer than until a postponed stream is due."""
        delays = [stream.due_s - now_s for stream in self._streams if stream.due_s > now_s]
        idle = [(stream.pipeline, stream.position) for stream in self._streams if stream.due_s <= now_s]
        timeout_s = min([IDLE_S, *delays])
        if idle:
            self._outbox.wait(idle, timeout_s)
        else:
            self._stopping.wait(timeout_s)

    def _advance(self, stream: Stream) -> bool:
        """Deliver the next entries of a stream; False if there was nothing to do or it must wait."""
        chunk = self._read(stream, stream.position)
        if chunk is None or self._must_gather(stream, chunk.entries):
            return False
        try:
            self._deliver(stream, chunk)
        except Unavailable as error:
            if not stream.retry.enabled:
                self._settle(stream, chunk.entries[-1], 0, {"retry_disabled": _items(chunk.entries)})
                return True
            delay_s = stream.postpone(error.delay_s, time.monotonic())
            self._quiet.warning("exporter %s: %s; next try in %.1f s", self._id, error, delay_s)
            return False
        except Exception:
            self._quiet.exception("exporter %s failed; the batch stays in the outbox", self._id)
            stream.postpone(None, time.monotonic())
            return False
        stream.recovered()
        return True

    def _read(self, stream: Stream, start: int, entries_max: int = ENTRIES_MERGED_MAX) -> Chunk | None:
        """Entries to merge: within the exporter's size and the `batch` processor's count."""
        chunk = self._outbox.read(stream.pipeline, start, self._exporter.request_bytes_max, entries_max)
        items_max = stream.batching.items_max
        if chunk is None or not items_max or _items(chunk.entries) <= items_max or len(chunk.entries) == 1:
            return chunk
        return self._read(stream, start, len(chunk.entries) // 2)

    def _must_gather(self, stream: Stream, entries: Sequence[Entry]) -> bool:
        """Whether the `batch` settings ask to wait for more."""
        batching = stream.batching
        if not batching.wait_s or self._stopping.is_set():
            return False
        if _items(entries) >= batching.items_min:
            return False
        left_s = batching.wait_s - (time.time() - entries[0].created_ms / 1000)
        if left_s <= 0:
            return False
        stream.due_s = time.monotonic() + left_s
        return True

    # -- one request ---------------------------------------------------------------------------------------------------

    def _deliver(self, stream: Stream, chunk: Chunk) -> None:
        """Deliver entries merged; if they are refused together, by halves, so that one bad entry costs no other."""
        entries = chunk.entries
        items = _items(entries)
        if len(entries) == 1:
            exported, dropped = self._deliver_one(stream.signal, chunk.request, items, SPLITS_MAX)
        else:
            try:
                rejected = self._attempt(stream.signal, chunk.request)
            except Refused:
                middle = len(entries) // 2
                for part in (entries[:middle], entries[middle:]):
                    half = self._read(stream, part[0].sequence, len(part))
                    if half is not None:
                        self._deliver(stream, half)
                return
            exported = items - rejected
            dropped = {"rejected_by_backend": rejected} if rejected else {}
        self._settle(stream, entries[-1], exported, dropped)

    def _deliver_one(self, signal: Signal, request: bytes, items: int, splits: int) -> tuple[int, dict[str, int]]:
        """Deliver one entry, halving it as long as it is refused for its size; returns items taken and items lost."""
        try:
            rejected = self._attempt(signal, request)
        except TooLarge as error:
            parts = split(signal, request) if splits else []
            if len(parts) < 2:
                self._quiet.error("exporter %s: a single item is too large and is lost: %s", self._id, error)
                return 0, {"too_large": items}
            exported = 0
            dropped: dict[str, int] = {}
            for part, part_items in parts:
                done, lost = self._deliver_one(signal, part, part_items, splits - 1)
                exported += done
                for reason, count in lost.items():
                    dropped[reason] = dropped.get(reason, 0) + count
            return exported, dropped
        except Refused as error:
            self._quiet.error("exporter %s: %d items are refused for good and lost: %s", self._id, items, error)
            return 0, {"refused_by_backend": items}
        return items - rejected, {"rejected_by_backend": rejected} if rejected else {}

    def _attempt(self, signal: Signal, request: bytes) -> int:
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
        return rejected

    def _settle(self, stream: Stream, entry: Entry, exported: int, dropped: dict[str, int]) -> None:
        self._outbox.settle(stream.pipeline, self._id, entry, exported, dropped)
        stream.position = entry.sequence + 1
        self._stats.sent[stream.signal].labels(self._id).inc(exported)
        if dropped:
            self._stats.send_failed[stream.signal].labels(self._id).inc(sum(dropped.values()))


def split(signal: Signal, request: bytes) -> list[tuple[bytes, int]]:
    """A request in two halves by rows, each with its item count; fewer than two if it has but one row."""
    parts = []
    reader = BatchReader(signal)
    count = len(reader.read([request])[0])
    for first, last in ((0, count // 2), (count // 2, count)):
        batch, _ = reader.read([request])
        outside = batch.keep.copy()
        outside[first:last] = False
        batch.drop(outside)
        if last > first:
            parts.append((bytes(batch.encode()), batch.items()))
    return parts


def _items(entries: Sequence[Entry]) -> int:
    return sum(entry.items for entry in entries)
