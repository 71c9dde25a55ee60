"""What host programs do with the libraries that we hook, as small flows whose results can be compared.

A flow does something with one library the way programs do and returns all that the program could notice: values,
exceptions, bytes left in Redis. Run in a child process, which says as JSON what it saw (`test_faults`):

    python -c 'from tests.support.worker_battery import main; main()' MODE OPTIONS

`plain` runs each flow without us. `faults` runs each with us, then once for every hook with an exception thrown in that
hook, then with one thrown in all.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import io
import json
import logging
import random
import re
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import Any, Final

FLOWS: Final[dict[str, Callable[[Any], Any]]] = {}
RANDOM: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b|\d{13}-\d")
"""Ids that differ from run to run: UUIDs, ids of stream entries."""
ADDRESSES: Final = re.compile(r"0x[0-9a-f]{6,}")
BROADCAST: Final = ("status", "progress_state")
"""Messages that ComfyUI sends to every client."""
FLOWS_FOR_A_HOOK: Final = 2
SECONDS_FOR_A_HOOK: Final = 0.1
"""Of the flows that reach a hook the cheapest ones are run: at least so many, and as many as fit into the time."""


def flow(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    FLOWS[function.__name__] = function
    return function


def awaited(function: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def run(world: Any) -> Any:
        return asyncio.run(function(world))

    return run


def asynchronous(function: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Any]:
    return flow(awaited(function))


def in_a_job(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The flow is the work at a job that was popped from a list."""

    @functools.wraps(function)
    def run(world: World) -> Any:
        client = world.redis()
        client.rpush("jobs:queue", TEXT)
        popped = client.lpop("jobs:queue")
        try:
            return [popped, function(world), client.lpop("jobs:queue")]
        finally:
            client.close()

    return flow(run)


class World:
    """Where the servers are, and clients for them."""

    def __init__(self, redis: str, comfyui: str, only: list[str], **_: Any) -> None:
        self.redis_url, self.comfyui, self.only = redis, comfyui, only

    def redis(self, **options: Any) -> Any:
        import redis

        client = redis.Redis.from_url(self.redis_url, **options)
        client.flushdb()
        return client

    def async_redis(self) -> Any:
        import redis.asyncio

        return redis.asyncio.Redis.from_url(self.redis_url)


