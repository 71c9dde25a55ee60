"""Celery, with real workers of three pools on Redis, with and without its official instrumentation."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from otel_pipeline.demo.redis_server import redis_server
from tests.support.worker_queues import CELERY, FAULTS, REDIS, Program, Seen, program

TASKS = """
    import os, signal, sys, time
    import redis
    from celery import Celery, Task
    from celery.exceptions import Ignore, Reject
    from opentelemetry import trace

    tracer = trace.get_tracer("app")
    url = os.environ["REDIS_URL"]
    store = redis.Redis.from_url(url)
    app = Celery("clips", broker=url, backend=url)
    app.conf.update(broker_connection_retry_on_startup=True)

    class Base(Task):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs)

    @app.task(name="good")
    def good(job_id, user_id="u1"):
        with tracer.start_as_current_span("render"):
            store.set("out:" + job_id, "x")
        return "an image"

    @app.task(name="swallowed")
    def swallowed(job_id):
        return {"status": "failed", "error": "no gpu"}

    @app.task(name="written")
    def written(job_id):
        store.hset("job:" + job_id, mapping={"status": "failed"})

    @app.task(name="raises", base=Base)
    def raises(job_id):
        raise ValueError("bad")

    @app.task(name="flaky", bind=True)
    def flaky(self, job_id):
        if self.request.retries == 0:
            try:
                raise TimeoutError("later")
            except TimeoutError:
                raise self.retry(countdown=0.05)

    @app.task(name="auto", autoretry_for=(OSError,), retry_kwargs={"countdown": 0.05}, bind=True)
    def auto(self, job_id):
        if self.request.retries == 0:
            raise OSError("later")

    @app.task(name="asks", bind=True)
    def asks(self, job_id):
        if self.request.retries == 0:
            raise self.retry(countdown=0.05)

    @app.task(name="ignored")
    def ignored(job_id):
        raise Ignore()

    @app.task(name="state", bind=True)
    def state(self, job_id):
        self.update_state(state="FAILURE", meta={"exc_type": "RuntimeError", "exc_message": "x"})
        raise Ignore()

    @app.task(name="rejected", acks_late=True)
    def rejected(job_id):
        raise Reject("no", requeue=False)

    @app.task(name="eager")
    def eager(job_id):
        good.apply(args=("inner",))

    @app.task(name="expired")
    def expired(job_id):
        pass

    @app.task(name="soft", soft_time_limit=0.5)
    def soft(job_id):
        while True:
            time.sleep(0.01)

    @app.task(name="hard", time_limit=1)
    def hard(job_id):
        time.sleep(30)

    @app.task(name="stuck", time_limit=1)
    def stuck(job_id):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(30)

    @app.task(name="killed")
    def killed(job_id):
        os.kill(os.getpid(), signal.SIGKILL)

    @app.task(name="exits")
    def exits(job_id):
        sys.exit(3)

    @app.task(name="terminated")
    def terminated(job_id):
        store.set("began", 1)
        time.sleep(30)

    @app.task(name="step")
    def step(value, job_id):
        with tracer.start_as_current_span("step"):
            return 1
"""
MAIN = """
    import sys, time
    from celery import chain, chord
    from tasks import *

    sent = {}
    for name in sys.argv[1:]:
        with tracer.start_as_current_span("request " + name):
            options = {"expires": 0.001} if name == "expired" else {}
            sent[name] = app.tasks[name].apply_async(("app-" + name,), **options)
    with tracer.start_as_current_span("request chain"):
        chain(step.s(0, "chain-1"), step.s("chain-2")).apply_async()
    with tracer.start_as_current_span("request chord"):
        chord([step.s(0, "chord-1"), step.s(1, "chord-2")])(step.s("chord-3"))
    with tracer.start_as_current_span("request by name"):
        Celery(broker=url, backend=url).send_task("good", kwargs={"job_id": "by-name"})
    if "terminated" in sent:
        while not store.get("began"):
            time.sleep(0.02)
        sent["terminated"].revoke(terminate=True)
    with tracer.start_as_current_span("request result"):
        assert good.delay("waited").get(timeout=30) == "an image"
