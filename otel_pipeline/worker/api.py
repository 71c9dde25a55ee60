"""What a program may say itself, if it wants to say more than can be seen from outside. Everything here is optional.

    from otel_pipeline.worker import job, stage, measure, record_event, record_failover

    @job("render", workflow="portrait")         # or: with job("render", id=task["id"], user=task["user"]) as this:
    async def render(task):
        with stage("tts", model="multilingual_v2") as speaking:
            speaking.set("characters", len(text))
        with measure("model.inference.duration", model="flux"):
            ...
        record_failover("local", "runpod", reason="timeout")

`job` and `stage` are context managers, sync and async, and decorators of functions, coroutine functions and generators
of both kinds. What they are given under a short name becomes the attribute of `FIELDS`; any other name is an attribute
as it stands. An exception of the program passes through and is recorded; none of ours reaches the program.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

from opentelemetry import context, metrics, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from otel_pipeline import __version__
from otel_pipeline.worker import identity, names
from otel_pipeline.worker.calls import around
from otel_pipeline.worker.events import emit
from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.flow import error_name, exception_evidence, this_flow
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, Origin, current_job, job_end, job_start
from otel_pipeline.worker.outcomes import returned as evidence_of_return
from otel_pipeline.worker.redaction import error_text, scrub

FIELDS: Final = {
    "type": names.JOB_TYPE,
    "tier": names.JOB_TIER,
    "priority": names.JOB_PRIORITY,
    "workflow": names.WORKFLOW,
    "model": names.MODEL,
    "backend": names.BACKEND,
    "correlation_id": names.CORRELATION_ID,
    "images": names.IMAGES,
    "video_seconds": names.VIDEO_SECONDS,
    "audio_seconds": names.AUDIO_SECONDS,
    "characters": names.CHARACTERS,
    "megapixels": names.MEGAPIXELS,
    "tokens_in": names.TOKENS_IN,
    "tokens_out": names.TOKENS_OUT,
}
"""Short name to attribute. `id` and `user` are known besides; a user is written as a pseudonym."""
QUANTITIES: Final = frozenset(
    {names.IMAGES, names.VIDEO_SECONDS, names.AUDIO_SECONDS, names.CHARACTERS, names.MEGAPIXELS}
)
"""Set on a stage, these add up on the job."""
OPERATIONS: Final = {
    "tts": "text_to_speech",
    "voiceover": "text_to_speech",
    "speech": "text_to_speech",
    "image": "image_generation",
    "video": "video_generation",
}
"""Names of stages that have a `gen_ai.operation.name`."""
INSTRUMENTS_MAX: Final = 200
"""Distinct names that `measure` makes histograms for; more are not recorded."""

F = TypeVar("F", bound=Callable[..., Any])
_tracer: Final = trace.get_tracer("otel_pipeline.worker", __version__)
_meter: Final = metrics.get_meter("otel_pipeline.worker", __version__)


class Scope:
    """A stretch of the program: `with`, `async with`, or a decorator, which opens a new one for each call."""

    def __enter__(self) -> Self:
        _open(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, stack: TracebackType | None) -> None:
        _shut(self, error, None)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, stack: TracebackType | None) -> None:
        self.__exit__(kind, error, stack)

    def __call__(self, function: F) -> F:
        return cast("F", around(function, self._begin_call, _end_call))

    def _begin_call(self, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Scope | None:
        return _open_anew(self)

    def anew(self) -> Scope:
        """One like this, not begun."""
        raise NotImplementedError

    def begin(self) -> None:
        raise NotImplementedError

    def end(self, error: BaseException | None, returned: object) -> None:
        raise NotImplementedError


@hook("api.open")
def _open(scope: Scope) -> None:
    scope.begin()


@hook("api.open_anew")
def _open_anew(scope: Scope) -> Scope:
    opened = scope.anew()
    opened.begin()
    return opened


@hook("api.shut")
def _shut(scope: Scope, error: BaseException | None, returned: object) -> None:
    scope.end(error, returned)


def _end_call(begun: Any, error: BaseException | None, returned: Any) -> None:
    _shut(begun, error, returned)


class job(Scope):  # noqa: N801  it reads as a statement
    """One job: the root of a trace, or a child of the span at work.

    Where the job was popped from a queue that is traced already, this names that job instead of beginning another.
    `id`, `user` and the names of `FIELDS` identify it; `attempt` counts from 1. The outcome is that of the evidence
    (an exception that leaves, a returned {"error": ...}, a status written ...), or what `outcome()` says.
    """

    def __init__(self, type: str, *, attempt: int = 1, **fields: AttributeValue | None) -> None:  # noqa: A002
        self.type = type
        self._attempt = attempt
        self._fields = fields
        self._job: Job | None = None

    @property
    def id(self) -> str | None:
        """The id of the open job."""
        return self._job.id if self._job is not None else None

    def set(self, name: str, value: AttributeValue) -> None:
        """Adds a field or quantity."""
        _set_on_job(self, name, value)

    def outcome(self, outcome: str, *, error_type: str | None = None, message: str | None = None) -> None:
        """completed, failed, partial, cancelled or skipped; it goes before all other evidence."""
        _say_outcome(self, outcome, error_type, message)

    def anew(self) -> job:
        return job(self.type, attempt=self._attempt, **self._fields)

    def begin(self) -> None:
        known = attributes(self._fields)
        known.setdefault(names.JOB_TYPE, self.type)
        identifier = self._fields.get("id")
        popped = this_flow().job
        if popped is not None and not popped.over:
            for name, value in known.items():
                popped.set(name, value)
            if identifier is not None:
                popped.identify(str(identifier))
            self._job = popped
            return
        ambient = context.get_current()
        self._job = job_start(
            Origin("in_process", self.type),
            parent=ambient if trace.get_current_span(ambient).get_span_context().is_valid else None,
            job_id=str(identifier) if identifier is not None else None,
            attempt=self._attempt,
            attributes=known,
            kind=SpanKind.INTERNAL,
        )

    def end(self, error: BaseException | None, returned: object) -> None:
        said = exception_evidence(error) if error is not None else evidence_of_return(returned)
        job_end(self._job, said)


@hook("api.set_on_job")
def _set_on_job(scope: job, name: str, value: AttributeValue) -> None:
    if scope._job is not None:
        for attribute, known in attributes({name: value}).items():
            scope._job.set(attribute, known)


@hook("api.outcome")
def _say_outcome(scope: job, outcome: str, error_type: str | None, message: str | None) -> None:
    if scope._job is not None:
        told = scrub(message) if message else None
        scope._job.observe(Evidence(Source.API, Outcome(outcome), error_type, told))


class stage(Scope):  # noqa: N801
    """One step of a job: a span `stage <name>` with the index of the step within the job."""

    def __init__(self, name: str, **fields: AttributeValue | None) -> None:
        self.name = name
        self._fields = fields
        self._span: Span | None = None
        self._token: Any = None

    def set(self, name: str, value: AttributeValue) -> None:
        """Adds a field or quantity; quantities add up on the job."""
        _set_on_stage(self, name, value)

    def anew(self) -> stage:
        return stage(self.name, **self._fields)

    def begin(self) -> None:
        found = current_job()
        known = {names.STAGE: self.name, **attributes(self._fields)}
        if self.name in OPERATIONS:
            known["gen_ai.operation.name"] = OPERATIONS[self.name]
        if found is not None:
            known[names.STAGE_INDEX] = found.next_stage()
            _count_quantities(found, known)
        self._span = _tracer.start_span(f"stage {self.name}", attributes=known)
        self._token = context.attach(trace.set_span_in_context(self._span))

    def end(self, error: BaseException | None, returned: object) -> None:  # noqa: ARG002  a stage returns nothing of note
        if self._span is None:
            return
        if error is not None:
            self._span.record_exception(error)
            self._span.set_attribute(names.ERROR_TYPE, error_name(error))
            self._span.set_status(Status(StatusCode.ERROR, error_text(error)))
        self._span.end()
        context.detach(self._token)

    def write(self, known: dict[str, AttributeValue]) -> None:
        """Sets attributes on the open span."""
        if self._span is not None:
            self._span.set_attributes(known)


@hook("api.set_on_stage")
def _set_on_stage(scope: stage, name: str, value: AttributeValue) -> None:
    known = attributes({name: value})
    scope.write(known)
    found = current_job()
    if found is not None:
        _count_quantities(found, known)


def _count_quantities(found: Job, known: dict[str, AttributeValue]) -> None:
    for name in QUANTITIES & known.keys():
        amount = known[name]
        if isinstance(amount, int | float):
            found.add(name, amount)


class measure(Scope):  # noqa: N801
    """A duration in seconds in the histogram of this name: `model.inference.duration` with `model="flux"` becomes
    `model_inference_duration_seconds{model="flux"}`. No span. An exception adds `error.type`.
    """

    def __init__(self, name: str, **labels: AttributeValue) -> None:
        self.name = name
        self._labels = labels
        self._started_s = 0.0

    def anew(self) -> measure:
        return measure(self.name, **self._labels)

    def begin(self) -> None:
        self._started_s = time.perf_counter()

    def end(self, error: BaseException | None, returned: object) -> None:  # noqa: ARG002  nor does a measurement
        labels = {**self._labels, **({names.ERROR_TYPE: error_name(error)} if error is not None else {})}
        histogram = _histogram(self.name)
        if histogram is not None:
            histogram.record(time.perf_counter() - self._started_s, labels)


_histograms: Final[dict[str, metrics.Histogram]] = {}


def _histogram(name: str) -> metrics.Histogram | None:
    if name not in _histograms and len(_histograms) < INSTRUMENTS_MAX:
        _histograms[name] = _meter.create_histogram(name, unit="s")
    return _histograms.get(name)


@hook("api.record_failover")
def record_failover(origin: str, target: str, *, reason: str, **more: AttributeValue) -> None:
    """The job goes on at another backend: an event on the span at work, a log event, and the job's backend."""
    known: dict[str, AttributeValue] = {
        names.FAILOVER_FROM: origin,
        names.FAILOVER_TO: target,
        names.FAILOVER_REASON: reason,
        **attributes(more),
    }
    trace.get_current_span().add_event("failover", known)
    found = current_job()
    if found is not None:
        found.set(names.BACKEND, target)
    emit("failover", **known)


@hook("api.record_event")
def record_event(name: str, **fields: AttributeValue) -> None:
    """A log event with the trace and the job that it belongs to: job_created, backend_switched ..."""
    emit(name, **attributes(fields))


def attributes(fields: dict[str, Any]) -> dict[str, AttributeValue]:
    """Attribute names and values of short names; a user becomes a pseudonym; None is left out."""
    known: dict[str, AttributeValue] = {}
    for name, value in fields.items():
        if name == "user" and value is not None:
            known[names.USER_ID] = identity.pseudonym(str(value))
        elif name != "id" and isinstance(value, str | bool | int | float | list | tuple):
            known[FIELDS.get(name, name)] = value
    return known
