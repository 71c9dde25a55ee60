"""Dramatiq, with its own worker, on Redis and on its stub broker."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_pipeline.demo.redis_server import redis_server
from tests.support.worker_queues import FAULTS, Seen, program, tool

ACTORS = """
    import logging, os, sys, time
    import dramatiq
    import redis
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.brokers.stub import StubBroker
    from dramatiq.middleware import AsyncIO, Middleware, SkipMessage
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend
    from opentelemetry import trace

    logging.basicConfig(level=logging.CRITICAL)
    tracer = trace.get_tracer("app")
    url = os.environ["REDIS_URL"]
    store = redis.Redis.from_url(url)
    broker = StubBroker(fail_fast_default=False) if os.environ.get("STUB") else RedisBroker(url=url)
    broker.add_middleware(Results(backend=RedisBackend(url=url)))
    broker.add_middleware(AsyncIO())

    class Skip(Middleware):
        def before_process_message(self, broker, message):
            if message.actor_name == "skipped":
                raise SkipMessage("no")

    broker.add_middleware(Skip())
    dramatiq.set_broker(broker)
    again = {"max_retries": 2, "min_backoff": 20, "max_backoff": 40}

    @dramatiq.actor(max_retries=0, store_results=True)
    def good(job_id, user_id="u1"):
        with tracer.start_as_current_span("render"):
            return "an image"

    @dramatiq.actor(max_retries=0)
    def swallowed(job_id):
        return {"status": "failed", "error": "no gpu"}

    @dramatiq.actor(max_retries=0)
    def written(job_id):
        store.hset("job:" + job_id, mapping={"status": "failed"})

    @dramatiq.actor(max_retries=0)
    def raises(job_id):
        raise ValueError("bad")

    @dramatiq.actor(**again)
    def flaky(job_id):
        if store.incr("n:" + job_id) == 1:
            raise TimeoutError("later")

    @dramatiq.actor(**again)
    def asks(job_id):
        if store.incr("n:" + job_id) == 1:
            raise dramatiq.errors.Retry("not yet", delay=20)

    @dramatiq.actor
    def skipped(job_id):
        pass

    @dramatiq.actor(max_retries=0)
    async def aio(job_id):
        with tracer.start_as_current_span("aio"):
            pass

    @dramatiq.actor(max_retries=0)
    def outer(job_id):
        good.send("inner-1")

    @dramatiq.actor(max_retries=0, time_limit=300)
    def slow(job_id):
        while True:
            time.sleep(0.01)

    @dramatiq.actor
    def follow(*args):
        pass
"""
MAIN = """
    import json, sys, time
    import dramatiq
    from dramatiq.results import ResultMissing
    from actors import *

    sent = {}
    for name in sys.argv[1:]:
        with tracer.start_as_current_span("request " + name):
            sent[name] = broker.actors[name].send(job_id="app-" + name)
    with tracer.start_as_current_span("request delayed"):
        sent["delayed"] = good.send_with_options(args=("app-delayed",), delay=50)
    with tracer.start_as_current_span("request pipe"):
        (good.message("pipe-1") | follow.message("pipe-2")).run()
    message = good.message("twice")
    for _ in range(2):
        broker.enqueue(message)
    worker = dramatiq.Worker(broker, worker_timeout=20, worker_threads=2)
    worker.start()
    broker.join("default")
    worker.join()
    worker.stop()
    print("RESULT", json.dumps([
        [name, sorted(m.options), list(m.args), m.kwargs] for name, m in sent.items()
    ] + [sent["good"].get_result()]))
