# ruff: noqa: PLC0415
# A flow imports its library itself: with our hooks in place, and only if it is run. All servers are on loopback.
"""Threads, tasks, functions and queues of the program itself."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
from contextlib import suppress
from typing import Any, Final

from tests.support.worker_battery.core import (
    TASK,
    TEXT,
    World,
    asynchronous,
    attempt,
    flow,
)


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
    client.rpush("jobs:queue", TEXT, "second", "third", "fourth", "fifth")
    hook, threading.excepthook = threading.excepthook, lambda args: seen.append(args.exc_type.__name__)
    try:
        for broken in (False, True):
            thread = threading.Thread(target=_pop_and_end, args=(client, seen, broken))
            thread.start()
            thread.join()
    finally:
        threading.excepthook = hook
    client.close()
    gc.collect()  # of a batch that was not read to its end
    return seen


def _pop_and_end(client: Any, seen: list[Any], broken: bool) -> None:  # noqa: FBT001
    seen.append(client.lpop("jobs:queue"))
    for each in client.lpop("jobs:queue", 2) or ():
        seen.append(each)
        break
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
