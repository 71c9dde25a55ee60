"""Worker loops on a real Redis, as people write them: one trace a job, the job below its send, payloads untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_pipeline.demo.redis_server import redis_server
from tests.support.worker_redis import Ran, Span, run

Runner = Callable[..., Ran]

HEAD = """
import asyncio, json, os, threading, time
import redis
import redis.asyncio
from concurrent.futures import ThreadPoolExecutor
from opentelemetry import trace
tracer = trace.get_tracer("program")
URL = os.environ["REDIS_URL"]
r = redis.Redis.from_url(URL, decode_responses=True)
b = redis.Redis.from_url(URL)

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

    def runner(script: str, **options: object) -> Ran:
        environment = {"REDIS_URL": server, **options.pop("environment", {})}  # type: ignore[dict-item]
        return run(tmp_path, HEAD + "r.flushall()\n" + script, environment=environment, **options)  # type: ignore[arg-type]

    return runner


def one_trace_a_job(ran: Ran, queue: str, count: int) -> list[Span]:
    """Each job is below its own send, nothing else is a root; the jobs in order of their start."""
    assert not ran.failures, ran.failures
    jobs = [job for job in ran.jobs if job.name == f"process {queue}"]
    assert len(jobs) == count, ran.outline()
    sends = {send.span_id: send for send in ran.sends}
    assert len({job.parent_id for job in jobs}) == count, ran.outline()
    assert all(job.parent_id in sends for job in jobs), ran.outline()
    assert len(ran.traces) == count, ran.outline()
    known = {span.span_id for span in ran.spans}
    orphans = [span.name for span in ran.spans if span.parent_id not in {None, *known}]
    assert not orphans, ran.outline()
    assert {span.name for span in ran.spans if span.parent_id is None} == {f"send {queue}"}, ran.outline()
    return jobs


def work_of(ran: Ran, job: Span) -> list[str]:
    return [span.name for span in ran.below(job) if span.name.startswith("work")]


def test_a_list_with_json(program: Runner) -> None:
    ran = program("""
for n in range(3):
    r.lpush("image:jobs", json.dumps({"job_id": f"job-{n}", "user_id": "u"}))
while (item := r.brpop("image:jobs", timeout=1)):
    job = json.loads(item[1])
    r.hset("job:" + job["job_id"], mapping={"status": "running"})
    work(job["job_id"])
    failed = job["job_id"] == "job-1"
    r.hset("job:" + job["job_id"], mapping={"status": "failed", "error": "CUDA"} if failed else {"status": "completed"})
""")
    jobs = one_trace_a_job(ran, "image:jobs", 3)
    assert [job.outcome for job in jobs] == [("completed", "status"), ("failed", "status"), ("completed", "status")]
    assert [job.attributes["otel_pipeline.job.id"] for job in jobs] == ["job-0", "job-1", "job-2"]
    assert [work_of(ran, job) for job in jobs] == [["work job-0"], ["work job-1"], ["work job-2"]]
    assert all(0 <= job.attributes["otel_pipeline.job.queue_wait"] < 30 for job in jobs)


@pytest.mark.parametrize(
    "pop", ["b.rpop(q)", "b.lpop(q)", "b.execute_command('RPOP', q)", "b.execute_command('lpop', q)"]
)
def test_polls_leave_nothing_and_elements_a_job(program: Runner, pop: str) -> None:
    ran = program(f"""
q = "q"
for n in range(3):
    assert {pop} is None
b.rpush(q, b"one")
while True:
    item = {pop}
    if item is None:
        break
    assert item == b"one"
    b.ping()
b.get("heartbeat")
""")
    job = one_trace_a_job(ran, "q", 1)[0]
    assert [span.name for span in ran.below(job)] == ["PING"]


