"""What RabbitMQ's two clients (pika.py, aio_pika.py) have in common: the job of a delivery, and when it is over.

A callback's job ends with the callback if the message was settled (acknowledged, refused) by then, and else when it is:
workers hand the message to a thread and acknowledge it later. A job that was pulled (`basic_get`, `consume`, iterators)
ends when its flow asks for the next message; if it was not settled by then, the attempt failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.util.types import AttributeValue

from otel_pipeline import __version__
from otel_pipeline.worker import names, outcomes
from otel_pipeline.worker.adapters.official import current
from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.flow import exception_evidence, finish, next_pop, popped, this_flow
from otel_pipeline.worker.jobs import Job, Origin, current_job, job_end, job_start, leave
from otel_pipeline.worker.messages import Send, extract, send_start
from otel_pipeline.worker.serving import in_a_request

SYSTEM: Final = "rabbitmq"
NOT_SETTLED: Final = Evidence(
    Source.ACK, Outcome.FAILED, "message_not_acknowledged", "the message was neither acknowledged nor refused"
)
TEMPORARY: Final = "amq."
"""Begin of the names that the broker gives to queues of one connection: reply queues."""

_polls: Final = metrics.get_meter("otel_pipeline.worker", __version__).create_counter(
    "otel_pipeline.queue.polls", unit="{poll}", description="Pops of a queue, by whether there was a message."
)


@dataclass(frozen=True, slots=True)
class Message:
    """What both clients know of a message."""

    queue: str
    body: bytes
    headers: Mapping[str, Any]
    message_id: str | None = None
    correlation_id: str | None = None
    redelivered: bool = False


@dataclass(eq=False, slots=True)
class Delivery:
    """A message that was delivered, and its job."""

    job: Job
    settled: bool
    """It was acknowledged or refused, or needs not be."""
    outer: Job | None = None
    """What the flow was at."""
    returned: bool = False
    """The callback returned before it was settled."""


_open: Final[dict[int, Delivery]] = {}
"""Of open jobs, by the identity of the job."""


def publishing(exchange: str, routing_key: str, body: bytes, message_id: str | None) -> Send:
    """Begins the span of a message that is published; if it is a job's result, the job learns from it."""
    key = "(temporary)" if routing_key.startswith(TEMPORARY) else routing_key
    destination = f"{exchange}:{key}" if exchange and key else exchange or key
    job = current_job()
    if job is not None:
        job.observe(outcomes.pushed(job, destination, body))
    return send_start(SYSTEM, destination, body, message_id)


def asked(queue: str) -> None:
    """The flow asks for the next message: it is done with the one before."""
    flow = this_flow()
    delivery = _open.get(id(flow.job)) if flow.job is not None else None
    if delivery is not None and not delivery.settled and not delivery.job.children:
        delivery.job.observe(NOT_SETTLED)
    next_pop([queue])


def polled(queue: str, *, empty: bool) -> None:
    _polls.add(1, {names.MESSAGING_DESTINATION: queue, "result": "empty" if empty else "message"})


def begin(message: Message, library: str, *, settled: bool, system: str = SYSTEM) -> Delivery:
    """Begins the job of a message in this thread or task; `settled` if no acknowledgement is expected."""
    flow = this_flow()
    adopted = current(f"opentelemetry.instrumentation.{library}")
    attributes: dict[str, AttributeValue] = {}
    if message.correlation_id:
        attributes[names.MESSAGING_CONVERSATION_ID] = message.correlation_id
    job = job_start(
        Origin(system, message.queue, message.message_id),
        message.body,
        parent=adopted.parent if adopted else extract(message.headers),
        attempt=_attempt(message),
        attributes=attributes,
        adopt=adopted.span if adopted else None,
    )
    delivery = _open[id(job)] = Delivery(job, settled, flow.job)
    job.cleanup.append(_forget)
    popped(job)
    return delivery


def pulled(message: Message, library: str, *, settled: bool) -> Delivery | None:
    """The same for a message that was asked for, unless it is part of the job at work."""
    part = current_job() is not None or in_a_request()
    return None if part else begin(message, library, settled=settled)


def over(delivery: Delivery, error: BaseException | None, returned: object) -> None:
    """The callback is through."""
    job, flow = delivery.job, this_flow()
    job.observe(exception_evidence(error) if error is not None else outcomes.returned(returned, job))
    mine = flow.job is job
    if error is None and not delivery.settled:
        delivery.returned = True
        leave(job)
        flow.job = None if mine else flow.job
    elif mine:
        finish(flow)
    else:
        job_end(job)
    if mine and delivery.outer is not None and not delivery.outer.over:
        flow.job = delivery.outer


def settle(delivery: Delivery, *evidence: Evidence) -> None:
    """It was acknowledged, or refused with this evidence."""
    job = delivery.job
    for each in evidence:
        job.observe(each)
    delivery.settled = True
    job.settle()
    if not delivery.returned:
        return
    if job.children:
        job.left = True
    else:
        job_end(job)


def refused(*, requeue: bool) -> Evidence:
    """What it says that the program gave a message back."""
    if requeue:
        return Evidence(Source.FRAMEWORK, Outcome.FAILED, "message_requeued", "put back into the queue")
    return Evidence(Source.FRAMEWORK, Outcome.FAILED, "message_rejected", "rejected: dropped or dead-lettered")


def _attempt(message: Message) -> int:
    """Quorum queues count deliveries; dead-letter exchanges count deaths; else it is known only that it came before."""
    delivered = message.headers.get("x-delivery-count")
    if isinstance(delivered, int):
        return delivered + 1
    deaths = message.headers.get("x-death")
    if isinstance(deaths, list):
        counts = [
            each.get("count", 0) for each in deaths if isinstance(each, Mapping) and each.get("reason") != "maxlen"
        ]
        rejected = [each for each in counts if isinstance(each, int)]
        return max(rejected, default=0) + 1
    return 2 if message.redelivered else 1


def _forget(job: Job) -> None:
    _open.pop(id(job), None)
