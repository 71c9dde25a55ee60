"""Several elements at once, and what is not acknowledged, on a real Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_pipeline.demo.redis_server import redis_server
from tests.support.worker_redis import Ran, Span, run

Runner = Callable[..., Ran]
ID = "otel_pipeline.job.id"

HEAD = """
import asyncio, json, os, time
import redis
import redis.asyncio
from concurrent.futures import ThreadPoolExecutor
from opentelemetry import trace
tracer = trace.get_tracer("program")
r = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
r.flushall()

def work(name):
    with tracer.start_as_current_span(f"work {name}"):
        time.sleep(0.005)

async def awork(name):
    with tracer.start_as_current_span(f"work {name}"):
        await asyncio.sleep(0.01)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.fixture
def program(tmp_path: Path, server: str) -> Runner:
    """Runs a program on an empty server."""

    def runner(script: str) -> Ran:
        ran = run(
            tmp_path, HEAD + script, adapters=("tasks", "redis", "logs", "official"), environment={"REDIS_URL": server}
        )
        assert not ran.failures, ran.failures
        return ran

    return runner


def work_of(ran: Ran) -> dict[object, list[str]]:
    """The spans of work in each job."""

    def named(job: Span) -> list[str]:
        return [span.name for span in ran.below(job) if span.name.startswith("work")]

    return {job.attributes[ID]: named(job) for job in ran.jobs}


GATHERED = {
    "entries": "await asyncio.gather(*[handle(entry, fields) for entry, fields in entries])",
    "under a timeout": "await asyncio.gather(*(asyncio.wait_for(handle(*each), 5) for each in entries))",
    "parsed": """jobs = [json.loads(fields["job"]) for _, fields in entries]
            await asyncio.gather(*[handle_job(job) for job in jobs])""",
    "in a task group": """async with asyncio.TaskGroup() as group:
                    made = [handle(*each) for each in entries]
                    for each in made:
                        group.create_task(each)""",
    "in threads": "await asyncio.gather(*[asyncio.to_thread(plain, entry, fields) for entry, fields in entries])",
}


@pytest.mark.parametrize("way", GATHERED)
def test_entries_of_a_batch_that_are_worked_on_at_the_same_time_are_kept_apart(program: Runner, way: str) -> None:
    ran = program(f"""
async def handle(entry, fields):
    await handle_job(json.loads(fields["job"]))

async def handle_job(job):
    await awork(job["job_id"])

def plain(entry, fields):
    work(json.loads(fields["job"])["job_id"])

async def main():
    for n in range(4):
        r.xadd("jobs", {{"job": json.dumps({{"job_id": f"j{{n}}"}})}})
    client = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    await client.xgroup_create("jobs", "gpus", "0")
    while (answer := await client.xreadgroup("gpus", "one", {{"jobs": ">"}}, count=2)):
        for stream, entries in answer:
            {GATHERED[way]}
            await client.xack("jobs", "gpus", *[entry for entry, _ in entries])
    await client.aclose()

asyncio.run(main())
""")
    assert work_of(ran) == {f"j{n}": [f"work j{n}"] for n in range(4)}, ran.outline()
    assert {job.outcome for job in ran.jobs} == {("completed", "ack")}
    assert len(ran.traces) == 4


def test_one_that_fails_in_its_own_task_says_nothing_of_the_rest_of_the_batch(program: Runner) -> None:
    ran = program("""
import logging

async def handle(element):
    job = json.loads(element)
    try:
        await awork(job["job_id"])
        if job["job_id"] == "j1":
            raise RuntimeError("no GPU")
    except RuntimeError:
        logging.exception("failed")

async def main():
    for n in range(3):
        r.rpush("q", json.dumps({"job_id": f"j{n}"}))
    while (elements := r.lpop("q", 3)):
        await asyncio.gather(*map(handle, elements))

asyncio.run(main())
""")
    found = {job.attributes[ID]: job.outcome[0] for job in ran.jobs}
    assert found == {"j0": "completed", "j1": "failed", "j2": "completed"}, ran.outline()


def test_a_pool_that_is_given_a_batch_keeps_its_elements_apart(program: Runner) -> None:
    ran = program("""
for n in range(4):
    r.rpush("q", json.dumps({"job_id": f"j{n}"}))
with ThreadPoolExecutor(2) as pool:
    while (elements := r.lpop("q", 2)):
        jobs = [json.loads(each) for each in elements]
        futures = [pool.submit(lambda job: work(job["job_id"]), job) for job in jobs]
        [each.result() for each in futures]
""")
    assert work_of(ran) == {f"j{n}": [f"work j{n}"] for n in range(4)}, ran.outline()


def test_a_message_is_failed_that_is_not_acknowledged_where_others_were(program: Runner) -> None:
    ran = program("""
for n in range(4):
    r.xadd("jobs", {"job_id": f"j{n}"})
r.xgroup_create("jobs", "gpus", "0")
while (answer := r.xreadgroup("gpus", "one", {"jobs": ">"}, count=1)):
    ((entry, fields),) = answer[0][1]
    try:
        if fields["job_id"] == "j2":
            raise RuntimeError
        work(fields["job_id"])
        r.xack("jobs", "gpus", entry)
    except RuntimeError:
        pass
""")
    assert {job.attributes[ID]: job.outcome for job in ran.jobs} == {
        "j0": ("completed", "ack"),
        "j1": ("completed", "ack"),
        "j2": ("failed", "ack"),
        "j3": ("completed", "ack"),
    }


def test_a_worker_that_acknowledges_later_or_never_has_no_failures_by_that(program: Runner) -> None:
    ran = program("""
for n in range(4):
    r.xadd("late", {"job_id": f"late{n}"})
    r.xadd("never", {"job_id": f"never{n}"})
r.xgroup_create("late", "gpus", "0")
r.xgroup_create("never", "gpus", "0")
done = []
for stream in ("late", "never"):
    while (answer := r.xreadgroup("gpus", "one", {stream: ">"}, count=1)):
        ((entry, fields),) = answer[0][1]
        if stream == "late" and done:
            r.xack("late", "gpus", done.pop())
        work(fields["job_id"])
        done.append(entry)
""")
    assert len(ran.jobs) == 8
    assert {job.outcome for job in ran.jobs} == {("completed", "end")}, ran.outline()


def test_a_failure_of_work_on_all_at_once_leaves_none_of_them_completed(program: Runner) -> None:
    ran = program("""
import logging
for n in range(3):
    r.rpush("q", json.dumps({"job_id": f"j{n}"}))
while (elements := r.lpop("q", 3)):
    rows = [json.loads(each) for each in elements]
    try:
        with tracer.start_as_current_span("commit"):
            raise ConnectionError("no database")
    except ConnectionError:
        logging.exception("commit failed")
""")
    assert sorted(job.outcome[0] for job in ran.jobs) == ["failed", "unknown", "unknown"], ran.outline()
