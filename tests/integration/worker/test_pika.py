"""Workers on RabbitMQ with pika, against a real node."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.support.worker_rabbitmq import RabbitMq
from tests.support.worker_script import Finished, run

HEAD = """
import functools, json, pika, sys, threading
from opentelemetry import trace
from opentelemetry.trace import SpanKind

tracer = trace.get_tracer("program")
connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
queue = "jobs-" + sys.argv[2]
channel.queue_declare(queue, durable=True)

def step(name):
    with tracer.start_as_current_span(name):
        pass

def produce(*names, **properties):
    for name in names:
        with tracer.start_as_current_span("POST " + name, kind=SpanKind.SERVER):
            made = pika.BasicProperties(**properties) if properties else None
            channel.basic_publish("", queue, json.dumps({"job_id": name}), made)

def consume(callback, count, **more):
    seen = []
    def counted(ch, method, properties, body):
        seen.append(body)
        callback(ch, method, properties, body)
        if len(seen) == count:
            ch.stop_consuming()
    channel.basic_consume(queue, counted, **more)
    channel.start_consuming()
"""


class Worker:
    def __init__(self, node: RabbitMq, folder: Path) -> None:
        self._node, self._folder = node, folder

    def __call__(self, text: str, *, armed: bool = True) -> Finished:
        script = HEAD + textwrap.dedent(text)
        name = f"{self._folder.name}-{armed}"
        done = run(self._folder, {"worker.py": script}, self._node.url, name, armed=armed)
        assert done.returncode == 0, done.errors
        return done


@pytest.fixture
def worker(rabbitmq: RabbitMq, tmp_path: Path) -> Worker:
    return Worker(rabbitmq, tmp_path)


CALLBACK = """
    produce("good", "bad", "again")

    def on_message(ch, method, properties, body):
        name = json.loads(body)["job_id"]
        step("work " + name)
        if name == "good":
            ch.basic_ack(method.delivery_tag)
        else:
            ch.basic_nack(method.delivery_tag, requeue=name == "again" and not method.redelivered)

    consume(on_message, 4)
"""
THREADS = """
    produce("good", "bad")
    pending = {"good", "bad"}

    def work(tag, body):
        name = json.loads(body)["job_id"]
        step("work " + name)
        connection.add_callback_threadsafe(functools.partial(settle, tag, name))

    def settle(tag, name):
        channel.basic_ack(tag) if name == "good" else channel.basic_reject(tag, requeue=False)
        pending.discard(name)

    def on_message(ch, method, properties, body):
        threading.Thread(target=work, args=(method.delivery_tag, body)).start()

    channel.basic_consume(queue, on_message)
    while pending:
        connection.process_data_events(time_limit=0.1)
"""
GENERATOR = """
    produce("good", "bad")
    for method, properties, body in channel.consume(queue, inactivity_timeout=0.3):
        if method is None:
            break
        name = json.loads(body)["job_id"]
        step("work " + name)
        channel.basic_ack(method.delivery_tag) if name == "good" else channel.basic_reject(method.delivery_tag, False)
    channel.cancel()
"""
PULL = """
    produce("good", "bad")
    while True:
        method, properties, body = channel.basic_get(queue)
        if method is None:
            break
        try:
            name = json.loads(body)["job_id"]
            step("work " + name)
            if name == "bad":
                raise ValueError("x")
            channel.basic_ack(method.delivery_tag)
        except ValueError:
            pass
