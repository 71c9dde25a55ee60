"""The job core: a job begins, things are seen of it, it ends with one outcome. Every adapter uses these functions.

A job is one span, `process <queue>`, that is a root or a child of the context that came with the message; never a child
of the ambient span, because real workers pop the next job from inside the last one's handler. While it is open it is
found in the OpenTelemetry context, so it follows threads and tasks wherever the context does (tasks.py).

Whoever ends a job may do so early, late or never: `job_end` may be called any number of times, the first call counts.
Jobs that nobody ends are ended by the process's exit (lifecycle.py), by their age (records.py), or, after a SIGKILL,
by the gateway, which was told of their start.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from opentelemetry import baggage, context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from otel_pipeline import __version__
from otel_pipeline.worker import identity, names
from otel_pipeline.worker.evidence import Evidence, Outcome, Source, Verdict, verdict
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.redaction import scrub
from otel_pipeline.worker.settings import settings

EVIDENCE_MAX: Final = 64
"""Pieces of evidence kept of one job: the first half and the newest."""
OPEN_MAX: Final = 10_000
"""Jobs open at once in one process; the oldest is ended as unknown when one more begins."""
LEARNT_MAX: Final = 16
"""Messages that one job's identity is completed from after its start."""

FINISHED: Final = Verdict(Outcome.COMPLETED, Source.END)
UNKNOWN: Final = Verdict(Outcome.UNKNOWN, Source.END)
NOT_AS_ERROR: Final = frozenset(Outcome) - {Outcome.FAILED, Outcome.LOST}

