"""What a parent knows of the job that a forked child of it is at, should the child be killed.

A page of memory is shared by a process and the children that it forks. Each child writes there which job it begins,
with the ids of its span, and that it is over. A parent that sees a child die looks there: a job that is not over is
reported by the parent, with the very ids of the span that the child could not end: it is one span whoever reports it.

The parent may also leave word there before it kills: why. A child that has time to end its job itself says so then.
"""

from __future__ import annotations

import copy
import hashlib
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind

from otel_pipeline import __version__
from otel_pipeline.worker import jobs, names
from otel_pipeline.worker.evidence import Evidence, Outcome, Verdict
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, Origin, job_end, job_start

SLOTS: Final = 1024
"""Children at once of one process; pools have a few dozen."""
SLOT: Final = struct.Struct("<I16s16s8sQBB6x")
"""Process id, hash of the message's id, trace id, span id, start, state, reason."""
_REASON_AT: Final = SLOT.size - 7
DEATH_S_MAX: Final = 30.0
"""How long a parent waits for the end of a child that it kills."""
POLL_S: Final = 0.05

OPEN, OVER = 1, 2
REASONS: Final[tuple[tuple[Outcome, str], ...]] = (
    (Outcome.LOST, ""),
    (Outcome.FAILED, "billiard.exceptions.TimeLimitExceeded"),
    (Outcome.CANCELLED, "revoked"),
)
"""What a parent kills for, by number; 0 is that it did not."""
TIMED_OUT, REVOKED = 1, 2


@dataclass(frozen=True, slots=True)
class Slot:
    """What a child wrote of its job."""

    trace_id: int
    span_id: int
    start_ns: int
    open: bool


class Board:
    """The page. Made in the parent, before it forks."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, SLOTS * SLOT.size)
        self._parent = os.getpid()
        self._claimed: tuple[int, int] | None = None
        """Process id and slot of this child."""
        self._job: Job | None = None

    @property
    def in_child(self) -> bool:
        return os.getpid() != self._parent

    def begin(self, job: Job) -> None:
        """In a child: this is the job now."""
        index = self._claim() if self.in_child else None
        if index is None:
            return
        own = job.span.get_span_context()
        self._job = job
        SLOT.pack_into(
            self._page,
            index * SLOT.size,
            os.getpid(),
            _digest(job.origin.message_id or job.id),
            own.trace_id.to_bytes(16, "big"),
            own.span_id.to_bytes(8, "big"),
            job.started_ns,
            OPEN,
            0,
        )

    def end(self, job: Job) -> None:
        """In a child: it is over, and reported."""
        if job is self._job and self._claimed is not None and self._claimed[0] == os.getpid():
            self._job = None
            self._page[self._claimed[1] * SLOT.size + _REASON_AT - 1] = OVER

    def reason(self) -> int:
        """In a child: what the parent kills it for."""
        mine = self._claimed
        return self._page[mine[1] * SLOT.size + _REASON_AT] if mine and mine[0] == os.getpid() else 0

    def look(self, pid: int, message_id: str) -> Slot | None:
        """In the parent: the child's job, if it is or was the one with this id."""
        found = self._find(pid)
        if found is None or found[1][1] != _digest(message_id):
            return None
        _, _, trace_id, span_id, start_ns, state, _ = found[1]
        return Slot(int.from_bytes(trace_id, "big"), int.from_bytes(span_id, "big"), start_ns, state == OPEN)

    def mark(self, pid: int, message_id: str, reason: int) -> None:
        """In the parent, before it kills the child."""
        found = self._find(pid)
        if found is not None and found[1][1] == _digest(message_id):
            self._page[found[0] * SLOT.size + _REASON_AT] = reason

    def settle(self, pid: int) -> None:
        """In the parent: the job of that child was reported."""
        found = self._find(pid)
        if found is not None:
            self._page[found[0] * SLOT.size + _REASON_AT - 1] = OVER

    def _claim(self) -> int | None:
        pid = os.getpid()
        if self._claimed is not None and self._claimed[0] == pid:
            return self._claimed[1]
        for step in range(SLOTS):
            index = (pid + step) % SLOTS
            owner = self._read(index)[0]
            if owner in (0, pid) or not _alive(owner):
                self._claimed = (pid, index)
                return index
        return None

    def _find(self, pid: int) -> tuple[int, tuple[Any, ...]] | None:
        for step in range(SLOTS):
            index = (pid + step) % SLOTS
            slot = self._read(index)
            if slot[0] == pid:
                return index, slot
            if slot[0] == 0:
                return None
        return None

    def _read(self, index: int) -> tuple[Any, ...]:
        return SLOT.unpack_from(self._page, index * SLOT.size)


