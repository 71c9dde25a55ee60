"""SQS workers with boto3, against moto's server."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.support.worker_script import Finished, run

HEAD = """
import boto3, json, os, threading
from concurrent.futures import ThreadPoolExecutor
from opentelemetry import trace
from opentelemetry.trace import SpanKind

tracer = trace.get_tracer("program")
sqs = boto3.client("sqs")
URL = sqs.create_queue(QueueName="jobs", Attributes={"VisibilityTimeout": "1"})["QueueUrl"]

def step(name):
    with tracer.start_as_current_span(name):
        pass

def produce(*names):
    for name in names:
        with tracer.start_as_current_span("POST " + name, kind=SpanKind.SERVER):
            sqs.send_message(QueueUrl=URL, MessageBody=json.dumps({"job_id": name}))

def receive(**more):
    return sqs.receive_message(QueueUrl=URL, MaxNumberOfMessages=10, **more).get("Messages", [])

def delete(message):
    sqs.delete_message(QueueUrl=URL, ReceiptHandle=message["ReceiptHandle"])
"""


class Sqs:
    def __init__(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        self.client: Any = boto3.client(
            "sqs",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106  moto takes any
        )

    def purge(self) -> None:
        for url in self.client.list_queues().get("QueueUrls", []):
            self.client.delete_queue(QueueUrl=url)

    def stop(self) -> None:
        self.client.close()
        self._server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[Sqs]:
    made = Sqs()
    yield made
    made.stop()


class Worker:
    def __init__(self, sqs: Sqs, folder: Path) -> None:
        self._sqs, self._folder = sqs, folder

    def __call__(self, text: str, *, armed: bool = True) -> Finished:
        self._sqs.purge()
        script = HEAD + textwrap.dedent(text)
        done = run(self._folder, {"worker.py": script}, environment=self._sqs.environment, armed=armed)
        assert done.returncode == 0, done.errors
        return done


@pytest.fixture
def worker(server: Sqs, tmp_path: Path) -> Worker:
    return Worker(server, tmp_path)


LOOP = """
    produce("good", "bad")
    for _ in range(2):
        for message in receive():
            try:
                job = json.loads(message["Body"])
                step("work " + job["job_id"])
                if job["job_id"] == "bad":
                    raise ValueError("x")
                delete(message)
            except ValueError:
                pass
"""
RESOURCE = """
    produce("good", "bad")
    queue = boto3.resource("sqs").Queue(URL)
    for _ in range(2):
        for message in queue.receive_messages(MaxNumberOfMessages=10):
            job = json.loads(message.body)
            step("work " + job["job_id"])
            if job["job_id"] == "good":
                message.delete()
"""
PARSED_FIRST = """
    produce("good", "other")
    messages = receive()
    for message, job in [(message, json.loads(message["Body"])) for message in messages]:
        step("work " + job["job_id"])
        delete(message)
    receive()
"""
POOL = """
    produce("good", "other")
    def work(message):
        job = json.loads(message["Body"])
        step("work " + job["job_id"])
        delete(message)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, receive()))
        receive()
