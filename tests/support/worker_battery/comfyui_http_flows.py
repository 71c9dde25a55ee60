# ruff: noqa: PLC0415, S310, S501
# A flow imports its library itself: with our hooks in place, and only if it is run. All servers are on loopback.
"""Clients of ComfyUI over HTTP, and aiohttp with its socket."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any, Final

from tests.support.worker_battery.core import (
    World,
    attempt,
    awaited,
    in_a_job,
)

BROADCAST: Final = ("status", "progress_state")
"""Messages that ComfyUI sends to every client."""


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
            seen.append([await until_over(_aiohttp_messages(socket))])
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


async def until_over(messages: Any) -> list[str]:
    kinds: list[str] = []
    async for text in messages:
        message = json.loads(text)
        kinds.append(message["type"])
        if message["type"] == "executing" and message["data"]["node"] is None:
            break
    return [kind for kind in kinds if kind not in BROADCAST]