def test_a_bare_id_learns_its_fields_from_the_hash_beside_it(program: Runner) -> None:
    ran = program("""
for n in range(2):
    r.hset(f"orchestrator:job:j{n}", mapping={"user_id": f"user-{n}", "workflow": "talking_head"})
    r.rpush("orchestrator:queue", f"j{n}")
while (item := r.blpop(["orchestrator:queue"], timeout=1)):
    fields = r.hgetall("orchestrator:job:" + item[1])
    work(item[1])
    r.hset("orchestrator:job:" + item[1], "status", "error" if item[1] == "j1" else "done")
""")
    jobs = one_trace_a_job(ran, "orchestrator:queue", 2)
    assert [job.attributes["otel_pipeline.workflow.name"] for job in jobs] == ["talking_head"] * 2
    assert [job.outcome for job in jobs] == [("completed", "status"), ("failed", "status")]


def test_a_reliable_queue_settles_by_lrem_and_comes_again_as_another_attempt(program: Runner) -> None:
    ran = program("""
r.lpush("videos", "v1")
assert r.brpoplpush("videos", "videos:processing", timeout=1) == "v1"
work("first")                                   # and it hangs; somebody puts it back
assert r.rpoplpush("videos:processing", "videos") == "v1"
assert r.blmove("videos", "videos:processing", 1, "RIGHT", "LEFT") == "v1"
work("second")
assert r.lrem("videos:processing", 1, "v1") == 1
assert r.brpoplpush("videos", "videos:processing", timeout=1) is None
""")
    assert not ran.failures
    assert [(job.name, job.attempt) for job in ran.jobs] == [("process videos", 1), ("process videos", 2)], (
        ran.outline()
    )
    assert len(ran.traces) == 1, ran.outline()
    assert {job.parent_id for job in ran.jobs} == {ran.sends[0].span_id}
    assert ran.jobs[1].outcome == ("completed", "ack")


def test_a_stream_group_with_acknowledgement_and_a_reclaimed_entry(program: Runner) -> None:
    ran = program("""
s = "render:requests"
r.xgroup_create(s, "gpu", mkstream=True)
ids = [r.xadd(s, {"job_id": f"s{n}", "user_id": "u"}) for n in range(3)]
answer = r.xreadgroup("gpu", "dead", {s: ">"}, count=1)
work("dies")
while True:
    answer = r.xreadgroup("gpu", "me", {s: ">"}, count=1, block=100)
    if not answer:
        break
    streams = answer.items() if isinstance(answer, dict) else answer
    for stream, entries in streams:
        for identifier, fields in entries:
            work(fields["job_id"])
            r.xack(s, "gpu", identifier)
claimed = r.xautoclaim(s, "gpu", "me", 0)
for identifier, fields in claimed[1]:
    work("again")
    r.xack(s, "gpu", identifier)
r.xreadgroup("gpu", "me", {s: ">"}, count=1, block=10)
""")
    assert not ran.failures
    jobs = ran.jobs
    assert [(job.attributes["otel_pipeline.job.id"], job.attempt) for job in jobs] == [
        ("s0", 1),
        ("s1", 1),
        ("s2", 1),
        ("s0", 2),
    ], ran.outline()
    assert len(ran.traces) == 3, ran.outline()
    assert [job.outcome for job in jobs[1:]] == [("completed", "ack")] * 3
    assert [work_of(ran, job) for job in jobs] == [["work dies"], ["work s1"], ["work s2"], ["work again"]]
    assert {job.attributes["messaging.consumer.group.name"] for job in jobs} == {"gpu"}


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_stream_read_of_several_entries_is_a_job_each(program: Runner, protocol: int) -> None:
    ran = program(f"""
x = redis.Redis.from_url(URL, protocol={protocol})
s = "render"
x.xgroup_create(s, "gpu", mkstream=True)
for n in range(3):
    x.xadd(s, {{"job_id": f"s{{n}}"}})
while True:
    answer = x.xreadgroup("gpu", "me", {{s: ">"}}, count=10)
    if not answer:
        break
    for stream, entries in (answer.items() if isinstance(answer, dict) else answer):
        assert isinstance(entries, list)
        for identifier, fields in (entries[0] if isinstance(entries[0], list) else entries):
            work(fields[b"job_id"].decode())
            x.xack(s, "gpu", identifier)
""")
    jobs = one_trace_a_job(ran, "render", 3)
    assert [work_of(ran, job) for job in jobs] == [["work s0"], ["work s1"], ["work s2"]]
    assert [job.outcome for job in jobs] == [("completed", "ack")] * 3


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize(
    "pop",
    ["z.bzpopmin('prio:queue', timeout=1)", "z.zpopmin('prio:queue')", "z.bzmpop(1, 1, ['prio:queue'], min=True)"],
)
def test_a_priority_queue(program: Runner, pop: str, protocol: int) -> None:
    ran = program(f"""
z = redis.Redis.from_url(URL, decode_responses=True, protocol={protocol})
z.zadd("prio:queue", {{"p1": 1, "p2": 2}})
z.zadd("prio:queue", {{"p3": 3}})
seen = []
while True:
    item = {pop}
    if not item:
        break
    seen.append(json.dumps(item))
    z.get("config")
assert len(seen) == 3
""")
    one_trace_a_job(ran, "prio:queue", 3)


