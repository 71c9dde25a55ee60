"""Side records in the outbox's file: what a batch leaves for a book, committed together with it.

    records/BOOK   number (big endian, 8 bytes) -> one record
    state          "book/BOOK" -> the number of the next record;  "epoch" -> the identity of this file

A book keeps the position behind what it has applied in its own store, together with the epoch: the numbers of a new
file begin at 0 again, and must not be taken for those of the old one. The methods that take a transaction are called
under the outbox's lock; what they change in memory is taken over by `commit`.
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


@dataclass(frozen=True, slots=True)
class Line:
    """One book's stream."""

    next: int
    first: int
    size_bytes: int


class Records:
    """The streams of all books."""

    def __init__(self, env: lmdb.Environment, state: Any, books: Iterable[str]) -> None:
        self._env = env
        self._state = state
        self._databases = {book: env.open_db(f"records/{book}".encode()) for book in books}
        with env.begin(write=True) as txn:
            epoch = txn.get(EPOCH, db=state)
            if epoch is None:
                epoch = secrets.token_hex(8).encode()
                txn.put(EPOCH, epoch, db=state)
            self.epoch: Final = bytes(epoch).decode()
            self._lines = {book: self._resume(txn, book) for book in self._databases}

    def _resume(self, txn: lmdb.Transaction, book: str) -> Line:
        value = txn.get(_key(book), db=self._state)
        following = SEQUENCE.unpack(value)[0] if value else 0
        first, size = following, 0
        with txn.cursor(self._databases[book]) as cursor:
            for key, record in cursor:
                first = min(first, SEQUENCE.unpack(key)[0])
                size += footprint(record)
        return Line(following, first, size)

    @property
    def size_bytes(self) -> int:
        """Of all records that wait, in whole pages."""
        return sum(line.size_bytes for line in self._lines.values())

    def waiting(self, book: str) -> int:
        """How many records wait for a book."""
        line = self._lines[book]
        return line.next - line.first

    def next(self, book: str) -> int:
        """The number that the next record of a book will have."""
        return self._lines[book].next

    def put(self, txn: lmdb.Transaction, additions: Sequence[Addition]) -> Mapping[str, Line]:
        """Write the records of some batches; returns what `commit` wants."""
        lines = dict(self._lines)
        for addition in additions:
            for book, record in addition.records:
                line = lines[book]
                txn.put(SEQUENCE.pack(line.next), record, db=self._databases[book], append=True)
                lines[book] = Line(line.next + 1, line.first, line.size_bytes + footprint(record))
        for book, line in lines.items():
            if line is not self._lines[book]:
                txn.put(_key(book), SEQUENCE.pack(line.next), db=self._state)
        return lines

    def commit(self, lines: Mapping[str, Line]) -> None:
        """The transaction is done."""
        self._lines.update(lines)

    def read(self, book: str, start: int, bytes_max: int) -> tuple[int, list[bytes]]:
        """Records from `start` on, at least one if there is any, and the number of the first of them."""
        records: list[bytes] = []
        first, size = start, 0
        with self._env.begin(db=self._databases[book]) as txn, txn.cursor() as cursor:
            alive = cursor.set_range(SEQUENCE.pack(start))
            while alive and len(records) < RECORDS_APPLIED_MAX:
                size += len(cursor.value())
                if records and size > bytes_max:
                    break
                if not records:
                    first = SEQUENCE.unpack(cursor.key())[0]
                records.append(bytes(cursor.value()))
                alive = cursor.next()
        return first, records

    def delete(self, txn: lmdb.Transaction, book: str, end: int) -> Mapping[str, Line]:
        """Delete a book's records before number `end`; returns what `commit` wants."""
        freed = 0
        with txn.cursor(self._databases[book]) as cursor:
            cursor.first()
            while (key := cursor.key()) and SEQUENCE.unpack(key)[0] < end:
                freed += footprint(cursor.value())
                cursor.delete()
        line = self._lines[book]
        return {book: Line(line.next, min(max(line.first, end), line.next), line.size_bytes - freed)}


def _key(book: str) -> bytes:
    return f"book/{book}".encode()
