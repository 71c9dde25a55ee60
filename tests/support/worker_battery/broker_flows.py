# ruff: noqa: PLC0415
# A flow imports its library itself: with our hooks in place, and only if it is run. The broker is on loopback.
"""RabbitMQ, with pika, aio-pika and kombu."""

from __future__ import annotations

import asyncio
import functools
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from tests.support.worker_battery.core import TEXT, World, asynchronous, attempt, flow

CARRIED: Final = ("traceparent", "tracestate", "baggage", "x-correlation-id")
"""Headers that we add, as is documented."""
BODIES: Final = (TEXT, "bad", "again", "dropped")


def own(headers: Any) -> dict[str, Any]:
    return {key: value for key, value in (headers or {}).items() if key not in CARRIED}


@contextmanager
def _pika(world: World) -> Iterator[tuple[Any, str]]:
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(world.amqp))
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    properties = pika.BasicProperties(headers={"tenant": "t"}, priority=3, correlation_id="c", delivery_mode=2)
    for body in BODIES:
        channel.basic_publish("", queue, body, properties)
    channel.basic_publish(exchange="", routing_key=queue, body=b"\x00\xff", properties=None)
    assert properties.headers == {"tenant": "t"}
    try:
        yield channel, queue
    finally:
        with suppress(Exception):
            connection.close()


def _told(method: Any, properties: Any, body: bytes) -> list[Any]:
    if method is None:
        return [properties, body]
    known = [properties.priority, properties.correlation_id, properties.delivery_mode, properties.message_id]
    return [body, own(properties.headers), known, method.redelivered, method.delivery_tag]


def _settle(channel: Any, method: Any, body: bytes) -> None:
    if body == b"again":
        channel.basic_nack(method.delivery_tag, requeue=not method.redelivered)
    elif body == b"bad":
        channel.basic_reject(method.delivery_tag, requeue=False)
    elif body == b"dropped":
        channel.basic_nack(method.delivery_tag, multiple=False, requeue=False)
    else:
        channel.basic_ack(method.delivery_tag)


@flow
def pika_callbacks(world: World) -> Any:
    with _pika(world) as (channel, queue):
        seen: list[Any] = []

        def on_message(ch: Any, method: Any, properties: Any, body: bytes) -> None:
            seen.append(_told(method, properties, body))
            _settle(ch, method, body)
            if len(seen) == len(BODIES) + 2:
                ch.stop_consuming()

        channel.basic_consume(queue, on_message)
        channel.start_consuming()
        left = channel.queue_declare(queue, passive=True).method.message_count
        channel.close()
        return [seen, left, attempt(channel.basic_publish, "", queue, "late")]