def test_a_delayed_queue_is_looked_at_and_taken_from(program: Runner) -> None:
    ran = program("""
r.zadd("tasks:scheduled", {json.dumps({"job_id": "d1"}): 1, json.dumps({"job_id": "d2"}): 2})
r.zadd("tasks:scheduled", {json.dumps({"job_id": "d3"}): 3})
idle = 0
while idle < 3:
    due = r.zrangebyscore("tasks:scheduled", 0, time.time(), start=0, num=1)
    if not due:
        idle += 1
        continue
    if r.zrem("tasks:scheduled", due[0]) != 1:
        continue
    work(json.loads(due[0])["job_id"])
""")
    jobs = one_trace_a_job(ran, "tasks:scheduled", 3)
    assert [job.attributes["otel_pipeline.job.id"] for job in jobs] == ["d1", "d2", "d3"]
    assert [work_of(ran, job) for job in jobs] == [["work d1"], ["work d2"], ["work d3"]]


def test_a_mover_between_queues_keeps_the_trace(program: Runner) -> None:
    ran = program("""
with tracer.start_as_current_span("request"):
    r.zadd("tasks:delayed", {"m1": 1, "m2": 2})
for _ in range(2):
    for member in r.zrangebyscore("tasks:delayed", 0, time.time(), start=0, num=1):
        if r.zrem("tasks:delayed", member):
            r.lpush("tasks", member)
while (item := r.rpop("tasks")):
    work(item)
""")
    assert not ran.failures
    assert len(ran.traces) == 1, ran.outline()
    assert [job.attributes["otel_pipeline.job.id"] for job in ran.jobs if job.name == "process tasks"] == ["m1", "m2"]
    assert [job.outcome for job in ran.jobs if job.name == "process tasks:delayed"] == [("skipped", "message")]


@pytest.mark.parametrize("parse_first", [True, False])
def test_a_list_popped_in_a_batch_is_a_job_each(program: Runner, parse_first: bool) -> None:  # noqa: FBT001
    ran = program(f"""
for n in range(4):
    b.rpush("frames", json.dumps({{"job_id": f"f{{n}}"}}))
while True:
    batch = b.lpop("frames", 3)
    if not batch:
        break
    assert isinstance(batch, list) and batch == list(batch) and len(batch) in (1, 3)
    parsed = [json.loads(each) for each in batch] if {parse_first} else map(json.loads, batch)
    for job in parsed:
        b.set("status:" + job["job_id"], "running")
        work(job["job_id"])
        b.set("status:" + job["job_id"], "completed")
""")
    jobs = one_trace_a_job(ran, "frames", 4)
    assert [work_of(ran, job) for job in jobs] == [[f"work f{n}"] for n in range(4)], ran.outline()
    assert [job.outcome for job in jobs] == [("completed", "status")] * 4


