"""Side records: committed with their batch, applied to their book exactly once."""

from __future__ import annotations

import shutil
import threading
import time
from typing import TYPE_CHECKING

import pytest

from otel_pipeline.bookkeeping import Bookkeeper
from otel_pipeline.errors import OutboxFull, StoreError
from otel_pipeline.outbox import Outbox
from otel_pipeline.outbox_state import Addition
from otel_pipeline.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

MIB = 1024 * 1024


class Notes:
    """A book that keeps everything, as a store would; `error` is raised by the first `trouble` calls."""

    name = "notes"

    def __init__(self, error: Exception | None = None, trouble: int = 0) -> None:
        self.error = error
        self.kept: list[bytes] = []
        self.positions: dict[str, int] = {}
        self.trouble = trouble
        self.closed = False
        self.lock = threading.Lock()

    def apply(self, epoch: str, first: int, records: Sequence[bytes]) -> None:
        with self.lock:
            if self.error and self.trouble:
                self.trouble -= 1
                raise self.error
            fresh = records[max(0, self.positions.get(epoch, 0) - first) :]
            self.kept += fresh
            self.positions[epoch] = first + len(records)

    def close(self) -> None:
        self.closed = True


def opened(directory: Path, *, bytes_max: int = 16 * MIB, clock: float = 1000.0) -> Outbox:
    streams = {"traces": ("traces", ["sink"])}
    return Outbox(directory, streams, bytes_max=bytes_max, sync="off", clock=lambda: clock, books=["notes"])


def leave(outbox: Outbox, *records: bytes) -> None:
    outbox.append([Addition("traces", b"payload", 1, 1, {}, {}, [("notes", record) for record in records])])


def wait(done: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline_s, "it does not happen"
        time.sleep(0.002)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = opened(tmp_path)
    yield box
    box.close()


def test_records_are_applied_in_order_and_then_deleted(outbox: Outbox) -> None:
    book, stats = Notes(), Stats()
    keeper = Bookkeeper(book, outbox, stats)
    leave(outbox, b"one", b"two")
    assert outbox.records.waiting("notes") == 2
    keeper.start()
    wait(lambda: len(book.kept) == 2)
    leave(outbox, b"three")
    wait(lambda: len(book.kept) == 3)
    keeper.stop(time.monotonic() + 5)
    keeper.stop(time.monotonic() + 5)
    assert book.kept == [b"one", b"two", b"three"]
    assert book.closed
    assert (outbox.records.waiting("notes"), outbox.records.size_bytes) == (0, 0)
    assert stats.registry.get_sample_value("otel_pipeline_book_records_total", {"book": "notes"}) == 3


def test_what_waits_at_the_end_is_applied_before_the_deadline(outbox: Outbox) -> None:
    book = Notes()
    keeper = Bookkeeper(book, outbox, Stats())
    leave(outbox, *(b"%d" % number for number in range(2500)))
    keeper.start()
    keeper.stop(time.monotonic() + 10)
    assert len(book.kept) == 2500


@pytest.mark.parametrize("error", [StoreError("the disk is away"), ValueError("a defect")])
def test_a_store_in_trouble_gets_the_same_records_again_and_says_so(
    outbox: Outbox, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    book, stats = Notes(error, 2), Stats()
    keeper = Bookkeeper(book, outbox, stats)
    leave(outbox, b"one")
    keeper.start()
    wait(lambda: book.kept == [b"one"])
    keeper.stop(time.monotonic() + 5)
    assert stats.registry.get_sample_value("otel_pipeline_book_failures_total", {"book": "notes"}) == 2
    assert f"book notes: {type(error).__name__}: {error}" in caplog.text


def test_the_end_does_not_wait_for_a_store_in_trouble(outbox: Outbox) -> None:
    book = Notes(StoreError("the disk is away"), 1_000)
    keeper = Bookkeeper(book, outbox, Stats())
    leave(outbox, b"one")
    keeper.start()
    wait(lambda: book.trouble < 1_000)
    keeper.stop(time.monotonic() + 60)
    assert book.closed
    assert outbox.records.waiting("notes") == 1


def test_records_wait_over_a_restart_and_count_against_the_cap(tmp_path: Path) -> None:
    box = opened(tmp_path)
    leave(box, b"one")
    used = box.bytes_used
    box.close()
    box = opened(tmp_path)
    assert box.bytes_used == used
    assert box.records.read("notes", MIB)[1] == [b"one"]
    leave(box, b"two")
    assert box.records.waiting("notes") == 2
    box.close()
    box = opened(tmp_path, bytes_max=8192)
    with pytest.raises(OutboxFull):
        leave(box, b"x" * 8192)
    assert box.records.waiting("notes") == 2
    box.close()


def test_a_crash_between_applying_and_deleting_applies_nothing_twice(tmp_path: Path) -> None:
    box, book = opened(tmp_path), Notes()
    leave(box, b"one", b"two")
    first, _ = box.records.read("notes", MIB)
    book.apply(box.records.epoch, first, [b"one"])  # and here it was killed
    keeper = Bookkeeper(book, box, Stats())
    keeper.start()
    keeper.stop(time.monotonic() + 5)
    assert book.kept == [b"one", b"two"]
    box.close()


def test_no_number_is_used_again_even_if_a_power_cut_took_records_back(tmp_path: Path) -> None:
    box = opened(tmp_path / "now")
    leave(box, b"one")
    box.close()
    shutil.copytree(tmp_path / "now", tmp_path / "before")
    box = opened(tmp_path / "now", clock=2000.0)
    leave(box, b"two")
    applied = max(box.records.read("notes", MIB)[0] + 1, 2_000_000_000)
    box.close()
    box = opened(tmp_path / "before", clock=2001.0)
    leave(box, b"three")
    box.forget_records("notes", 2_000_000_000)
    assert box.records.read("notes", MIB) == (2_001_000_000, [b"three"])
    assert applied < 2_001_000_000
    box.close()


def test_the_identity_belongs_to_the_file(tmp_path: Path) -> None:
    epochs = []
    for name in ("a", "a", "b"):
        box = opened(tmp_path / name)
        epochs.append(box.records.epoch)
        box.close()
    assert epochs[0] == epochs[1] != epochs[2]


def test_a_book_with_work_of_its_own_does_it_while_no_records_come(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tended(Notes):
        tended = 0

        def tend(self) -> None:
            self.tended += 1

    monkeypatch.setattr("otel_pipeline.bookkeeping.GATHER_S", 0.0)
    monkeypatch.setattr("otel_pipeline.bookkeeping.WAIT_S", 0.002)
    book = Tended()
    keeper = Bookkeeper(book, outbox, Stats())
    leave(outbox, b"one")
    keeper.start()
    wait(lambda: book.kept and book.tended > 2)
    keeper.stop(time.monotonic() + 5)
    assert book.closed
