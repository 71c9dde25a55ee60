"""Lifecycle and analytics events: log records with an event name, over OpenTelemetry's logs API.

Every job tells of its start and end by itself: `job_start`, then `job_complete`, `job_failed` or `job_cancelled`. The
rest is the program's to tell, with `emit`: `failover`, `job_created`, `backend_switched`, `cost_calculated`,
`comfyui_installed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from opentelemetry._logs import LogRecord, SeverityNumber, get_logger
from opentelemetry.context import Context

from otel_pipeline import __version__
from otel_pipeline.worker import identity, names
from otel_pipeline.worker.evidence import Outcome, Verdict
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, current_job, ended, started

JOB_START: Final = "job_start"
JOB_COMPLETE: Final = "job_complete"
JOB_FAILED: Final = "job_failed"
JOB_CANCELLED: Final = "job_cancelled"
FAILOVER: Final = "failover"
DURATION_S: Final = "otel_pipeline.job.duration"
ATTRIBUTES_MAX: Final = 32
"""Of one event."""
CHARS_MAX: Final = 1024
"""Of one value."""
PERSONAL: Final = frozenset(
    {"user", "user_id", "userid", "username", "user_name", "email", "owner_token", "chat_id", "name", "ip", "phone"}
)
"""Keys that say who somebody is: `identity` makes the pseudonym of those that it knows, none goes out as it is."""
SHORT: Final = {"backend": names.BACKEND, "from": names.FAILOVER_FROM, "to": names.FAILOVER_TO}

_OF_OUTCOMES: Final = {Outcome.FAILED: JOB_FAILED, Outcome.LOST: JOB_FAILED, Outcome.CANCELLED: JOB_CANCELLED}


def emit(name: str, /, **attributes: Any) -> None:
    """Sends an event that belongs to the current span and job. Never raises; values are text, numbers and bools."""
    _emit(name, attributes)


def failover(origin: str, target: str, reason: str | None = None) -> None:
    """One backend took over from another."""
    known = {names.FAILOVER_FROM: origin, names.FAILOVER_TO: target}
    _emit(FAILOVER, {**known, **({names.FAILOVER_REASON: reason} if reason else {})})


@hook("events.install")
def install() -> None:
    """Observes jobs."""
    started.append(_on_start)
    ended.append(_on_end)


@hook("events.emit")
def _emit(name: str, given: Mapping[str, Any]) -> None:
    _send(name, clean(given), None, SeverityNumber.WARN if name == FAILOVER else SeverityNumber.INFO)


def clean(given: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of an event from what the program gave: identity by its proper names, users by pseudonym."""
    found: dict[str, Any] = dict(identity.fields({key: value for key, value in given.items() if "." not in key}))
    for key, value in list(given.items())[:ATTRIBUTES_MAX]:
        if key.lower() in PERSONAL or value is None or isinstance(value, Mapping):
            continue
        text = value if isinstance(value, bool | int | float) else str(value)[:CHARS_MAX]
        found.setdefault(SHORT.get(key, key), text)
    return found


@hook("events.job_start")
def _on_start(job: Job) -> None:
    _send(JOB_START, _of_job(job), job.context)


@hook("events.job_end")
def _on_end(job: Job, decided: Verdict) -> None:
    name = _OF_OUTCOMES.get(decided.outcome, JOB_COMPLETE)
    attributes = {
        **_of_job(job),
        names.JOB_OUTCOME: decided.outcome.value,
        names.JOB_OUTCOME_SOURCE: decided.source.name.lower(),
        DURATION_S: max(job.ended_ns - job.started_ns, 0) / 1e9,
        **({names.ERROR_TYPE: decided.error_type} if decided.error_type else {}),
    }
    _send(name, attributes, job.context, SeverityNumber.ERROR if name == JOB_FAILED else SeverityNumber.INFO)


def _of_job(job: Job) -> dict[str, Any]:
    return {
        **job.fields,
        names.MESSAGING_SYSTEM: job.origin.system,
        names.MESSAGING_DESTINATION: job.origin.destination,
        names.JOB_ATTEMPT: job.attempt,
    }


def _send(
    name: str, attributes: dict[str, Any], within: Context | None, severity: SeverityNumber = SeverityNumber.INFO
) -> None:
    job = current_job(within)
    known = {key: value for key, value in job.fields.items() if key in names.CARRIED} if job is not None else {}
    record = LogRecord(
        context=within,
        severity_number=severity,
        severity_text=severity.name,
        body=name,
        attributes={**known, **attributes},
        event_name=name,
    )
    get_logger("otel_pipeline.worker", __version__).emit(record)