def attempt(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The value, or the exception as a value."""
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        return [type(error).__qualname__, str(error)]


TASK: Final = {"job_id": "job-1", "user_id": "u", "workflow": "portrait", "created_at": 5}
TEXT: Final = json.dumps(TASK)


def own_keys(client: Any) -> list[Any]:
    return sorted(key for key in client.keys("*") if not bytes(key).startswith(b"otelp:"))


# -- Redis -------------------------------------------------------------------------------------------------------------


@flow
def redis_lists(world: World) -> Any:
    client = world.redis()
    seen: list[Any] = [
        client.rpush("jobs:queue", TEXT, "bare-id"),
        client.lpush("jobs:queue", b"\xff\x00binary"),
        client.lpushx("no", "x"),
    ]
    seen += [client.lrange("jobs:queue", 0, -1), own_keys(client)]
    seen += [
        client.blpop(["jobs:queue"], timeout=1),
        client.brpop("jobs:queue", timeout=1),
        client.lpop("jobs:queue"),
        client.lpop("jobs:queue"),
    ]
    seen += [client.hset("status:job-1", mapping={"status": "failed", "error": "x"}), client.hgetall("status:job-1")]
    client.rpush("jobs:queue", TEXT, TEXT, "third")
    seen += [
        client.lpop("jobs:queue", 2),
        client.rpoplpush("jobs:queue", "jobs:processing"),
        client.lrem("jobs:processing", 0, "third"),
    ]
    client.rpush("jobs:queue", TEXT)
    seen += [
        client.lmove("jobs:queue", "jobs:processing", "LEFT", "RIGHT"),
        client.lmpop(1, "jobs:processing", direction="LEFT"),
        client.lpop("jobs:queue"),
    ]
    seen += [
        attempt(client.blpop, "status:job-1", 1),
        attempt(client.rpush, "status:job-1", "x"),
        client.llen("jobs:queue"),
    ]
    seen += [client.set("result:job-1", json.dumps({"status": "completed"})), client.get("result:job-1")]
    seen += [
        client.execute_command("RPUSH", "jobs:queue", "raw"),
        client.execute_command("LPOP", "jobs:queue"),
        own_keys(client),
    ]
    client.close()
    return seen


@flow
def redis_with_few_rights(world: World) -> Any:
    """A user of the server who may touch the queue's keys only."""
    import redis

    admin = world.redis()
    admin.execute_command("ACL", "SETUSER", "limited", "on", "nopass", "~jobs:*", "+@all")
    client = redis.Redis.from_url(world.redis_url.replace("redis://", "redis://limited:x@"))
    seen = [client.rpush("jobs:queue", TEXT), client.lpop("jobs:queue"), client.lpop("jobs:queue")]
    seen += [attempt(client.rpush, "other:queue", "x")[0]]
    client.close()
    admin.close()
    return seen


@flow
def redis_decoded(world: World) -> Any:
    client = world.redis(decode_responses=True)
    seen: list[Any] = [client.rpush("jobs:queue", TEXT), client.blpop("jobs:queue", 1), client.lpop("jobs:queue")]
    seen += [client.publish("done", json.dumps({"job_id": "job-1", "status": "failed"}))]
    client.close()
    return seen


@flow
def redis_pipelines(world: World) -> Any:
    client = world.redis()
    with client.pipeline(transaction=True) as pipe:
        pipe.hset("task:job-1", mapping={"user_id": "u"})
        pipe.rpush("jobs:queue", "job-1")
        pipe.zadd("jobs:pending", {"job-1": 3})
        pipe.xadd("jobs:stream", {"payload": TEXT}, id="1-1")
        seen: list[Any] = [
            pipe.execute(),
            client.lrange("jobs:queue", 0, -1),
            client.zrange("jobs:pending", 0, -1),
            client.xrange("jobs:stream"),
        ]
    with client.pipeline() as pipe:
        pipe.lpop("jobs:queue")
        pipe.zpopmin("jobs:pending")
        pipe.hgetall("task:job-1")
        seen.append(pipe.execute())
    with client.pipeline() as pipe:
        pipe.rpush("jobs:queue", "a")
        pipe.lpush("task:job-1", "wrong type")
        seen.append(attempt(pipe.execute))
        seen.append(attempt(client.transaction, _in_a_transaction, "jobs:queue"))
    seen.append(own_keys(client))
    client.close()
    return seen


def _in_a_transaction(pipe: Any) -> None:
    pipe.multi()
    pipe.lpush("jobs:queue", "b")
    pipe.lpop("jobs:queue")


@flow
def redis_streams(world: World) -> Any:
    client = world.redis()
    seen: list[Any] = [client.xadd("jobs:stream", {"job_id": "job-1", "payload": TEXT}, id=f"{n}-1") for n in (1, 2, 3)]
    seen += [client.xrange("jobs:stream"), client.xgroup_create("jobs:stream", "g", id="0")]
    for _ in range(2):
        seen += [client.xreadgroup("g", "c", {"jobs:stream": ">"}, count=1), client.xack("jobs:stream", "g", "1-1")]
    seen += [
        client.xread({"jobs:stream": "2-1"}, count=2),
        client.xautoclaim("jobs:stream", "g", "other", 0),
        client.xlen("jobs:stream"),
    ]
    seen += [
        client.xclaim("jobs:stream", "g", "third", 0, ["2-1"]),
        client.xreadgroup("g", "c", {"jobs:stream": ">"}, block=1),
    ]
    client.close()
    return seen


@flow
def redis_batches(world: World) -> Any:
    client, seen = world.redis(), []
    client.rpush("jobs:queue", *(json.dumps({**TASK, "job_id": f"job-{n}"}) for n in range(4)))
    for each in client.lpop("jobs:queue", 2):
        seen.append(json.loads(each)["job_id"])
    abandoned = client.lpop("jobs:queue", 2)
    for each in abandoned:
        seen += [
            each,
            isinstance(abandoned, list),
            json.dumps(abandoned == list(abandoned)),
            len(abandoned),
            abandoned[0],
        ]
        break
    del abandoned, each
    for n in (1, 2, 3):
        client.xadd("jobs:stream", {"job_id": f"job-{n}"}, id=f"{n}-1")
    client.xgroup_create("jobs:stream", "g", id="0")
    for _, messages in client.xreadgroup("g", "c", {"jobs:stream": ">"}, count=3):
        for message_id, fields in messages:
            seen += [message_id, fields, client.xack("jobs:stream", "g", message_id)]
    seen += [client.lpop("jobs:queue", 2), client.xreadgroup("g", "c", {"jobs:stream": ">"}, count=3)]
    client.close()
    return seen


@flow
def redis_sorted_sets(world: World) -> Any:
    client = world.redis()
    seen: list[Any] = [
        client.zadd("jobs:pending", {"job-1": 1, TEXT: 2, "job-3": 3}),
        client.zrange("jobs:pending", 0, -1, withscores=True),
    ]
    seen += [
        client.bzpopmin("jobs:pending", timeout=1),
        client.zpopmin("jobs:pending"),
        client.zpopmax("jobs:pending"),
        client.bzpopmin("jobs:pending", timeout=0.01),
    ]
    client.zadd("jobs:pending", {"job-4": 1})
    seen += [
        client.zrangebyscore("jobs:pending", 0, 5),
        client.zrem("jobs:pending", "job-4"),
        client.hset("task:job-4", "progress", -1),
    ]
    client.close()
    return seen


@asynchronous
async def redis_async(world: World) -> Any:
    client = world.async_redis()
    await client.flushdb()
    seen: list[Any] = [await client.rpush("jobs:queue", TEXT, "bare"), await client.lrange("jobs:queue", 0, -1)]
    seen += [
        await client.blpop("jobs:queue", timeout=1),
        await client.lpop("jobs:queue"),
        await client.lpop("jobs:queue"),
    ]
    async with client.pipeline() as pipe:
        pipe.rpush("jobs:queue", TEXT).zadd("jobs:pending", {"job-2": 1})
        seen.append(await pipe.execute())
    seen += [
        await asyncio.wait_for(client.blpop("jobs:queue", timeout=1), 2),
        await client.bzpopmin("jobs:pending", timeout=1),
    ]
    seen += [
        await client.xadd("jobs:stream", {"payload": TEXT}, id="1-1"),
        await client.xgroup_create("jobs:stream", "g", id="0"),
    ]
    seen += [await client.xreadgroup("g", "c", {"jobs:stream": ">"}), await client.xack("jobs:stream", "g", "1-1")]
    try:
        await client.hset("q2", "a", "b")
        await client.lpop("q2")
    except Exception as error:
        seen.append(str(error))
    await client.aclose()
    return seen


# -- threads and tasks --------------------------------------------------------------------------------------------------


@flow
def threads(world: World) -> Any:
    import threading
    from concurrent.futures import ThreadPoolExecutor

    client, seen = world.redis(), []
    client.rpush("jobs:queue", TEXT, "second")
    client.lpop("jobs:queue")
    with ThreadPoolExecutor(2) as pool:
        seen += [pool.submit(double, 2).result(), list(pool.map(double, (1, 2))), attempt(pool.submit(fail).result)]
    thread = threading.Thread(target=seen.append, args=("in a thread",))
    thread.start()
    thread.join()
    own = OwnThread(seen)
    own.start()
    own.join()
    seen.append(client.lpop("jobs:queue"))
    client.close()
    return seen


@flow
def threads_that_die(world: World) -> Any:
    """They pop a job and end, one by an exception."""
    import threading

    client, seen = world.redis(), []
    client.rpush("jobs:queue", TEXT, "second")
    hook, threading.excepthook = threading.excepthook, lambda args: seen.append(args.exc_type.__name__)
    try:
        for broken in (False, True):
            thread = threading.Thread(target=_pop_and_end, args=(client, seen, broken))
            thread.start()
            thread.join()
    finally:
        threading.excepthook = hook
    client.close()
    return seen


def _pop_and_end(client: Any, seen: list[Any], broken: bool) -> None:  # noqa: FBT001
    seen.append(client.lpop("jobs:queue"))
    if broken:
        fail()


def double(number: int) -> int:
    return number * 2


def fail() -> None:
    raise KeyError("of the host")


def _own_thread() -> Any:
    import threading

    class Thread(threading.Thread):
        def __init__(self, seen: list[Any]) -> None:
            super().__init__()
            self.seen = seen

        def run(self) -> None:
            self.seen.append("in its own run")

    return Thread


OwnThread: Final = _own_thread()


@asynchronous
async def tasks(world: World) -> Any:
    client = world.async_redis()
    await client.flushdb()
    await client.rpush("jobs:queue", TEXT, "second")
    seen: list[Any] = [await client.lpop("jobs:queue")]

    async def work(number: int) -> int:
        await asyncio.sleep(0)
        if number == 3:
            raise ValueError("of the host")
        return number

    seen += [await asyncio.gather(work(1), work(2)), await asyncio.create_task(work(4), name="own")]
    failed = await asyncio.gather(work(3), return_exceptions=True)
    seen += [repr(failed), await asyncio.to_thread(double, 4)]
    seen.append(await asyncio.get_running_loop().run_in_executor(None, functools.partial(double, 5)))
    task = asyncio.create_task(asyncio.sleep(5))
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    seen += [task.cancelled(), await asyncio.wait_for(client.lpop("jobs:queue"), 1)]
    await client.aclose()
    plain = world.redis()
    plain.rpush("jobs:queue", TEXT)
    seen.append(await asyncio.to_thread(plain.lpop, "jobs:queue"))
    seen.append(await asyncio.to_thread(_pop_there, plain))
    plain.close()
    return seen


def _pop_there(client: Any) -> Any:
    return client.lpop("jobs:queue")


@asynchronous
async def pops_in_threads(world: World) -> Any:
    """As asyncio programs use a client that is not: each pop in a pool thread."""
    client, seen = world.redis(), []
    client.rpush("jobs:queue", TEXT, "second", "third")
    while (popped := await asyncio.to_thread(client.lpop, "jobs:queue")) is not None:
        await asyncio.sleep(0)
        seen += [popped, await asyncio.to_thread(client.set, "status:job-1", "done")]
    client.close()
    return seen


@asynchronous
async def items_awaited(world: World) -> Any:
    from opentelemetry import trace

    jobs: asyncio.Queue[Any] = asyncio.Queue()
    with trace.get_tracer("host").start_as_current_span("request", kind=trace.SpanKind.SERVER):
        for number in range(3):
            jobs.put_nowait({**TASK, "job_id": f"job-{number}"})
    client = world.redis()
    client.rpush("jobs:queue", TEXT)
    popped = client.lpop("jobs:queue")
    jobs.put_nowait({"job_id": "part of the job"})
    client.close()

    async def consume() -> list[Any]:
        seen = []
        while not jobs.empty():
            seen.append((await asyncio.wait_for(jobs.get(), 1))["job_id"])
            jobs.task_done()
            await asyncio.sleep(0)
        return seen

    return [popped, await contextvars.Context().run(asyncio.create_task, consume())]


# -- the program's own functions and queues -----------------------------------------------------------------------------


def job_function(task: dict[str, Any]) -> dict[str, Any]:
    return {"status": "failed", "id": task["job_id"]}


async def job_coroutine(task: dict[str, Any]) -> str:
    await asyncio.sleep(0)
    raise ValueError(task["job_id"])


def job_generator(task: dict[str, Any]) -> Any:
    yield task["job_id"]
    yield 2
    return 3


async def job_async_generator(task: dict[str, Any]) -> Any:
    yield task["job_id"]
    await asyncio.sleep(0)
    yield 2


JOB_FUNCTIONS: Final = ("job_function", "job_coroutine", "job_generator", "job_async_generator")


@asynchronous
async def functions(_: World) -> Any:
    import inspect

    seen: list[Any] = [
        job_function(TASK),
        list(job_generator(TASK)),
        [each async for each in job_async_generator(TASK)],
    ]
    try:
        await job_coroutine(TASK)
    except ValueError as error:
        seen.append(str(error))
    abandoned = job_generator(TASK)
    seen += [next(abandoned), abandoned.close()]
    own = (job_function, job_coroutine, job_generator, job_async_generator)
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return [*seen, [[kind(each) for kind in kinds] for each in own], [str(inspect.signature(each)) for each in own]]


@asynchronous
async def in_process_queues(_: World) -> Any:
    import queue
    import threading

    from opentelemetry import trace

    seen: list[Any] = []
    with trace.get_tracer("host").start_as_current_span("request", kind=trace.SpanKind.SERVER):
        jobs: asyncio.Queue[Any] = asyncio.Queue()
        await jobs.put(TASK)
        jobs.put_nowait(("id", 2))
        plain: queue.Queue[Any] = queue.Queue()
        plain.put({"job_id": "3"})
        plain.put(None)
        ordered: queue.PriorityQueue[Any] = queue.PriorityQueue()
        ordered.put((2, "b"))
        ordered.put((1, "a"))
        small: queue.Queue[Any] = queue.Queue(1)
        narrow: asyncio.Queue[Any] = asyncio.Queue(1)
        for full in (small.put_nowait, narrow.put_nowait):
            full(TASK)
            seen.append(attempt(full, TASK)[0])
        waiting: asyncio.Queue[Any] = asyncio.Queue()
        await waiting.put({"job_id": "4"})

    async def consume() -> None:
        seen.append(await jobs.get())
        jobs.task_done()
        seen.append(jobs.get_nowait())
        jobs.task_done()
        seen.append(attempt(jobs.get_nowait))
        seen.append(await asyncio.wait_for(waiting.get(), 1))

    await asyncio.create_task(consume())

    def drain() -> None:
        while (item := plain.get()) is not None:
            seen.append(item)
            plain.task_done()
        seen.append(attempt(plain.get, timeout=0.001))

    thread = threading.Thread(target=drain)
    thread.start()
    thread.join()
    seen += [ordered.get(), ordered.get(), ordered.qsize(), jobs.empty(), plain.unfinished_tasks]
    return seen


# -- ComfyUI ------------------------------------------------------------------------------------------------------------


def graph(kind: str = "ok") -> dict[str, Any]:
    """Never the same twice: a cached prompt sends fewer messages."""
    nodes: dict[str, Any] = {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": random.getrandbits(48)},
        },
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "battery"}},
    }
    if kind == "error":
        nodes["3"] = {"class_type": "ProbeRaise", "inputs": {"image": ["2", 0], "message": "boom from node"}}
        nodes["9"]["inputs"]["images"] = ["3", 0]
    if kind == "refused":
        nodes["9"]["class_type"] = "NoSuchNode"
    return nodes