def _digest(message_id: str) -> bytes:
    return hashlib.sha256(message_id.encode()).digest()[:16]


def _alive(pid: int) -> bool:
    """Whether the process runs: one that is dead and not waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] not in ("Z", "X")
    except (OSError, IndexError):
        return True


board: Final = Board()


@hook("children.ended")
def _ended(job: Job, _decided: Verdict) -> None:
    board.end(job)


def install() -> None:
    """Jobs that end, by whomever, are over on the page too. Idempotent."""
    if _ended not in jobs.ended:
        jobs.ended.append(_ended)


def when_gone(pid: int | None, then: Callable[[], object]) -> None:
    """Calls `then`, a hook, when the process is dead; at once if there is none."""
    if pid is None or not _alive(pid):
        then()
    else:
        threading.Thread(target=_wait, args=(pid, then), name="otel_pipeline-children", daemon=True).start()


def _wait(pid: int, then: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + DEATH_S_MAX
    while _alive(pid) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    then()


def report(
    origin: Origin,
    evidence: Evidence,
    *,
    pid: int | None,
    name: str,
    message: object = None,
    parent: Context | None = None,
    attempt: int = 1,
    begun: Iterable[Callable[[Job], object]] = (),
) -> Job | None:
    """In the parent: ends the job that a child cannot end any more; None if the child did. Call it once a job.

    `begun` is done with the job before its end.
    """
    slot = board.look(pid, origin.message_id) if pid and origin.message_id else None
    if slot is not None and not slot.open:
        return None
    if pid:
        board.settle(pid)
    span = _span(name, parent, slot)
    # The id that the producer read goes before a framework's, which is all that the parent may see.
    known = baggage.get_baggage(names.JOB_ID, parent) if parent is not None else None
    job = job_start(origin, message, parent=parent, attempt=attempt, adopt=span, job_id=str(known) if known else None)
    if slot is not None:
        job.started_ns = slot.start_ns
    for each in begun:
        each(job)
    job_end(job, evidence)
    span.end(job.ended_ns)
    return job


class _Given:
    """An id generator of the SDK's shape, for one span whose ids are known."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot

    def generate_span_id(self) -> int:
        return self._slot.span_id

    def generate_trace_id(self) -> int:
        return self._slot.trace_id

    def is_trace_id_random(self) -> bool:
        return True


def _span(name: str, parent: Context | None, slot: Slot | None) -> Span:
    tracer: Any = trace.get_tracer_provider().get_tracer("otel_pipeline.worker", __version__)
    if slot is not None and hasattr(tracer, "id_generator"):
        tracer = copy.copy(tracer)
        tracer.id_generator = _Given(slot)
    start_ns = slot.start_ns if slot is not None else None
    remote = trace.get_current_span(parent or Context()).get_span_context()
    # The child began a trace of its own, if jobs are to be linked.
    linked = slot is not None and remote.is_valid and remote.trace_id != slot.trace_id
    within, links = (Context(), [Link(remote)]) if linked else (parent or Context(), [])
    made: Span = tracer.start_span(name, within, SpanKind.CONSUMER, links=links, start_time=start_ns)
    return made
