"""What queue frameworks say of a job, in the words of evidence.py: failed for good, to be run again, not run at all.

A job that is run again is one job with several attempts: each is a span of its own with its number and its outcome. An
attempt that an error ended is `failed` with the error's type; one that only asked to be run again later, without an
error, is `skipped`. Both have `otel_pipeline.job.will_retry`, so that a reader who counts failures can leave them out.
"""

from __future__ import annotations

import time

from otel_pipeline.worker import names
from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.flow import error_name, exception_evidence
from otel_pipeline.worker.jobs import Job
from otel_pipeline.worker.redaction import MESSAGE_MAX


def raised(job: Job, error: BaseException) -> None:
    """An exception left the job's function."""
    job.observe(exception_evidence(error))
    if job.owns_span:
        job.span.record_exception(error)


def will_retry(job: Job) -> None:
    """Another attempt follows."""
    job.set(names.JOB_WILL_RETRY, value=True)


def retried(job: Job, error: BaseException) -> None:
    """The job asked to be run again, by an exception of the framework; what it was caused by is what went wrong."""
    will_retry(job)
    cause = (
        getattr(error, "exc", None) or error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    )
    if isinstance(cause, BaseException):
        job.observe(framework(Outcome.FAILED, error_name(cause), str(cause)))
        if job.owns_span:
            job.span.record_exception(cause)
    else:
        job.observe(framework(Outcome.SKIPPED, None, str(error)))


def framework(outcome: Outcome, error_type: str | None = None, message: str | None = None) -> Evidence:
    """What the framework says."""
    return Evidence(Source.FRAMEWORK, outcome, error_type, message[:MESSAGE_MAX] if message else None)


def waited_since(job: Job, sent_s: float | None) -> None:
    """When it was enqueued, by the producer's clock (Unix time)."""
    if sent_s:
        job.set(names.JOB_QUEUE_WAIT_S, round(max(0.0, job.started_ns / 1e9 - sent_s), 6))


def typed(job: Job, kind: str | None) -> None:
    """The task's or function's name is the job's type, unless the message says better."""
    if kind and names.JOB_TYPE not in job.fields:
        job.set(names.JOB_TYPE, kind)


def age_s(sent_ms: object) -> float | None:
    """Milliseconds of a message as seconds, if that is what they are."""
    return sent_ms / 1000 if isinstance(sent_ms, int | float) and 0 < sent_ms < (time.time() + 86_400) * 1000 else None
