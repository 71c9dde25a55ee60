"""RQ, with real workers, work horses and Redis: one trace a job, the attempts in it, and what became of each."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from otel_pipeline.demo.redis_server import redis_server
from tests.support.worker_queues import FAULTS, Seen, program

TASKS = """
    import asyncio, os, signal, sys, time
    import redis
    from opentelemetry import trace

    tracer = trace.get_tracer("app")
    store = redis.Redis.from_url(os.environ["REDIS_URL"])

    def good(job_id, user_id="u1"):
        with tracer.start_as_current_span("render"):
            store.set(f"out:{job_id}", "x")

    def swallowed(job_id):
        try:
            raise RuntimeError("no gpu")
        except Exception as e:
            return {"status": "failed", "error": str(e)}

    def written(job_id):
        store.hset(f"job:{job_id}", mapping={"status": "failed", "error": "no gpu"})

    def raises(job_id):
        raise ValueError("bad")

    def flaky(job_id):
        if store.incr("n:" + job_id) == 1:
            raise TimeoutError("later")

    def asks(job_id):
        from rq import Retry
        if store.incr("n:" + job_id) == 1:
            return Retry(max=2)

    def gives_up(job_id):
        from rq import Retry
        return Retry(max=1)

    def slow(job_id):
        while True:
            time.sleep(0.01)

    def killed(job_id):
        os.kill(os.getpid(), signal.SIGKILL)

    def stopped(job_id):
        from rq.command import send_stop_job_command
        from rq import get_current_job
        send_stop_job_command(store, get_current_job().id)
        time.sleep(30)

    async def aio(job_id):
        await asyncio.sleep(0)
        with tracer.start_as_current_span("aio"):
            pass

    def outer(job_id):
        from rq import Queue
        Queue("clips", connection=store).enqueue(good, "inner-1", user_id="u2")

    def ok(job, connection, result):
        with tracer.start_as_current_span("on success"):
            pass

    def failed(job, connection, *error):
        with tracer.start_as_current_span("on failure"):
            pass
"""
MAIN = """
    import json, os, sys
    import redis
    from opentelemetry import trace
    from rq import Callback, Queue, Retry
    from rq.worker import SimpleWorker, Worker
    import tasks

    tracer = trace.get_tracer("app")
    store = redis.Redis.from_url(os.environ["REDIS_URL"])
    queue = Queue("clips", connection=store)
    options = {
        "good": {"on_success": Callback(tasks.ok)}, "raises": {"on_failure": Callback(tasks.failed)},
        "flaky": {"retry": Retry(max=1)}, "slow": {"job_timeout": 1}, "killed": {"retry": Retry(max=1)},
        "meta": {"meta": {"user_id": "u9"}},
    }
    jobs = {}
    for name in sys.argv[2:]:
        with tracer.start_as_current_span("request " + name):
            function = "tasks." + {"meta": "good"}.get(name, name)
            jobs[name] = queue.enqueue(function, kwargs={"job_id": "app-" + name}, **options.get(name, {}))
    with tracer.start_as_current_span("request many"):
        many = [Queue.prepare_data("tasks.good", kwargs={"job_id": f"many-{number}"}) for number in range(2)]
        jobs.update(enumerate(queue.enqueue_many(many)))
    queue.enqueue("tasks.good", "alone-1")
    {"simple": SimpleWorker, "fork": Worker}[sys.argv[1]]([queue], connection=store).work(burst=True)
    for job in jobs.values():
        job.refresh()
    print("RESULT", json.dumps({str(k): [j.get_status(), j.meta, str(j.return_value())[:40]] for k, j in jobs.items()}))
