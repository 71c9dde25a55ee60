# ruff: noqa: PLC0415, S501
# A flow imports its library itself: with our hooks in place, and only if it is run. All servers are on loopback.
"""ComfyUI's own process."""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import Any

from tests.support.worker_battery.core import (
    World,
    asynchronous,
)


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
