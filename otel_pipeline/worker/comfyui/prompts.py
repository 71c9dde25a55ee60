"""The prompts that this process posted: one `comfyui.prompt` span each, found by `prompt_id` and by nothing else.

Not by client_id, which many workers share among all their prompts, and not by the current context: a WebSocket is often
read by another thread than the one that posts. A prompt is open from its POST until the first sign of its end: a
WebSocket message, a history entry, an entry of /api/jobs, the end of its job, its age, the end of the process. The
first sign counts. What is only likely (a deletion from the queue, a download of its file) is kept as `expected` and
holds if nothing better comes.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind

from otel_pipeline import __version__
from otel_pipeline.worker.comfyui import report
from otel_pipeline.worker.comfyui.answers import (
    INTERRUPTED,
    PARTIAL,
    SUCCESS,
    UNKNOWN,
    Accepted,
    End,
    File,
    files_of,
    message_end,
)
from otel_pipeline.worker.comfyui.bodies import Graph
from otel_pipeline.worker.comfyui.nodes import NodeTracker
from otel_pipeline.worker.comfyui.outcome import Result, evidence_of
from otel_pipeline.worker.comfyui.routes import Route
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, current_job
from otel_pipeline.worker.process import lifecycle

OPEN_MAX: Final = 10_000
"""Prompts open at once: as many as ComfyUI keeps in its history."""
AGE_S_MAX: Final = 24 * 3600.0
"""A prompt that nobody heard of for a day is given up."""
FILES_MAX: Final = 10_000
"""Outputs remembered for the downloads to come."""
OF_JOB_MAX: Final = 1000
"""Prompts of one job that count for its outcome."""
EARLY_MAX: Final = 256
"""Messages kept that arrived before the answer to the POST was read, of all prompts."""
EARLY_S_MAX: Final = 60.0
"""How long: the answer to a POST comes within milliseconds."""
NO_END: Final = End(UNKNOWN, message="no end was seen")
CANCELLED: Final = End(INTERRUPTED, INTERRUPTED, "cancelled by this client")
"""What to expect after a deletion from the queue or an interruption."""
GONE: Final = End(UNKNOWN, message="it is not on the server any more")
"""Neither waiting nor running: over, one way or the other."""

_tracer: Final = trace.get_tracer("otel_pipeline.worker", __version__)


@dataclass(eq=False, slots=True)
class Prompt:
    """One POST /prompt."""

    span: Span
    context: Context
    """Holds its span, and the job."""
    job: Job | None
    route: Route
    started_ns: int
    classes: Mapping[str, str]
    answered_ns: int = 0
    """When the answer to the POST was read; the prompt lasts until then, even if all of it was cached."""
    wish: int = 0
    kind: int = 0
    id: str | None = None
    rejected: Accepted | None = None
    """The answer, if nodes of it were refused."""
    server_nodes: bool = False
    """The server reports its nodes itself."""
    nodes: NodeTracker = field(default_factory=NodeTracker)
    polls: int = 0
    files: set[File] = field(default_factory=set)
    frames: int = 0
    """Outputs that came as binary frames."""
    begun_ns: int = 0
    """When the message of its execution's start arrived."""
    begun_ms: float | None = None
    """The server's time of that."""
    expected: End | None = None
    expected_ns: int = 0
    ended_ns: int = 0
    result: Result | None = None

    def expect(self, end: End, now_ns: int) -> None:
        """This is how it ended, if nothing else is heard. The first guess stays."""
        if self.expected is None:
            self.expected, self.expected_ns = end, now_ns