def test_a_pipeline_that_pushes_sends_each_and_returns_the_same(program: Runner) -> None:
    ran = program("""
pipe = r.pipeline()
for n in range(3):
    pipe.hset(f"job:p{n}", mapping={"job_id": f"p{n}"}).rpush("jobs", f"p{n}")
pipe.lpush("recent:images", "x").ltrim("recent:images", 0, 9)
assert pipe.execute() == [1, 1, 1, 2, 1, 3, 1, True]
while True:
    pipe = r.pipeline()
    pipe.lpop("jobs").llen("jobs")
    item, left = pipe.execute()
    if item is None:
        break
    work(item)
""")
    jobs = one_trace_a_job(ran, "jobs", 3)
    assert [work_of(ran, job) for job in jobs] == [["work p0"], ["work p1"], ["work p2"]]


def test_a_batch_taken_by_range_and_trim(program: Runner) -> None:
    ran = program("""
for n in range(2):
    r.rpush("jobs", f"job-{n}")
while True:
    items, _ = r.pipeline().lrange("jobs", 0, 4).ltrim("jobs", 5, -1).execute()
    if not items:
        break
    for item in items:
        work(item)
""")
    jobs = one_trace_a_job(ran, "jobs", 2)
    assert [work_of(ran, job) for job in jobs] == [["work job-0"], ["work job-1"]]


def test_a_retry_is_the_same_trace_with_the_next_attempt(program: Runner) -> None:
    ran = program("""
r.lpush("jobs", json.dumps({"job_id": "x"}))
tries = 0
while (item := r.brpop("jobs", timeout=1)):
    tries += 1
    work(tries)
    if tries < 3:
        r.lpush("jobs", item[1])
""")
    assert not ran.failures
    assert [job.attempt for job in ran.jobs] == [1, 2, 3], ran.outline()
    assert [job.outcome[0] for job in ran.jobs] == ["failed", "failed", "completed"]
    assert {job.attributes.get("error.type") for job in ran.jobs[:2]} == {"retry"}
    assert len(ran.traces) == 1, ran.outline()


def test_priorities_polled_in_turn(program: Runner) -> None:
    ran = program("""
r.rpush("jobs:high", "h1", )
r.rpush("jobs:low", "l1")
r.rpush("jobs:low", "l2")
idle = 0
while not idle:
    idle = 1
    for queue in ("jobs:high", "jobs:low"):
        item = r.lpop(queue)
        if item:
            idle = 0
            work(item)
""")
    assert not ran.failures
    assert [(job.name, work_of(ran, job)) for job in ran.jobs] == [
        ("process jobs:high", ["work h1"]),
        ("process jobs:low", ["work l1"]),
        ("process jobs:low", ["work l2"]),
    ], ran.outline()
    assert len(ran.traces) == 3, ran.outline()


def test_a_thread_for_each_job(program: Runner) -> None:
    ran = program("""
for n in range(3):
    r.rpush("jobs", f"job-{n}")
def handle(job):
    work(job)
    r.set("status:" + job, "failed" if job == "job-1" else "completed")
threads = []
while (item := r.blpop("jobs", timeout=1)):
    threads.append(threading.Thread(target=handle, args=(item[1],)))
    threads[-1].start()
for thread in threads:
    thread.join()
""")
    jobs = one_trace_a_job(ran, "jobs", 3)
    assert [work_of(ran, job) for job in jobs] == [["work job-0"], ["work job-1"], ["work job-2"]]
    assert [job.outcome[0] for job in jobs] == ["completed", "failed", "completed"]


