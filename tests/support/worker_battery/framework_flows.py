# ruff: noqa: PLC0415, S301
# A flow imports its library itself: with our hooks in place, and only if it is run. All servers are on loopback.
"""Celery, RQ, arq and dramatiq."""

from __future__ import annotations

import functools
from typing import Any

from tests.support.worker_battery.core import (
    TASK,
    World,
    asynchronous,
    attempt,
    flow,
)


@flow
def celery_tasks(_: World) -> Any:
    app, render, broken, again, told = _celery()
    seen: list[Any] = []
    for task in (render, broken, again, told):
        result = task.apply(args=[TASK])
        seen += [result.state, repr(result.result), attempt(result.get)]
    sent = render.apply_async(args=[TASK], task_id="fixed-id", headers={"mine": 1})
    with app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
        message = queue.get(timeout=2)
        message.ack()
        headers = {key: message.headers[key] for key in ("task", "id", "mine", "argsrepr")}
        seen += [sent.id, message.payload, headers]
    return seen


@functools.cache
def _celery() -> tuple[Any, ...]:
    import celery

    app = celery.Celery("battery", broker="memory://", backend="cache+memory://")

    @app.task(name="battery.render")
    def render(task: dict[str, Any]) -> dict[str, Any]:
        return {"status": "failed", "id": task["job_id"]}

    @app.task(name="battery.broken")
    def broken(task: dict[str, Any]) -> None:
        raise ValueError(task["job_id"])

    @app.task(name="battery.again", bind=True, max_retries=1)
    def again(self: Any, task: dict[str, Any]) -> None:
        raise self.retry(countdown=0, exc=KeyError(task["job_id"]))

    @app.task(name="battery.told", bind=True)
    def told(self: Any, task: dict[str, Any]) -> str:
        self.update_state(state="FAILURE", meta={"exc_type": "ValueError", "exc_message": task["job_id"]})
        return "told"

    return app, render, broken, again, told


@flow
def kombu_consumers(_: World) -> Any:
    from kombu import Connection, Consumer, Exchange, Producer, Queue

    exchange, seen = Exchange("battery", type="direct"), []
    queue = Queue("battery.clips", exchange, routing_key="clip")

    def told(body: Any, message: Any) -> None:
        seen.append([body, {name: value for name, value in message.headers.items() if name == "mine"}])
        settle = (message.ack, message.reject, message.requeue)[min(len(seen) - 1, 2)]
        settle()
        if len(seen) > 3:
            message.channel.queue_purge(queue.name)
            raise ValueError(body["job_id"])

    with Connection("memory://") as connection:
        channel = connection.channel()
        queue(channel).declare()
        producer = Producer(channel)
        for _number in range(3):
            producer.publish(TASK, exchange=exchange, routing_key="clip", headers={"mine": 1})
        seen.append(attempt(producer.publish, object(), serializer="json"))
        seen.clear()
        with Consumer(channel, [queue], callbacks=[told]):
            outcomes = [attempt(connection.drain_events, timeout=0.1) for _number in range(4)]
    return [seen, outcomes]


def clip(task: dict[str, Any], *, fails: bool = False) -> dict[str, Any]:
    if fails:
        raise ValueError(task["job_id"])
    return {"status": "failed", "error": "told by value"}


@flow
def rq_jobs(world: World) -> Any:
    import zlib

    from rq import Queue, SimpleWorker
    from rq.job import Job

    client = world.redis()
    queue = Queue("clips", connection=client)
    module = "tests.support.worker_battery.framework_flows.clip"
    queue.enqueue(module, TASK, job_id="one", meta={"mine": 1})
    queue.enqueue(module, TASK, fails=True, job_id="two")
    queue.enqueue_many([Queue.prepare_data(module, (TASK,), job_id="three")])
    seen: list[Any] = [client.lrange("rq:queue:clips", 0, -1)]
    seen += [zlib.decompress(client.hget(f"rq:job:{each}", "data")) for each in ("one", "two", "three")]
    SimpleWorker([queue], connection=client).work(burst=True)
    for each in ("one", "two", "three"):
        job = Job.fetch(each, connection=client)
        seen += [job.get_status().value, job.return_value(), job.meta.get("mine"), "ValueError" in (job.exc_info or "")]
    client.close()
    return seen


@asynchronous
async def arq_jobs(world: World) -> Any:
    import arq
    from arq.connections import RedisSettings
    from arq.worker import Worker, func

    async def avatar(_: Any, task: dict[str, Any]) -> str:
        return task["job_id"]

    async def broken(ctx: Any, task: dict[str, Any]) -> None:
        if ctx["job_try"] == 1:
            raise arq.Retry(defer=0)
        raise ValueError(task["job_id"])

    pool = await arq.create_pool(RedisSettings.from_dsn(world.redis_url))
    await pool.flushdb()
    first = await pool.enqueue_job("avatar", TASK, _job_id="one")
    second = await pool.enqueue_job("broken", TASK, _job_id="two")
    twice = await pool.enqueue_job("avatar", TASK, _job_id="one")
    assert first is not None
    assert second is not None
    kept = [each async for each in _arq_bodies(pool)]
    worker = Worker(
        [func(avatar, name="avatar"), func(broken, name="broken")], redis_pool=pool, burst=True, poll_delay=0.01
    )
    await worker.main()
    seen = [kept, twice, await first.result(timeout=2)]
    try:
        await second.result(timeout=2)
    except ValueError as error:
        seen.append(str(error))
    seen += [worker.jobs_complete, worker.jobs_failed, worker.jobs_retried]
    await worker.close()
    return seen


async def _arq_bodies(pool: Any) -> Any:
    import pickle

    for each in ("one", "two"):
        body = pickle.loads(await pool.get(f"arq:job:{each}"))
        yield {key: value for key, value in body.items() if key != "et"}


@flow
def dramatiq_actors(_: World) -> Any:
    broker, worker, render, broken, seen = _dramatiq()
    seen.clear()
    message = render.send(TASK)
    broken.send_with_options(args=(TASK,), max_retries=0)
    attempt(broker.join, "default", timeout=5000)
    worker.join()
    return [message.args, message.queue_name, seen]


@functools.cache
def _dramatiq() -> tuple[Any, ...]:
    import dramatiq
    from dramatiq.brokers.stub import StubBroker

    broker, seen = StubBroker(), list[Any]()
    dramatiq.set_broker(broker)

    @dramatiq.actor(broker=broker, actor_name="render")
    def render(task: dict[str, Any]) -> dict[str, Any]:
        seen.append(task)
        return {"status": "failed"}

    @dramatiq.actor(broker=broker, actor_name="broken", max_retries=0, throws=ValueError)
    def broken(task: dict[str, Any]) -> None:
        raise ValueError(task["job_id"])

    worker = dramatiq.Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    return broker, worker, render, broken, seen
