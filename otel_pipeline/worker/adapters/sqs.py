"""Amazon SQS through botocore: boto3's clients and resources, and aiobotocore.

Context travels in message attributes, next to the program's own, as long as SQS takes so many attributes and such a
size. A receive asks for them, and for how often the message was delivered; what the program did not ask for itself it
does not see. Receives leave no spans of client instrumentations.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

import wrapt
from opentelemetry import metrics, propagate

from otel_pipeline import __version__
from otel_pipeline.worker import names, outcomes, quiet
from otel_pipeline.worker.adapters import sqs_messages
from otel_pipeline.worker.adapters.callables import called_by
from otel_pipeline.worker.adapters.sqs_messages import IN_FLIGHT_MAX, SYSTEM, Batch, Messages, Received, Slot, in_flight
from otel_pipeline.worker.flow import next_pop
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import current_job
from otel_pipeline.worker.messages import Send, send_end, send_start

ATTRIBUTES_MAX: Final = 10
"""Of one message; SQS refuses more, and SNS loses such a message."""
SIZES: Final = (262_144, 1_048_576)
"""Limits of SQS for body and attributes together, the old and the new one: what we add must not cross one."""
CONTEXT: Final = ("traceparent", "tracestate", "baggage")
SYSTEM_ATTRIBUTES: Final = ("ApproximateReceiveCount", "SentTimestamp")
FRAMEWORKS: Final = ("kombu", "celery", "dramatiq", "dramatiq_sqs", "taskiq", "shoryuken")
"""They bring a job of their own to what they take from SQS."""

_polls: Final = metrics.get_meter("otel_pipeline.worker", __version__).create_counter(
    "otel_pipeline.queue.polls", unit="{poll}", description="Pops of a queue, by whether there was a message."
)


@dataclass(slots=True)
class Operation:
    """One call of the SQS API."""

    name: str
    queue: str
    params: dict[str, Any]
    """What it is called with."""
    given: Mapping[str, Any]
    """What the program gave."""
    sends: list[Send] = field(default_factory=list)
    silence: Any = None


def patch(module: ModuleType) -> None:
    """botocore: every call of every service comes through here."""
    wrapt.wrap_function_wrapper(module.BaseClient, "_make_api_call", _call)


def patch_aio(module: ModuleType) -> None:
    """aiobotocore's client is a kind of botocore's, but with a method of its own."""
    wrapt.wrap_function_wrapper(module.AioBaseClient, "_make_api_call", _call_aio)


def _call(wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    operation = _before(client, *args, **kwargs)
    if operation is None:
        return wrapped(*args, **kwargs)
    try:
        answer = wrapped(operation.name, operation.params)
    except BaseException as error:
        _failed(operation, error)
        raise
    _after(operation, answer)
    return answer


async def _call_aio(
    wrapped: Callable[..., Coroutine[Any, Any, Any]], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    operation = _before(client, *args, **kwargs)
    if operation is None:
        return await wrapped(*args, **kwargs)
    try:
        answer = await wrapped(operation.name, operation.params)
    except BaseException as error:
        _failed(operation, error)
        raise
    _after(operation, answer)
    return answer


@hook("sqs.before")
def _before(client: Any, operation_name: str, api_params: Mapping[str, Any]) -> Operation | None:
    prepare = _PREPARE.get(operation_name)
    if prepare is None or client.meta.service_model.service_name != "sqs" or called_by(sys._getframe(3), FRAMEWORKS):
        return None
    queue = str(api_params.get("QueueUrl", "")).rstrip("/").rpartition("/")[2]
    operation = Operation(operation_name, queue, dict(api_params), api_params)
    prepare(operation, client)
    return operation


@hook("sqs.after")
def _after(operation: Operation, answer: Any) -> None:
    _end(operation, None)
    finish = _FINISH.get(operation.name)
    if finish is not None:
        finish(operation, answer)


@hook("sqs.failed")
def _failed(operation: Operation, error: BaseException) -> None:
    _end(operation, error)


def _end(operation: Operation, error: BaseException | None) -> None:
    if operation.silence is not None:
        quiet.restore(operation.silence)
    for send in operation.sends:
        send_end(send, error)


# -- sending -----------------------------------------------------------------------------------------------------------


def _send_one(operation: Operation, _client: Any) -> None:
    operation.params = {**operation.params, **_sending(operation, operation.params, _size(operation.params))}


def _send_batch(operation: Operation, _client: Any) -> None:
    entries = operation.params.get("Entries", ())
    total = sum(_size(entry) for entry in entries)
    made: list[Any] = []
    for entry in entries:
        changed = {**entry, **_sending(operation, entry, total)}
        total += _size(changed) - _size(entry)
        made.append(changed)
    operation.params["Entries"] = made


def _sending(operation: Operation, message: Mapping[str, Any], total: int) -> dict[str, Any]:
    """Begins the message's span; the attributes that it is sent with."""
    attributes = dict(message.get("MessageAttributes") or {})
    if "traceparent" in attributes:  # an official instrumentation was here
        return {}
    job = current_job()
    if job is not None:
        job.observe(outcomes.pushed(job, operation.queue, message.get("MessageBody")))
    send = send_start(SYSTEM, operation.queue, message.get("MessageBody"), attach=False)
    operation.sends.append(send)
    for name, value in send.headers.items():
        added = len(name) + len("String") + len(value.encode())
        crosses = any(total <= limit < total + added for limit in SIZES)
        if not value or crosses or len(attributes) >= ATTRIBUTES_MAX:
            continue
        attributes[name] = {"StringValue": value, "DataType": "String"}
        total += added
    return {"MessageAttributes": attributes} if attributes else {}


