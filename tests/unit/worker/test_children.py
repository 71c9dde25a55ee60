"""The page of memory between a process and the children that it forks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from otel_pipeline.worker import jobs, names
from otel_pipeline.worker.attempts import framework
from otel_pipeline.worker.evidence import Outcome
from otel_pipeline.worker.jobs import Origin, job_end, job_start
from otel_pipeline.worker.messages import extract
from otel_pipeline.worker.process import children
from otel_pipeline.worker.process.children import Board
from tests.support.worker_spans import Spans, attributes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
PARENT = extract({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})


def forked(work: Callable[[], object]) -> int:
    """A child that does this and is killed."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    return pid


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    made = Board()
    monkeypatch.setattr(children, "board", made)
    return made


def begin(board: Board, message_id: str = "m1") -> jobs.Job:
    job = job_start(Origin("test", "queue", message_id), parent=PARENT)
    board.begin(job)
    return job


def test_the_parent_sees_the_open_job_of_a_child(board: Board) -> None:
    pid = forked(lambda: begin(board))
    slot = board.look(pid, "m1")
    assert slot is not None
    assert slot.open
    assert f"{slot.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"


def test_a_job_of_another_message_is_not_taken_for_it(board: Board) -> None:
    pid = forked(lambda: begin(board))
    assert board.look(pid, "m2") is None
    assert board.look(os.getpid(), "m1") is None


def test_a_job_that_a_child_ended_is_over(board: Board) -> None:
    def work() -> None:
        children.install()
        job_end(begin(board))

    slot = board.look(forked(work), "m1")
    assert slot is not None
    assert not slot.open


def test_the_process_that_made_the_page_writes_nothing_on_it(board: Board) -> None:
    job = begin(board)
    assert not board.in_child
    assert board.look(os.getpid(), "m1") is None
    job_end(job)


def test_a_child_reads_why_its_parent_kills_it(board: Board) -> None:
    ready, go, told = os.pipe(), os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        begin(board)
        os.write(ready[1], b"1")
        os.read(go[0], 1)
        os.write(told[1], bytes([board.reason()]))
        os._exit(0)
    os.read(ready[0], 1)
    board.mark(pid, "another", children.REVOKED)
    board.mark(pid, "m1", children.TIMED_OUT)
    os.write(go[1], b"1")
    assert os.read(told[0], 1) == bytes([children.TIMED_OUT])
    os.waitpid(pid, 0)
    for end in (*ready, *go, *told):
        os.close(end)


def test_slots_of_dead_children_are_used_again(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "SLOTS", 2)
    pids = [forked(lambda: begin(board, "m1")) for _ in range(4)]
    assert board.look(pids[-1], "m1") is not None


def test_the_report_of_a_parent_is_the_span_that_the_child_could_not_end(board: Board, spans: Spans) -> None:
    pid = forked(lambda: begin(board))
    slot = board.look(pid, "m1")
    origin = Origin("test", "queue", "m1")
    lost = framework(Outcome.LOST, "Killed")
    assert children.report(origin, lost, pid=pid, name="process queue", parent=PARENT, attempt=3) is not None
    assert children.report(origin, lost, pid=pid, name="process queue", parent=PARENT) is None, "once only"
    span = spans.one("process queue")
    assert slot is not None
    assert (span.context.trace_id, span.context.span_id) == (slot.trace_id, slot.span_id)
    assert span.start_time == slot.start_ns
    assert attributes(span)[names.JOB_OUTCOME] == "lost"
    assert attributes(span)[names.JOB_ATTEMPT] == 3
    assert not jobs.open_jobs


@pytest.mark.usefixtures("board")
def test_a_child_that_never_began_is_reported_with_a_new_span(spans: Spans) -> None:
    pid = forked(lambda: None)
    children.report(
        Origin("test", "queue", "m1"), framework(Outcome.LOST), pid=pid, name="process queue", parent=PARENT
    )
    span = spans.one("process queue")
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"


def test_waiting_for_a_dead_process_takes_no_time(board: Board) -> None:
    called: list[int] = []
    children.when_gone(forked(lambda: None), lambda: called.append(1))
    children.when_gone(None, lambda: called.append(2))
    assert called == [1, 2]
    assert board.look(1, "m1") is None