def test_the_next_job_popped_in_the_finally_of_the_last_ones_thread(program: Runner) -> None:
    ran = program("""
done = threading.Event()
for n in range(3):
    r.rpush("tasks", f"task-{n}")
def run(item):
    try:
        work(item)
    finally:
        following = r.lpop("tasks")
        threading.Thread(target=run, args=(following,)).start() if following else done.set()
threading.Thread(target=run, args=(r.lpop("tasks"),)).start()
assert done.wait(10)
for thread in threading.enumerate():
    if thread is not threading.current_thread() and not thread.daemon:
        thread.join()
r.lpop("tasks")
""")
    jobs = one_trace_a_job(ran, "tasks", 3)
    assert [work_of(ran, job) for job in jobs] == [["work task-0"], ["work task-1"], ["work task-2"]]


def test_an_executor_pool(program: Runner) -> None:
    ran = program("""
for n in range(4):
    r.rpush("jobs", f"job-{n}")
with ThreadPoolExecutor(2) as pool:
    while (item := r.lpop("jobs")):
        pool.submit(work, item)
""")
    jobs = one_trace_a_job(ran, "jobs", 4)
    assert [work_of(ran, job) for job in jobs] == [[f"work job-{n}"] for n in range(4)], ran.outline()


ASYNC = """
a = redis.asyncio.Redis.from_url(URL, decode_responses=True)
async def fill(count=3):
    for n in range(count):
        await a.rpush("jobs", f"job-{n}")
"""

ASYNC_LOOPS = {
    "plain": """
async def main():
    await fill()
    while (item := await a.blpop("jobs", timeout=1)):
        await awork(item[1])
""",
    "wait_for": """
async def main():
    await fill()
    while True:
        try:
            item = await asyncio.wait_for(a.blpop("jobs", timeout=0), timeout=0.3)
        except asyncio.TimeoutError:
            break
        await awork(item[1])
        await a.get("config")
""",
    "to_thread": """
async def main():
    await fill()
    while (item := await asyncio.to_thread(r.blpop, "jobs", 1)):
        await awork(item[1])
""",
    "executor": """
async def main():
    await fill()
    loop = asyncio.get_running_loop()
    while (item := await loop.run_in_executor(None, lambda: r.blpop("jobs", 1))):
        await awork(item[1])
""",
    "dispatcher": """
async def main():
    await fill()
    gate, tasks = asyncio.Semaphore(2), set()
    async def handle(item):
        try:
            await awork(item)
            await a.set("status:" + item, "completed")
        finally:
            gate.release()
    while True:
        await gate.acquire()
        item = await a.lpop("jobs")
        if item is None:
            break
        task = asyncio.create_task(handle(item))
        tasks.add(task)
    await asyncio.gather(*tasks)
""",
    "pipeline": """
async def main():
    await fill()
    while True:
        async with a.pipeline(transaction=True) as pipe:
            pipe.lpop("jobs")
            pipe.llen("jobs")
            item, _ = await pipe.execute()
        if item is None:
            break
        await awork(item)
""",
    "consumers": """
async def consumer():
    while (item := await a.blpop("jobs", timeout=1)):
        await awork(item[1])
async def main():
    await fill()
    await asyncio.gather(consumer(), consumer())
""",
}


@pytest.mark.parametrize("loop", ASYNC_LOOPS)
def test_asyncio(program: Runner, loop: str) -> None:
    ran = program(ASYNC + ASYNC_LOOPS[loop] + "\nasyncio.run(main())\n")
    jobs = one_trace_a_job(ran, "jobs", 3)
    assert [work_of(ran, job) for job in jobs] == [["work job-0"], ["work job-1"], ["work job-2"]], ran.outline()