def told(history: Any) -> Any:
    """What a program reads from a history entry."""
    return [[entry["status"]["status_str"], sorted(entry["outputs"])] for entry in history.values()]


def own_body(kind: str, **more: Any) -> dict[str, Any]:
    return {"prompt": graph(kind), **more}


@in_a_job
def comfyui_httpx(world: World) -> Any:
    import httpx

    seen: list[Any] = []
    with httpx.Client(base_url=world.comfyui, verify=False) as http:
        for kind in ("ok", "error", "refused"):
            body = own_body(kind, client_id="c", extra_data={"mine": 1})
            kept = json.dumps(body)
            answer = http.post("/prompt", json=body)
            seen += [answer.status_code, sorted(answer.json()), json.dumps(body) == kept]
            if kind != "refused":
                seen.append(_httpx_wait(http, answer.json()["prompt_id"]))
        with http.stream("GET", "/system_stats") as answer:
            seen.append(len(b"".join(answer.iter_bytes())) > 100)
        seen += [http.post("/interrupt", json={}).status_code, http.get("/nowhere").status_code]
        seen.append(attempt(http.post, "http://127.0.0.1:9/prompt", json=own_body("ok"))[0])
        told_by_http = http.post(f"{world.comfyui}/callback", json={"job_id": "job-1", "status": "failed"})
        seen.append(told_by_http.status_code)
    return seen