"""


def check(done: Finished, outcomes: dict[str, str]) -> None:
    """One trace a job: its request, its publishing, its job, its work."""
    jobs = {span.job_id: span for span in done.jobs()}
    assert {name: job.outcome for name, job in jobs.items()} == outcomes
    for name, job in jobs.items():
        request, work = done.one(f"POST {name}"), done.one(f"work {name}")
        send = next(span for span in done.spans if span.parent_id == request.span_id)
        assert (send.kind, job.kind) == ("producer", "consumer")
        assert (job.parent_id, work.parent_id) == (send.span_id, job.span_id)
        assert job.end_ns >= work.end_ns
    assert len(done.spans) == 4 * len(outcomes)


def test_a_callback_is_a_job_and_what_it_does_with_the_message_its_outcome(worker: Worker) -> None:
    done = worker(CALLBACK)
    attempt = "otel_pipeline.job.attempt"
    found = [(job.job_id, job.outcome, job.get("error.type"), job.get(attempt)) for job in done.jobs()]
    assert sorted(found, key=str) == [
        ("again", "failed", "message_rejected", 2),
        ("again", "failed", "message_requeued", 1),
        ("bad", "failed", "message_rejected", 1),
        ("good", "completed", None, 1),
    ]
    assert len(done.traces()) == 3
    assert sorted(done.roots()) == ["POST again", "POST bad", "POST good"]


def test_a_message_that_a_thread_settles_later(worker: Worker) -> None:
    check(worker(THREADS), {"good": "completed", "bad": "failed"})


def test_the_generator(worker: Worker) -> None:
    check(worker(GENERATOR), {"good": "completed", "bad": "failed"})


def test_messages_that_are_fetched_one_by_one(worker: Worker) -> None:
    done = worker(PULL)
    check(done, {"good": "completed", "bad": "failed"})
    bad = next(job for job in done.jobs() if job.job_id == "bad")
    assert (bad.source, bad.get("error.type")) == ("ack", "message_not_acknowledged")


def test_an_escaping_exception_passes_and_fails_the_job(worker: Worker) -> None:
    done = worker("""
        produce("bad")
        def on_message(ch, method, properties, body):
            raise LookupError("no model")
        try:
            consume(on_message, 1, auto_ack=True)
        except LookupError as error:
            print(error)
    """)
    [job] = done.jobs()
    assert (done.output, job.outcome, job.source, job.get("error.type")) == (
        "no model\n",
        "failed",
        "exception",
        "LookupError",
    )


def test_published_messages_are_as_the_program_made_them(worker: Worker) -> None:
    script = """
        OURS = ("traceparent", "baggage")
        own = pika.BasicProperties(headers={"tenant": "t"}, priority=3, correlation_id="c", delivery_mode=2)
        channel.basic_publish("", queue, b"\\x00\\xff", own)
        channel.basic_publish(exchange="", routing_key=queue, body="text", properties=None)
        print(own.headers)
        for _ in range(2):
            method, properties, body = channel.basic_get(queue, True)
            headers = {key: value for key, value in (properties.headers or {}).items() if key not in OURS}
            properties.headers = None
            print(body, properties, headers)
        print(channel.basic_get(queue))
    """
    with_us, without = worker(script), worker(script, armed=False)
    assert with_us.output == without.output
    assert [job.outcome for job in with_us.jobs()] == ["completed"] * 2
    assert with_us.jobs()[0].get("messaging.message.conversation_id") == "c"


def test_a_result_that_is_published_says_how_the_job_came_out(worker: Worker) -> None:
    done = worker("""
        produce("bad")
        def on_message(ch, method, properties, body):
            result = {"job_id": json.loads(body)["job_id"], "status": "failed", "error": "CUDA out of memory"}
            channel.queue_declare("results-" + queue)
            channel.basic_publish("", "results-" + queue, json.dumps(result))
            ch.basic_ack(method.delivery_tag)
        consume(on_message, 1)
    """)
    [job] = done.jobs()
    assert (job.outcome, job.source) == ("failed", "message")


def test_what_a_framework_publishes_and_consumes_is_its_own(worker: Worker) -> None:
    done = worker("""
        import types
        dramatiq = types.ModuleType("dramatiq.brokers.rabbitmq")
        exec("def enqueue(): channel.basic_publish('', queue, b'{}')", dramatiq.__dict__, vars(dramatiq))
        exec("def pull(): return next(channel.consume(queue, auto_ack=True))", dramatiq.__dict__)
        vars(dramatiq).update(channel=channel, queue=queue)
        dramatiq.enqueue()
        print(dramatiq.pull()[1].headers)
    """)
    assert (done.output, done.spans) == ("None\n", [])


def test_a_fault_of_ours_changes_nothing(worker: Worker) -> None:
    faults = """
    from otel_pipeline.worker.guard import HOOKS
    for name, each in HOOKS.items():
        if name.startswith("pika."):
            each.fault = RuntimeError("ours")
    """
    for text in (THREADS, GENERATOR):
        done = worker(textwrap.dedent(faults) + textwrap.dedent(text))
        assert sorted(span.name for span in done.spans) == ["POST bad", "POST good", "work bad", "work good"]
