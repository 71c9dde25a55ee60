# ruff: noqa: FBT001, FBT002  the parameters are those of the client
"""RabbitMQ through pika: callbacks of any connection; `basic_get` and `consume` of the blocking one.

Context travels in the headers of the properties, a copy of the program's. Every channel is a `pika.channel.Channel` at
the bottom, where messages are published and settled.
"""

from __future__ import annotations

import copy
import functools
import sys
import weakref
from collections.abc import Callable, Generator
from types import ModuleType
from typing import Any, Final

import wrapt

from otel_pipeline.worker.adapters import amqp
from otel_pipeline.worker.adapters.callables import called_by
from otel_pipeline.worker.calls import around
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job
from otel_pipeline.worker.messages import Send, send_end

FRAMEWORKS: Final = ("dramatiq", "kombu", "celery", "nameko")
"""They bring a job of their own to what they take from RabbitMQ."""
_unsettled: Final[weakref.WeakKeyDictionary[Any, dict[int, amqp.Delivery]]] = weakref.WeakKeyDictionary()
"""By channel and delivery tag."""


def patch(module: ModuleType) -> None:
    """The channel that all kinds of connection have."""
    channel = module.Channel
    wrapt.wrap_function_wrapper(channel, "basic_publish", _publish)
    wrapt.wrap_function_wrapper(channel, "basic_consume", _consume)
    wrapt.wrap_function_wrapper(channel, "basic_ack", _ack)
    wrapt.wrap_function_wrapper(channel, "basic_nack", _nack)
    wrapt.wrap_function_wrapper(channel, "basic_reject", _reject)


def patch_blocking(module: ModuleType) -> None:
    """The blocking one, which calls callbacks itself, and can be asked for messages."""
    channel = module.BlockingChannel
    wrapt.wrap_function_wrapper(channel, "basic_consume", _consume)
    wrapt.wrap_function_wrapper(channel, "basic_get", _get)
    channel.consume = _pulling(channel.consume)


# -- publish -----------------------------------------------------------------------------------------------------------