def test_a_strict_dataclass_gets_what_was_pushed(program: Runner) -> None:
    ran = program("""
from dataclasses import dataclass
@dataclass
class Job:
    job_id: str
    prompt: str
text = json.dumps({"job_id": "x", "prompt": "a cat"}, indent=1)
r.lpush("jobs", text)
assert r.lrange("jobs", 0, -1) == [text]
item = r.brpop("jobs", timeout=1)
assert item[1] == text and type(item[1]) is str
work(Job(**json.loads(item[1])).job_id)
assert r.brpop("jobs", timeout=1) is None
""")
    one_trace_a_job(ran, "jobs", 1)


def test_a_request_that_waits_for_its_answer_is_no_job(program: Runner) -> None:
    ran = program("""
def worker():
    while (item := r.brpop("jobs", timeout=1)):
        work(item[1])
        r.lpush("result:" + item[1], "ok")
thread = threading.Thread(target=worker)
thread.start()
identifier = "0f8fad5b-d9cb-469f-a165-70867728950e"
with tracer.start_as_current_span("POST /render", kind=trace.SpanKind.SERVER):
    r.lpush("jobs", identifier)
    assert r.brpop("result:" + identifier, timeout=5)[1] == "ok"
thread.join()
""")
    assert not ran.failures
    assert len(ran.jobs) == 1, ran.outline()
    assert len(ran.traces) == 1, ran.outline()
    assert [send.name for send in ran.sends] == ["send jobs"]
    assert ran.jobs[0].parent_id == ran.sends[0].span_id


def test_frameworks_keys_are_theirs(program: Runner) -> None:
    ran = program("""
r.lpush("rq:queue:default", "x")
r.rpop("rq:queue:default")
r.zadd("arq:queue", {"x": 1})
with tracer.start_as_current_span("request"):
    r.lpush("bull:videos:wait", "x")
    r.get("celery-task-meta-1")
""")
    assert [span.name for span in ran.spans] == ["request"]


def test_without_side_keys_payloads_and_jobs_are_the_same_but_unrelated(program: Runner) -> None:
    ran = program(
        """
r.lpush("jobs", "a")
assert r.keys("*") == ["jobs"]
r.rpop("jobs"); r.rpop("jobs")
""",
        environment={"OTEL_PIPELINE_CARRIER": "off"},
    )
    assert len(ran.traces) == 2, ran.outline()
    assert [job.parent_id for job in ran.jobs] == [None]


def test_context_in_json_is_taken_out_again(program: Runner) -> None:
    ran = program(
        """
text = '{"job_id": "x",  "n": 1 }'
r.lpush("jobs", text)
assert "otelp" in r.lindex("jobs", 0)
b.lpush("jobs", "no json")
items = [b.brpop("jobs", 1)[1] for _ in range(2)]
assert items == [text.encode(), b"no json"], items
b.rpop("jobs")
""",
        environment={"OTEL_PIPELINE_CARRIER": "json"},
    )
    one_trace_a_job(ran, "jobs", 2)


def test_a_server_without_permission_costs_the_context_alone(program: Runner) -> None:
    ran = program("""
b.execute_command("ACL", "SETUSER", "narrow", "on", ">secret", "~jobs", "+@all")
n = redis.Redis.from_url(URL, username="narrow", password="secret")
n.lpush("jobs", "a")
assert n.rpop("jobs") == b"a"
assert n.rpop("jobs") is None
""")
    assert [job.parent_id for job in ran.jobs] == [None], ran.outline()


def test_the_program_gets_its_own_errors(program: Runner) -> None:
    ran = program("""
r.set("jobs", "text")
for call in (lambda: r.lpush("jobs", "x"), lambda: r.lpop("jobs"), lambda: r.pipeline().lpush("jobs", 1).execute()):
    try:
        call()
    except redis.ResponseError as error:
        assert "WRONGTYPE" in str(error)
    else:
        raise AssertionError("no error")
assert isinstance(r.pipeline().lpop("jobs").execute(raise_on_error=False)[0], redis.ResponseError)
""")
    assert not ran.failures
    assert {send.status for send in ran.sends} == {"ERROR"}
    assert not ran.jobs
