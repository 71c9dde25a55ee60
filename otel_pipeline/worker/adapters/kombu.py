"""kombu without Celery: `Consumer` and `ConsumerMixin` workers on any of its transports, and what is published to them.

A message is a job if the program's own function is called with it. Celery receives its tasks by the same classes, but
with functions of its own. What a transport does for itself leaves no spans; the rest is as for RabbitMQ (amqp.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

import wrapt

from otel_pipeline.worker.adapters import amqp
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job
from otel_pipeline.worker.messages import Send, send_end
from otel_pipeline.worker.tasks import code_of, is_own, is_own_file

SYSTEMS: Final = {"amqp": "rabbitmq", "sqs": "aws_sqs"}
"""Drivers that go by another name; the rest by their own: redis, memory, sqlalchemy ..."""
HEADERS_AT: Final = 8
"""Position of `headers` among the arguments of `Producer.publish` after the body."""

_waiting: Final[dict[int, amqp.Delivery]] = {}
"""Of open jobs, by the identity of the message, which the job's function holds."""


def patch(module: ModuleType) -> None:
    """kombu.messaging."""
    wrapt.wrap_function_wrapper(module.Consumer, "_receive_callback", _receive)
    wrapt.wrap_function_wrapper(module.Producer, "publish", _publish)


def patch_message(module: ModuleType) -> None:
    """kombu.message."""
    for name in ("ack", "reject", "requeue"):
        wrapt.wrap_function_wrapper(module.Message, name, _settling(name))


# -- consumer ----------------------------------------------------------------------------------------------------------


def _receive(wrapped: Callable[..., Any], consumer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    delivery: Any = _called(consumer, args[0] if args else kwargs.get("message"))
    try:
        returned = wrapped(*args, **kwargs)
    except BaseException as error:
        _through(delivery, error, None)
        raise
    _through(delivery, None, returned)
    return returned


@hook("kombu.called")
def _called(consumer: Any, message: Any) -> amqp.Delivery | None:
    functions = [consumer.on_message] if consumer.on_message else list(consumer.callbacks or ())
    if not any(is_own(code_of(each)) for each in functions):
        return None
    properties = message.properties or {}
    body = message.body
    told = amqp.Message(
        _queue(consumer, message),
        body.encode() if isinstance(body, str) else bytes(body or b""),
        dict(message.headers or {}),
        properties.get("message_id"),
        properties.get("correlation_id"),
        bool((message.delivery_info or {}).get("redelivered")),
    )
    delivery = amqp.begin(told, "kombu", settled=bool(consumer.no_ack), system=_system(consumer))
    if not consumer.no_ack:
        key = id(message)
        _waiting[key] = delivery
        delivery.job.cleanup.append(lambda _job: _forget(key, _job))
    return delivery


def _forget(key: int, job: Job) -> None:
    if key in _waiting and _waiting[key].job is job:
        del _waiting[key]


@hook("kombu.through")
def _through(delivery: amqp.Delivery, error: BaseException | None, returned: object) -> None:
    amqp.over(delivery, error, returned)


def _queue(consumer: Any, message: Any) -> str:
    names = [queue.name for queue in consumer.queues if queue.name]
    if len(names) == 1:
        return str(names[0])
    info = message.delivery_info or {}
    key = info.get("routing_key")
    return next((name for name in names if name == key), str(key or info.get("exchange") or "kombu"))


def _system(owner: Any) -> str:
    driver = str(owner.channel.connection.client.transport.driver_type).lower()
    return SYSTEMS.get(driver, driver)


def _settling(name: str) -> Callable[..., Any]:
    def settle(wrapped: Callable[..., Any], message: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = wrapped(*args, **kwargs)
        _settled(message, name, args, kwargs)
        return result

    return settle


@hook("kombu.settled")
def _settled(message: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    delivery = _waiting.pop(id(message), None)
    if delivery is None:
        return
    again = name == "requeue" or bool(args[0] if args else kwargs.get("requeue"))
    amqp.settle(delivery, *(() if name == "ack" else (amqp.refused(requeue=again),)))


# -- producer ----------------------------------------------------------------------------------------------------------


def _publish(wrapped: Callable[..., Any], producer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    send: Any = _publishing(producer, args, kwargs, sys._getframe(1).f_code.co_filename)
    try:
        result = wrapped(*args, **(_with_headers(send, kwargs) or kwargs))
    except BaseException as error:
        _published(send, error)
        raise
    _published(send, None)
    return result


@hook("kombu.publish")
def _publishing(producer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], caller: str) -> Send | None:
    if not is_own_file(caller) or len(args) > HEADERS_AT:
        return None
    body = args[0] if args else kwargs.get("body")
    key = args[1] if len(args) > 1 else kwargs.get("routing_key") or producer.routing_key
    exchange = kwargs.get("exchange") or producer.exchange
    raw = body if isinstance(body, bytes) else json.dumps(body, default=str).encode()
    return amqp.publishing(str(getattr(exchange, "name", exchange) or ""), str(key or ""), raw, None)


@hook("kombu.headers")
def _with_headers(send: Send, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {**kwargs, "headers": {**(kwargs.get("headers") or {}), **send.headers}}


@hook("kombu.published")
def _published(send: Send, error: BaseException | None) -> None:
    send_end(send, error)
