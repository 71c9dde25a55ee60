"""The Redis adapter and the program that it runs in: nothing of ours shows, in any version of redis-py."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_pipeline.demo.loopback import HOST, free_ports
from otel_pipeline.demo.processes import child
from otel_pipeline.demo.redis_server import find_binary, redis_server
from tests.integration.worker.test_redis_loops import ASYNC, ASYNC_LOOPS, HEAD, one_trace_a_job, work_of
from tests.support.worker_redis import ROOT, Ran, run

OLD = ROOT / ".cache" / "peers" / "arq"
"""redis-py 5, as one of the peers needs it; not in every checkout."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.fixture
def program(tmp_path: Path, server: str) -> Callable[..., Ran]:
    def runner(script: str, **options: object) -> Ran:
        return run(tmp_path, HEAD + "r.flushall()\n" + script, environment={"REDIS_URL": server}, **options)  # type: ignore[arg-type]

    return runner


EVERYTHING = """
def everything(x):
    said = []
    x.flushall()
    said.append(x.lpush("jobs", "a", "b", json.dumps({"job_id": "c"})))
    said.append(x.lrange("jobs", 0, -1))
    said.append(x.brpop("jobs", timeout=1))
    said.append(x.hset("job:a", mapping={"status": "done", "n": 1}))
    said.append(x.hgetall("job:a"))
    said.append(list(x.lpop("jobs", 2)))
    said.append(x.lpop("jobs"))
    said.append(x.pipeline().rpush("jobs", "d").set("k", "v").lpop("jobs").execute())
    said.append(x.zadd("tasks:delayed", {"m": 1}))
    said.append(x.zrangebyscore("tasks:delayed", 0, 5))
    said.append(x.zrem("tasks:delayed", "m"))
    said.append(x.zadd("prio:jobs", {"m": 1, "n": 2}))
    said.append(x.bzpopmin("prio:jobs", 1))
    said.append(x.zpopmin("prio:jobs", 5))
    x.xgroup_create("stream:jobs", "g", mkstream=True)
    ids = [x.xadd("stream:jobs", {"job_id": name}, id=f"1-{name}") for name in "123"]
    answer = x.xreadgroup("g", "me", {"stream:jobs": ">"}, count=2)
    said.append(answer)
    said.append(x.xack("stream:jobs", "g", *ids))
    said.append(x.xreadgroup("g", "me", {"stream:jobs": ">"}, count=2))
    said.append(x.xautoclaim("stream:jobs", "g", "me", 0))
    said.append(x.rpoplpush("jobs", "processing"))
    said.append(x.eval("return ARGV[1]", 1, "jobs", "lua"))
    for call in (lambda: x.lpush("k", 1), lambda: x.lpop("k"), lambda: x.execute_command("NONSENSE")):
        try:
            call()
        except redis.RedisError as error:
            said.append((type(error).__name__, str(error)))
    return repr(said)
"""


def test_a_fault_in_any_of_our_hooks_does_not_reach_the_program(program: Callable[..., Ran]) -> None:
    script = (
        EVERYTHING
        + """
for decode in (True, False):
    x = redis.Redis.from_url(URL, decode_responses=decode)
    print(everything(x))
"""
    )
    plain = program(script, adapters=("none",))
    faulty = program(
        script.replace(
            "    print(everything(x))",
            """
    from otel_pipeline.worker.guard import HOOKS
    said = {everything(x)}
    names = [name for name in HOOKS if name.split(".")[0] in {"redis", "flow", "tasks", "job", "outcomes"}]
    assert len(names) > 12, names
    for name in names:
        HOOKS[name].fault = RuntimeError("a fault of ours")
        said.add(everything(x))
        HOOKS[name].fault = None
    assert len(said) == 1, said
    print(said.pop())
""",
        )
    )
    assert faulty.output == plain.output
    assert {name for name in faulty.failures if name.startswith("redis.")} >= {
        "redis.begin",
        "redis.begin_pipeline",
        "redis.opened",
        "redis.hushed",
        "redis.answered",
        "redis.looked_up",
        "redis.done",
        "redis.failed",
        "redis.batch_step",
        "redis.pipeline",
    }


def test_functions_stay_what_they_are(program: Callable[..., Ran]) -> None:
    ran = program("""
import inspect
print([inspect.iscoroutinefunction(kind.execute_command) for kind in (redis.Redis, redis.asyncio.Redis)])
print(redis.Redis.execute_command.__name__, inspect.signature(redis.asyncio.client.Pipeline.execute))
""")
    assert ran.output.splitlines() == [
        "[False, True]",
        "execute_command (self, raise_on_error: bool = True) -> List[Any]",
    ]


