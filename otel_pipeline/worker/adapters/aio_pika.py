# ruff: noqa: FBT001, FBT002  the parameters are those of the client
"""RabbitMQ through aio-pika: callbacks, iterators and `get`; `async with message.process()` tells how it came out.

Context travels in the message's headers, in a copy of the program's message.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, Final

import wrapt

from otel_pipeline.worker.adapters import amqp
from otel_pipeline.worker.adapters.callables import called_by
from otel_pipeline.worker.calls import around
from otel_pipeline.worker.flow import exception_evidence
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job
from otel_pipeline.worker.messages import Send, send_end

FRAMEWORKS: Final = ("taskiq_aio_pika", "kombu", "celery")
"""They bring a job of their own to what they take from RabbitMQ."""
_deliveries: Final[dict[int, tuple[Any, amqp.Delivery]]] = {}
"""Open ones, by the identity of the message, which is kept as long as its job is open."""

Wrapped = Callable[..., Awaitable[Any]]


def patch_exchange(module: ModuleType) -> None:
    wrapt.wrap_function_wrapper(module.Exchange, "publish", _publish)


def patch_queue(module: ModuleType) -> None:
    wrapt.wrap_function_wrapper(module.Queue, "consume", _consume)
    wrapt.wrap_function_wrapper(module.Queue, "get", _get)
    wrapt.wrap_function_wrapper(module.QueueIterator, "__anext__", _next)


def patch_robust(module: ModuleType) -> None:
    """Its iterator has a method of its own."""
    if "__anext__" in vars(module.RobustQueueIterator):
        wrapt.wrap_function_wrapper(module.RobustQueueIterator, "__anext__", _next)


def patch_message(module: ModuleType) -> None:
    wrapt.wrap_function_wrapper(module.IncomingMessage, "ack", _ack)
    wrapt.wrap_function_wrapper(module.IncomingMessage, "nack", _nack)
    wrapt.wrap_function_wrapper(module.IncomingMessage, "reject", _reject)
    wrapt.wrap_function_wrapper(module.ProcessContext, "__aexit__", _processed)


# -- publish -----------------------------------------------------------------------------------------------------------


async def _publish(wrapped: Wrapped, exchange: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    sending = _publishing(exchange, *args, **kwargs)
    if sending is None:
        return await wrapped(*args, **kwargs)
    send, message = sending
    given = {**kwargs, "message": message} if "message" in kwargs else kwargs
    try:
        result = await wrapped(*([message, *args[1:]] if args else ()), **given)
    except BaseException as error:
        _published(send, error)
        raise
    _published(send, None)
    return result


@hook("aio_pika.publish")
def _publishing(exchange: Any, message: Any, routing_key: str = "", **_others: Any) -> tuple[Send, Any] | None:
    if "traceparent" in message.headers or called_by(sys._getframe(3), FRAMEWORKS):
        return None
    send = amqp.publishing(exchange.name, routing_key, message.body, message.message_id)
    made = copy.copy(message)
    made.headers = {**message.headers, **send.headers}
    return send, made


@hook("aio_pika.published")
def _published(send: Send, error: BaseException | None) -> None:
    send_end(send, error)


# -- callbacks ---------------------------------------------------------------------------------------------------------


async def _consume(wrapped: Wrapped, queue: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    callback = _consuming(queue, *args, **kwargs)
    if callback is None:
        return await wrapped(*args, **kwargs)
    if args:
        return await wrapped(callback, *args[1:], **kwargs)
    return await wrapped(**{**kwargs, "callback": callback})


@hook("aio_pika.consume")
def _consuming(
    queue: Any,
    callback: Callable[..., Any],
    no_ack: bool = False,
    *_args: Any,
    **_kwargs: Any,
) -> Callable[..., Any] | None:
    if str(getattr(callback, "__module__", "")).startswith("aio_pika.") or called_by(sys._getframe(3), FRAMEWORKS):
        return None  # an iterator's own
    return around(callback, functools.partial(_called, queue.name, no_ack), _through)


@hook("aio_pika.callback")
def _called(queue: str, no_ack: bool, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> amqp.Delivery:
    message = args[0]
    delivery = amqp.begin(_message(queue, message), "aio_pika", settled=no_ack)
    _await_settling(message, delivery)
    return delivery


@hook("aio_pika.callback_end")
def _through(delivery: amqp.Delivery, error: BaseException | None, returned: object) -> None:
    amqp.over(delivery, error, returned)


# -- pulling -----------------------------------------------------------------------------------------------------------


async def _get(wrapped: Wrapped, queue: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = _asking(queue)
    message = await wrapped(*args, **kwargs)
    _got(name, message, no_ack=bool(kwargs.get("no_ack")))
    return message


async def _next(wrapped: Wrapped, iterator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = _asking(getattr(iterator, "_amqp_queue", None))
    message = await wrapped(*args, **kwargs)
    _got(name, message, no_ack=bool(getattr(iterator, "_consume_kwargs", {}).get("no_ack")))
    return message


@hook("aio_pika.ask")
def _asking(queue: Any) -> str | None:
    if called_by(sys._getframe(3), FRAMEWORKS):
        return None
    amqp.asked(queue.name)
    return str(queue.name)


@hook("aio_pika.got")
def _got(queue: str | None, message: Any, *, no_ack: bool) -> None:
    if id(message) in _deliveries:  # an iterator of one kind that asks one of the other
        return
    amqp.polled(str(queue), empty=message is None)
    if message is not None:
        delivery = amqp.pulled(_message(str(queue), message), "aio_pika", settled=no_ack)
        if delivery is not None:
            _await_settling(message, delivery)


# -- settling ----------------------------------------------------------------------------------------------------------


async def _ack(wrapped: Wrapped, message: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = await wrapped(*args, **kwargs)
    _acked(message)
    return result


async def _nack(wrapped: Wrapped, message: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = await wrapped(*args, **kwargs)
    _refused(message, requeue=bool(kwargs.get("requeue", args[1] if len(args) > 1 else True)))
    return result


async def _reject(wrapped: Wrapped, message: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = await wrapped(*args, **kwargs)
    _refused(message, requeue=bool(kwargs.get("requeue", args[0] if args else False)))
    return result


async def _processed(wrapped: Wrapped, process: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _left(args[1] if len(args) > 1 else kwargs.get("exc_val"), process)
    return await wrapped(*args, **kwargs)


@hook("aio_pika.processed")
def _left(error: BaseException | None, process: Any) -> None:
    known = _deliveries.get(id(process.message))
    if known is not None and error is not None:
        known[1].job.observe(exception_evidence(error))


@hook("aio_pika.ack")
def _acked(message: Any) -> None:
    known = _deliveries.get(id(message))
    if known is not None:
        amqp.settle(known[1])


@hook("aio_pika.refuse")
def _refused(message: Any, *, requeue: bool) -> None:
    known = _deliveries.get(id(message))
    if known is not None:
        amqp.settle(known[1], amqp.refused(requeue=requeue))


def _await_settling(message: Any, delivery: amqp.Delivery) -> None:
    key = id(message)
    _deliveries[key] = (message, delivery)
    delivery.job.cleanup.append(functools.partial(_forget, key))


def _forget(key: int, _job: Job) -> None:
    _deliveries.pop(key, None)


def _message(queue: str, message: Any) -> amqp.Message:
    return amqp.Message(
        queue,
        message.body,
        dict(message.headers or {}),
        message.message_id,
        message.correlation_id,
        bool(message.redelivered),
    )