"""
FILES = {"main.py": MAIN, "tasks.py": TASKS}
FORKED = [
    "good",
    "swallowed",
    "written",
    "raises",
    "flaky",
    "asks",
    "gives_up",
    "slow",
    "killed",
    "stopped",
    "aio",
    "outer",
    "meta",
]
SIMPLE = ["good", "swallowed", "raises", "flaky", "slow", "aio"]


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as url:
        yield url


def played(folder: Path, url: str, worker: str, names: list[str], **more: Any) -> Seen:
    with redis.Redis.from_url(url) as client:
        client.flushall()
    with program(folder, FILES, sys.executable, "main.py", worker, *names, redis_url=url, **more) as running:
        return running.wait()


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Seen:
    """Spans leave a process at a flush only, so what is seen of a work horse was flushed before its os._exit."""
    return played(tmp_path_factory.mktemp("rq"), redis_url, "fork", FORKED, batched=True)


@pytest.fixture(scope="module")
def simple(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Seen:
    return played(tmp_path_factory.mktemp("rq"), redis_url, "simple", SIMPLE)


def test_there_is_one_trace_for_each_request_and_no_span_of_rqs_own(forked: Seen) -> None:
    requests = [f"request {name}" for name in (*FORKED, "many")]
    assert forked.roots() == sorted([*requests, "send clips"]), forked.outline()


def test_a_job_is_below_the_span_that_enqueued_it(forked: Seen) -> None:
    trace = forked.trace_of("request good")
    assert trace.paths() == [
        "request good",
        "request good > send clips",
        "request good > send clips > process clips",
        "request good > send clips > process clips > on success",
        "request good > send clips > process clips > render",
        "request good > send clips > process clips > render > SET",
    ]
    assert (trace.job.kind, trace.job.get("messaging.system")) == ("consumer", "rq")


@pytest.mark.parametrize(
    ("name", "outcomes", "retries"),
    [
        ("good", [("completed", "end", None)], [None]),
        ("swallowed", [("failed", "return", "_OTHER")], [None]),
        ("written", [("failed", "status", "_OTHER")], [None]),
        ("raises", [("failed", "exception", "ValueError")], [None]),
        ("flaky", [("failed", "exception", "TimeoutError"), ("completed", "end", None)], [True, None]),
        ("asks", [("skipped", "framework", None), ("completed", "end", None)], [True, None]),
        ("gives_up", [("skipped", "framework", None), ("failed", "framework", "_OTHER")], [True, None]),
        ("slow", [("failed", "exception", "rq.timeouts.JobTimeoutException")], [None]),
        ("killed", [("lost", "framework", "WorkHorseTerminated")] * 2, [True, None]),
        ("stopped", [("cancelled", "framework", "stopped")], [None]),
        ("aio", [("completed", "end", None)], [None]),
    ],
)
def test_each_attempt_tells_what_became_of_it(forked: Seen, name: str, outcomes: list[Any], retries: list[Any]) -> None:
    jobs = forked.trace_of(f"request {name}").jobs
    assert [job.verdict for job in jobs] == outcomes, forked.outline()
    assert [job.job("attempt") for job in jobs] == list(range(1, len(jobs) + 1))
    assert [job.job("will_retry") for job in jobs] == retries


def test_the_programs_own_id_and_rqs_are_both_there(forked: Seen) -> None:
    job = forked.trace_of("request good").job
    assert job.job("id") == "app-good"
    assert job.get("messaging.message.id") not in (None, "app-good")
    assert job.job("type") == "tasks.good"
    assert 0 <= job.job("queue_wait") < 60


def test_a_killed_horse_is_reported_by_its_parent_with_the_programs_id(forked: Seen) -> None:
    trace = forked.trace_of("request killed")
    assert {job.job("id") for job in trace.jobs} == {"app-killed"}
    assert len({job.span_id for job in trace.jobs}) == 2
    assert all(trace.path(job) == ["request killed", "send clips", "process clips"] for job in trace.jobs)


def test_the_meta_says_whose_job_it_is_and_stays_as_it_was(forked: Seen) -> None:
    job = forked.trace_of("request meta").job
    assert job.get("enduser.pseudo.id")
    assert result(forked)["meta"][1] == {"user_id": "u9"}


def test_a_job_that_a_job_enqueues_is_in_its_trace_with_an_id_of_its_own(forked: Seen) -> None:
    trace = forked.trace_of("request outer")
    assert {job.job("id") for job in trace.jobs} == {"app-outer", "inner-1"}
    path = ["request outer", "send clips", "process clips", "send clips", "process clips"]
    assert [trace.path(job) for job in trace.jobs if job.job("id") == "inner-1"] == [path]


def test_each_of_many_has_a_span_that_sends_it(forked: Seen) -> None:
    trace = forked.trace_of("request many")
    assert sorted(job.job("id") for job in trace.jobs) == ["many-0", "many-1"]
    assert len({job.parent_id for job in trace.jobs}) == 2


def test_without_a_request_the_span_that_sends_is_the_root(forked: Seen) -> None:
    assert forked.trace_of("send clips").job.job("id") == "alone-1"


def test_a_worker_without_work_horses_does_the_same(simple: Seen) -> None:
    told = {name: [job.verdict[0] for job in simple.trace_of(f"request {name}").jobs] for name in SIMPLE}
    assert told == {
        "good": ["completed"],
        "swallowed": ["failed"],
        "raises": ["failed"],
        "flaky": ["failed", "completed"],
        "slow": ["failed"],
        "aio": ["completed"],
    }
    assert simple.roots() == sorted([*(f"request {name}" for name in (*SIMPLE, "many")), "send clips"])


def test_faults_of_ours_change_nothing(tmp_path: Path, redis_url: str, simple: Seen) -> None:
    faults = {FAULTS: "rq.,quiet.,children."}
    broken = played(tmp_path / "broken", redis_url, "simple", SIMPLE, **faults)
    plain = played(tmp_path / "plain", redis_url, "simple", SIMPLE, armed=False)
    assert result(broken) == result(plain) == result(simple)


def result(seen: Seen) -> Any:
    line = next(line for line in seen.text.splitlines() if line.startswith("RESULT"))
    return json.loads(line.removeprefix("RESULT"))