def _httpx_wait(http: Any, prompt_id: str) -> Any:
    while not (history := http.get(f"/history/{prompt_id}").json()):
        time.sleep(0.002)
    for output in history[prompt_id]["outputs"].values():
        for image in output["images"]:
            return [told(history), http.get("/view", params=image).content[:8].hex()]
    return told(history)


@in_a_job
@awaited
async def comfyui_httpx_async(world: World) -> Any:
    import httpx

    seen: list[Any] = []
    async with httpx.AsyncClient(base_url=world.comfyui, verify=False) as http:
        for kind in ("ok", "error"):
            prompt_id = (await http.post("/prompt", json=own_body(kind))).json()["prompt_id"]
            while not (history := (await http.get(f"/history/{prompt_id}")).json()):
                await asyncio.sleep(0.002)
            seen.append(told(history))
        async with http.stream("GET", "/queue") as answer:
            seen.append((await answer.aread())[:20])
    return seen


@in_a_job
def comfyui_requests(world: World) -> Any:
    import requests

    session, seen = requests.Session(), []
    for kind in ("ok", "error", "refused"):
        answer = session.post(f"{world.comfyui}/prompt", json=own_body(kind))
        seen += [answer.status_code, sorted(answer.json())]
        if kind == "refused":
            continue
        prompt_id = answer.json()["prompt_id"]
        while not (history := session.get(f"{world.comfyui}/history/{prompt_id}").json()):
            time.sleep(0.002)
        seen.append(told(history))
        for output in history[prompt_id]["outputs"].values():
            for image in output["images"]:
                view = session.get(f"{world.comfyui}/view", params=image, stream=True)
                seen.append(b"".join(view.iter_content(64))[:8])
    seen.append(attempt(session.post, "http://127.0.0.1:9/prompt", json=own_body("ok"))[0])
    body = json.dumps(own_body("ok")).encode()
    prepared = requests.Request("POST", f"{world.comfyui}/prompt", data=body).prepare()
    seen.append(session.send(prepared).status_code)
    session.close()
    return seen


@in_a_job
def comfyui_urllib(world: World) -> Any:
    import urllib.error
    import urllib.request

    seen: list[Any] = []
    for kind in ("ok", "error", "refused"):
        request = urllib.request.Request(f"{world.comfyui}/prompt", data=json.dumps(own_body(kind)).encode())
        try:
            with urllib.request.urlopen(request) as answer:
                prompt_id = json.loads(answer.read())["prompt_id"]
        except urllib.error.HTTPError as error:
            seen += [error.code, error.reason, len(error.read()) > 50, error.read()]
            error.close()
            continue
        while True:
            with urllib.request.urlopen(f"{world.comfyui}/history/{prompt_id}") as answer:
                history = json.load(answer)
            if history:
                break
            time.sleep(0.002)
        seen.append(told(history))
        for output in history[prompt_id]["outputs"].values():
            for image in output["images"]:
                with urllib.request.urlopen(f"{world.comfyui}/view?filename={image['filename']}") as answer:
                    seen += [answer.read(4), answer.status, len(answer.read()) > 20, answer.headers["Content-Type"]]
    nobody = urllib.request.Request("http://127.0.0.1:9/prompt", data=json.dumps(own_body("ok")).encode())
    seen.append(attempt(urllib.request.urlopen, nobody, timeout=1)[0])
    # Nothing holds this response but the call itself.
    request = urllib.request.Request(f"{world.comfyui}/prompt", data=json.dumps(own_body("ok")).encode())
    seen.append(sorted(json.loads(urllib.request.urlopen(request).read())))
    urllib.request.urlopen(f"{world.comfyui}/history/{prompt_id}").close()
    with urllib.request.urlopen(f"{world.comfyui}/queue") as answer:
        seen.append(answer.readline()[:10])
    seen.append(urllib.request.urlretrieve(f"{world.comfyui}/features")[1]["Content-Type"])
    return seen