def _publish(wrapped: Callable[..., Any], _channel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    sending = _publishing(*args, **kwargs)
    if sending is None:
        return wrapped(*args, **kwargs)
    send, arguments = sending
    try:
        result = wrapped(**arguments)
    except BaseException as error:
        _published(send, error)
        raise
    _published(send, None)
    return result


@hook("pika.publish")
def _publishing(
    exchange: str,
    routing_key: str,
    body: Any,
    properties: Any = None,
    mandatory: bool = False,
) -> tuple[Send, dict[str, Any]] | None:
    headers = dict(getattr(properties, "headers", None) or {})
    if "traceparent" in headers or called_by(sys._getframe(3), FRAMEWORKS):
        return None
    raw = body.encode() if isinstance(body, str) else body
    send = amqp.publishing(exchange, routing_key, raw, getattr(properties, "message_id", None))
    made = copy.copy(properties) if properties is not None else sys.modules["pika.spec"].BasicProperties()
    made.headers = {**headers, **send.headers}
    given = {"exchange": exchange, "routing_key": routing_key, "body": body, "mandatory": mandatory}
    return send, {**given, "properties": made}


@hook("pika.published")
def _published(send: Send, error: BaseException | None) -> None:
    send_end(send, error)


# -- callbacks ---------------------------------------------------------------------------------------------------------


def _consume(wrapped: Callable[..., Any], _channel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    arguments = _consuming(*args, **kwargs)
    return wrapped(*args, **kwargs) if arguments is None else wrapped(**arguments)


@hook("pika.consume")
def _consuming(
    queue: str,
    on_message_callback: Callable[..., Any],
    auto_ack: bool = False,
    **others: Any,
) -> dict[str, Any] | None:
    if str(getattr(on_message_callback, "__module__", "")).startswith("pika."):  # the blocking channel's own
        return None
    if called_by(sys._getframe(3), FRAMEWORKS):
        return None
    callback = around(on_message_callback, functools.partial(_called, queue, auto_ack), _through)
    return {"queue": queue, "on_message_callback": callback, "auto_ack": auto_ack, **others}


@hook("pika.callback")
def _called(queue: str, auto_ack: bool, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> amqp.Delivery:
    channel, method, properties, body = args
    delivery = amqp.begin(_message(queue, method, properties, body), "pika", settled=auto_ack)
    if not auto_ack:
        _await_settling(channel, method.delivery_tag, delivery)
    return delivery


@hook("pika.callback_end")
def _through(delivery: amqp.Delivery, error: BaseException | None, returned: object) -> None:
    amqp.over(delivery, error, returned)


# -- pulling -----------------------------------------------------------------------------------------------------------


def _get(wrapped: Callable[..., Any], channel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    queue = _asking(*args, **kwargs)
    answer = wrapped(*args, **kwargs)
    _got(queue, channel, answer, *args[1:2], **{name: kwargs[name] for name in ("auto_ack",) if name in kwargs})
    return answer


@hook("pika.ask")
def _asking(queue: str, *_args: Any, **_kwargs: Any) -> str | None:
    if called_by(sys._getframe(3), FRAMEWORKS):
        return None
    amqp.asked(queue)
    return queue


@hook("pika.got")
def _got(queue: str | None, channel: Any, answer: Any, auto_ack: bool = False) -> None:
    method, properties, body = answer
    amqp.polled(str(queue), empty=method is None)
    if method is None:
        return
    delivery = amqp.pulled(_message(str(queue), method, properties, body), "pika", settled=auto_ack)
    if delivery is not None and not auto_ack:
        _await_settling(channel, method.delivery_tag, delivery)


def _pulling(consume: Callable[..., Generator[Any, Any, Any]]) -> Callable[..., Any]:
    @functools.wraps(consume)
    def pull(self: Any, queue: str, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        auto_ack = args[0] if args else kwargs.get("auto_ack", False)
        messages = consume(self, queue, *args, **kwargs)
        try:
            while True:
                ours = _asking(queue)
                try:
                    message = next(messages)
                except StopIteration as stop:
                    return stop.value
                _got(ours, self, message, auto_ack)
                yield message
        finally:
            messages.close()

    return pull


# -- settling ----------------------------------------------------------------------------------------------------------


def _ack(wrapped: Callable[..., Any], channel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = wrapped(*args, **kwargs)
    _acked(channel, *args, **kwargs)
    return result


def _nack(wrapped: Callable[..., Any], channel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = wrapped(*args, **kwargs)
    _nacked(channel, *args, **kwargs)
    return result


def _reject(wrapped: Callable[..., Any], channel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = wrapped(*args, **kwargs)
    _rejected(channel, *args, **kwargs)
    return result


@hook("pika.ack")
def _acked(channel: Any, delivery_tag: int = 0, multiple: bool = False) -> None:
    for delivery in _settled(channel, delivery_tag, multiple=multiple):
        amqp.settle(delivery)


@hook("pika.nack")
def _nacked(
    channel: Any,
    delivery_tag: int = 0,
    multiple: bool = False,
    requeue: bool = True,
) -> None:
    for delivery in _settled(channel, delivery_tag, multiple=multiple):
        amqp.settle(delivery, amqp.refused(requeue=requeue))


@hook("pika.reject")
def _rejected(channel: Any, delivery_tag: int = 0, requeue: bool = True) -> None:
    for delivery in _settled(channel, delivery_tag, multiple=False):
        amqp.settle(delivery, amqp.refused(requeue=requeue))


def _await_settling(channel: Any, tag: int, delivery: amqp.Delivery) -> None:
    bottom = getattr(channel, "_impl", channel)
    _unsettled.setdefault(bottom, {})[tag] = delivery
    delivery.job.cleanup.append(functools.partial(_forget, weakref.ref(bottom), tag))


def _forget(channel: Callable[[], Any], tag: int, _job: Job) -> None:
    _unsettled.get(channel(), {}).pop(tag, None)


def _settled(channel: Any, tag: int, *, multiple: bool) -> list[amqp.Delivery]:
    waiting = _unsettled.get(channel, {})
    tags = [each for each in waiting if tag == 0 or each <= tag] if multiple else [tag]
    return [waiting.pop(each) for each in tags if each in waiting]


def _message(queue: str, method: Any, properties: Any, body: Any) -> amqp.Message:
    return amqp.Message(
        queue,
        body or b"",
        dict(properties.headers or {}),
        properties.message_id,
        properties.correlation_id,
        bool(method.redelivered),
    )
