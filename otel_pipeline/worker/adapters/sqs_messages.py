"""SQS messages that were received: one job each, which begins where the message's body is read.

A program gets a list and dicts that equal those it would have got. Reading `Body` makes the message's job current in
the thread or task that reads it, wherever it was handed to. What follows is up to the program:

 * it deletes the message: the job is settled, and ends when its flow goes on to something else,
 * it goes on without: the attempt failed, SQS will deliver the message again,
 * it reads all bodies before it works on the first: those jobs are parked, and after the iteration the first one is
   current, each next one after the deletion of the one before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, SupportsIndex

from otel_pipeline.worker import names
from otel_pipeline.worker.adapters.official import current
from otel_pipeline.worker.evidence import Evidence, Outcome, Source, Verdict
from otel_pipeline.worker.flow import Flow, finish, popped, this_flow
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, Origin, current_job, enter, job_end, job_start, leave
from otel_pipeline.worker.messages import extract
from otel_pipeline.worker.serving import in_a_request

SYSTEM: Final = "aws_sqs"
IN_FLIGHT_MAX: Final = 10_000
"""Messages whose deletion is waited for; the oldest are forgotten. SQS itself has no more than 120,000 in flight."""
ENVELOPE_MAX: Final = 262_144
"""Characters of a body that is looked into for SNS's envelope: SNS delivers no larger ones."""
NOT_DELETED: Final = Evidence(Source.ACK, Outcome.FAILED, "message_not_deleted", "the message was not deleted")
LEFT_OPEN: Final = Verdict(Outcome.UNKNOWN, Source.ACK)


@dataclass(eq=False, slots=True)
class Slot:
    """One message."""

    queue: str
    message: dict[str, Any]
    headers: Mapping[str, str]
    batch: Batch
    attempt: int = 1
    waited_s: float | None = None
    job: Job | None = None
    parked_ns: int = 0


@dataclass(eq=False, slots=True)
class Batch:
    """The messages of one answer."""

    slots: list[Slot] = field(default_factory=list)
    current: Slot | None = None
    in_turn: bool = False
    """All were read before any was worked on: each deletion leads to the next one."""


in_flight: Final[dict[str, Slot]] = {}
"""By receipt handle."""


class Received(dict[str, Any]):
    """A message, as the program sees it."""

    __slots__ = ("_slot",)

    def __init__(self, slot: Slot) -> None:
        super().__init__(slot.message)
        self._slot = slot

    def __getitem__(self, key: str) -> Any:
        if key == "Body":
            _taken(self._slot)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        if key == "Body":
            _taken(self._slot)
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        if key == "Body":
            _taken(self._slot)
        return super().pop(key, *default)

    def __iter__(self) -> Iterator[str]:  # `dict(message)` and `f(**message)` come here
        _taken(self._slot)
        return super().__iter__()

    def items(self) -> Any:
        _taken(self._slot)
        return super().items()

    def values(self) -> Any:
        _taken(self._slot)
        return super().values()

    def copy(self) -> dict[str, Any]:
        return Received(self._slot)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return dict, (list(super().items()),)


class Messages(list[Any]):
    """The list of an answer; it only has to know when an iteration over it is through."""

    __slots__ = ("_batch",)

    def __init__(self, items: Sequence[Any], batch: Batch) -> None:
        super().__init__(items)
        self._batch = batch

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()
        _passed(self._batch)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return list, (list.__getitem__(self, slice(None)),)


@hook("sqs.taken")
def _taken(slot: Slot) -> None:
    """The program reads the body, in this thread or task."""
    job, flow = slot.job, this_flow()
    if job is not None and (job.over or current_job() is job):
        return
    mine = _slot_of(flow)
    if mine is not None and mine is not slot:
        park(mine, flow)
    if _occupied(flow):
        return
    if job is None:
        _begin(slot)
    elif slot.parked_ns or flow.job is None:
        enter(job)
        popped(job)
    slot.parked_ns = 0
    slot.batch.current = slot


@hook("sqs.passed")
def _passed(batch: Batch) -> None:
    """If nothing was done in an iteration over several, the work begins now, with the first."""
    last = batch.slots[-1]
    if len(batch.slots) < 2 or batch.current is not last or last.job is None or _worked_on(last.job):
        return
    if all(slot.job is not None and not slot.job.over for slot in batch.slots):
        batch.in_turn = True
        _taken(batch.slots[0])