@in_a_job
@awaited
async def comfyui_aiohttp(world: World) -> Any:
    import aiohttp

    seen: list[Any] = []
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{world.comfyui}/ws?clientId=aio") as socket:
        for kind in ("ok", "error", "refused"):
            async with http.post(f"{world.comfyui}/prompt", json=own_body(kind, client_id="aio")) as answer:
                body = await answer.json()
                seen += [answer.status, sorted(body)]
            if kind == "refused":
                continue
            seen.append([await _until_over(_aiohttp_messages(socket))])
            async with http.get(f"{world.comfyui}/history/{body['prompt_id']}") as answer:
                history = json.loads(await answer.text())
            seen.append(told(history))
            for output in history[body["prompt_id"]]["outputs"].values():
                for image in output["images"]:
                    async with http.get(f"{world.comfyui}/view", params=image) as answer:
                        seen.append((await answer.read())[:4])
        try:
            await http.post("http://127.0.0.1:9/prompt", json=own_body("ok"))
        except aiohttp.ClientError as error:
            seen.append(type(error).__name__)
    return seen


async def _aiohttp_messages(socket: Any) -> Any:
    async for message in socket:
        yield message.data


async def _until_over(messages: Any) -> list[str]:
    kinds: list[str] = []
    async for text in messages:
        message = json.loads(text)
        kinds.append(message["type"])
        if message["type"] == "executing" and message["data"]["node"] is None:
            break
    return [kind for kind in kinds if kind not in BROADCAST]


@in_a_job
def comfyui_websocket_client(world: World) -> Any:
    import httpx
    import websocket

    seen: list[Any] = []
    address = world.comfyui.replace("http", "ws")
    for kind in ("ok", "error"):
        socket = websocket.WebSocket()
        socket.connect(f"{address}/ws?clientId=wsc")
        httpx.Client(verify=False).post(f"{world.comfyui}/prompt", json=own_body(kind, client_id="wsc"))
        kinds = []
        while True:
            message = json.loads(socket.recv())
            kinds.append(message["type"])
            if message["type"] == "executing" and message["data"]["node"] is None:
                break
        socket.settimeout(0.01)
        seen.append([each for each in kinds if each not in BROADCAST])
        seen.append(attempt(socket.recv)[0] if not kinds else None)
        socket.close()
    return seen


@in_a_job
def comfyui_websocket_app(world: World) -> Any:
    import httpx
    import websocket

    kinds: list[str] = []

    def on_open(_: Any) -> None:
        httpx.Client(verify=False).post(f"{world.comfyui}/prompt", json=own_body("ok", client_id="app"))

    def on_message(app: Any, text: str) -> None:
        message = json.loads(text)
        kinds.append(message["type"])
        if message["type"] == "executing" and message["data"]["node"] is None:
            app.close()

    app = websocket.WebSocketApp(
        world.comfyui.replace("http", "ws") + "/ws?clientId=app", on_open=on_open, on_message=on_message
    )
    ended = app.run_forever()
    return [ended, [each for each in kinds if each not in BROADCAST]]


@in_a_job
def comfyui_websockets_sync(world: World) -> Any:
    import httpx
    from websockets.sync.client import connect

    kinds: list[str] = []
    with connect(world.comfyui.replace("http", "ws") + "/ws?clientId=sync") as socket:
        httpx.Client(verify=False).post(f"{world.comfyui}/prompt", json=own_body("ok", client_id="sync"))
        for text in socket:
            message = json.loads(text)
            kinds.append(message["type"])
            if message["type"] == "executing" and message["data"]["node"] is None:
                break
        late = attempt(socket.recv, timeout=0.01)
    return [[each for each in kinds if each not in BROADCAST], late[0] if isinstance(late, list) else "status"]


@in_a_job
@awaited
async def comfyui_websockets(world: World) -> Any:
    import httpx
    from websockets.asyncio.client import connect

    async with (
        connect(world.comfyui.replace("http", "ws") + "/ws?clientId=wss") as socket,
        httpx.AsyncClient(verify=False) as http,
    ):
        await http.post(f"{world.comfyui}/prompt", json=own_body("error", client_id="wss"))
        first = json.loads(await socket.recv())["type"]
        return [first in BROADCAST, await _until_over(socket)]


@in_a_job
def comfyui_left_alone(world: World) -> Any:
    """Nobody waits for the prompt."""
    import httpx

    return httpx.Client(verify=False).post(f"{world.comfyui}/prompt", json=own_body("ok")).status_code


# -- frameworks ---------------------------------------------------------------------------------------------------------


@flow
def celery_tasks(_: World) -> Any:
    app, render, broken, again, told = _celery()
    seen: list[Any] = []
    for task in (render, broken, again, told):
        result = task.apply(args=[TASK])
        seen += [result.state, repr(result.result), attempt(result.get)]
    sent = render.apply_async(args=[TASK], task_id="fixed-id", headers={"mine": 1})
    with app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
        message = queue.get(timeout=2)
        message.ack()
        headers = {key: message.headers[key] for key in ("task", "id", "mine", "argsrepr")}
        seen += [sent.id, message.payload, headers]
    return seen


@functools.cache
def _celery() -> tuple[Any, ...]:
    import celery

    app = celery.Celery("battery", broker="memory://", backend="cache+memory://")

    @app.task(name="battery.render")
    def render(task: dict[str, Any]) -> dict[str, Any]:
        return {"status": "failed", "id": task["job_id"]}

    @app.task(name="battery.broken")
    def broken(task: dict[str, Any]) -> None:
        raise ValueError(task["job_id"])

    @app.task(name="battery.again", bind=True, max_retries=1)
    def again(self: Any, task: dict[str, Any]) -> None:
        raise self.retry(countdown=0, exc=KeyError(task["job_id"]))

    @app.task(name="battery.told", bind=True)
    def told(self: Any, task: dict[str, Any]) -> str:
        self.update_state(state="FAILURE", meta={"exc_type": "ValueError", "exc_message": task["job_id"]})
        return "told"

    return app, render, broken, again, told


