"""Side records in the outbox's file: what a batch leaves for a book, committed together with it.

    records/BOOK   number (big endian, 8 bytes) -> one record
    state          "book/BOOK" -> the number of the next record;  "epoch" -> the identity of this file

A book keeps the position behind what it has applied in its own store, together with the epoch: the numbers of another
file must not be taken for those of this one. Numbers follow the clock at each opening: without a sync at each commit a
power cut may take the last records back, and what comes after must not get their numbers again.

The methods that take a transaction are called under the outbox's lock; what they change in memory is taken over by
`commit`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline.limits import RECORDS_APPLIED_MAX
from otel_pipeline.outbox_state import SEQUENCE, footprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import lmdb

    from otel_pipeline.outbox_state import Addition

EPOCH: Final = b"epoch"
RECORDS_PER_MS: Final = 1_000
"""More than can be committed in the time."""


@dataclass(frozen=True, slots=True)
class Line:
    """One book's stream."""

    next: int
    count: int
    """Of the records that wait."""
    size_bytes: int


class Records:
    """The streams of all books."""

    def __init__(self, env: lmdb.Environment, state: Any, books: Iterable[str], now_ms: int) -> None:
        self._env = env
        self._state = state
        self._databases = {book: env.open_db(f"records/{book}".encode()) for book in books}
        with env.begin(write=True) as txn:
            epoch = txn.get(EPOCH, db=state)
            if epoch is None:
                epoch = secrets.token_hex(8).encode()
                txn.put(EPOCH, epoch, db=state)
            self.epoch: Final = bytes(epoch).decode()
            self._lines = {book: self._resume(txn, book, now_ms) for book in self._databases}

    def _resume(self, txn: lmdb.Transaction, book: str, now_ms: int) -> Line:
        value = txn.get(_key(book), db=self._state)
        following = max(SEQUENCE.unpack(value)[0] if value else 0, now_ms * RECORDS_PER_MS)
        with txn.cursor(self._databases[book]) as cursor:
            sizes = [footprint(record) for record in cursor.iternext(keys=False, values=True)]
        return Line(following, len(sizes), sum(sizes))

    @property
    def size_bytes(self) -> int:
        """Of all records that wait, in whole pages."""
        return sum(line.size_bytes for line in self._lines.values())

    def waiting(self, book: str) -> int:
        """How many records wait for a book."""
        return self._lines[book].count

    def put(self, txn: lmdb.Transaction, additions: Sequence[Addition]) -> Mapping[str, Line]:
        """Write the records of some batches; returns what `commit` wants."""
        lines = dict(self._lines)
        for addition in additions:
            for book, record in addition.records:
                line = lines[book]
                txn.put(SEQUENCE.pack(line.next), record, db=self._databases[book], append=True)
                lines[book] = Line(line.next + 1, line.count + 1, line.size_bytes + footprint(record))
        for book, line in lines.items():
            if line is not self._lines[book]:
                txn.put(_key(book), SEQUENCE.pack(line.next), db=self._state)
        return lines

    def commit(self, lines: Mapping[str, Line]) -> None:
        """The transaction is done."""
        self._lines.update(lines)

    def read(self, book: str, bytes_max: int) -> tuple[int, list[bytes]]:
        """The oldest records, at least one if there is any, and the number of the first of them."""
        records: list[bytes] = []
        first, size = 0, 0
        with self._env.begin(db=self._databases[book]) as txn, txn.cursor() as cursor:
            for key, record in cursor:
                number = SEQUENCE.unpack(key)[0]
                size += len(record)
                if records and (size > bytes_max or number != first + len(records)):
                    break
                first = number - len(records)
                records.append(bytes(record))
                if len(records) == RECORDS_APPLIED_MAX:
                    break
        return first, records

    def delete(self, txn: lmdb.Transaction, book: str, end: int) -> Mapping[str, Line]:
        """Delete a book's records before number `end`; returns what `commit` wants."""
        freed = gone = 0
        with txn.cursor(self._databases[book]) as cursor:
            cursor.first()
            while (key := cursor.key()) and SEQUENCE.unpack(key)[0] < end:
                freed += footprint(cursor.value())
                gone += 1
                cursor.delete()
        line = self._lines[book]
        return {book: Line(line.next, line.count - gone, line.size_bytes - freed)}


def _key(book: str) -> bytes:
    return f"book/{book}".encode()
