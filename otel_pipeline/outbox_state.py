"""What the outbox's totals and keys look like, and how they are read: by the gateway itself and beside it by
`otel-pipeline queue`.
"""

from __future__ import annotations

import json
import struct
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import lmdb

from otel_pipeline.errors import OutboxError
from otel_pipeline.limits import OUTBOX_DATABASES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

KEY: Final = struct.Struct(">QQI")
"""What is known of an entry stands in its key, so that the value is the request as it is, never copied to add a
header.
"""
SEQUENCE: Final = struct.Struct(">Q")
PAGE: Final = 4096
PARKED: Final = b"parked/"
RECORDS: Final = b"records/"


@dataclass(frozen=True, slots=True)
class Addition:
    """What one processed batch adds to one stream."""

    pipeline: str
    payload: bytes
    items: int
    """In the payload."""
    received: int
    """Before filters; received + items of `released` = items + filtered + dropped + items of `parked`."""
    filtered: Mapping[str, int]
    dropped: Mapping[str, int]
    records: Sequence[tuple[str, bytes]] = ()
    """Books, and what they are to be told."""
    parked: Sequence[ParkedRows] = ()
    """What is set aside."""
    released: Sequence[int] = ()
    """The numbers of parked entries that this batch is made of."""


@dataclass(frozen=True, slots=True)
class ParkedRows:
    """Rows that a processor sets aside, to see them again later."""

    processor: str
    payload: bytes
    """A request."""
    items: int
    note: bytes
    """From the processor to itself."""


@dataclass(frozen=True, slots=True)
class ParkedEntry:
    """One stored parking, without its bytes."""

    number: int
    created_ms: int
    items: int
    size_bytes: int
    """In the file, whole pages."""
    processor: str
    note: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored batch, without its bytes."""

    sequence: int
    created_ms: int
    items: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive entries and their requests joined, which is the merged request."""

    entries: Sequence[Entry]
    request: bytes


@dataclass(slots=True)
class CursorState:
    """How far one exporter of a stream is."""

    exporter: str
    next: int = 0
    exported: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    queued_items: int = 0
    queued_batches: int = 0
    oldest_age_s: float = 0.0


@dataclass(slots=True)
class StreamState:
    """Totals of one stream since it was created, over restarts."""

    pipeline: str
    signal: str
    next: int = 0
    first: int = 0
    received: int = 0
    appended: int = 0
    bytes: int = 0
    filtered: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    cursors: list[CursorState] = field(default_factory=list)
    parked: int = 0
    """Items set aside now."""


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One line of `otel-pipeline queue`."""

    pipeline: str
    signal: str
    exporter: str
    batches: int
    items: int
    bytes: int
    oldest_age_s: float
    exported: int
    dropped: int


def inspect(directory: Path, clock: Callable[[], float] = time.time) -> list[QueueRow]:
    """Depth and age per exporter, read beside a running gateway. Raises OutboxError if there is no outbox."""
    if not (directory / "data.mdb").exists():
        raise OutboxError(f"no outbox in {directory}")
    try:
        env = lmdb.open(str(directory), readonly=True, max_dbs=OUTBOX_DATABASES_MAX, lock=True)
    except lmdb.Error as error:
        raise OutboxError(f"cannot read the outbox in {directory}: {error}") from error
    with env:
        state = env.open_db(b"state", create=False)
        with env.begin() as txn:
            names = stream_names(txn, state)
        databases = {name: env.open_db(f"items/{name}".encode(), create=False) for name in names}
        rows: list[QueueRow] = []
        with env.begin() as txn:
            others = sorted(key.decode() for key, _ in txn.cursor() if key.startswith((PARKED, RECORDS)))
        aside = {name: env.open_db(name.encode(), create=False) for name in others}
        with env.begin(buffers=True) as txn:
            for name in names:
                stream = read_stream(txn, state, name, "")
                stream.cursors = read_cursors(txn, state, name)
                stream.first, stream.bytes = extent(txn, databases[name], stream.next)
                seen = with_queue(txn, databases[name], stream, clock() * 1000)
                rows.extend(_queue_row(txn, databases[name], seen, cursor) for cursor in seen.cursors)
            rows.extend(row for name in others if (row := _aside_row(txn, name, aside[name], clock() * 1000)))
    return rows


def _aside_row(txn: lmdb.Transaction, name: str, database: Any, now_ms: float) -> QueueRow | None:
    """What is parked in a pipeline, or the records that wait for a book; None if there are none."""
    kind, _, whose = name.partition("/")
    batches = items = size = 0
    created_ms = now_ms
    with txn.cursor(database) as cursor:
        for key, value in cursor:
            batches += 1
            size += footprint(value)
            if kind == "parked":
                _, at_ms, count = KEY.unpack(key)
                items += count
                created_ms = min(created_ms, at_ms)
    age_s = round(max(0.0, now_ms - created_ms) / 1000, 3)
    pipeline, waits = (whose, "(parked)") if kind == "parked" else ("", f"(book {whose})")
    return QueueRow(pipeline, "", waits, batches, items, size, age_s, 0, 0) if batches else None


def _queue_row(txn: lmdb.Transaction, database: Any, stream: StreamState, cursor: CursorState) -> QueueRow:
    return QueueRow(
        stream.pipeline,
        stream.signal,
        cursor.exporter,
        cursor.queued_batches,
        cursor.queued_items,
        extent(txn, database, stream.next, cursor.next)[1],
        round(cursor.oldest_age_s, 3),
        cursor.exported,
        sum(cursor.dropped.values()),
    )


def footprint(payload: bytes | bytearray | memoryview) -> int:
    """What an entry takes in the file: whole pages."""
    return (len(payload) + 64 + PAGE - 1) // PAGE * PAGE


def added(totals: dict[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Two tables of counts added up."""
    if not more:
        return totals
    return {key: totals.get(key, 0) + more.get(key, 0) for key in {**totals, **more}}


