"""kombu's consumers without Celery, on its transport in memory."""

from __future__ import annotations

from pathlib import Path

from tests.support.worker_redis import Ran, run

ID = "otel_pipeline.job.id"

WORKER = """
import json, threading
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.mixins import ConsumerMixin
from opentelemetry import trace

tracer = trace.get_tracer("program")
exchange = Exchange("image_gen", type="direct")
requests = Queue("image_requests", exchange, routing_key="req")

def work(name):
    with tracer.start_as_current_span("work " + name):
        if name == "j1":
            raise RuntimeError("no GPU")

class Worker(ConsumerMixin):
    def __init__(self, connection, count):
        self.connection, self.count = connection, count

    def get_consumers(self, Consumer, channel):
        return [Consumer([requests], accept=["json"], **self.handlers())]

    def handlers(self):
        return {"callbacks": [lambda body, message: self.done(message)]}

    def done(self, message):
        assert set(message.headers) <= {"traceparent", "baggage", "x-own"}, message.headers
        try:
            work(message.payload["job_id"])
            message.ack()
        except RuntimeError:
            message.reject()
        self.count -= 1
        self.should_stop = not self.count

def publish(connection, count):
    producer = Producer(connection.channel())
    requests(connection.channel()).declare()
    for n in range(count):
        producer.publish({"job_id": f"j{n}"}, exchange=exchange, routing_key="req", headers={"x-own": "1"})

with Connection("memory://") as connection:
    publish(connection, 3)
"""


def jobs(ran: Ran) -> dict[object, tuple[object, object]]:
    assert not ran.failures, ran.failures
    return {job.attributes[ID]: job.outcome for job in ran.jobs}


def one_trace_each(ran: Ran, count: int) -> None:
    assert len(ran.traces) == count, ran.outline()
    sends = {send.span_id for send in ran.sends}
    assert len(sends) == count
    assert {job.parent_id for job in ran.jobs} == sends, ran.outline()
    assert all(len(ran.below(job)) == 1 for job in ran.jobs), ran.outline()


def test_each_message_that_a_callback_gets_is_a_job_below_its_send(tmp_path: Path) -> None:
    ran = run(tmp_path, WORKER + "    Worker(connection, 3).run()\n", adapters=("tasks", "kombu"))
    one_trace_each(ran, 3)
    assert jobs(ran) == {"j0": ("completed", "end"), "j1": ("failed", "framework"), "j2": ("completed", "end")}
    assert {job.attributes["messaging.system"] for job in ran.jobs} == {"memory"}
    assert {job.name for job in ran.jobs} == {"process image_requests"}


def test_on_message_and_exceptions_that_leave_it(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        WORKER
        + """
    seen = []
    def on_message(message):
        seen.append(message)
        work(message.payload["job_id"])
        message.ack()
    with Consumer(connection.channel(), [requests], on_message=on_message):
        while len(seen) < 3:
            try:
                connection.drain_events(timeout=1)
            except RuntimeError:
                pass
""",
        adapters=("tasks", "kombu"),
    )
    one_trace_each(ran, 3)
    assert jobs(ran)["j1"] == ("failed", "exception")


def test_a_message_that_a_thread_acknowledges_later_is_open_until_then(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        WORKER
        + """
    class Threads(Worker):
        def done(self, message):
            thread = threading.Thread(target=super().done, args=(message,))
            thread.start()
            thread.join()
    Threads(connection, 3).run()
""",
        adapters=("tasks", "kombu"),
    )
    one_trace_each(ran, 3)
    assert jobs(ran)["j0"][0] == "completed"
    assert jobs(ran)["j1"][0] == "failed"
