"""The outbox: what was appended is there until all its exporters are done, over restarts, within its cap, and adds
up.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.errors import OutboxError, OutboxFull
from otel_pipeline.outbox import Outbox
from otel_pipeline.outbox_state import Addition, Entry, ParkedRows, QueueRow, StreamState, inspect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STREAMS = {"traces": ("traces", ["jaeger", "file"]), "logs": ("logs", ["file"])}
MIB = 1024 * 1024


def addition(payload: bytes = b"payload", items: int = 1, pipeline: str = "traces", **more: dict[str, int]) -> Addition:
    filtered, dropped = more.get("filtered", {}), more.get("dropped", {})
    received = items + sum(filtered.values()) + sum(dropped.values())
    return Addition(pipeline, payload, items, received, filtered, dropped)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path, STREAMS, bytes_max=16 * MIB, sync="off", clock=lambda: 1000.0)
    yield box
    box.close()


def state(box: Outbox, pipeline: str = "traces") -> StreamState:
    return next(one for one in box.states() if one.pipeline == pipeline)


def take(box: Outbox, exporter: str, pipeline: str = "traces") -> list[bytes]:
    """Deliver everything that waits for an exporter, entry by entry."""
    payloads = []
    while chunk := box.read(pipeline, box.position(pipeline, exporter), 1, 1):
        payloads.append(chunk.request)
        box.settle(pipeline, exporter, chunk.entries[0], chunk.entries[0].items, {})
    return payloads


def fill(box: Outbox, additions: list[Addition]) -> int:
    """Append the same again and again until the outbox refuses; how often it did not."""
    for count in range(100):
        try:
            box.append(additions)
        except OutboxFull:
            return count
    raise AssertionError("it never was full")


def test_entries_come_out_in_order_for_each_exporter(outbox: Outbox) -> None:
    outbox.append([addition(b"one"), addition(b"two")])
    outbox.append([addition(b"three")])
    assert take(outbox, "jaeger") == [b"one", b"two", b"three"]
    assert take(outbox, "file") == [b"one", b"two", b"three"]


def test_consecutive_entries_are_read_joined_up_to_a_size(outbox: Outbox) -> None:
    outbox.append([addition(b"aaaa", 2), addition(b"bbbb", 3), addition(b"cccc", 4)])
    chunk = outbox.read("traces", 0, 9)
    assert chunk is not None
    assert chunk.request == b"aaaabbbb"
    assert list(chunk.entries) == [Entry(0, 1_000_000, 2), Entry(1, 1_000_000, 3)]


def test_an_entry_above_the_size_comes_alone(outbox: Outbox) -> None:
    outbox.append([addition(b"a" * 100), addition(b"b")])
    chunk = outbox.read("traces", 0, 10)
    assert chunk is not None
    assert chunk.request == b"a" * 100


def test_an_entry_is_deleted_when_the_last_exporter_is_done(outbox: Outbox) -> None:
    outbox.append([addition(b"one")])
    take(outbox, "jaeger")
    assert outbox.bytes_used == 4096
    take(outbox, "file")
    assert outbox.bytes_used == 0
    assert outbox.read("traces", 0, MIB) is None


def test_streams_do_not_see_each_other(outbox: Outbox) -> None:
    outbox.append([addition(b"span"), addition(b"record", pipeline="logs")])
    assert take(outbox, "file", "logs") == [b"record"]
    assert take(outbox, "file") == [b"span"]


def test_all_additions_of_a_call_are_stored_or_none(outbox: Outbox) -> None:
    huge = addition(b"x" * (20 * MIB), pipeline="logs")
    with pytest.raises(OutboxFull, match="are allowed"):
        outbox.append([addition(b"one"), huge])
    assert outbox.read("traces", 0, MIB) is None
    assert state(outbox).received == 0


def test_a_full_outbox_refuses_and_takes_again_when_something_left(outbox: Outbox) -> None:
    stored = fill(outbox, [addition(b"x" * MIB)])
    assert 14 <= stored <= 16
    take(outbox, "jaeger")
    take(outbox, "file")
    outbox.append([addition(b"x" * MIB)])
    assert state(outbox).appended == stored + 1


def test_filling_and_draining_again_and_again_never_runs_out_of_pages(outbox: Outbox) -> None:
    for _ in range(6):
        fill(outbox, [addition(b"x" * (MIB // 2 + 1)), addition(b"y" * 5000)])
        assert len(take(outbox, "jaeger")) == len(take(outbox, "file")) > 20


def test_a_batch_without_items_leaves_totals_only(outbox: Outbox) -> None:
    outbox.append([addition(b"", 0, filtered={"filter": 7})])
    seen = state(outbox)
    assert (seen.received, seen.appended, seen.filtered) == (7, 0, {"filter": 7})
    assert outbox.read("traces", 0, MIB) is None


def test_position_and_entries_survive_a_restart(tmp_path: Path) -> None:
    box = Outbox(tmp_path, STREAMS, bytes_max=16 * MIB)
    box.append([addition(b"one", 5), addition(b"two", 6)])
    chunk = box.read("traces", 0, 1)
    assert chunk is not None
    box.settle("traces", "jaeger", chunk.entries[0], 5, {})
    box.close()
    again = Outbox(tmp_path, STREAMS, bytes_max=16 * MIB)
    assert take(again, "jaeger") == [b"two"]
    assert take(again, "file") == [b"one", b"two"]
    again.close()


@pytest.mark.parametrize("sync", ["interval", "always", "off"])
def test_every_sync_mode_keeps_what_was_appended(tmp_path: Path, sync: str) -> None:
    box = Outbox(tmp_path, STREAMS, bytes_max=16 * MIB, sync=sync, sync_interval_s=0.01)
    box.append([addition(b"one")])
    box.close()
    again = Outbox(tmp_path, STREAMS, bytes_max=16 * MIB, sync=sync)
    assert take(again, "file") == [b"one"]
    again.close()


def test_a_new_exporter_begins_with_what_comes_from_now_on(tmp_path: Path) -> None:
    box = Outbox(tmp_path, {"traces": ("traces", ["jaeger"])}, bytes_max=16 * MIB)
    box.append([addition(b"before", 3)])
    box.close()
    again = Outbox(tmp_path, {"traces": ("traces", ["jaeger", "vendor"])}, bytes_max=16 * MIB)
    again.append([addition(b"after")])
    assert take(again, "vendor") == [b"after"]
    cursors = {cursor.exporter: cursor for cursor in state(again).cursors}
    assert cursors["vendor"].dropped == {"before_exporter": 3}
    assert cursors["vendor"].queued_items == 0
    again.close()


def test_an_exporter_that_is_configured_no_more_holds_nothing_back(tmp_path: Path) -> None:
    box = Outbox(tmp_path, STREAMS, bytes_max=16 * MIB)
    box.append([addition(b"one")])
    box.close()
    again = Outbox(tmp_path, {"traces": ("traces", ["file"])}, bytes_max=16 * MIB)
    assert take(again, "file") == [b"one"]
    assert again.bytes_used == 0
    again.close()


def test_a_pipeline_that_is_configured_no_more_is_told_of_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = Outbox(tmp_path, STREAMS, bytes_max=16 * MIB)
    box.append([addition(b"record", pipeline="logs")])
    box.close()
    Outbox(tmp_path, {"traces": STREAMS["traces"]}, bytes_max=16 * MIB).close()
    assert "pipeline logs, which is configured no more" in caplog.text
    again = Outbox(tmp_path, STREAMS, bytes_max=16 * MIB)
    assert take(again, "file", "logs") == [b"record"]
    again.close()


def test_a_full_outbox_has_room_again_when_its_only_exporter_is_replaced(tmp_path: Path) -> None:
    box = Outbox(tmp_path, {"traces": ("traces", ["dead"])}, bytes_max=16 * MIB)
    fill(box, [addition(b"x" * MIB)])
    box.close()
    again = Outbox(tmp_path, {"traces": ("traces", ["alive"])}, bytes_max=16 * MIB)
    again.append([addition(b"new")])
    assert take(again, "alive") == [b"new"]
    again.close()


def test_an_exporter_that_keeps_up_and_one_that_lags_get_the_same(outbox: Outbox) -> None:
    payloads = [bytes([number]) * MIB for number in range(12)]
    for payload in payloads:
        outbox.append([addition(payload)])
    assert take(outbox, "jaeger") == payloads
    outbox.append([addition(b"last")])
    assert take(outbox, "jaeger") == [b"last"]
    assert take(outbox, "file") == [*payloads, b"last"]


@pytest.mark.usefixtures("outbox")
def test_a_second_gateway_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutboxError, match="another gateway uses"):
        Outbox(tmp_path, STREAMS, bytes_max=16 * MIB)


def test_a_file_that_cannot_be_read_is_set_aside_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not an outbox" * 1000)
    box = Outbox(tmp_path, STREAMS, bytes_max=16 * MIB)
    box.append([addition(b"one")])
    assert take(box, "file") == [b"one"]
    box.close()
    aside = list(tmp_path.glob("data.mdb.unreadable-*"))
    assert [path.read_bytes()[:13] for path in aside] == [b"not an outbox"]


def inspected(directory: Path, at_s: float) -> dict[tuple[str, str], QueueRow]:
    """What another process sees: LMDB opens a file once a process."""
    code = (
        "import json, pathlib, sys; from dataclasses import asdict; from otel_pipeline.outbox_state import inspect;"
        "rows = inspect(pathlib.Path(sys.argv[1]), lambda: float(sys.argv[2]));"
        "print(json.dumps([asdict(row) for row in rows]))"
    )
    command = [sys.executable, "-c", code, str(directory), str(at_s)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rows = [QueueRow(**row) for row in json.loads(answer.stdout)]
    return {(row.pipeline, row.exporter): row for row in rows}


def test_the_queue_is_readable_beside_the_running_gateway(tmp_path: Path, outbox: Outbox) -> None:
    outbox.append([addition(b"one", 5), addition(b"two", 6)])
    chunk = outbox.read("traces", 0, 1)
    assert chunk is not None
    outbox.settle("traces", "jaeger", chunk.entries[0], 4, {"refused_by_backend": 1})
    rows = inspected(tmp_path, at_s=1007.5)
    assert set(rows) == {("traces", "jaeger"), ("traces", "file"), ("logs", "file")}
    jaeger = rows["traces", "jaeger"]
    assert (jaeger.batches, jaeger.items, jaeger.bytes, jaeger.oldest_age_s) == (1, 6, 4096, 7.5)
    assert (jaeger.exported, jaeger.dropped, jaeger.signal) == (4, 1, "traces")
    assert rows["logs", "file"].oldest_age_s == 0.0


def test_looking_at_a_queue_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutboxError, match="no outbox in"):
        inspect(tmp_path / "nowhere")


def test_waiting_ends_when_an_entry_arrives_and_when_the_outbox_closes(outbox: Outbox) -> None:
    started_s = time.monotonic()
    outbox.append([addition(b"one")])
    outbox.wait([("traces", 0)], timeout_s=600)
    outbox.close()
    outbox.wait([("traces", 99)], timeout_s=600)
    assert time.monotonic() - started_s < 600  # neither waited for its time to run out


@given(
    st.lists(
        st.tuples(st.sampled_from(["append", "jaeger", "file", "restart"]), st.integers(0, 5), st.integers(0, 3)),
        max_size=30,
    )
)
def test_the_balance_holds_after_any_history(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, int, int]]
) -> None:
    directory = tmp_path_factory.mktemp("outbox")
    box = Outbox(directory, STREAMS, bytes_max=16 * MIB, sync="off")
    received = 0
    for action, items, lost in history:
        if action == "append":
            box.append([addition(b"x" * items, items, filtered={"filter": lost})])
            received += items + lost
        elif action == "restart":
            box.close()
            box = Outbox(directory, STREAMS, bytes_max=16 * MIB, sync="off")
        elif chunk := box.read("traces", box.position("traces", action), 4):
            waiting = sum(entry.items for entry in chunk.entries)
            gone = min(lost, waiting)
            box.settle("traces", action, chunk.entries[-1], waiting - gone, {"refused_by_backend": gone})
        seen = state(box)
        assert seen.received == received == seen.appended + sum(seen.filtered.values())
        for cursor in seen.cursors:
            assert seen.appended == cursor.exported + sum(cursor.dropped.values()) + cursor.queued_items
            rest = box.read("traces", cursor.next, MIB)
            assert (
                cursor.queued_items == sum(entry.items for entry in rest.entries) if rest else not cursor.queued_items
            )
    box.close()


def test_what_is_parked_and_what_waits_for_a_book_is_shown_too(tmp_path: Path) -> None:
    box = Outbox(tmp_path, STREAMS, bytes_max=16 * MIB, sync="off", clock=lambda: 1000.0, books=["notes"])
    parked = ParkedRows("gpu_stats", b"rows", 3, b"note")
    box.append([Addition("traces", b"", 0, 3, {}, {}, [("notes", b"one"), ("notes", b"two")], [parked])])
    box.close()
    rows = inspect(tmp_path, clock=lambda: 1002.5)
    assert [row for row in rows if row.exporter.startswith("(")] == [
        QueueRow("traces", "", "(parked)", 1, 3, 4096, 2.5, 0, 0),
        QueueRow("", "", "(book notes)", 2, 0, 8192, 0.0, 0, 0),
    ]