def clip(task: dict[str, Any], *, fails: bool = False) -> dict[str, Any]:
    if fails:
        raise ValueError(task["job_id"])
    return {"status": "failed", "error": "told by value"}


@flow
def rq_jobs(world: World) -> Any:
    import zlib

    from rq import Queue, SimpleWorker
    from rq.job import Job

    client = world.redis()
    queue = Queue("clips", connection=client)
    module = "tests.support.worker_battery.clip"
    queue.enqueue(module, TASK, job_id="one", meta={"mine": 1})
    queue.enqueue(module, TASK, fails=True, job_id="two")
    queue.enqueue_many([Queue.prepare_data(module, (TASK,), job_id="three")])
    seen: list[Any] = [client.lrange("rq:queue:clips", 0, -1)]
    seen += [zlib.decompress(client.hget(f"rq:job:{each}", "data")) for each in ("one", "two", "three")]
    SimpleWorker([queue], connection=client).work(burst=True)
    for each in ("one", "two", "three"):
        job = Job.fetch(each, connection=client)
        seen += [job.get_status().value, job.return_value(), job.meta.get("mine"), "ValueError" in (job.exc_info or "")]
    client.close()
    return seen


@asynchronous
async def arq_jobs(world: World) -> Any:
    import arq
    from arq.connections import RedisSettings
    from arq.worker import Worker, func

    async def avatar(_: Any, task: dict[str, Any]) -> str:
        return task["job_id"]

    async def broken(ctx: Any, task: dict[str, Any]) -> None:
        if ctx["job_try"] == 1:
            raise arq.Retry(defer=0)
        raise ValueError(task["job_id"])

    pool = await arq.create_pool(RedisSettings.from_dsn(world.redis_url))
    await pool.flushdb()
    first = await pool.enqueue_job("avatar", TASK, _job_id="one")
    second = await pool.enqueue_job("broken", TASK, _job_id="two")
    twice = await pool.enqueue_job("avatar", TASK, _job_id="one")
    assert first is not None
    assert second is not None
    kept = [each async for each in _arq_bodies(pool)]
    worker = Worker(
        [func(avatar, name="avatar"), func(broken, name="broken")], redis_pool=pool, burst=True, poll_delay=0.01
    )
    await worker.main()
    seen = [kept, twice, await first.result(timeout=2)]
    try:
        await second.result(timeout=2)
    except ValueError as error:
        seen.append(str(error))
    seen += [worker.jobs_complete, worker.jobs_failed, worker.jobs_retried]
    await worker.close()
    return seen


async def _arq_bodies(pool: Any) -> Any:
    import pickle

    for each in ("one", "two"):
        body = pickle.loads(await pool.get(f"arq:job:{each}"))
        yield {key: value for key, value in body.items() if key != "et"}


@flow
def dramatiq_actors(_: World) -> Any:
    broker, worker, render, broken, seen = _dramatiq()
    seen.clear()
    message = render.send(TASK)
    broken.send_with_options(args=(TASK,), max_retries=0)
    attempt(broker.join, "default", timeout=5000)
    worker.join()
    return [message.args, message.queue_name, seen]


@functools.cache
def _dramatiq() -> tuple[Any, ...]:
    import dramatiq
    from dramatiq.brokers.stub import StubBroker

    broker, seen = StubBroker(), list[Any]()
    dramatiq.set_broker(broker)

    @dramatiq.actor(broker=broker, actor_name="render")
    def render(task: dict[str, Any]) -> dict[str, Any]:
        seen.append(task)
        return {"status": "failed"}

    @dramatiq.actor(broker=broker, actor_name="broken", max_retries=0, throws=ValueError)
    def broken(task: dict[str, Any]) -> None:
        raise ValueError(task["job_id"])

    worker = dramatiq.Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    return broker, worker, render, broken, seen


@asynchronous
async def bullmq_jobs(world: World) -> Any:
    from bullmq import FlowProducer, Queue, Worker

    client = world.async_redis()
    await client.flushdb()
    options = {"connection": world.redis_url}
    queue, done, seen = Queue("videos", options), asyncio.Event(), list[Any]()

    async def process(job: Any, _token: str) -> Any:
        seen.append([job.name, job.data])
        if job.name == "broken":
            done.set()
            raise ValueError("of the host")
        return {"status": "failed"}

    await queue.add("render", TASK, {"jobId": "own-1"})
    seen.append((await client.hget("bull:videos:own-1", "data")).decode())
    bulk = await queue.addBulk([{"name": "render", "data": TASK, "opts": {"jobId": "own-3"}}])
    seen.append([each.id for each in bulk])
    producer = FlowProducer(world.redis_url)
    tree = await producer.add({"name": "render", "queueName": "others", "data": TASK})
    seen.append(sorted(tree))
    await producer.close()
    await queue.add("broken", TASK, {"jobId": "own-2"})
    worker = Worker("videos", process, options)
    await asyncio.wait_for(done.wait(), 5)
    for _ in range(200):
        if await client.hget("bull:videos:own-2", "failedReason"):
            break
        await asyncio.sleep(0.01)
    values = [
        await client.hget("bull:videos:own-1", "returnvalue"),
        await client.hget("bull:videos:own-2", "failedReason"),
    ]
    await worker.close()
    await queue.close()
    await client.aclose()
    return [*seen, *values]


