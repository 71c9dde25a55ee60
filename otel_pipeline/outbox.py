"""The durable store between processing and exporters: what was acknowledged is in here until every exporter is done
with it.

LMDB, one environment, one writer at a time, any number of readers (also from other processes: `otel-pipeline queue`).

    items/PIPELINE   sequence number, time in ms, item count (big endian: 8, 8, 4 bytes) -> the serialized request
    state            "stream/PIPELINE" -> totals of what came in;  "cursor/PIPELINE/EXPORTER" -> totals of what went out
    parked/PIPELINE  rows that a processor has set aside (outbox_parked.py)
    records/BOOK     what batches leave for a book, such as the error groups (outbox_records.py)

Every pipeline is a stream of its own, every exporter of it has a cursor: the sequence number up to which it is done.
An entry is deleted when all cursors have passed it. The totals are written in the transaction that moves the data, so
that received = filtered + dropped + parked + appended, and for each exporter appended = exported + dropped + queued,
hold at any moment.

`sync` decides what survives a power cut. A kill of the process loses nothing in any mode, since a commit is in the
page cache. With `always` each commit waits for the disk; with `interval` the disk is asked every second, and a power
cut in between may cost the last second or, in the worst case, the file: one that cannot be read is set aside at the
start, never deleted.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import lmdb

from otel_pipeline.errors import OutboxError, OutboxFull
from otel_pipeline.limits import (
    ENTRIES_MERGED_MAX,
    OUTBOX_RECENT_BYTES_MAX,
)
from otel_pipeline.outbox_file import lock_directory, open_environment
from otel_pipeline.outbox_parked import Parked
from otel_pipeline.outbox_records import Records
from otel_pipeline.outbox_state import (
    KEY,
    SEQUENCE,
    Addition,
    Chunk,
    CursorState,
    Entry,
    StreamState,
    added,
    backlog,
    cursor_key,
    extent,
    footprint,
    read_cursors,
    read_stream,
    stream_names,
    with_queue,
    write_cursor,
    write_stream,
)
from otel_pipeline.quiet import Quiet
from otel_pipeline.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)


class Outbox:
    """The open store. `streams` maps each pipeline to its signal and its exporters, as configured now."""

    def __init__(
        self,
        directory: Path,
        streams: Mapping[str, tuple[str, Sequence[str]]],
        *,
        bytes_max: int,
        sync: str = "interval",
        sync_interval_s: float = 1.0,
        clock: Callable[[], float] = time.time,
        books: Sequence[str] = (),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._clock = clock
        self.bytes_max = bytes_max
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._recorded = threading.Condition(self._lock)
        """Of its own: most batches leave no record, and need not wake the books' threads."""
        self._guard = lock_directory(directory)
        self._env = open_environment(directory, bytes_max, durable=sync == "always")
        self._databases = {pipeline: self._env.open_db(f"items/{pipeline}".encode()) for pipeline in streams}
        self._state = self._env.open_db(b"state")
        self.records = Records(self._env, self._state, books, int(clock() * 1000))
        self.parked = Parked(self._env, streams)
        self._streams = {pipeline: self._resume(pipeline, *streams[pipeline]) for pipeline in streams}
        self._warn_of_orphans()
        self._recent = Recent(streams, OUTBOX_RECENT_BYTES_MAX)
        self._dirty = threading.Event()
        self._closed = threading.Event()
        self._quiet = Quiet(log)
        self._syncer: threading.Thread | None = None
        if sync == "interval":
            self._syncer = threading.Thread(
                target=self._sync_often, args=(sync_interval_s,), name="outbox-sync", daemon=True
            )
            self._syncer.start()

    # -- in ------------------------------------------------------------------------------------------------------------

    def append(self, additions: Sequence[Addition]) -> None:
        """Store batches in one transaction. When this returns they survive a crash. Raises OutboxFull: nothing is
        stored.
        """
        wanted = sum(map(_footprint, additions)) - sum(map(self.parked.freed, additions))
        now_ms = int(self._clock() * 1000)
        with self._lock:
            if self.bytes_used + wanted > self.bytes_max:
                raise OutboxFull(f"the outbox holds {self.bytes_used} bytes, {self.bytes_max} are allowed")
            try:
                after = dict(self._streams)
                with self._env.begin(write=True) as txn:
                    for addition in additions:
                        after[addition.pipeline] = self._put(txn, after[addition.pipeline], addition, now_ms)
                    records = self.records.put(txn, additions)
                    parked = self.parked.write(txn, additions, now_ms)
            except lmdb.MapFullError:
                raise OutboxFull("the outbox's file is full") from None
            except lmdb.Error as error:
                raise OutboxError(f"cannot write the outbox: {error}") from error
            self._remember(additions, now_ms)
            self.records.commit(records)
            self.parked.commit(parked)
            self._streams = after
            self._dirty.set()
            self._arrived.notify_all()
            if any(addition.records for addition in additions):
                self._recorded.notify_all()

    def _put(self, txn: lmdb.Transaction, stream: StreamState, addition: Addition, now_ms: int) -> StreamState:
        after = replace(
            stream,
            received=stream.received + addition.received,
            appended=stream.appended + addition.items,
            filtered=added(stream.filtered, addition.filtered),
            dropped=added(stream.dropped, addition.dropped),
        )
        if addition.items:
            key = KEY.pack(stream.next, now_ms, addition.items)
            txn.put(key, addition.payload, db=self._databases[stream.pipeline], append=True)
            after.next += 1
            after.bytes += footprint(addition.payload)
        write_stream(txn, self._state, after)
        return after

    def _remember(self, additions: Sequence[Addition], now_ms: int) -> None:
        """Keep what was just committed in memory for the exporters."""
        numbers = {name: stream.next for name, stream in self._streams.items()}
        for addition in additions:
            if addition.items:
                entry = Entry(numbers[addition.pipeline], now_ms, addition.items)
                self._recent.add(addition.pipeline, entry, addition.payload)
                numbers[addition.pipeline] += 1

    def room(self, size: int) -> bool:
        """Whether so many bytes more would be taken now."""
        return self.bytes_used + size <= self.bytes_max

    @property
    def bytes_used(self) -> int:
        """Bytes of all that waits, in whole pages."""
        return sum(stream.bytes for stream in self._streams.values()) + self.records.size_bytes + self.parked.size_bytes

    # -- out -----------------------------------------------------------------------------------------------------------

    def wait(
        self, positions: Sequence[tuple[str, int]], timeout_s: float, ended: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait until one of the streams has an entry at or after its position, or `ended` is true at a `wake`."""

        def done() -> bool:
            return self._closed.is_set() or ended() or any(self._streams[name].next > at for name, at in positions)

        with self._arrived:
            self._arrived.wait_for(done, timeout_s)

    def wake(self) -> None:
        """Let every `wait` look again now."""
        with self._lock:
            self._arrived.notify_all()
            self._recorded.notify_all()

    def position(self, pipeline: str, exporter: str) -> int:
        """The sequence number from which an exporter still has to deliver."""
        return self._cursor(pipeline, exporter).next

    def read(self, pipeline: str, start: int, bytes_max: int, entries_max: int = ENTRIES_MERGED_MAX) -> Chunk | None:
        """The entries from `start` on that fit together into `bytes_max`, at least one; None if there is none."""
        with self._lock:
            recent = self._recent.read(pipeline, start, bytes_max, entries_max)
        return recent or self._read_file(pipeline, start, bytes_max, entries_max)

    def _read_file(self, pipeline: str, start: int, bytes_max: int, entries_max: int) -> Chunk | None:
        entries: list[Entry] = []
        parts = []
        size = 0
        with self._env.begin(db=self._databases[pipeline], buffers=True) as txn, txn.cursor() as cursor:
            alive = cursor.set_range(SEQUENCE.pack(start))
            while alive and len(entries) < entries_max:
                key, value = cursor.item()
                size += len(value)
                if entries and size > bytes_max:
                    break
                entries.append(Entry(*KEY.unpack(key)))
                parts.append(value)
                alive = cursor.next()
            return Chunk(entries, b"".join(parts)) if entries else None

    def settle(self, pipeline: str, exporter: str, entry: Entry, exported: int, dropped: Mapping[str, int]) -> None:
        """An exporter is done with all up to and including `entry`: so many items taken, so many lost and why."""
        with self._lock:
            stream = self._streams[pipeline]
            before = self._cursor(pipeline, exporter)
            after = CursorState(
                exporter, entry.sequence + 1, before.exported + exported, added(before.dropped, dropped)
            )
            cursors = [after if cursor is before else cursor for cursor in stream.cursors]
            done = min(cursor.next for cursor in cursors)
            with self._env.begin(write=True, buffers=True) as txn:
                freed = self._delete(txn, stream, done)
                write_cursor(txn, self._state, pipeline, after)
            self._recent.forget(pipeline, done)
            stream.cursors = cursors
            stream.first = max(stream.first, done)
            stream.bytes -= freed
            self._dirty.set()

    def _delete(self, txn: lmdb.Transaction, stream: StreamState, end: int) -> int:
        """Delete the entries before `end`; returns the bytes they held."""
        freed = 0
        with txn.cursor(self._databases[stream.pipeline]) as cursor:
            cursor.first()
            while (key := cursor.key()) and KEY.unpack(key)[0] < end:  # behind the last entry the key is empty
                freed += footprint(cursor.value())
                cursor.delete()
        return freed

    # -- for books -----------------------------------------------------------------------------------------------------

    def wait_for_records(self, book: str, timeout_s: float, ended: Callable[[], bool]) -> None:
        """Wait until a record waits for a book, or `ended` is true at a `wake`."""

        def done() -> bool:
            return self._closed.is_set() or ended() or self.records.waiting(book) > 0

        with self._recorded:
            self._recorded.wait_for(done, timeout_s)

    def forget_records(self, book: str, end: int) -> None:
        """A book has applied its records before number `end`."""
        with self._lock:
            with self._env.begin(write=True, buffers=True) as txn:
                lines = self.records.delete(txn, book, end)
            self.records.commit(lines)
            self._dirty.set()

    # -- watching and ending -------------------------------------------------------------------------------------------

    def states(self) -> list[StreamState]:
        """All totals at one moment."""
        with self._lock, self._env.begin(buffers=True) as txn:
            now_ms = self._clock() * 1000
            return [
                replace(
                    with_queue(txn, self._databases[stream.pipeline], stream, now_ms),
                    bytes=stream.bytes + self.parked.bytes_of(stream.pipeline),
                    parked=self.parked.items(stream.pipeline),
                )
                for stream in self._streams.values()
            ]

    def close(self) -> None:
        """Write everything to the disk and close; may be called twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        self.wake()
        self._dirty.set()
        if self._syncer:
            self._syncer.join()
        self._env.sync(force=True)
        self._env.close()
        self._guard.close()

    def _sync_often(self, interval_s: float) -> None:
        while not self._closed.wait(interval_s):
            if self._dirty.is_set():
                self._dirty.clear()
                try:
                    self._env.sync(force=True)
                except lmdb.Error as error:
                    self._dirty.set()
                    self._quiet.error("the disk does not keep the outbox: %s", error)

    # -- state ---------------------------------------------------------------------------------------------------------

    def _cursor(self, pipeline: str, exporter: str) -> CursorState:
        return next(cursor for cursor in self._streams[pipeline].cursors if cursor.exporter == exporter)

    def _resume(self, pipeline: str, signal: str, exporters: Sequence[str]) -> StreamState:
        """Read a stream's totals and cursors; cursors of exporters that are configured no more are given up."""
        with self._env.begin(write=True) as txn:
            stream = read_stream(txn, self._state, pipeline, signal)
            stream.first, stream.bytes = extent(txn, self._databases[pipeline], stream.next)
            known = {cursor.exporter: cursor for cursor in read_cursors(txn, self._state, pipeline)}
            for gone in known.keys() - set(exporters):
                log.warning("pipeline %s: exporter %s is configured no more, its queue is given up", pipeline, gone)
                txn.delete(cursor_key(pipeline, gone), db=self._state)
            for exporter in exporters:
                # A new exporter begins with what comes from now on; its totals begin where the stream's are.
                cursor = known.get(exporter) or CursorState(exporter, stream.next, 0, backlog(stream.appended))
                stream.cursors.append(cursor)
                write_cursor(txn, self._state, pipeline, cursor)
            done = min((cursor.next for cursor in stream.cursors), default=stream.first)
            stream.bytes -= self._delete(txn, stream, done)
            stream.first = max(stream.first, done)
            write_stream(txn, self._state, stream)
        return stream

    def _warn_of_orphans(self) -> None:
        """What waits in a pipeline that is configured no more stays in the file until it is configured again."""
        with self._env.begin() as txn:
            names = stream_names(txn, self._state)
        for name in names:
            if name not in self._streams:
                log.warning("the outbox holds the stream of pipeline %s, which is configured no more; it is kept", name)


def _footprint(addition: Addition) -> int:
    """What a batch takes in the file."""
    records = sum(footprint(record) for _, record in addition.records)
    return footprint(addition.payload) + records + sum(footprint(rows.payload) for rows in addition.parked)