"""
NAMES = ["good", "swallowed", "written", "raises", "flaky", "asks", "skipped", "aio", "outer"]


def played(folder: Path, **more: Any) -> Seen:
    files = {"main.py": MAIN, "actors.py": ACTORS}
    with (
        redis_server() as url,
        program(folder, files, sys.executable, "main.py", *NAMES, redis_url=url, **more) as running,
    ):
        return running.wait()


@pytest.fixture(scope="module", params=["redis", "stub"])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return played(tmp_path_factory.mktemp("dramatiq"), STUB="1" if request.param == "stub" else "")


def test_there_is_one_trace_for_each_message_and_no_span_of_dramatiqs_own(seen: Seen) -> None:
    requests = [f"request {name}" for name in (*NAMES, "delayed", "pipe")]
    assert seen.roots() == sorted([*requests, "send default", "send default"]), seen.outline()


def test_a_job_is_below_the_span_that_enqueued_it(seen: Seen) -> None:
    trace = seen.trace_of("request good")
    assert trace.paths() == [
        "request good",
        "request good > send default",
        "request good > send default > process default",
        "request good > send default > process default > render",
    ]
    assert (trace.job.job("id"), trace.job.job("type")) == ("app-good", "good")
    assert 0 <= trace.job.job("queue_wait") < 60


@pytest.mark.parametrize(
    ("name", "outcomes", "retries"),
    [
        ("good", [("completed", "end", None)], [None]),
        ("swallowed", [("failed", "return", "_OTHER")], [None]),
        ("written", [("failed", "status", "_OTHER")], [None]),
        ("raises", [("failed", "exception", "ValueError")], [None]),
        ("flaky", [("failed", "exception", "TimeoutError"), ("completed", "end", None)], [True, None]),
        ("asks", [("skipped", "framework", None), ("completed", "end", None)], [True, None]),
        ("skipped", [("skipped", "framework", None)], [None]),
        ("aio", [("completed", "end", None)], [None]),
        ("delayed", [("completed", "end", None)], [None]),
    ],
)
def test_each_attempt_tells_what_became_of_it(seen: Seen, name: str, outcomes: list[Any], retries: list[Any]) -> None:
    jobs = seen.trace_of(f"request {name}").jobs
    assert [job.verdict for job in jobs] == outcomes, seen.outline()
    assert [job.job("attempt") for job in jobs] == list(range(1, len(jobs) + 1))
    assert [job.job("will_retry") for job in jobs] == retries


def test_spans_of_an_async_actor_are_in_the_job(seen: Seen) -> None:
    assert "request aio > send default > process default > aio" in seen.trace_of("request aio").paths()


@pytest.mark.parametrize(("root", "ids"), [("outer", {"app-outer", "inner-1"}), ("pipe", {"pipe-1", "pipe-2"})])
def test_what_follows_from_a_job_is_in_its_trace(seen: Seen, root: str, ids: set[str]) -> None:
    assert {job.job("id") for job in seen.trace_of(f"request {root}").jobs} == ids


def test_a_message_that_is_sent_twice_is_two_jobs(seen: Seen) -> None:
    twice = [span for span in seen.spans if span.job("id") == "twice" and span.job("outcome")]
    assert len({span.trace_id for span in twice}) == 2


def test_the_options_that_the_program_sees_are_as_before(seen: Seen) -> None:
    options = {name: given for name, given, _, _ in result(seen)[:-1]}
    assert not [name for name, given in options.items() if "otelp" in given]


def test_a_time_limit_ends_the_job_as_failed(tmp_path: Path) -> None:
    """Limits are kept by a thread that only Dramatiq's own command starts."""
    send = "from actors import *\nwith tracer.start_as_current_span('request'):\n    slow.send('app-slow')\n"
    with redis_server() as url:
        with program(tmp_path, {"send.py": send, "actors.py": ACTORS}, redis_url=url) as sender:
            sender.wait()
        command = (tool("dramatiq"), "actors", "--processes", "1", "--threads", "1")
        with program(tmp_path, {}, *command, redis_url=url) as worker:
            seen = worker.until(lambda found: any(span.job("outcome") for span in found.spans), "the job")
    assert seen.trace_of("request").job.verdict == (
        "failed",
        "exception",
        "dramatiq.middleware.time_limit.TimeLimitExceeded",
    )


def test_faults_of_ours_change_nothing(tmp_path: Path) -> None:
    broken = played(tmp_path / "broken", **{FAULTS: "dramatiq.,quiet."})
    plain = played(tmp_path / "plain", armed=False)
    assert result(broken) == result(plain)


def result(seen: Seen) -> Any:
    line = next(line for line in seen.text.splitlines() if line.startswith("RESULT"))
    return json.loads(line.removeprefix("RESULT"))
