"""The producing side: which pushes are messages on their way to a worker, and the context that goes beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry import trace

from otel_pipeline.worker import identity, names
from otel_pipeline.worker.adapters.redis import commands
from otel_pipeline.worker.adapters.redis import context as redis_context
from otel_pipeline.worker.adapters.redis.commands import Pushed
from otel_pipeline.worker.adapters.redis.consumer import known_loop
from otel_pipeline.worker.adapters.redis.context import Command
from otel_pipeline.worker.adapters.redis.keys import Purpose, is_delay, is_reply, purpose
from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.jobs import Job, job_end
from otel_pipeline.worker.messages import Send, send_end, send_start
from otel_pipeline.worker.settings import settings

COUNT: Final = "messaging.batch.message_count"
APART_MAX: Final = 100
"""Elements of one push that get a span each; a longer list is one span: a bulk load stays as quick as it was."""


@dataclass(slots=True)
class Parcel:
    """One push to a queue, on its way."""

    index: int
    """Of its command in the pipeline."""
    key: str
    pushed: Sequence[Pushed]
    job: Job | None = None
    """The job that it is pushed in."""
    again: bool = False
    """It is that job's own element: another attempt."""
    moved: bool = False
    """It is that job's own element, taken only to be put here."""
    sends: list[Send] = field(default_factory=list)
    """One for all elements, or one for each."""

    @property
    def attempt(self) -> int:
        return self.job.attempt + 1 if self.again and self.job is not None else 1


def parcel(index: int, name: str, key: str, args: Sequence[Any], job: Job | None) -> Parcel | None:
    """What this push sends to a queue; None if it is no queue, or nothing is pushed."""
    kind = purpose(key)
    if kind < Purpose.PERHAPS or is_reply(key) or (name == "ZADD" and kind is not Purpose.QUEUE and not is_delay(key)):
        return None
    pushed = commands.PUSHES[name](args)
    if not pushed:
        return None
    made = Parcel(index, key, pushed, job)
    if job is not None and len(pushed) == 1:
        same = pushed[0].raw == job.element
        there = key == job.origin.destination
        loop = known_loop()
        made.moved = same and not there and loop is not None and loop.taken is job and not job.children
        made.again = not made.moved and (same or (there and _same_id(pushed[0], job))) and (there or is_delay(key))
    return made


def _same_id(pushed: Pushed, job: Job) -> bool:
    return identity.job_id(pushed.message, identity.fields(pushed.message)) == job.id


def start(parcels: Sequence[Parcel]) -> list[Command]:
    """Begins the spans; commands that put the context beside the elements."""
    writing: list[Command] = []
    for each in parcels:
        loop = known_loop() if each.moved else None
        if loop is not None and loop.carried is not None:
            writing += _written(each, loop.carried.headers)
            continue
        if len(each.pushed) == 1 or _apart(each):
            attach = len(parcels) == 1 and len(each.pushed) == 1
            each.sends = [_send(each.key, one, attach=attach) for one in each.pushed]
        else:
            send = send_start("redis", each.key, attach=len(parcels) == 1)
            send.span.set_attribute(COUNT, len(each.pushed))
            each.sends = [send]
        writing += _written(each, *(send.headers for send in each.sends))
    return writing


def _apart(parcel: Parcel) -> bool:
    """Outside of any trace, several elements at once are as many jobs with nothing in common: a trace for each."""
    ambient = trace.get_current_span().get_span_context()
    return len(parcel.pushed) <= APART_MAX and not ambient.is_valid


def _send(key: str, one: Pushed, *, attach: bool) -> Send:
    send = send_start("redis", key, one.message, attach=attach)
    send.span.set_attribute(names.MESSAGING_BODY_SIZE, len(one.raw))
    return send


def _written(parcel: Parcel, *headers: Any) -> list[Command]:
    if settings().carrier == "off":
        return []
    values = _values(parcel, headers)
    return [
        command
        for pushed, value in zip(parcel.pushed, values, strict=True)
        for command in redis_context.writes(pushed.raw, value)
    ]


def _values(parcel: Parcel, headers: Sequence[Any]) -> list[str]:
    """The context of each element."""
    encoded = [redis_context.encode(each, parcel.attempt) for each in headers]
    return encoded if len(encoded) == len(parcel.pushed) else encoded[:1] * len(parcel.pushed)


def injected(name: str, args: tuple[Any, ...], parcels: Sequence[Parcel]) -> tuple[Any, ...] | None:
    """The arguments of a push with the context in the payloads, where the operator chose that and they can take it."""
    if settings().carrier != "json" or name not in {"LPUSH", "RPUSH", "LPUSHX", "RPUSHX"} or len(parcels) != 1:
        return None
    sends = parcels[0].sends
    if not sends:
        return None
    values = _values(parcels[0], [send.headers for send in sends])
    made = [redis_context.put_in(each.raw, value) for each, value in zip(parcels[0].pushed, values, strict=True)]
    if any(each is None for each in made):
        return None
    return (*args[:2], *made)


def end(parcels: Sequence[Parcel], error: BaseException | None = None) -> None:
    """Ends the spans; what the pushes say of the job that they came from."""
    for each in parcels:
        for send in each.sends:
            send_end(send, error)
        job = each.job
        if job is None or error is not None:
            continue
        if each.again:
            job.observe(Evidence(Source.MESSAGE, Outcome.FAILED, "retry"))
            job.settle()
        elif each.moved:
            loop = known_loop()
            if loop is not None:
                loop.moved.add(job.origin.destination)
            job_end(job, Evidence(Source.MESSAGE, Outcome.SKIPPED, "moved"))