@flow
def runpod_handlers(_: World) -> Any:
    import runpod.serverless
    from runpod.serverless.modules import rp_handler, rp_job

    def handler(job: dict[str, Any]) -> dict[str, Any]:
        return {"error": "told by value", "id": job["input"]["job_id"]}

    async def broken(job: dict[str, Any]) -> None:
        raise ValueError(job["input"]["job_id"])

    def stream(job: dict[str, Any]) -> Any:
        yield job["input"]["job_id"]
        yield 2

    seen: list[Any] = []
    before, main = sys.argv, runpod.serverless.worker.main
    for each in (handler, broken, stream):
        sys.argv = ["worker", "--test_input", json.dumps({"id": "local", "input": TASK})]
        started: list[Any] = []
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                seen.append(attempt(runpod.serverless.start, {"handler": each}))
                # The handler as the SDK's own loop gets it.
                runpod.serverless.worker.main = started.append
                runpod.serverless.start({"handler": each, "own": 1})
        finally:
            sys.argv, runpod.serverless.worker.main = before, main
        [config] = started
        seen += [config["own"], rp_handler.is_generator(config["handler"]), "told by value" in printed.getvalue()]
        job = {"id": "again", "input": TASK}
        with redirect_stdout(printed):
            if each is stream:
                seen.append(asyncio.run(_runpod_stream(rp_job.run_job_generator(config["handler"], job))))
            else:
                result = asyncio.run(rp_job.run_job(config["handler"], job))
                seen.append([sorted(result), "ValueError" in str(result), result.get("output")])
    return seen


async def _runpod_stream(outputs: Any) -> list[Any]:
    return [each async for each in outputs]


@flow
def sqs_messages(_: World) -> Any:
    import boto3
    import moto

    seen: list[Any] = []
    with moto.mock_aws():
        sqs = boto3.client("sqs", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
        url = sqs.create_queue(QueueName="renders")["QueueUrl"]
        # What is not looked at: a context travels in SQS's own place for attributes, and their checksum is told.
        seen.append(set(sqs.send_message(QueueUrl=url, MessageBody=TEXT)) >= {"MD5OfMessageBody", "MessageId"})
        entries = [{"Id": str(n), "MessageBody": f"bare-{n}"} for n in range(2)]
        seen.append(len(sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]))
        for _ in range(4):
            received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1).get("Messages", [])
            for message in received:
                seen.append([message["Body"], message["MD5OfBody"]])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        seen.append(attempt(sqs.receive_message, QueueUrl="http://nowhere.invalid/1/none")[0])
    return seen


@asynchronous
async def background_tasks(_: World) -> Any:
    import httpx
    from fastapi import BackgroundTasks, FastAPI
    from starlette.background import BackgroundTask
    from starlette.responses import JSONResponse

    seen: list[Any] = []
    app = FastAPI()

    def render(job_id: str) -> None:
        seen.append(job_id)

    async def broken(job_id: str) -> None:
        raise ValueError(job_id)

    async def create(background: Any) -> dict[str, str]:
        background.add_task(render, "job-1")
        background.add_task(render, job_id="job-2")
        return {"id": "job-1"}

    create.__annotations__["background"] = BackgroundTasks  # FastAPI finds no names that are local here
    app.post("/jobs")(create)

    @app.post("/broken")
    async def create_broken() -> JSONResponse:
        return JSONResponse({"id": "b"}, background=BackgroundTask(broken, "job-3"))

    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(verify=False, transport=transport, base_url="http://app") as http:
        headers = {"x-correlation-id": "corr-1"}
        for path in ("/jobs", "/broken", "/nowhere"):
            answer = await http.post(path, headers=headers)
            seen += [answer.status_code, answer.text]
    return seen


# -- logs and the API ---------------------------------------------------------------------------------------------------


@flow
def logs(world: World) -> Any:
    import loguru

    client = world.redis()
    client.rpush("jobs:queue", TEXT)
    client.lpop("jobs:queue")
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    log = logging.getLogger("battery")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    sink = loguru.logger.add(written, format="{level} {message}", diagnose=False, backtrace=False)
    try:
        log.info("with %s", "arguments")
        log.warning("giving up on it")
        try:
            fail()
        except KeyError:
            log.exception("swallowed")
            loguru.logger.exception("swallowed too")
            with redirect_stderr(written):
                traceback.print_exc()
        loguru.logger.bind(own=1).info("bound {}", 2)
    finally:
        log.removeHandler(handler)
        loguru.logger.remove(sink)
        client.lpop("jobs:queue")
        client.close()
    # Lines of source code are left out: they change while tests are written.
    return [line for line in written.getvalue().splitlines() if not line.startswith(" ")]


@asynchronous
async def own_api(_: World) -> Any:
    from otel_pipeline.worker import job, measure, record_event, record_failover, stage

    @job("render")
    def plain(task: dict[str, Any]) -> int:
        with stage("image", model="flux") as image:
            image.set("images", 2)
        record_event("own.event", {"a": 1})
        record_failover("local", "runpod", reason="timeout")
        return len(task)

    @job("render")
    async def coroutine(task: dict[str, Any]) -> None:
        async with stage("tts"):
            raise ValueError(task["job_id"])

    seen: list[Any] = [plain(TASK)]
    try:
        await coroutine(TASK)
    except ValueError as error:
        seen.append(str(error))
    with job("video", id="own", user="u") as this:
        this.set("tier", "pro")
        this.outcome("failed", error_type="own words")
        with measure("model.inference.duration", model="flux"):
            seen.append("measured")
    return seen


# -- ComfyUI's own process ----------------------------------------------------------------------------------------------


@asynchronous
async def comfyui_server(_: World) -> Any:
    execution = _execution()
    executor, queue = execution.PromptExecutor(), execution.PromptQueue()
    queue.put((0, "prompt-1", {}, {"client_id": "c"}, ["9"]))
    await executor.execute_async({"1": {"class_type": "EmptyImage"}}, "prompt-1", {"client_id": "c"}, 3)
    return [executor.seen, queue.items]


