# ruff: noqa: PLC0415, BLE001
# A flow imports its library itself: with our hooks in place, and only if it is run. All servers are on loopback.
"""Redis as a queue, a store of states, and what else programs do with it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.support.worker_battery.core import (
    TASK,
    TEXT,
    World,
    asynchronous,
    attempt,
    flow,
    own_keys,
)


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
        seen.append(json.loads(each)["job_id"])  # noqa: PERF401  a loop over the list is what is tried
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