def test_a_batch_is_a_list(program: Callable[..., Ran]) -> None:
    program("""
import copy, pickle
for n in range(3):
    r.rpush("jobs", f"job-{n}")
batch = r.lpop("jobs", 3)
want = ["job-0", "job-1", "job-2"]
assert batch == want and list(batch) == want and batch[0:2] == want[:2] and batch[-1] == "job-2" and len(batch) == 3
assert json.dumps(batch) == json.dumps(want) and repr(batch) == repr(want) and sorted(batch) == want
for made in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch)):
    assert type(made) is list and made == want
first, *rest = batch
assert (first, rest) == ("job-0", want[1:]) and [*batch] == want and "job-1" in batch and batch + [] == want
while batch:
    work(batch.pop(0))
assert r.lpop("jobs", 3) is None
""")


def test_what_was_popped_and_never_looked_at_is_a_job_of_unknown_outcome(program: Callable[..., Ran]) -> None:
    ran = program("""
r.rpush("jobs", "one", "two", "three")
batch = r.lpop("jobs", 3)
work(batch[0])
r.lpop("jobs")
""")
    assert [job.outcome[0] for job in ran.jobs] == ["completed", "unknown", "unknown"], ran.outline()


def test_a_cancellation_in_the_middle_of_ours_loses_no_element(program: Callable[..., Ran]) -> None:
    ran = program("""
from otel_pipeline.worker.adapters import redis as ours
slow = asyncio.Event()
real = ours.exchange_async
async def exchange(client, commands):
    if commands and commands[0][0] == "RPOPLPUSH":
        slow.set()
        await asyncio.sleep(5)
    return await real(client, commands)
ours.exchange_async = exchange
a = redis.asyncio.Redis.from_url(URL, decode_responses=True)
got = []
async def consumer():
    got.append(await a.blpop("jobs", timeout=1))
    await asyncio.sleep(5)
    got.append("not reached")
async def main():
    await a.rpush("jobs", "one", "two")
    task = asyncio.create_task(consumer())
    await slow.wait()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        got.append("cancelled")
    got.append(await asyncio.wait_for(a.blpop("jobs", timeout=0), 0.2))
    async with asyncio.timeout(0.3):
        await asyncio.sleep(0.01)
asyncio.run(main())
print(got)
""")
    assert ran.output.strip() == "[('jobs', 'one'), 'cancelled', ('jobs', 'two')]" or ran.output.strip() == (
        "[['jobs', 'one'], 'cancelled', ['jobs', 'two']]"
    )


@pytest.mark.skipif(not OLD.is_dir(), reason="redis-py 5 is not here")
@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_5(program: Callable[..., Ran], protocol: int) -> None:
    script = (
        EVERYTHING
        + f"""
assert redis.__version__.startswith("5.")
x = redis.Redis.from_url(URL, decode_responses=True, protocol={protocol})
print(everything(x))
"""
    )
    plain = program(script, adapters=("none",), path=(OLD,))
    ours = program(script, path=(OLD,))
    assert ours.output == plain.output
    assert not ours.failures


QUEUES = {
    "blpop": ("x.rpush('jobs', 'one', 'two')", "x.blpop('jobs', timeout=1)"),
    "count": ("x.rpush('jobs', 'one', 'two')", "x.lpop('jobs', 5)"),
    "zpopmin": ("x.zadd('jobs', {'one': 1, 'two': 2})", "x.zpopmin('jobs', 2)"),
    "one by one": ("x.zadd('jobs', {'one': 1, 'two': 2})", "x.zpopmin('jobs')"),
    "bzpopmin": ("x.zadd('jobs', {'one': 1, 'two': 2})", "x.bzpopmin('jobs', 1)"),
    "lmpop": ("x.rpush('jobs', 'one', 'two')", "x.lmpop(1, 'jobs', direction='LEFT', count=2)"),
    "stream": (
        "[x.xadd('jobs', {'job_id': n}) for n in ('one', 'two')]",
        "x.xreadgroup('g', 'me', {'jobs': '>'}, count=2)",
    ),
}


@pytest.mark.parametrize("old", [False, pytest.param(True, marks=pytest.mark.skipif(not OLD.is_dir(), reason="no"))])
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("kind", QUEUES)
def test_each_pop_in_each_protocol(program: Callable[..., Ran], kind: str, protocol: int, old: bool) -> None:  # noqa: FBT001
    push, pop = QUEUES[kind]
    ran = program(
        f"""
x = redis.Redis.from_url(URL, decode_responses=True, protocol={protocol})
if {kind!r} == "stream":
    x.xgroup_create("jobs", "g", mkstream=True)
{push}
def leaves(item):
    if isinstance(item, dict):
        item = list(item.items())
    if isinstance(item, (list, tuple)):
        for each in item:
            yield from leaves(each)
    elif item in ("one", "two"):
        yield item
while (answer := {pop}):
    for name in leaves(answer):
        work(name)
""",
        path=(OLD,) if old else (),
    )
    jobs = one_trace_a_job(ran, "jobs", 2)
    assert [work_of(ran, job) for job in jobs] == [["work one"], ["work two"]], ran.outline()


