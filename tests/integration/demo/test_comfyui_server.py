"""The ComfyUI stand-in over real sockets: HTTP, its queue, its WebSocket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from aiohttp import ClientSession

from otel_pipeline.demo import comfyui
from otel_pipeline.demo.loopback import serving

Json = dict[str, Any]
WAIT_S_MAX = 20.0
PORTRAIT: Json = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 5}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "shot"}},
}
SLOW: Json = {
    **PORTRAIT,
    "3": {"class_type": "ProbeSlow", "inputs": {"image": ["2", 0], "steps": 5, "seconds_per_step": 0.05}},
}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline_s = time.monotonic() + WAIT_S_MAX
    while not await condition():
        assert time.monotonic() < deadline_s, "waited too long"
        await asyncio.sleep(0.01)


def with_comfyui(play: Callable[[ClientSession], Coroutine[Any, Any, None]], run_s_min: float = 0.05) -> None:
    async def scene() -> None:
        async with serving(comfyui.make_app(run_s_min=run_s_min)) as url, ClientSession(url) as http:
            await asyncio.wait_for(play(http), WAIT_S_MAX)

    asyncio.run(scene())


async def get(http: ClientSession, path: str) -> Any:
    async with http.get(path) as answer:
        assert answer.status == 200
        return await answer.json()


async def post(http: ClientSession, workflow: Json, **fields: Any) -> Json:
    async with http.post("/prompt", json={"prompt": workflow, "client_id": "me", **fields}) as answer:
        content: Json = await answer.json()
        return content


async def history(http: ClientSession, prompt_id: str) -> Json:
    async def is_there() -> bool:
        return bool(await get(http, f"/history/{prompt_id}"))

    await until(is_there)
    entry: Json = (await get(http, f"/history/{prompt_id}"))[prompt_id]
    return entry


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_comfyui_runs_a_prompt_and_serves_its_image(prefix: str) -> None:
    async def play(http: ClientSession) -> None:
        async with http.post(
            f"{prefix}/prompt", json={"prompt": PORTRAIT, "extra_data": {"traceparent": "x"}}
        ) as answer:
            prompt_id = (await answer.json())["prompt_id"]
        assert await get(http, f"{prefix}/history/{prompt_id}") == {}
        entry = await history(http, prompt_id)
        assert entry["status"]["status_str"] == "success"
        assert entry["prompt"][3]["traceparent"] == "x"
        assert list(await get(http, f"{prefix}/history")) == [prompt_id]
        image = entry["outputs"]["9"]["images"][0]
        async with http.get(f"{prefix}/view", params=image) as picture:
            assert (picture.content_type, (await picture.read())[:4]) == ("image/png", b"\x89PNG")

    with_comfyui(play)


def test_comfyui_sends_the_recorded_messages_to_the_client_of_the_prompt() -> None:
    async def play(http: ClientSession) -> None:
        async with http.ws_connect("/ws?clientId=me") as mine, http.ws_connect("/ws?clientId=other") as other:
            assert (await mine.receive_json())["data"]["sid"] == "me"
            prompt_id = (await post(http, PORTRAIT))["prompt_id"]
            kinds = []
            while True:
                message = await mine.receive_json()
                kinds.append(message["type"])
                assert message["type"] == "status" or message["data"]["prompt_id"] == prompt_id
                if message["type"] == "executing" and message["data"]["node"] is None:
                    break
            assert [kind for kind in kinds if kind not in ("status", "progress_state")] == [
                *("execution_start", "execution_cached", "executing", "executing", "executing"),
                *("executed", "execution_success", "executing"),
            ]
            statuses = [await other.receive_json() for _ in range(kinds.count("status") + 1)]
            assert {message["type"] for message in statuses} == {"status"}
            assert statuses[-1]["data"]["status"]["exec_info"]["queue_remaining"] == 0

    with_comfyui(play)


def test_comfyui_answers_the_same_workflow_from_its_cache() -> None:
    async def play(http: ClientSession) -> None:
        first = await history(http, (await post(http, PORTRAIT))["prompt_id"])
        again = await history(http, (await post(http, PORTRAIT))["prompt_id"])
        cached = dict(again["status"]["messages"])["execution_cached"]["nodes"]
        assert cached == ["1", "2", "9"]
        assert again["outputs"] == first["outputs"]

    with_comfyui(play)


def test_comfyui_keeps_a_queue_and_interrupts_what_runs() -> None:
    async def play(http: ClientSession) -> None:
        running, waiting = (await post(http, SLOW))["prompt_id"], (await post(http, PORTRAIT))["prompt_id"]

        async def has_started() -> bool:
            return bool((await get(http, "/queue"))["queue_running"])

        await until(has_started)
        queue = await get(http, "/queue")
        assert [item[1] for item in queue["queue_running"]] == [running]
        assert [item[1] for item in queue["queue_pending"]] == [waiting]
        assert await get(http, "/prompt") == {"exec_info": {"queue_remaining": 2}}
        async with http.post("/interrupt", json={"prompt_id": waiting}) as answer:
            assert answer.status == 200
        assert (await get(http, "/queue"))["queue_running"]
        async with http.post("/interrupt") as answer:
            assert answer.status == 200
        entry = await history(http, running)
        assert entry["status"]["status_str"] == "error"
        assert entry["status"]["messages"][-1][0] == "execution_interrupted"
        assert (await history(http, waiting))["status"]["completed"] is True

    with_comfyui(play, run_s_min=1)


def test_comfyui_refuses_as_recorded_and_a_refusal_uses_up_a_number() -> None:
    async def play(http: ClientSession) -> None:
        async with http.post("/prompt", data=b"{not json") as answer:
            assert (answer.status, answer.content_type) == (500, "text/plain")
        async with http.post("/prompt", json={"prompt": {}}) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["type"] == "prompt_no_outputs"
        assert (await post(http, PORTRAIT))["number"] == 1

    with_comfyui(play)


def test_comfyui_takes_a_prompt_id_that_is_a_uuid_and_no_other() -> None:
    async def play(http: ClientSession) -> None:
        mine = "35d6982c-5de2-4e07-a699-a4bcd1722b27"
        assert (await post(http, PORTRAIT, prompt_id=mine))["prompt_id"] == mine
        assert (await post(http, PORTRAIT, prompt_id="x"))["prompt_id"] != "x"

    with_comfyui(play)


def test_comfyui_tells_about_itself_as_recorded() -> None:
    async def play(http: ClientSession) -> None:
        assert (await get(http, "/system_stats"))["system"]["comfyui_version"] == "0.26.0"
        async with http.get("/view", params={"filename": "unknown.png"}) as answer:
            assert answer.status == 404

    with_comfyui(play)