"""
FILES = {"main.py": MAIN, "tasks.py": TASKS}
PLAIN = [
    "good",
    "swallowed",
    "written",
    "raises",
    "flaky",
    "auto",
    "asks",
    "ignored",
    "state",
    "rejected",
    "eager",
    "expired",
]
ENDINGS = ["soft", "hard", "stuck", "killed", "exits", "terminated"]
ROOTS = [f"request {name}" for name in ("chain", "chord", "by name", "result")]
FLAVOURS: dict[str, tuple[str, tuple[str, ...]]] = {
    "prefork with the official one": ("prefork", (REDIS, CELERY)),
    "prefork": ("prefork", (REDIS,)),
    "solo": ("solo", (REDIS, CELERY)),
    "threads": ("threads", (REDIS,)),
}


@contextmanager
def working(folder: Path, url: str, pool: str, official: tuple[str, ...], **more: Any) -> Iterator[Program]:
    command = (sys.executable, "-m", "celery", "-A", "tasks", "worker", "-P", pool, "-c", "2", "-l", "WARNING")
    with program(folder, FILES, *command, redis_url=url, official=official, **more) as worker:
        yield worker


def played(folder: Path, flavour: str) -> Seen:
    pool, official = FLAVOURS[flavour]
    names = [*PLAIN, *(ENDINGS if pool == "prefork" else ())]
    with redis_server() as url, working(folder, url, pool, official, batched=True) as worker:
        with program(folder, {}, sys.executable, "main.py", *names, redis_url=url, official=official) as producer:
            producer.wait()
        # Spans leave the parent at its end, those of the children at the end of each job.
        expected = len(names) + 2 + 3 + 2 + 3 - (len({"expired", "stuck", "killed"} & set(names)))
        if pool == "prefork":
            worker.until(lambda found: sum(bool(span.job("outcome")) for span in found.spans) >= expected, "all jobs")
        else:
            _until_idle(url)
        worker.stop()
        return worker.seen()


def _until_idle(url: str) -> None:
    deadline_s = time.monotonic() + 20
    with redis.Redis.from_url(url) as client:
        while (client.llen("celery") or client.hlen("unacked")) and time.monotonic() < deadline_s:
            time.sleep(0.05)


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Seen]:
    """Each is played once."""
    return functools.cache(lambda flavour: played(tmp_path_factory.mktemp("celery"), flavour))


@pytest.fixture(params=list(FLAVOURS))
def seen(request: pytest.FixtureRequest, plays: Callable[[str], Seen]) -> Seen:
    return plays(request.param)


@pytest.fixture(params=list(FLAVOURS)[:2])
def forked(request: pytest.FixtureRequest, plays: Callable[[str], Seen]) -> Seen:
    return plays(request.param)


def test_there_is_one_trace_for_each_request_and_no_span_of_celerys_own(seen: Seen) -> None:
    requests = [f"request {name}" for name in PLAIN]
    assert set(seen.roots()) - {f"request {name}" for name in ENDINGS} == {*requests, *ROOTS}, seen.outline()
    assert len(seen.roots()) == len(set(seen.roots()))


def test_a_job_is_below_the_span_that_published_it(seen: Seen) -> None:
    trace = seen.trace_of("request good")
    official = any(span.name == "run/good" for span in trace.spans)
    sent, run = ("apply_async/good", "run/good") if official else ("send celery", "process celery")
    assert trace.paths() == [
        "request good",
        f"request good > {sent}",
        f"request good > {sent} > {run}",
        f"request good > {sent} > {run} > render",
        f"request good > {sent} > {run} > render > SET",
    ]
    job = trace.job
    assert (job.kind, job.get("messaging.system"), job.get("messaging.destination.name")) == (
        "consumer",
        "celery",
        "celery",
    )
    assert (job.job("id"), job.job("type")) == ("app-good", "good")
    assert job.get("messaging.message.id") not in (None, "app-good")
    assert 0 <= job.job("queue_wait") < 60


@pytest.mark.parametrize(
    ("name", "outcomes", "retries"),
    [
        ("good", [("completed", "end", None)], [None]),
        ("swallowed", [("failed", "return", "_OTHER")], [None]),
        ("written", [("failed", "status", "_OTHER")], [None]),
        ("raises", [("failed", "exception", "ValueError")], [None]),
        ("flaky", [("failed", "framework", "TimeoutError"), ("completed", "end", None)], [True, None]),
        ("auto", [("failed", "framework", "OSError"), ("completed", "end", None)], [True, None]),
        ("asks", [("skipped", "framework", None), ("completed", "end", None)], [True, None]),
        ("ignored", [("skipped", "framework", None)], [None]),
        ("state", [("failed", "framework", "RuntimeError")], [None]),
        ("rejected", [("failed", "framework", "celery.exceptions.Reject")], [None]),
        ("eager", [("completed", "end", None)], [None]),
        ("expired", [("cancelled", "framework", "expired")], [None]),
    ],
)
def test_each_attempt_tells_what_became_of_it(seen: Seen, name: str, outcomes: list[Any], retries: list[Any]) -> None:
    jobs = seen.trace_of(f"request {name}").jobs
    assert [job.verdict for job in jobs] == outcomes, seen.outline()
    assert [job.job("attempt") for job in jobs] == list(range(1, len(jobs) + 1))
    assert [job.job("will_retry") for job in jobs] == retries


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("soft", ("failed", "exception", "billiard.exceptions.SoftTimeLimitExceeded")),
        ("hard", ("failed", "framework", "billiard.exceptions.TimeLimitExceeded")),
        ("stuck", ("failed", "framework", "billiard.exceptions.TimeLimitExceeded")),
        ("killed", ("lost", "framework", "billiard.exceptions.WorkerLostError")),
        ("exits", ("failed", "exception", "SystemExit")),
        ("terminated", ("cancelled", "framework", "revoked")),
    ],
)
def test_a_child_that_is_ended_is_reported_once_by_it_or_by_its_parent(
    forked: Seen, name: str, verdict: tuple[str, str, str]
) -> None:
    trace = forked.trace_of(f"request {name}")
    assert trace.job.verdict == verdict, forked.outline()
    assert len(trace.path(trace.job)) == 3
    assert trace.job.job("id") == f"app-{name}"


@pytest.mark.parametrize(
    ("root", "ids"), [("chain", {"chain-1", "chain-2"}), ("chord", {"chord-1", "chord-2", "chord-3"})]
)
def test_a_canvas_is_one_trace_with_an_id_for_each_of_its_jobs(seen: Seen, root: str, ids: set[str]) -> None:
    trace = seen.trace_of(f"request {root}")
    assert {job.job("id") for job in trace.jobs} == ids
    assert len(trace.jobs) == len(ids)
    sent = {span.job("id") for span in trace.spans if span.kind == "producer"}
    assert sent <= {*ids, None} or len(sent) == len(ids)


def test_a_producer_that_knows_the_name_only_is_the_parent_too(seen: Seen) -> None:
    trace = seen.trace_of("request by name")
    assert (trace.job.job("id"), len(trace.path(trace.job))) == ("by-name", 3)


def test_waiting_for_a_result_leaves_no_spans(seen: Seen) -> None:
    kinds = {span.name for span in seen.trace_of("request result").spans}
    assert not kinds & {"GET", "SUBSCRIBE", "UNSUBSCRIBE", "SETEX", "PUBLISH", "MGET"}, kinds


def test_faults_of_ours_change_nothing(tmp_path: Path) -> None:
    official = (REDIS, CELERY)
    with (
        redis_server() as url,
        working(tmp_path, url, "solo", official, **{FAULTS: "celery.,quiet.,children."}),
        program(tmp_path, {}, sys.executable, "main.py", "good", redis_url=url, official=official) as producer,
    ):
        seen = producer.wait()
    assert seen.trace_of("request good").spans