@pytest.mark.skipif(not OLD.is_dir(), reason="redis-py 5 is not here")
@pytest.mark.parametrize("loop", ["plain", "wait_for", "pipeline"])
def test_redis_py_5_with_asyncio(program: Callable[..., Ran], loop: str) -> None:
    ran = program(ASYNC + ASYNC_LOOPS[loop] + "\nasyncio.run(main())\n", path=(OLD,))
    jobs = one_trace_a_job(ran, "jobs", 3)
    assert [work_of(ran, job) for job in jobs] == [["work job-0"], ["work job-1"], ["work job-2"]], ran.outline()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A cluster of one node."""
    folder = tmp_path_factory.mktemp("cluster")
    port = free_ports({"redis": 0})["redis"]
    bus = free_ports({"bus": 0})["bus"]
    options = (
        "--bind",
        HOST,
        "--port",
        str(port),
        "--save",
        "",
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        str(bus),
    )
    with child("redis", (find_binary(), *options, "--dir", str(folder)), folder):
        script = (
            f"import redis, time\nr = redis.Redis(port={port}, host='{HOST}')\n"
            "from redis.exceptions import ConnectionError\n"
            "for _ in range(500):\n"
            "    try:\n        r.ping(); break\n    except ConnectionError:\n        time.sleep(0.02)\n"
            "r.execute_command('CLUSTER', 'ADDSLOTSRANGE', 0, 16383)\n"
            "for _ in range(500):\n"
            "    if b'cluster_state:ok' in r.execute_command('CLUSTER', 'INFO', NEVER_DECODE=True): break\n"
            "    time.sleep(0.02)\n"
        )
        subprocess.run((ROOT / ".venv" / "bin" / "python", "-c", script), check=True, timeout=30)
        yield port


CLUSTER = """
from redis.cluster import RedisCluster
import redis.asyncio.cluster
c = RedisCluster(host="127.0.0.1", port=int(os.environ["PORT"]), decode_responses=True)
c.flushall()
"""
CLUSTER_LOOPS = {
    "sync": """
for n in range(2):
    c.rpush("jobs", f"job-{n}")
c.pipeline().set("k", "v").rpush("jobs", "job-2").execute()
while (item := c.lpop("jobs")):
    work(item)
    c.set("status:" + item, "done")
""",
    "asyncio": """
async def main():
    a = redis.asyncio.cluster.RedisCluster(host="127.0.0.1", port=int(os.environ["PORT"]), decode_responses=True)
    for n in range(2):
        await a.rpush("jobs", f"job-{n}")
    await a.pipeline().set("k", "v").rpush("jobs", "job-2").execute()
    while (item := await a.lpop("jobs")):
        await awork(item)
        await a.set("status:" + item, "done")
    await a.aclose()
asyncio.run(main())
""",
}


@pytest.mark.parametrize("old", [False, pytest.param(True, marks=pytest.mark.skipif(not OLD.is_dir(), reason="no"))])
@pytest.mark.parametrize("kind", CLUSTER_LOOPS)
def test_a_cluster(tmp_path: Path, cluster: int, kind: str, old: bool) -> None:  # noqa: FBT001
    environment = {"REDIS_URL": "redis://nowhere", "PORT": str(cluster)}
    path = (OLD,) if old else ()
    ran = run(tmp_path, HEAD + CLUSTER + CLUSTER_LOOPS[kind], environment=environment, path=path)
    jobs = one_trace_a_job(ran, "jobs", 3)
    assert [work_of(ran, job) for job in jobs] == [["work job-0"], ["work job-1"], ["work job-2"]], ran.outline()
    assert [job.outcome for job in jobs] == [("completed", "status")] * 3


def test_polls_and_errors_are_counted(program: Callable[..., Ran]) -> None:
    ran = program("""
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
for _ in range(3):
    r.lpop("jobs")
r.rpush("jobs", "one")
r.lpop("jobs")
try:
    r.execute_command("NONSENSE")
except redis.ResponseError:
    pass
seen = []
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            for point in metric.data.data_points:
                seen.append((metric.name, point.value, *sorted(point.attributes.values())))
print(sorted(seen))
""")
    assert ran.output.strip() == repr(
        [
            ("otel_pipeline.queue.polls", 1, "jobs", "message"),
            ("otel_pipeline.queue.polls", 3, "empty", "jobs"),
            ("redis.errors", 1, "redis.exceptions.ResponseError"),
        ]
    )