def _size(message: Mapping[str, Any]) -> int:
    size = len(str(message.get("MessageBody", "")).encode())
    for name, each in (message.get("MessageAttributes") or {}).items():
        value = each.get("StringValue", each.get("BinaryValue", ""))
        size += len(name) + len(each.get("DataType", "")) + len(value.encode() if isinstance(value, str) else value)
    return size


def _sent_one(operation: Operation, answer: Mapping[str, Any]) -> None:
    for send in operation.sends:
        send.span.set_attribute(names.MESSAGING_MESSAGE_ID, answer.get("MessageId", ""))


# -- receiving ---------------------------------------------------------------------------------------------------------


def _ask(operation: Operation, client: Any) -> None:
    sqs_messages.asked(operation.queue)
    next_pop([operation.queue])
    params = operation.params
    wanted = list(params.get("MessageAttributeNames") or ())
    if not _asks_for_all(wanted):
        params["MessageAttributeNames"] = [*wanted, *(name for name in _fields() if name not in wanted)]
    place = _system_place(params, client)
    known = list(params.get(place) or ())
    if "All" not in known:
        params[place] = [*known, *(name for name in SYSTEM_ATTRIBUTES if name not in known)]
    operation.silence = quiet.hush()


def _system_place(params: Mapping[str, Any], client: Any) -> str:
    """The parameter for system attributes was renamed in 2024."""
    members = client.meta.service_model.operation_model("ReceiveMessage").input_shape.members
    new = "MessageSystemAttributeNames"
    return "AttributeNames" if params.get("AttributeNames") or new not in members else new


def _fields() -> Sequence[str]:
    return sorted({*CONTEXT, *propagate.get_global_textmap().fields})


def _asks_for_all(wanted: Sequence[str]) -> bool:
    return "All" in wanted or ".*" in wanted