def asked(queue: str) -> None:
    """The flow asks this queue for more: what it had of it is over."""
    flow = this_flow()
    mine = _slot_of(flow)
    if mine is not None and mine.job is not None:
        if not mine.job.settled_ns and not mine.job.children:
            mine.job.observe(NOT_DELETED)
        for slot in mine.batch.slots:
            if slot is not mine and slot.job is not None and slot.parked_ns:
                job_end(slot.job, default=LEFT_OPEN, end_ns=slot.job.settled_ns or slot.parked_ns)
    for slot in list(in_flight.values()):  # deleted by pool threads, which give no other sign
        job = slot.job
        if slot.queue == queue and slot is not mine and job is not None and 0 < job.activity_ns <= job.settled_ns:
            job_end(job, end_ns=job.settled_ns)


def deleted(receipt: str) -> None:
    """The message is deleted: the program is done with it, or will not see it again."""
    slot = in_flight.pop(receipt, None)
    job = slot.job if slot is not None else None
    if slot is None or job is None or job.over:
        return
    job.settle()
    if slot.parked_ns:
        job_end(job, end_ns=job.settled_ns)
    elif slot.batch.in_turn and slot.batch.current is slot:
        following = next((each for each in slot.batch.slots if each.parked_ns and each.job and not each.job.over), None)
        if following is not None:
            finish(this_flow())
            _taken(following)


def returned(receipt: str) -> None:
    """The message was made visible again at once: the program gives this attempt up."""
    slot = in_flight.get(receipt)
    if slot is not None and slot.job is not None:
        slot.job.observe(Evidence(Source.FRAMEWORK, Outcome.FAILED, "message_returned", "put back into the queue"))
        slot.job.settle()


def park(slot: Slot, flow: Flow) -> None:
    """The flow goes on to another message. If it did nothing for this one yet, it may come back to it."""
    job = slot.job
    if job is None or job.over:
        return
    if _worked_on(job):
        if not job.settled_ns and not job.children:
            job.observe(NOT_DELETED)
        finish(flow)
        return
    flow.job = None
    leave(job)
    slot.parked_ns = time.time_ns()


def _worked_on(job: Job) -> bool:
    flow = job.flow() if job.flow is not None else None
    busy = isinstance(flow, Flow) and flow.job is job and flow.touched
    return bool(busy or job.children or job.settled_ns or job.evidence)


def _slot_of(flow: Flow) -> Slot | None:
    """The message that the flow is at."""
    job = flow.job
    if job is None or job.over or job.origin.system != SYSTEM:
        return None
    return next((slot for slot in reversed(list(_slots.values())) if slot.job is job), None)


def _occupied(flow: Flow) -> bool:
    """What is read here is part of something else: another kind of job, a web request."""
    return current_job() is not None or (flow.job is not None and not flow.job.over) or in_a_request()


def _begin(slot: Slot) -> None:
    body = slot.message.get("Body")
    inner, around = _unwrapped(body)
    adopted = current("opentelemetry.instrumentation.boto3sqs")
    slot.job = job_start(
        Origin(SYSTEM, slot.queue, slot.message.get("MessageId")),
        inner,
        parent=adopted.parent if adopted else extract(slot.headers) or extract(around),
        attempt=slot.attempt,
        attributes={} if slot.waited_s is None else {names.JOB_QUEUE_WAIT_S: slot.waited_s},
        adopt=adopted.span if adopted else None,
    )
    _slots[id(slot.job)] = slot
    slot.job.cleanup.append(_forget)
    popped(slot.job)


_slots: Final[dict[int, Slot]] = {}
"""Of open jobs, by the identity of the job."""


def _forget(job: Job) -> None:
    _slots.pop(id(job), None)


def _unwrapped(body: object) -> tuple[object, Mapping[str, str]]:
    """What SNS was given, and the attributes that it was given with, if it is SNS that put the message here."""
    if not isinstance(body, str) or len(body) > ENVELOPE_MAX or '"Notification"' not in body:
        return body, {}
    try:
        envelope = json.loads(body)
    except ValueError:
        return body, {}
    if not isinstance(envelope, dict) or envelope.get("Type") != "Notification" or "Message" not in envelope:
        return body, {}
    attributes = envelope.get("MessageAttributes")
    known = attributes if isinstance(attributes, dict) else {}
    return envelope["Message"], {name: str(each.get("Value")) for name, each in known.items() if isinstance(each, dict)}
