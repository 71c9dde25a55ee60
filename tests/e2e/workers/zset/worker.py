"""Priority queue worker: ids in a sorted set, tasks in hashes. asyncio all the way down."""

import asyncio
import json
import os
import sys
import uuid

import aiohttp
import redis.asyncio as redis

REDIS_URL = os.environ["REDIS_URL"]
COMFY = os.environ["COMFYUI_URL"]
PENDING = "gen:pending"


class ComfyClient:
    """One websocket for the life of the process; several prompts share it."""

    def __init__(self):
        self.client_id = uuid.uuid4().hex
        self.session = None
        self.waiting = {}

    async def start(self):
        self.session = aiohttp.ClientSession()
        self.ws = await self.session.ws_connect(f"{COMFY}/ws", params={"clientId": self.client_id})
        self.reader = asyncio.create_task(self.read())

    async def read(self):
        async for msg in self.ws:
            if msg.type != aiohttp.WSMsgType.TEXT:
                continue
            event = json.loads(msg.data)
            data = event["data"]
            future = self.waiting.get(data.get("prompt_id"))
            if future is None or future.done():
                continue
            if event["type"] == "execution_error":
                future.set_exception(RuntimeError(data["exception_message"]))
            elif event["type"] == "executing" and data["node"] is None:
                future.set_result(True)

    async def generate(self, graph):
        async with self.session.post(f"{COMFY}/prompt", json={"prompt": graph, "client_id": self.client_id}) as resp:
            body = await resp.json()
            if resp.status != 200:
                raise ValueError(body["error"]["message"])
        prompt_id = body["prompt_id"]
        self.waiting[prompt_id] = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait_for(self.waiting[prompt_id], 60)
        finally:
            del self.waiting[prompt_id]
        async with self.session.get(f"{COMFY}/history/{prompt_id}") as resp:
            entry = (await resp.json())[prompt_id]
        files = []
        for output in entry["outputs"].values():
            for image in output.get("images", []):
                async with self.session.get(f"{COMFY}/view", params=image) as resp:
                    files.append(await resp.read())
        return files


def build(task):
    with open(os.path.join(os.environ["WORKFLOW_DIR"], task["workflow"] + ".json")) as f:
        graph = json.load(f)
    for node in graph.values():
        if "color" in node["inputs"]:
            node["inputs"]["color"] = int(task["seed"])
    return graph


async def work(r, comfy, task_id):
    key = f"gen:task:{task_id}"
    task = await r.hgetall(key)
    print(f"task {task_id}: {task['workflow']} (priority {task['priority']})", flush=True)
    await r.hset(key, "progress", 1)
    try:
        files = await comfy.generate(build(task))
        await r.hset(key, mapping={"progress": 100, "files": len(files)})
    except Exception as e:
        print(f"task {task_id} error: {e!r}", file=sys.stderr, flush=True)
        await r.hset(key, "progress", -1)
        await r.hset(key, "message", f"Error: {e}")


async def main():
    r = redis.from_url(REDIS_URL, decode_responses=True)
    comfy = ComfyClient()
    await comfy.start()
    print("ready", flush=True)
    while True:
        popped = await r.bzpopmin(PENDING, timeout=1)
        if popped is None:
            continue
        _, task_id, _score = popped
        await work(r, comfy, task_id)


asyncio.run(main())
