"""Small records of jobs that are not over, so that a job whose process is killed can be told from one that never was.

While a job is open, a span without duration is exported for it: `job started` soon after its start, `job running`
every `heartbeat_s`. The gateway's processor `lost_jobs` takes them out again and marks the job lost when they stop. A
job that is over within START_AFTER_S leaves none: the records cost nothing where jobs are short.

One daemon thread does this for all jobs. It sleeps without a deadline while no job is open. It also ends jobs that are
older than `job_timeout_s`.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any, ClassVar, Final

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.util.types import AttributeValue

from otel_pipeline import __version__
from otel_pipeline.worker import names
from otel_pipeline.worker.evidence import Verdict
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import UNKNOWN, Job, ended, job_end, open_jobs, started
from otel_pipeline.worker.process import draining
from otel_pipeline.worker.settings import settings

START_AFTER_S: Final = 0.2
"""Age at which a job is reported as started: most jobs of generation take seconds, others need no record."""
FLUSH_EVERY_S: Final = 1.0
"""Records are exported at once, but not more often than this."""

_tracer: Final = trace.get_tracer("otel_pipeline.worker", __version__)


class Reporter:
    """The thread and what it knows."""

    def __init__(self) -> None:
        self._wake = threading.Event()
        self._alive = threading.Lock()
        self._reported: dict[int, float] = {}
        """When each open job was last reported (monotonic), by its key in `open_jobs`."""
        self._flushed_s = 0.0

    def job_started(self) -> None:
        """Called in the host's path: it may cost microseconds only."""
        if not self._wake.is_set():
            self._wake.set()
            if self._alive.acquire(blocking=False):
                threading.Thread(target=self._run, name="otel_pipeline-records", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._wake.wait(self._pause_s())
            self._wake.clear()
            if open_jobs:
                time.sleep(START_AFTER_S)  # gathers jobs that start together, and lets short ones end
            report_all(self)

    def _pause_s(self) -> float | None:
        return min(settings().heartbeat_s / 3, settings().job_timeout_s) if open_jobs else None

    def round(self, now_s: float) -> None:
        """Reports the jobs that are due and ends those that are too old."""
        current = dict(open_jobs)
        self._reported = {key: at_s for key, at_s in self._reported.items() if key in current}
        due = False
        for key, job in current.items():
            reported_s = self._reported.get(key)
            if time.time_ns() - job.started_ns > settings().job_timeout_s * 1e9:
                job_end(job, default=UNKNOWN)
            elif reported_s is None or now_s - reported_s >= settings().heartbeat_s * 0.99:
                write(job, "started" if reported_s is None else "running")
                self._reported[key] = now_s
                due = True
        if due:
            since_s = time.monotonic() - self._flushed_s
            time.sleep(max(FLUSH_EVERY_S - since_s, 0.0))
            self._flushed_s = time.monotonic()
            draining.request("traces")


@hook("records.report")
def report_all(reporter: Reporter) -> None:
    """One round of the thread."""
    reporter.round(time.monotonic())


@hook("records.write")
def write(job: Job, state: str) -> None:
    """One record: a child of the job's span, without the job's context, so that it counts as no activity of the job."""
    own = job.span.get_span_context()
    if not job.span.is_recording() or not own.trace_flags.sampled:
        return
    now_ns = time.time_ns()
    within = trace.set_span_in_context(job.span, Context())
    span = _tracer.start_span(f"job {state}", within, start_time=now_ns, attributes=describe(job, state))
    span.end(now_ns)


def describe(job: Job, state: str) -> dict[str, AttributeValue]:
    """What the gateway needs to write the job's span in our place."""
    known: dict[str, AttributeValue | None] = {
        names.JOB_STATE: state,
        names.JOB_SPAN_ID: f"{job.span.get_span_context().span_id:016x}",
        names.JOB_PARENT_SPAN_ID: f"{job.parent_span_id:016x}" if job.parent_span_id else None,
        names.JOB_START_TIME: job.started_ns,
        names.MESSAGING_SYSTEM: job.origin.system,
        names.MESSAGING_DESTINATION: job.origin.destination,
        names.MESSAGING_MESSAGE_ID: job.origin.message_id or job.id,
        names.MESSAGING_CONSUMER_GROUP: job.origin.group,
        names.JOB_ATTEMPT: job.attempt,
        **{name: job.fields.get(name) for name in RECORDED},
    }
    return {name: value for name, value in known.items() if value is not None}


RECORDED: Final = (*names.CARRIED, names.MODEL, names.BACKEND)


# -- metrics -----------------------------------------------------------------------------------------------------------


class _Consumer:
    """Whether this process takes jobs."""

    ever = False
    now = False
    name = ""
    destinations: ClassVar[set[str]] = set()
    """Queues that it took jobs from."""


DESTINATIONS_MAX: Final = 100
"""Queues of one process whose open jobs are shown: a worker has a few."""


def consuming() -> None:
    """This process waits for jobs: called by adapters at each pop, empty or not."""
    _Consumer.ever = _Consumer.now = True


def stop_consuming() -> None:
    """It takes no more."""
    _Consumer.now = False


def _observe_active(_options: CallbackOptions) -> Iterable[Observation]:
    if _Consumer.ever:
        yield Observation(int(_Consumer.now), {"worker": _Consumer.name})


def _observe_open(_options: CallbackOptions) -> Iterable[Observation]:
    if not _Consumer.ever:
        return
    counts = dict.fromkeys(_Consumer.destinations, 0)
    for job in list(open_jobs.values()):
        if job.origin.destination in counts:
            counts[job.origin.destination] += 1
    for destination, count in counts.items():
        yield Observation(count, {names.MESSAGING_DESTINATION: destination})


class _Counters:
    started: Any = None
    ended: Any = None


@hook("records.install")
def install() -> None:
    """Observes jobs and makes the instruments."""
    meter = metrics.get_meter("otel_pipeline.worker", __version__)
    _Counters.started = meter.create_counter("otel_pipeline.jobs.started", description="Jobs begun.")
    _Counters.ended = meter.create_counter("otel_pipeline.jobs.ended", description="Jobs ended, by outcome.")
    meter.create_observable_gauge(
        "worker_active", [_observe_active], description="1 while the worker takes jobs, 0 at its end."
    )
    meter.create_observable_gauge("otel_pipeline.jobs.open", [_observe_open], description="Jobs under way.")
    _Consumer.name = os.environ.get("HOSTNAME") or socket.gethostname()
    started.append(_on_start)
    ended.append(_on_end)


@hook("records.on_start")
def _on_start(job: Job) -> None:
    consuming()
    if len(_Consumer.destinations) < DESTINATIONS_MAX:
        _Consumer.destinations.add(job.origin.destination)
    _Counters.started.add(1, {names.MESSAGING_DESTINATION: job.origin.destination})
    _reporter.job_started()


@hook("records.on_end")
def _on_end(job: Job, decided: Verdict) -> None:
    labels = {names.MESSAGING_DESTINATION: job.origin.destination, names.JOB_OUTCOME: decided.outcome.value}
    _Counters.ended.add(1, labels)


_reporter = Reporter()


def forget() -> None:
    """In a forked child: it has no such thread, and takes no jobs before it does."""
    global _reporter  # noqa: PLW0603  one of this process
    _reporter = Reporter()
    _Consumer.ever = _Consumer.now = False