@functools.cache
def _execution() -> Any:
    import types

    from tests.benchmarks.worker_load import SERVER

    module = types.ModuleType("execution")
    more = """
PromptExecutor.seen = []
def add_message(self, event, data, broadcast):
    self.seen.append([event, data])
PromptExecutor.add_message = add_message
plain_execute = PromptExecutor.execute_async
async def execute_async(self, prompt, prompt_id, extra_data={}, execute_outputs=[]):
    self.seen.clear()
    self.add_message("execution_start", {"prompt_id": prompt_id}, False)
    self.add_message("execution_cached", {"prompt_id": prompt_id, "nodes": ["1"]}, False)
    await plain_execute(self, prompt, prompt_id, extra_data, execute_outputs)
    self.add_message("execution_success", {"prompt_id": prompt_id}, False)
PromptExecutor.execute_async = execute_async
PromptQueue.items = []
def put(self, item):
    self.items[:] = [item]
PromptQueue.put = put
"""
    exec(SERVER + more, module.__dict__)  # noqa: S102  its own text
    if "faults" in sys.argv:
        from otel_pipeline.worker.comfyui.server import patch_execution

        patch_execution(module)
    return module


@asynchronous
async def comfyui_server_requests(_: World) -> Any:
    import httpx
    from aiohttp import web

    from otel_pipeline.demo.loopback import serving

    server = _server().PromptServer()
    async with serving(server.app) as url, httpx.AsyncClient(verify=False) as http:
        headers = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "x-correlation-id": "corr-1"}
        accepted = await http.post(f"{url}/prompt", json={"prompt": {}}, headers=headers)
        others = [await http.get(f"{url}/prompt"), await http.post(f"{url}/broken")]
        assert isinstance(server.app, web.Application)
    return [accepted.status_code, accepted.json(), server.prompt_queue.items, [each.status_code for each in others]]


@functools.cache
def _server() -> Any:
    import types

    from aiohttp import web

    module, execution = types.ModuleType("server"), _execution()

    class PromptServer:
        def __init__(self) -> None:
            self.prompt_queue = execution.PromptQueue()
            self.app = web.Application()
            self.messages: asyncio.Queue[Any] = asyncio.Queue()
            self.app.router.add_post("/prompt", self.post_prompt)
            self.app.router.add_get("/prompt", self.get_prompt)

        def send_sync(self, event: str, data: Any, sid: Any = None) -> None: ...

        async def post_prompt(self, _: web.Request) -> web.Response:
            self.prompt_queue.put((0, "prompt-2", {}, {}, ["9"]))
            return web.json_response({"prompt_id": "prompt-2"})

        async def get_prompt(self, _: web.Request) -> web.Response:
            return web.json_response({"exec_info": {}})

    module.PromptServer = PromptServer  # type: ignore[attr-defined]  # a module of the test
    if "faults" in sys.argv:
        from otel_pipeline.worker.comfyui.server import patch_server

        patch_server(module)
    return module


# -- running them -------------------------------------------------------------------------------------------------------


def result_of(name: str, world: World) -> str:
    """What the flow saw, as text that can be compared."""
    try:
        value: Any = FLOWS[name](world)
    except BaseException as error:
        value = ["the flow ended with", type(error).__qualname__, str(error), traceback.format_exc()[-600:]]
    return ADDRESSES.sub("0x", RANDOM.sub("id", repr(value)))


def chosen(world: World) -> list[str]:
    return [name for name in FLOWS if not world.only or name in world.only]


def plain(world: World) -> dict[str, Any]:
    return {"results": {name: result_of(name, world) for name in chosen(world)}}


def faults(world: World, wanted: dict[str, str]) -> dict[str, Any]:
    """Runs of the flows with exceptions in hooks; `wanted` is what they see without us."""
    from otel_pipeline.worker import flow as flow_module
    from otel_pipeline.worker.guard import HOOKS, Hook

    calls: set[str] = set()
    original = Hook.__call__

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not (args and args[0] is None):  # else it returns at once, whatever it is
            calls.add(self.name)
        return original(self, *args, **kwargs)

    reached: dict[str, list[tuple[float, str]]] = {}
    different: list[list[str]] = []

    clean = contextvars.copy_context()

    def run(name: str, fault: str) -> None:
        flow_module._local.flow = None
        got = clean.copy().run(result_of, name, world)
        if got != wanted[name]:
            different.append([fault, name, got[:2000], wanted[name][:2000]])

    _load_all()
    Hook.__call__ = counted  # type: ignore[method-assign]
    for name in wanted:
        calls.clear()
        began_s = time.monotonic()
        run(name, "no fault")
        for each in calls:
            reached.setdefault(each, []).append((time.monotonic() - began_s, name))
    Hook.__call__ = original  # type: ignore[method-assign]
    thrown = {}
    for each in sorted(HOOKS):
        hook = HOOKS[each]
        hook.fault, before = RuntimeError(f"injected into {each}"), hook.failures
        spent_s = 0.0
        for number, (seconds, name) in enumerate(sorted(reached.get(each, []))):
            spent_s += seconds
            if number >= FLOWS_FOR_A_HOOK and spent_s > SECONDS_FOR_A_HOOK:
                break
            run(name, each)
        hook.fault = None
        thrown[each] = hook.failures - before
    for hook in HOOKS.values():
        hook.fault = RuntimeError("injected into all")
    for name in wanted:
        run(name, "all hooks")
    seconds = {name: round(min(s for runs in reached.values() for s, n in runs if n == name), 3) for name in wanted}
    return {"different": different, "thrown": thrown, "hooks": sorted(HOOKS), "seconds": seconds}


def _load_all() -> None:
    """Hooks of adapters whose library nobody here imports count too."""
    import importlib
    import pkgutil

    from otel_pipeline import worker

    for each in pkgutil.walk_packages(worker.__path__, worker.__name__ + "."):
        if "autoload" not in each.name and "custom_node" not in each.name:
            importlib.import_module(each.name)


def main() -> None:
    mode, options = sys.argv[1], json.loads(sys.argv[2])
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    world = World(**options)
    if mode == "plain":
        answer = plain(world)
    else:
        from tests.benchmarks.worker_load import instrument

        instrument("ours")
        answer = faults(world, options["wanted"])
    print("\n" + json.dumps(answer), flush=True)
