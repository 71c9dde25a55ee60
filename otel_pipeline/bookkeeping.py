"""From the outbox's side records to a book: one thread for each book, which applies what batches left for it.

A record is applied exactly once: the book keeps the position behind it in the transaction that applies it, and the
outbox deletes it afterwards. Whatever happens in between, the position says what is done.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from otel_pipeline.limits import RECORDS_APPLIED_BYTES_MAX
from otel_pipeline.quiet import Quiet

if TYPE_CHECKING:
    from otel_pipeline.contracts import Book
    from otel_pipeline.outbox import Outbox
    from otel_pipeline.stats import Stats

log = logging.getLogger(__name__)

GATHER_S: Final = 0.5
"""Between two transactions of a store, each of which costs milliseconds and waits for the disk."""
WAIT_S: Final = 5.0
RETRY_S_MIN: Final = 0.1
RETRY_S_MAX: Final = 30.0


class Bookkeeper:
    """Applies the records of one book, in a thread of its own. It owns the book from the start on."""

    def __init__(self, book: Book, outbox: Outbox, stats: Stats) -> None:
        self._book = book
        self._outbox = outbox
        self._ending = threading.Event()
        self._deadline_s = float("inf")
        self._tend = getattr(book, "tend", None)
        self._thread = threading.Thread(target=self._run, name=f"book-{book.name}", daemon=True)
        self._quiet = Quiet(log)
        self._applied = stats.records_applied.labels(book.name)
        self._failures = stats.book_failures.labels(book.name)
        stats.records_waiting.labels(book.name).set_function(lambda: outbox.records.waiting(book.name))

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """Apply what waits, until `deadline_s` (time.monotonic) at the longest, and close the book. May be called
        twice.
        """
        self._deadline_s = deadline_s
        self._ending.set()
        self._outbox.wake()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        delay_s = RETRY_S_MIN
        while not self._over():
            try:
                self._apply()
            except Exception as error:  # noqa: BLE001 - no record may be passed over, whatever is wrong
                self._failures.inc()
                self._quiet.error("book %s: %s: %s", self._book.name, type(error).__name__, error)
                if self._ending.wait(delay_s):
                    break
                delay_s = min(delay_s * 2, RETRY_S_MAX)
            else:
                delay_s = RETRY_S_MIN
                self._ending.wait(GATHER_S)
                self._outbox.wait_for_records(self._book.name, WAIT_S, self._ending.is_set)
        self._book.close()

    def _over(self) -> bool:
        done = not self._outbox.records.waiting(self._book.name)
        return self._ending.is_set() and (done or time.monotonic() > self._deadline_s)

    def _apply(self) -> None:
        """Apply the oldest records, as many as go together."""
        name = self._book.name
        first, records = self._outbox.records.read(name, RECORDS_APPLIED_BYTES_MAX)
        if records:
            self._book.apply(self._outbox.records.epoch, first, records)
            self._applied.inc(len(records))
            self._outbox.forget_records(name, first + len(records))
        elif self._tend is not None:
            self._tend()
