"""Workers on RabbitMQ with aio-pika, against a real node."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.integration.worker.test_pika import check
from tests.support.worker_rabbitmq import RabbitMq
from tests.support.worker_script import Finished, run

HEAD = """
import asyncio, json, sys, aio_pika
from opentelemetry import trace
from opentelemetry.trace import SpanKind

tracer = trace.get_tracer("program")
NAME = "jobs-" + sys.argv[2]

def step(name):
    with tracer.start_as_current_span(name):
        pass

async def produce(channel, *names):
    for name in names:
        with tracer.start_as_current_span("POST " + name, kind=SpanKind.SERVER):
            message = aio_pika.Message(json.dumps({"job_id": name}).encode())
            await channel.default_exchange.publish(message, routing_key=NAME)
            assert not message.headers

async def main(connect):
    connection = await connect(sys.argv[1])
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=10)
        await work(channel, await channel.declare_queue(NAME, durable=True))
"""
TAIL = """
for connect in (aio_pika.connect, aio_pika.connect_robust)[: int(sys.argv[3])]:
    asyncio.run(main(connect))
"""
CALLBACK = """
    async def work(channel, queue):
        await produce(channel, "good", "bad")
        done = asyncio.Event()

        async def on_message(message):
            async with message.process():
                name = json.loads(message.body)["job_id"]
                await asyncio.sleep(0)
                step("work " + name)
                if name == "bad":
                    done.set()
                    raise ValueError("no model")

        await queue.consume(on_message)
        await done.wait()
        await asyncio.sleep(0.1)
"""
ITERATOR = """
    async def work(channel, queue):
        await produce(channel, "good", "bad")
        async with queue.iterator() as messages:
            async for message in messages:
                name = json.loads(message.body)["job_id"]
                try:
                    async with message.process():
                        step("work " + name)
                        if name == "bad":
                            raise ValueError("no model")
                except ValueError:
                    break
"""
GET = """
    async def work(channel, queue):
        await produce(channel, "good", "bad")
        while (message := await queue.get(fail=False)) is not None:
            name = json.loads(message.body)["job_id"]
            step("work " + name)
            await (message.ack() if name == "good" else message.reject())
"""
LATER = """
    async def work(channel, queue):
        await produce(channel, "good", "bad")
        tasks = []

        async def handle(message):
            name = json.loads(message.body)["job_id"]
            await asyncio.sleep(0.01)
            step("work " + name)
            await (message.ack() if name == "good" else message.nack(requeue=False))

        async def on_message(message):
            tasks.append(asyncio.create_task(handle(message)))

        tag = await queue.consume(on_message)
        while len(tasks) < 2:
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)
"""


class Worker:
    def __init__(self, node: RabbitMq, folder: Path) -> None:
        self._node, self._folder = node, folder

    def __call__(self, text: str, *, armed: bool = True, rounds: int = 1) -> Finished:
        script = HEAD + textwrap.dedent(text) + TAIL
        name = f"aio-{self._folder.name}-{armed}"
        done = run(self._folder, {"worker.py": script}, self._node.url, name, str(rounds), armed=armed)
        assert done.returncode == 0, done.errors
        return done


@pytest.fixture
def worker(rabbitmq: RabbitMq, tmp_path: Path) -> Worker:
    return Worker(rabbitmq, tmp_path)


@pytest.mark.parametrize("style", [CALLBACK, ITERATOR, GET, LATER], ids=["callback", "iterator", "get", "later"])
def test_each_message_is_a_job_with_its_outcome(worker: Worker, style: str) -> None:
    done = worker(style)
    check(done, {"good": "completed", "bad": "failed"})
    bad = next(job for job in done.jobs() if job.job_id == "bad")
    raised = style in (CALLBACK, ITERATOR)
    assert bad.source == ("exception" if raised else "framework")
    assert bad.get("error.type") == ("ValueError" if raised else "message_rejected")


@pytest.mark.parametrize("style", [CALLBACK, ITERATOR], ids=["callback", "iterator"])
def test_robust_connections_are_the_same(worker: Worker, style: str) -> None:
    done = worker(style, rounds=2)
    found = sorted((job.job_id, job.outcome) for job in done.jobs())
    assert found == [("bad", "failed")] * 2 + [("good", "completed")] * 2
    assert len(done.traces()) == 4


def test_published_messages_are_as_the_program_made_them(worker: Worker) -> None:
    script = """
        async def work(channel, queue):
            own = aio_pika.Message(b"\\x00\\xff", headers={"tenant": "t"}, priority=3, expiration=60, app_id="a",
                                   delivery_mode=2, reply_to="r", correlation_id="c", type="k")
            await channel.default_exchange.publish(own, NAME)
            message = await queue.get(no_ack=True)
            info = {key: value for key, value in message.info().items() if key not in ("headers", "message_id")}
            headers = {key: value for key, value in message.headers.items() if key not in ("traceparent", "baggage")}
            print(own.headers, message.body, headers)
            print(sorted((key, str(value)) for key, value in info.items()))
    """
    with_us, without = worker(script), worker(script, armed=False)
    assert with_us.output.replace("True", "False") == without.output.replace("True", "False")


def test_a_fault_of_ours_changes_nothing(worker: Worker) -> None:
    faults = """
    from otel_pipeline.worker.guard import HOOKS
    for name, each in HOOKS.items():
        if name.startswith("aio_pika."):
            each.fault = RuntimeError("ours")
    """
    for text in (CALLBACK, ITERATOR, GET):
        done = worker(textwrap.dedent(faults) + textwrap.dedent(text))
        assert sorted(span.name for span in done.spans) == ["POST bad", "POST good", "work bad", "work good"]