def backlog(appended: int) -> dict[str, int]:
    """What went by before an exporter was configured: lost to it under this name, so that its sums hold."""
    return {"before_exporter": appended} if appended else {}


def cursor_key(pipeline: str, exporter: str) -> bytes:
    """Where an exporter's totals stand."""
    return f"cursor/{pipeline}\0{exporter}".encode()


def _with_prefix(txn: lmdb.Transaction, database: Any, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    with txn.cursor(database) as cursor:
        if cursor.set_range(prefix):
            for key, value in cursor:
                if not bytes(key).startswith(prefix):
                    break
                yield bytes(key), bytes(value)


def read_stream(txn: lmdb.Transaction, state: Any, pipeline: str, signal: str) -> StreamState:
    """A stream's totals, all zero if it is new."""
    value = txn.get(f"stream/{pipeline}".encode(), db=state)
    totals = json.loads(bytes(value)) if value else {}
    return StreamState(
        pipeline,
        signal or totals.get("signal", ""),
        totals.get("next", 0),
        0,
        totals.get("received", 0),
        totals.get("appended", 0),
        0,
        totals.get("filtered", {}),
        totals.get("dropped", {}),
    )


def write_stream(txn: lmdb.Transaction, state: Any, stream: StreamState) -> None:
    """Keep a stream's totals."""
    totals = {
        "signal": stream.signal,
        "next": stream.next,
        "received": stream.received,
        "appended": stream.appended,
        "filtered": stream.filtered,
        "dropped": stream.dropped,
    }
    txn.put(f"stream/{stream.pipeline}".encode(), json.dumps(totals).encode(), db=state)


def stream_names(txn: lmdb.Transaction, state: Any) -> list[str]:
    """The pipelines that have a stream, configured or not."""
    return [key.decode().removeprefix("stream/") for key, _ in _with_prefix(txn, state, b"stream/")]


def read_cursors(txn: lmdb.Transaction, state: Any, pipeline: str) -> list[CursorState]:
    """The totals of a stream's exporters."""
    return [
        CursorState(key.decode().split("\0", 1)[1], **json.loads(value))
        for key, value in _with_prefix(txn, state, f"cursor/{pipeline}\0".encode())
    ]


def write_cursor(txn: lmdb.Transaction, state: Any, pipeline: str, cursor: CursorState) -> None:
    """Keep an exporter's totals."""
    totals = {"next": cursor.next, "exported": cursor.exported, "dropped": cursor.dropped}
    txn.put(cursor_key(pipeline, cursor.exporter), json.dumps(totals).encode(), db=state)


def extent(txn: lmdb.Transaction, database: Any, end: int, start: int = 0) -> tuple[int, int]:
    """The first sequence number in a stream from `start` on (`end` if it is empty), and the bytes from there."""
    first = end
    size = 0
    with txn.cursor(database) as cursor:
        if cursor.set_range(SEQUENCE.pack(start)):
            first = KEY.unpack(bytes(cursor.key()))[0]
            for value in cursor.iternext(keys=False, values=True):
                size += footprint(value)
    return first, size


def _created_ms(txn: lmdb.Transaction, database: Any, start: int, now_ms: float) -> float:
    """When the first entry from `start` on was stored; now if there is none."""
    with txn.cursor(database) as cursor:
        return float(KEY.unpack(bytes(cursor.key()))[1]) if cursor.set_range(SEQUENCE.pack(start)) else now_ms


def with_queue(txn: lmdb.Transaction, database: Any, stream: StreamState, now_ms: float) -> StreamState:
    """A copy with what waits for each exporter; the oldest entry of each is looked up."""
    cursors = [
        replace(
            cursor,
            queued_items=stream.appended - cursor.exported - sum(cursor.dropped.values()),
            queued_batches=stream.next - cursor.next,
            oldest_age_s=max(0.0, now_ms - _created_ms(txn, database, cursor.next, now_ms)) / 1000,
        )
        for cursor in stream.cursors
    ]
    return replace(stream, cursors=cursors)