def _received(operation: Operation, answer: dict[str, Any]) -> None:
    messages = answer.get("Messages") or []
    _polls.add(1, {names.MESSAGING_DESTINATION: operation.queue, "result": "message" if messages else "empty"})
    if not messages:
        return
    batch = Batch()
    batch.slots = [_slot(operation, message, batch) for message in messages]
    for slot in batch.slots:
        if len(in_flight) >= IN_FLIGHT_MAX:
            del in_flight[next(iter(in_flight))]
        in_flight[str(slot.message.get("ReceiptHandle"))] = slot
    answer["Messages"] = Messages([Received(slot) for slot in batch.slots], batch)


def _slot(operation: Operation, message: dict[str, Any], batch: Batch) -> Slot:
    attributes = message.get("MessageAttributes") or {}
    headers = {name: each.get("StringValue", "") for name, each in attributes.items() if name.lower() in _fields()}
    system = message.get("Attributes") or {}
    slot = Slot(operation.queue, message, headers, batch)
    slot.attempt = int(system.get("ApproximateReceiveCount", 1))
    if system.get("SentTimestamp"):
        slot.waited_s = max(0.0, time.time() - int(system["SentTimestamp"]) / 1000)
    _strip(operation.given, message)
    return slot


def _strip(given: Mapping[str, Any], message: dict[str, Any]) -> None:
    """Takes out what the program did not ask for."""
    wanted = given.get("MessageAttributeNames") or ()
    if not _asks_for_all(wanted) and "MessageAttributes" in message:
        kept = {name: each for name, each in message["MessageAttributes"].items() if _matches(name, wanted)}
        if len(kept) != len(message["MessageAttributes"]):
            message.pop("MD5OfMessageAttributes", None)  # it is that of all of them
            _replace(message, "MessageAttributes", kept)
    known = given.get("MessageSystemAttributeNames") or given.get("AttributeNames") or ()
    if "All" not in known and "Attributes" in message:
        _replace(message, "Attributes", {name: each for name, each in message["Attributes"].items() if name in known})


def _matches(name: str, wanted: Sequence[str]) -> bool:
    return any(name == each or (each.endswith(".*") and name.startswith(each[:-2])) for each in wanted)


def _replace(message: dict[str, Any], key: str, kept: dict[str, Any]) -> None:
    if kept:
        message[key] = kept
    else:
        del message[key]


# -- settling ----------------------------------------------------------------------------------------------------------


def _nothing(_operation: Operation, _client: Any) -> None:
    pass


def _deleted(operation: Operation, _answer: object) -> None:
    sqs_messages.deleted(str(operation.given.get("ReceiptHandle")))


def _deleted_batch(operation: Operation, answer: Mapping[str, Any]) -> None:
    refused = {each.get("Id") for each in answer.get("Failed") or ()}
    for entry in operation.given.get("Entries", ()):
        if entry.get("Id") not in refused:
            sqs_messages.deleted(str(entry.get("ReceiptHandle")))


def _visibility(operation: Operation, _answer: object) -> None:
    if operation.given.get("VisibilityTimeout") == 0:
        sqs_messages.returned(str(operation.given.get("ReceiptHandle")))


def _visibility_batch(operation: Operation, _answer: object) -> None:
    for entry in operation.given.get("Entries", ()):
        if entry.get("VisibilityTimeout") == 0:
            sqs_messages.returned(str(entry.get("ReceiptHandle")))


_PREPARE: Final[dict[str, Callable[[Operation, Any], None]]] = {
    "SendMessage": _send_one,
    "SendMessageBatch": _send_batch,
    "ReceiveMessage": _ask,
    "DeleteMessage": _nothing,
    "DeleteMessageBatch": _nothing,
    "ChangeMessageVisibility": _nothing,
    "ChangeMessageVisibilityBatch": _nothing,
}
_FINISH: Final[dict[str, Callable[[Operation, Any], None]]] = {
    "SendMessage": _sent_one,
    "ReceiveMessage": _received,
    "DeleteMessage": _deleted,
    "DeleteMessageBatch": _deleted_batch,
    "ChangeMessageVisibility": _visibility,
    "ChangeMessageVisibilityBatch": _visibility_batch,
}