@flow
def pika_callback_that_raises(world: World) -> Any:
    with _pika(world) as (channel, queue):
        seen: list[Any] = []

        def on_message(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            seen.append(_told(method, properties, body))
            raise LookupError("no model")

        channel.basic_consume(queue=queue, on_message_callback=on_message, auto_ack=True)
        return [seen, attempt(channel.start_consuming), len(seen)]


@flow
def pika_settled_by_threads(world: World) -> Any:
    with _pika(world) as (channel, queue):
        seen: list[Any] = []
        connection = channel.connection

        def settle(method: Any, body: bytes) -> None:
            _settle(channel, method, body)
            seen.append(body)

        def work(method: Any, body: bytes) -> None:
            connection.add_callback_threadsafe(functools.partial(settle, method, body))

        def on_message(_channel: Any, method: Any, _properties: Any, body: bytes) -> None:
            threading.Thread(target=work, args=(method, body)).start()

        channel.basic_consume(queue, on_message)
        while len(seen) < len(BODIES) + 2:
            connection.process_data_events(time_limit=0.02)
        return sorted(seen)


@flow
def pika_pulled(world: World) -> Any:
    with _pika(world) as (channel, queue):
        seen: list[Any] = []
        while (message := channel.basic_get(queue))[0] is not None:
            seen.append(_told(*message))
            _settle(channel, message[0], message[2])
        seen.append(message)
        for body in BODIES[:2]:
            channel.basic_publish("", queue, body)
        seen += [_told(*channel.basic_get(queue, True)), _told(*channel.basic_get(queue=queue, auto_ack=True))]  # noqa: FBT003  its parameter
        return [*seen, attempt(channel.basic_get)]


@flow
def pika_generator(world: World) -> Any:
    with _pika(world) as (channel, queue):
        seen: list[Any] = []
        for method, properties, body in channel.consume(queue, inactivity_timeout=0.05):
            seen.append(_told(method, properties, body))
            if method is None:
                break
            _settle(channel, method, body)
        return [*seen, channel.cancel()]


@flow
def pika_with_callbacks_only(world: World) -> Any:
    """The connection that never blocks, whose channel is the bottom one."""
    import pika

    seen: list[Any] = []

    def on_message(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        seen.append(_told(method, properties, body))
        channel.basic_ack(method.delivery_tag)
        connection.close()

    def on_queue(channel: Any, answer: Any) -> None:
        queue = answer.method.queue
        channel.basic_consume(queue, on_message)
        channel.basic_publish("", queue, TEXT)

    def on_channel(channel: Any) -> None:
        channel.queue_declare("", exclusive=True, callback=functools.partial(on_queue, channel))

    connection = pika.SelectConnection(
        pika.URLParameters(world.amqp),
        on_open_callback=lambda opened: opened.channel(on_open_callback=on_channel),
        on_close_callback=lambda closed, _: closed.ioloop.stop(),
    )
    connection.ioloop.start()
    return seen


# -- aio-pika ----------------------------------------------------------------------------------------------------------


class _Queue:
    """A connection of aio-pika, with a queue that has messages."""

    def __init__(self, world: World, *, robust: bool = False) -> None:
        self._url, self._robust = world.amqp, robust

    async def __aenter__(self) -> tuple[Any, Any]:
        import aio_pika

        connect: Any = aio_pika.connect_robust if self._robust else aio_pika.connect
        self._connection = await connect(self._url)
        channel = await self._connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        message = aio_pika.Message(TEXT.encode(), headers={"tenant": "t"}, priority=3, correlation_id="c")
        await channel.default_exchange.publish(message, routing_key=queue.name)
        for body in BODIES[1:]:
            await channel.default_exchange.publish(message=aio_pika.Message(body.encode()), routing_key=queue.name)
        assert message.headers == {"tenant": "t"}
        return channel, queue

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()


def _seen(message: Any) -> list[Any]:
    return [message.body, own(message.headers), message.priority, message.correlation_id, message.redelivered]


async def _settle_async(message: Any) -> None:
    if message.body == b"again":
        await message.nack(requeue=not message.redelivered)
    elif message.body == b"bad":
        await message.reject()
    elif message.body == b"dropped":
        await message.nack(requeue=False)
    else:
        await message.ack()


async def _callbacks(queue: Any) -> list[Any]:
    seen: list[Any] = []
    through = asyncio.Event()

    async def on_message(message: Any) -> None:
        seen.append(_seen(message))
        try:
            async with message.process(ignore_processed=True):
                if message.body == b"bad":
                    raise ValueError("no model")  # noqa: TRY301  of the program
                if message.body == b"again":
                    await message.nack(requeue=not message.redelivered)
        except ValueError as error:
            seen.append(str(error))
        if message.redelivered:
            through.set()

    tag = await queue.consume(on_message)
    await asyncio.wait_for(through.wait(), 10)
    await queue.cancel(tag)
    return seen


@asynchronous
async def aio_pika_callbacks(world: World) -> Any:
    async with _Queue(world) as (_, queue):
        return await _callbacks(queue)


@asynchronous
async def aio_pika_robust(world: World) -> Any:
    async with _Queue(world, robust=True) as (_, queue):
        return await _callbacks(queue)


@asynchronous
async def aio_pika_iterator(world: World) -> Any:
    seen: list[Any] = []
    async with _Queue(world, robust=True) as (_, queue), queue.iterator() as messages:
        async for message in messages:
            seen.append(_seen(message))
            await _settle_async(message)
            if message.redelivered:
                break
    return seen


@asynchronous
async def aio_pika_pulled(world: World) -> Any:
    import aio_pika

    async with _Queue(world) as (channel, queue):
        seen: list[Any] = []
        while (message := await queue.get(fail=False)) is not None:
            seen.append(_seen(message))
            await _settle_async(message)
        for wrong in (queue.get(), channel.default_exchange.publish(aio_pika.Message(b"x"), "nobody's")):
            try:
                await wrong
                seen.append("nothing wrong")
            except aio_pika.exceptions.AMQPError as error:
                seen.append(type(error).__name__)
            except aio_pika.exceptions.QueueEmpty:
                seen.append("empty")
        await channel.default_exchange.publish(aio_pika.Message(b"last"), queue.name)
        last = await queue.get(no_ack=True)
    return [*seen, _seen(last)]


# -- kombu -------------------------------------------------------------------------------------------------------------


@flow
def kombu_on_rabbitmq(world: World) -> Any:
    import kombu

    seen: list[Any] = []

    def on_message(body: Any, message: Any) -> None:
        seen.append([body, own(message.headers), message.properties.get("correlation_id"), message.content_type])
        again = message.delivery_info.get("redelivered")
        settle = {"bad": message.reject, "again": message.ack if again else message.requeue}
        settle.get(body["job_id"], message.ack)()
        if body["job_id"] == "raises":
            raise LookupError("no model")

    with kombu.Connection(world.amqp) as connection:
        channel = connection.channel()
        name = str(uuid.uuid4())
        queue = kombu.Queue(name, exclusive=True)
        queue(channel).declare()
        producer = kombu.Producer(channel)
        producer.publish({"job_id": "job-1"}, routing_key=name, headers={"tenant": "t"}, correlation_id="c")
        for body in ("bad", "again", "raises"):
            producer.publish({"job_id": body}, routing_key=name)
        seen.append(attempt(producer.publish, object(), routing_key=name)[0])
        with kombu.Consumer(channel, queues=[queue], callbacks=[on_message], accept=["json"]):
            seen += [attempt(connection.drain_events, timeout=5) for _ in range(5)]
        channel.close()
    return sorted(map(repr, seen))
