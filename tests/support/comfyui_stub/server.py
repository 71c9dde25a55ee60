"""The routes that a worker needs."""

import asyncio
import time
import uuid

import execution
from aiohttp import web


class PromptServer:
    def __init__(self, loop):
        PromptServer.instance = self
        self.loop = loop
        self.client_id = None
        self.number = 0
        self.messages = asyncio.Queue()
        self.prompt_queue = execution.PromptQueue(self)
        self.app = web.Application()
        self.app.on_startup.append(self.publish_loop)
        self.app.add_routes([web.post("/prompt", self.post_prompt), web.get("/history/{id}", self.get_history)])
        self.app.add_routes([web.post("/api/prompt", self.post_prompt), web.get("/queue", self.get_queue)])

    def send_sync(self, event, data, sid=None):
        self.loop.call_soon_threadsafe(self.messages.put_nowait, (event, data, sid))

    async def publish_loop(self, _app):
        async def publish():
            while True:
                await self.messages.get()

        self.publishing = asyncio.create_task(publish())

    async def post_prompt(self, request):
        given = await request.json()
        prompt_id, extra = str(given.get("prompt_id", uuid.uuid4())), given.get("extra_data", {})
        if "prompt" not in given:
            return web.json_response({"error": {"type": "no_prompt"}, "node_errors": {}}, status=400)
        outputs = [node_id for node_id, node in given["prompt"].items() if node["class_type"] == "Out"]
        item = (self.number, prompt_id, given["prompt"], extra, outputs)
        if execution.SHAPE != "0.3.64":
            extra["create_time"] = int(time.time() * 1000)
            item += ({},)
        self.number += 1
        self.prompt_queue.put(item)
        return web.json_response({"prompt_id": prompt_id, "number": item[0], "node_errors": {}})

    async def get_history(self, request):
        prompt_id = request.match_info["id"]
        known = self.prompt_queue.history.get(prompt_id)
        return web.json_response({prompt_id: known} if known else {})

    async def get_queue(self, _request):
        working = [item[1] for item in self.prompt_queue.currently_running.values() if execution.working]
        return web.json_response({"queue_running": working, "queue_pending": len(self.prompt_queue.queue)})
