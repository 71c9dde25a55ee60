"""Parked rows in the outbox's file: acknowledged, durable, and out of the way until their processor knows enough.

    parked/PIPELINE   sequence number, time in ms, item count -> the processor, its note, the serialized request

They leave in the transaction that appends what became of them. The methods that take a transaction are called under
the outbox's lock; what they change in memory is taken over by `commit`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline.outbox_state import KEY, ParkedEntry, footprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import lmdb

    from otel_pipeline.outbox_state import Addition

HEAD: Final = struct.Struct(">HI")
"""Lengths of the processor's id and of its note, which the payload follows."""

Changes = tuple[list[tuple[str, ParkedEntry]], list[tuple[str, int]]]


class Parked:
    """What every pipeline has parked; the index is in memory, the rows are in the file."""

    def __init__(self, env: lmdb.Environment, pipelines: Iterable[str]) -> None:
        self._env = env
        self._databases = {pipeline: env.open_db(f"parked/{pipeline}".encode()) for pipeline in pipelines}
        self._next = 0
        with env.begin(buffers=True) as txn:
            self._entries = {name: dict(self._resume(txn, database)) for name, database in self._databases.items()}
        self.size_bytes = sum(entry.size_bytes for entries in self._entries.values() for entry in entries.values())

    def _resume(self, txn: lmdb.Transaction, database: Any) -> Iterator[tuple[int, ParkedEntry]]:
        with txn.cursor(database) as cursor:
            for key, value in cursor:
                number, created_ms, items = KEY.unpack(key)
                processor, note, _ = _parts(value)
                self._next = max(self._next, number + 1)
                yield number, ParkedEntry(number, created_ms, items, footprint(value), processor, note)

    def items(self, pipeline: str) -> int:
        """How many items of a pipeline are parked."""
        return sum(entry.items for entry in self._entries[pipeline].values())

    def bytes_of(self, pipeline: str) -> int:
        """What a pipeline has parked, in whole pages."""
        return sum(entry.size_bytes for entry in self._entries[pipeline].values())

    def entries(self, pipeline: str, processor: str) -> list[ParkedEntry]:
        """What a processor has parked, the oldest first."""
        return [entry for entry in self._entries[pipeline].values() if entry.processor == processor]

    def payloads(self, pipeline: str, numbers: Iterable[int]) -> list[bytes]:
        """The requests of some entries."""
        wanted = [self._entries[pipeline][number] for number in numbers]
        with self._env.begin(db=self._databases[pipeline], buffers=True) as txn:
            return [bytes(_parts(txn.get(_key(entry)))[2]) for entry in wanted]

    def freed(self, addition: Addition) -> int:
        """What a batch gives back in the file."""
        return sum(self._entries[addition.pipeline][number].size_bytes for number in addition.released)

    def write(self, txn: lmdb.Transaction, additions: Iterable[Addition], now_ms: int) -> Changes:
        """Put in what batches park, take out what they release; returns what `commit` wants."""
        new: list[tuple[str, ParkedEntry]] = []
        gone: list[tuple[str, int]] = []
        for addition in additions:
            database = self._databases[addition.pipeline]
            for rows in addition.parked:
                number = self._next
                self._next += 1  # a number that an aborted transaction took is not used again
                processor = rows.processor.encode()
                value = b"".join((HEAD.pack(len(processor), len(rows.note)), processor, rows.note, rows.payload))
                entry = ParkedEntry(number, now_ms, rows.items, footprint(value), rows.processor, rows.note)
                txn.put(_key(entry), value, db=database, append=True)
                new.append((addition.pipeline, entry))
            for number in addition.released:
                txn.delete(_key(self._entries[addition.pipeline][number]), db=database)
                gone.append((addition.pipeline, number))
        return new, gone

    def commit(self, changes: Changes) -> None:
        """The transaction is done."""
        new, gone = changes
        for pipeline, entry in new:
            self._entries[pipeline][entry.number] = entry
            self.size_bytes += entry.size_bytes
        for pipeline, number in gone:
            self.size_bytes -= self._entries[pipeline].pop(number).size_bytes


def _key(entry: ParkedEntry) -> bytes:
    return KEY.pack(entry.number, entry.created_ms, entry.items)


def _parts(value: Any) -> tuple[str, bytes, memoryview]:
    view = memoryview(value)
    name_length, note_length = HEAD.unpack_from(view)
    note_at = HEAD.size + name_length
    payload_at = note_at + note_length
    return bytes(view[HEAD.size : note_at]).decode(), bytes(view[note_at:payload_at]), view[payload_at:]