class Prompts:
    """The registry. Safe for threads; reentrant, because a signal handler may end jobs."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._armed = False
        self._open: OrderedDict[int, Prompt] = OrderedDict()
        self._by_id: dict[str, Prompt] = {}
        self._files: OrderedDict[tuple[str, str, str], Prompt] = OrderedDict()
        self._of_jobs: dict[int, list[Prompt]] = {}
        self._early: deque[tuple[str, str, Mapping[str, Any], int]] = deque(maxlen=EARLY_MAX)

    def start(self, route: Route, graph: Graph | None) -> Prompt:
        """A prompt is being posted, in the current context."""
        now_ns, ambient = time.time_ns(), context.get_current()
        span = _tracer.start_span("comfyui.prompt", ambient, SpanKind.CLIENT, start_time=now_ns)
        prompt = Prompt(
            span=span,
            context=trace.set_span_in_context(span, ambient),
            job=current_job(ambient),
            route=route,
            started_ns=now_ns,
            classes=graph.classes if graph is not None else {},
            wish=graph.wish if graph is not None else 0,
            kind=graph.kind if graph is not None else 0,
        )
        report.describe(prompt, graph)
        with self._lock:
            self._arm()
            self._make_room(now_ns)
            self._open[id(prompt)] = prompt
            if prompt.job is not None:
                self._join(prompt.job, prompt)
        return prompt

    def accepted(self, prompt: Prompt, answer: Accepted) -> None:
        """The answer was read: the prompt has its id. Messages that came before are made up for."""
        if prompt.ended_ns:
            return
        prompt.answered_ns = prompt.answered_ns or time.time_ns()
        if answer.rejected:
            prompt.rejected = answer
        if answer.number is not None:
            prompt.span.set_attribute("comfyui.queue.number", answer.number)
        if prompt.id == answer.prompt_id:
            return
        prompt.id = answer.prompt_id
        prompt.span.set_attribute("comfyui.prompt.id", answer.prompt_id)
        with self._lock:
            before = self._by_id.get(answer.prompt_id)
            if before is not None:
                self.end(before, NO_END, time.time_ns())
            self._by_id[answer.prompt_id] = prompt
            early = [each for each in self._early if each[0] == answer.prompt_id]
            for each in early:
                self._early.remove(each)
        for _, kind, data, now_ns in early:
            if now_ns >= prompt.started_ns:
                self.message(answer.prompt_id, kind, data, now_ns)

    def message(self, prompt_id: str, kind: str, data: Mapping[str, Any], now_ns: int) -> Prompt | None:
        """A WebSocket message about a prompt; returns the prompt if it is one of ours that is open."""
        with self._lock:
            prompt = self._by_id.get(prompt_id)
            if prompt is None:
                self._remember_early(prompt_id, kind, data, now_ns)
                return None
            if kind == "execution_start" and not prompt.begun_ns:
                prompt.begun_ns, prompt.begun_ms = now_ns, data.get("timestamp")
            elif kind == "executed":
                self._know_files(prompt, files_of({"": data.get("output")}))
            report.node_spans(prompt, prompt.nodes.message(kind, data, now_ns))
            end = message_end(kind, data)
            if end is not None:
                self.end(prompt, end, now_ns, live=True)
        return prompt

    def end(self, prompt: Prompt, end: End, now_ns: int, *, live: bool = False) -> None:
        """Ends its span; the first call counts. `live` if the sign came when it ended, not when somebody asked."""
        with self._lock:
            if prompt.ended_ns:
                return
            prompt.ended_ns = now_ns if live else report.end_time(prompt, end, now_ns)
            self._open.pop(id(prompt), None)
            if prompt.id is not None and self._by_id.get(prompt.id) is prompt:
                del self._by_id[prompt.id]
            self._know_files(prompt, end.files)
        accepted_in_part = end.outcome == SUCCESS and prompt.rejected is not None
        outcome = PARTIAL if accepted_in_part else end.outcome
        error_type = prompt.rejected.rejected if accepted_in_part and prompt.rejected else end.error_type
        message = prompt.rejected.message if accepted_in_part and prompt.rejected else end.message
        waited = prompt.polls > 0 or prompt.begun_ns > 0
        prompt.result = Result(outcome, prompt.wish, prompt.kind, error_type, message, waited)
        report.write(prompt, end, prompt.result)

    def give_up(self, prompt: Prompt, now_ns: int) -> None:
        """Nothing more will be heard of it: it ended as expected, or nobody knows how."""
        if prompt.expected is not None:
            self.end(prompt, prompt.expected, min(prompt.expected_ns, now_ns))
        else:
            self.end(prompt, NO_END, now_ns)

    def found(self, prompt_id: str) -> Prompt | None:
        """The open prompt of this id."""
        return self._by_id.get(prompt_id)

    def open_at(self, route: Route) -> list[Prompt]:
        """The open prompts of a server that have an id, the oldest first."""
        with self._lock:
            return [each for each in self._by_id.values() if each.route.base == route.base]

    def polled(self, route: Route) -> None:
        """The server was asked for a state: about one prompt, or about the latest of this job."""
        prompt = self._by_id.get(route.argument) if route.argument else self.latest(route)
        if prompt is not None and not prompt.ended_ns:
            prompt.polls += 1

    def latest(self, route: Route) -> Prompt | None:
        """The job's latest prompt at this server, open or not; outside of a job the only open one."""
        job = current_job()
        with self._lock:
            if job is not None:
                mine = self._of_jobs.get(id(job), ())
                return next((each for each in reversed(mine) if each.route.base == route.base), None)
        at = self.open_at(route)
        return at[0] if len(at) == 1 else None

    def with_file(self, route: Route, file: File) -> Prompt | None:
        """The prompt that made a file, open or not. Two jobs may get the same file from the server's cache."""
        job, found = current_job(), self._files.get((route.base, *file))
        if job is None or found is None or found.job is job:
            return found
        with self._lock:
            mine = self._of_jobs.get(id(job), ())
            return next((each for each in reversed(mine) if file in each.files), None)

    def close_job(self, job: Job) -> None:
        """The job ends: so do its prompts, and they say how it went."""
        now_ns = time.time_ns()
        with self._lock:
            mine = self._of_jobs.pop(id(job), [])
        for prompt in mine:
            if not prompt.ended_ns:
                self.give_up(prompt, now_ns)
        job.observe(evidence_of([each.result for each in mine if each.result is not None]))

    def close_all(self) -> None:
        """The process ends."""
        now_ns = time.time_ns()
        for prompt in list(self._open.values()):
            self.give_up(prompt, now_ns)

    def forget(self) -> None:
        """In a forked child: the parent's prompts are the parent's to end."""
        self.__init__()  # type: ignore[misc]  # every part of it is new, the lock too

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            lifecycle.closing.append(functools.partial(_close_all, self))

    def _join(self, job: Job, prompt: Prompt) -> None:
        mine = self._of_jobs.get(id(job))
        if mine is None:
            mine = self._of_jobs[id(job)] = []
            job.cleanup.append(_close_job)
        mine.append(prompt)
        if len(mine) > OF_JOB_MAX:
            del mine[0]

    def _make_room(self, now_ns: int) -> None:
        while self._open:
            oldest = next(iter(self._open.values()))
            if len(self._open) < OPEN_MAX and now_ns - oldest.started_ns < AGE_S_MAX * 1e9:
                return
            self.give_up(oldest, now_ns)
            self._open.pop(id(oldest), None)

    def _know_files(self, prompt: Prompt, files: tuple[File, ...]) -> None:
        for file in files:
            prompt.files.add(file)
            self._files[prompt.route.base, *file] = prompt
        while len(self._files) > FILES_MAX:
            self._files.popitem(last=False)

    def _remember_early(self, prompt_id: str, kind: str, data: Mapping[str, Any], now_ns: int) -> None:
        while self._early and now_ns - self._early[0][3] > EARLY_S_MAX * 1e9:
            self._early.popleft()
        if self._waits_for_id():
            self._early.append((prompt_id, kind, data, now_ns))

    def _waits_for_id(self) -> bool:
        """Somebody posted and has not read the answer: the newest prompts are at the end."""
        return any(each.id is None for each, _ in zip(reversed(self._open.values()), range(64), strict=False))


prompts: Final = Prompts()
"""Of this process."""


@hook("comfyui.close_job")
def _close_job(job: Job) -> None:
    prompts.close_job(job)


@hook("comfyui.close_all")
def _close_all(registry: Prompts) -> None:
    registry.close_all()


os.register_at_fork(after_in_child=prompts.forget)