"""


def check(done: Finished, outcomes: dict[str, str]) -> None:
    """One trace a job: its request, its sending, its job, its work."""
    jobs = {span.job_id: span for span in done.jobs()}
    assert {name: job.outcome for name, job in jobs.items()} == outcomes
    for name, job in jobs.items():
        request, work = done.one(f"POST {name}"), done.one(f"work {name}")
        send = next(span for span in done.named("send jobs") if span.parent_id == request.span_id)
        assert (job.parent_id, work.parent_id) == (send.span_id, job.span_id)
        assert job.end_ns >= work.end_ns
    assert len(done.spans) == 4 * len(outcomes)
    assert sorted(done.roots()) == sorted(f"POST {name}" for name in outcomes)


def test_a_loop_one_message_after_the_other(worker: Worker) -> None:
    done = worker(LOOP)
    check(done, {"good": "completed", "bad": "failed"})
    bad = next(job for job in done.jobs() if job.job_id == "bad")
    assert (bad.source, bad.get("error.type"), bad.get("messaging.system")) == (
        "ack",
        "message_not_deleted",
        "aws_sqs",
    )


def test_the_resource_api(worker: Worker) -> None:
    check(worker(RESOURCE), {"good": "completed", "bad": "failed"})


def test_all_bodies_read_before_the_first_is_worked_on(worker: Worker) -> None:
    check(worker(PARSED_FIRST), {"good": "completed", "other": "completed"})


def test_messages_handed_to_a_pool(worker: Worker) -> None:
    check(worker(POOL), {"good": "completed", "other": "completed"})


def test_a_message_that_comes_again_is_the_next_attempt(worker: Worker) -> None:
    done = worker("""
        import time
        produce("again")
        for _ in range(2):
            for message in receive():
                step("work " + json.loads(message["Body"])["job_id"])
                sqs.change_message_visibility(QueueUrl=URL, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
        receive()
    """)
    found = [(job.outcome, job.source, job.get("otel_pipeline.job.attempt")) for job in done.jobs()]
    assert found == [("failed", "framework", 1), ("failed", "framework", 2)]
    assert len(done.traces()) == 1


def test_batches_each_way(worker: Worker) -> None:
    done = worker("""
        with tracer.start_as_current_span("POST"):
            entries = [{"Id": name, "MessageBody": json.dumps({"job_id": name})} for name in "abc"]
            sqs.send_message_batch(QueueUrl=URL, Entries=entries)
            assert all("MessageAttributes" not in entry for entry in entries)
        done = []
        for message in receive():
            step("work " + json.loads(message["Body"])["job_id"])
            done.append({"Id": message["MessageId"], "ReceiptHandle": message["ReceiptHandle"]})
            if len(done) == 3:
                sqs.delete_message_batch(QueueUrl=URL, Entries=done)
        receive()
    """)
    sends = {span.job_id: span for span in done.named("send jobs")}
    assert {job.job_id: job.parent_id for job in done.jobs()} == {name: sends[name].span_id for name in "abc"}
    assert {send.parent_id for send in sends.values()} == {done.one("POST").span_id}
    assert {done.one(f"work {job.job_id}").parent_id: job.span_id for job in done.jobs()} == {
        job.span_id: job.span_id for job in done.jobs()
    }


SEEN = """
    own = {"tenant": {"StringValue": "t", "DataType": "String"}}
    with tracer.start_as_current_span("POST"):
        sqs.send_message(QueueUrl=URL, MessageBody='{"b": 1,  "a": 2}', MessageAttributes=own)
        sqs.send_message(QueueUrl=URL, MessageBody="plain")
    for more in ({}, {"MessageAttributeNames": ["tenant"]}, {"AttributeNames": ["SentTimestamp"]}):
        messages = receive(VisibilityTimeout=0, **more)
        for message in messages:
            assert isinstance(message, dict) and isinstance(messages, list)
            for varying in ("MessageId", "ReceiptHandle", "MD5OfMessageAttributes"):
                message.pop(varying, None)
            message.get("Attributes", {}).pop("SentTimestamp", 0)
        print(json.dumps(sorted(messages, key=lambda each: each["MD5OfBody"]), sort_keys=True))
        print(json.dumps([dict(each) for each in messages], sort_keys=True) == json.dumps(messages, sort_keys=True))
"""


def test_the_program_sees_what_it_would_have_seen(worker: Worker) -> None:
    assert worker(SEEN).output == worker(SEEN, armed=False).output


def test_attributes_are_left_alone_when_there_are_ten(worker: Worker) -> None:
    done = worker("""
        ten = {f"a{n}": {"StringValue": "x", "DataType": "String"} for n in range(10)}
        sqs.send_message(QueueUrl=URL, MessageBody="x", MessageAttributes=ten)
        for message in receive(MessageAttributeNames=["All"]):
            print(sorted(message["MessageAttributes"]) == sorted(ten), message["Body"])
            delete(message)
        receive()
    """)
    assert done.output == "True x\n"
    assert [job.parent_id for job in done.jobs()] == [""]


def test_a_message_near_the_limit_is_left_alone(worker: Worker) -> None:
    done = worker("""
        sqs.send_message(QueueUrl=URL, MessageBody="x" * (262_144 - 50))
        [message] = receive(MessageAttributeNames=["All"])
        print(message.get("MessageAttributes"))
    """)
    assert done.output == "None\n"


def test_an_envelope_of_sns_is_opened(worker: Worker) -> None:
    done = worker("""
        with tracer.start_as_current_span("publish") as span:
            given = span.get_span_context()
        parent = f"00-{given.trace_id:032x}-{given.span_id:016x}-01"
        body = {"Type": "Notification", "Message": json.dumps({"job_id": "inner"}),
                "MessageAttributes": {"traceparent": {"Type": "String", "Value": parent}}}
        boto3.client("sqs").meta.client if False else None
        from opentelemetry.instrumentation.utils import suppress_instrumentation
        import urllib.request
        import botocore.client
        botocore.client.BaseClient._make_api_call.__wrapped__(
            sqs, "SendMessage", {"QueueUrl": URL, "MessageBody": json.dumps(body)}
        )
        for message in receive():
            print(message["Body"] == json.dumps(body))
            delete(message)
        receive()
    """)
    [job] = done.jobs()
    assert (done.output, job.job_id, job.parent_id) == ("True\n", "inner", done.one("publish").span_id)


def test_empty_receives_leave_no_spans_and_other_services_are_untouched(worker: Worker) -> None:
    done = worker("""
        for _ in range(3):
            receive()
        boto3.client("sns").list_topics()
    """)
    assert done.spans == []


def test_a_failed_send_is_an_error_and_raises_as_ever(worker: Worker) -> None:
    done = worker("""
        try:
            sqs.send_message(QueueUrl=URL + "-missing", MessageBody="x")
        except sqs.exceptions.QueueDoesNotExist as error:
            print(type(error).__name__)
    """)
    assert (done.output, done.one("send jobs-missing").error) == ("QueueDoesNotExist\n", True)


def test_what_kombu_receives_is_its_own(worker: Worker) -> None:
    done = worker("""
        import types
        kombu = types.ModuleType("kombu.transport.SQS")
        exec("def get(receive):\\n    return receive()", kombu.__dict__)
        sqs.send_message(QueueUrl=URL, MessageBody="x")
        [message] = kombu.get(receive)
        print(type(message).__name__, message["Body"])
    """)
    assert (done.output, done.jobs()) == ("dict x\n", [])


def test_an_asynchronous_client(worker: Worker) -> None:
    done = worker("""
        import asyncio, sys, types, botocore.client
        real = botocore.client.BaseClient._make_api_call.__wrapped__
        import wrapt
        from otel_pipeline.worker.adapters import sqs as adapter   # stands for the row of the table

        class AioBaseClient:   # stands for aiobotocore's
            meta = sqs.meta
            async def _make_api_call(self, operation_name, api_params):
                await asyncio.sleep(0)
                return real(sqs, operation_name, api_params)

        adapter.patch_aio(types.SimpleNamespace(AioBaseClient=AioBaseClient))
        aio = AioBaseClient()

        async def work(message):
            step("work " + json.loads(message["Body"])["job_id"])
            await aio._make_api_call("DeleteMessage", {"QueueUrl": URL, "ReceiptHandle": message["ReceiptHandle"]})

        async def main():
            for name in ("one", "two"):
                with tracer.start_as_current_span("POST " + name, kind=SpanKind.SERVER):
                    body = json.dumps({"job_id": name})
                    await aio._make_api_call("SendMessage", {"QueueUrl": URL, "MessageBody": body})
            answer = await aio._make_api_call("ReceiveMessage", {"QueueUrl": URL, "MaxNumberOfMessages": 10})
            await asyncio.gather(*(work(message) for message in answer["Messages"]))

        asyncio.run(main())
    """)
    check(done, {"one": "completed", "two": "completed"})


def test_a_fault_of_ours_changes_nothing(worker: Worker) -> None:
    faults = """
    from otel_pipeline.worker.guard import HOOKS
    for name, each in HOOKS.items():
        if name.startswith("sqs."):
            each.fault = RuntimeError("ours")
    """
    done = worker(textwrap.dedent(faults) + textwrap.dedent(LOOP))
    assert sorted(span.name for span in done.spans) == ["POST bad", "POST good", "work bad", "work good"]