_JOB: Final = context.create_key("otel_pipeline.job")
_tracer: Final = trace.get_tracer("otel_pipeline.worker", __version__)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a job comes from."""

    system: str
    """`messaging.system`: redis, celery, rq, aws_sqs, rabbitmq, runpod ..."""
    destination: str
    """The queue, stream, task or function: low cardinality."""
    message_id: str | None = None
    """The framework's or broker's id of the message."""
    group: str | None = None
    """The consumer group."""


@dataclass(eq=False, slots=True)
class Job:
    """One attempt at one job, in this process."""

    origin: Origin
    id: str
    span: Span
    owns_span: bool
    """False if an official instrumentation began the span, and will end it."""
    started_ns: int
    previous: Context
    """The context that it took the place of."""
    parent_span_id: int = 0
    attempt: int = 1
    fields: dict[str, AttributeValue] = field(default_factory=dict)
    """Identity and quantities by attribute name."""
    evidence: list[Evidence] = field(default_factory=list)
    context: Context = field(default_factory=Context)
    """Holds its span, its baggage and the job itself."""
    pid: int = field(default_factory=os.getpid)
    element: bytes | None = None
    """What was popped, if it was an element of a Redis structure."""
    settled_ns: int = 0
    """When it was acknowledged or its final status was written; it may still do a little after that."""
    activity_ns: int = 0
    """When a span of it, or a part of the work on it, last began or ended."""
    begun_ns: int = 0
    """When a span of it last began, in whatever thread or task."""
    printed: Evidence | None = None
    """An exception that was printed; it counts if no span of the job begins after it."""
    printed_ns: int = 0
    learnt: int = 0
    stages: int = 0
    flow: weakref.ref[object] | None = None
    """The flow that popped it (flow.py)."""
    children: int = 0
    """Threads and tasks that work on it, besides the one that began it (tasks.py)."""
    said_by_children: tuple[Evidence, ...] = ()
    """What the end of the last one says; it counts if its own flow did nothing more for the job."""
    left: bool = False
    """The one that began it went on to something else; the last child ends it."""
    ended_ns: int = 0
    cleanup: list[Callable[[Job], None]] = field(default_factory=list)
    """Called once just before the verdict: what is still open within it (ComfyUI prompts) says what became of it."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def set(self, name: str, value: AttributeValue | None) -> None:
        """Puts a field on the job's span and on those of its spans that begin from now on."""
        if value is not None and not self.ended_ns:
            self.fields[name] = value
            self.span.set_attribute(name, value)

    def add(self, name: str, amount: float) -> None:
        """Adds to a quantity."""
        known = self.fields.get(name)
        self.set(name, amount + known if isinstance(known, int | float) else amount)

    def identify(self, identifier: str) -> None:
        """The program's own id of the job, where another stood for it."""
        self.id = identifier
        self.set(names.JOB_ID, identifier)

    def next_stage(self) -> int:
        """Index of the stage that begins, from 0."""
        self.stages += 1
        return self.stages - 1

    def learn(self, message: object) -> None:
        """Completes the identity from something read about the job; what is known already stays."""
        if self.learnt < LEARNT_MAX and not self.ended_ns:
            self.learnt += 1
            for name, value in identity.fields(message, self.origin.destination).items():
                if name not in self.fields:
                    self.set(name, value)

    def observe(self, evidence: Evidence | None) -> None:
        """Adds evidence of how it comes out."""
        if evidence is None or self.ended_ns:
            return
        with self.lock:
            if len(self.evidence) >= EVIDENCE_MAX:
                del self.evidence[EVIDENCE_MAX // 2]
            self.evidence.append(evidence)

    def settle(self) -> None:
        """It was acknowledged, or its final status written."""
        self.settled_ns = time.time_ns()

    @property
    def over(self) -> bool:
        return self.ended_ns != 0


open_jobs: Final[dict[int, Job]] = {}
"""Of this process, by identity, the oldest first."""
started: Final[list[Callable[[Job], object]]] = []
ended: Final[list[Callable[[Job, Verdict], object]]] = []
"""Observers of each start and end: records, log events. Each is a hook."""


def current_job(within: Context | None = None) -> Job | None:
    """The open job of this task or thread."""
    job = context.get_value(_JOB, within)
    return job if isinstance(job, Job) and not job.ended_ns else None


def job_start(
    origin: Origin,
    message: object = None,
    *,
    parent: Context | None = None,
    links: Sequence[Link] = (),
    job_id: str | None = None,
    attempt: int = 1,
    attributes: Mapping[str, AttributeValue] | None = None,
    adopt: Span | None = None,
    name: str | None = None,
    kind: SpanKind = SpanKind.CONSUMER,
) -> Job:
    """Begins a job and makes it current in this task or thread.

    `message` is what the job's identity is read from: bytes, text, JSON or not, a mapping (identity.py). `parent` is
    the context that came with it; without one the job is the root of a trace. `adopt` is the span of an official
    instrumentation that stands for the job already. Raises nothing that depends on the message.
    """
    known = identity.fields(message, origin.destination)
    told = known.pop(names.JOB_ATTEMPT, None)
    attempt = max(attempt, told) if isinstance(told, int) else attempt
    identifier = job_id or identity.job_id(message, known) or origin.message_id or uuid.uuid4().hex
    base, links = _related(parent, links)
    brought = baggage.get_all(base)
    carried: dict[str, AttributeValue] = {key: str(brought[key]) for key in names.CARRIED if key in brought}
    known = {**carried, **known, **(attributes or {}), names.JOB_ID: identifier}
    # One id on all spans: that of the request goes before what the message calls its own.
    known[names.CORRELATION_ID] = carried.get(names.CORRELATION_ID) or known.get(names.CORRELATION_ID) or identifier
    for key in settings().baggage:
        if key in known and brought.get(key) != (value := str(known[key])):
            base = baggage.set_baggage(key, value, base)
    now_ns = time.time_ns()
    described = {**_describe(origin, identifier, attempt), **known}
    if adopt is not None:
        adopt.set_attributes(described)
    span = adopt or _tracer.start_span(
        name or f"process {origin.destination}", base, kind, described, links=links, start_time=now_ns
    )
    job = Job(
        origin=origin,
        id=identifier,
        span=span,
        owns_span=adopt is None,
        started_ns=now_ns,
        activity_ns=now_ns,
        previous=context.get_current(),
        parent_span_id=trace.get_current_span(base).get_span_context().span_id,
        attempt=attempt,
        fields=known,
    )
    job.context = context.set_value(_JOB, job, trace.set_span_in_context(span, base))
    if len(open_jobs) >= OPEN_MAX:
        job_end(next(iter(open_jobs.values())), default=UNKNOWN)
    open_jobs[id(job)] = job
    context.attach(job.context)
    for observer in started:
        observer(job)
    return job


def job_end(
    job: Job | None, *evidence: Evidence | None, default: Verdict = FINISHED, end_ns: int | None = None
) -> None:
    """Ends a job with the verdict over all evidence, and makes current again what was before it, if it is current.

    Idempotent. `default` is the verdict if there is no evidence. `end_ns` is the time it ended, if that was before now.
    """
    if job is None:
        return
    for each in evidence:
        job.observe(each)
    if not job.ended_ns:
        _close(job)
    with job.lock:
        if job.ended_ns or job.pid != os.getpid():
            return
        now_ns = time.time_ns()
        job.ended_ns = max(end_ns or now_ns, job.started_ns)
    open_jobs.pop(id(job), None)
    decided = verdict(job.evidence, default)
    _write(job, decided)
    for observer in ended:
        observer(job, decided)
    leave(job)


def leave(job: Job) -> None:
    """Makes current what was before the job, if this task or thread is in it. The job may go on elsewhere."""
    if context.get_value(_JOB) is job:
        context.attach(job.previous)


def enter(job: Job) -> None:
    """Makes an open job current in this task or thread."""
    context.attach(job.context)


def forget_inherited() -> None:
    """In a forked child: the parent's jobs are the parent's to end."""
    open_jobs.clear()


def _close(job: Job) -> None:
    closing, job.cleanup = job.cleanup, []
    for cleanup in closing:
        cleanup(job)
    if job.begun_ns <= job.printed_ns:
        job.observe(job.printed)
    for name, value in identity.defaults().items():
        if name not in job.fields:
            job.set(name, value)


@hook("job.write")
def _write(job: Job, decided: Verdict) -> None:
    span = job.span
    span.set_attribute(names.JOB_OUTCOME, decided.outcome.value)
    span.set_attribute(names.JOB_OUTCOME_SOURCE, decided.source.name.lower())
    if decided.error_type:
        span.set_attribute(names.ERROR_TYPE, decided.error_type)
    elif decided.outcome not in NOT_AS_ERROR:
        span.set_attribute(names.ERROR_TYPE, "_OTHER")
    if decided.outcome not in NOT_AS_ERROR:
        told = scrub(decided.message) if decided.message else decided.error_type or decided.outcome.value
        span.set_status(Status(StatusCode.ERROR, told))
    if job.owns_span:
        span.end(job.ended_ns)


def _related(parent: Context | None, links: Sequence[Link]) -> tuple[Context, Sequence[Link]]:
    """The context to begin the span in, and its links, as the relation is configured."""
    if parent is None:
        return Context(), links
    remote = trace.get_current_span(parent).get_span_context()
    if settings().relation == "link" and remote.is_valid:
        return trace.set_span_in_context(trace.INVALID_SPAN, parent), (*links, Link(remote))
    return parent, links


def _describe(origin: Origin, identifier: str, attempt: int) -> dict[str, AttributeValue]:
    described: dict[str, AttributeValue] = {
        names.MESSAGING_SYSTEM: origin.system,
        names.MESSAGING_DESTINATION: origin.destination,
        names.MESSAGING_OPERATION: "process",
        names.MESSAGING_OPERATION_TYPE: "process",
        names.MESSAGING_MESSAGE_ID: origin.message_id or identifier,
        names.JOB_ATTEMPT: attempt,
    }
    if origin.group:
        described[names.MESSAGING_CONSUMER_GROUP] = origin.group
    return described
