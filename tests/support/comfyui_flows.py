"""What a host program can notice of the hooks in its client libraries: flows to compare with and without them.

    python -m tests.support.comfyui_flows URL RUN plain|hooked|faults

`faults` runs the flows once for every hook of the client side, with an exception thrown in that hook.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import io
import json
import pickle
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from otel_pipeline.worker import activation, guard
from otel_pipeline.worker.jobs import Origin, job_end, job_start
from tests.support.comfyui_replay import captures

OURS: Final = ("comfyui.", "httpx.", "requests.", "aiohttp.", "urllib.", "websocket.")
GOOD: Final = captures()["09"]["http"][0]["request_body"]
BAD: Final = captures()["04"]["http"][0]["request_body"]
ID: Final = captures()["09"]["http"][0]["response_body"]["prompt_id"]


def attempt(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The value, or what was raised."""
    try:
        return function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  it is the value
        return [type(error).__module__, type(error).__qualname__]


def with_httpx(good: str, bad: str, dead: str) -> Any:
    httpx = import_module("httpx")
    given = json.dumps(GOOD)
    seen: list[Any] = [
        inspect.iscoroutinefunction(httpx.AsyncClient.send),
        inspect.iscoroutinefunction(httpx.Client.send),
    ]
    with httpx.Client() as client:
        request = client.build_request("POST", f"{good}/prompt", json=GOOD)
        body, length = request.content, request.headers["content-length"]
        answer = client.send(request)
        seen += [answer.request is request, request.content == body, request.headers["content-length"] == length]
        seen += [type(answer).__name__, answer.json(), json.dumps(GOOD) == given, answer.elapsed.total_seconds() > 0]
        seen += [client.send(request).status_code]
        refused = client.post(f"{bad}/prompt", json=BAD)
        seen += [refused.json(), attempt(refused.raise_for_status)]
        with client.stream("GET", f"{good}/view?filename=a.png") as answer:
            seen += [len(b"".join(answer.iter_raw(100))), answer.num_bytes_downloaded]
        with client.stream("POST", f"{good}/prompt", json=GOOD) as answer:
            seen += [answer.read() == answer.content, answer.json()["prompt_id"]]
        with client.stream("GET", f"{good}/view?filename=a.png") as answer:
            seen += [next(answer.iter_bytes(10))]
        request = client.build_request("POST", f"{dead}/prompt", json=GOOD)
        try:
            client.send(request)
        except httpx.ConnectError as error:
            seen += [error.request is request, str(error)]
        seen += [client.post(f"{good}/upload/image", files={"image": b"x"}).status_code]
        seen += [client.post(f"{good}/prompt", content=iter([b'{"prompt"', b": 1}"])).status_code]
    seen += [attempt(client.get, f"{good}/queue")]
    return seen


def with_requests(good: str, bad: str, dead: str) -> Any:
    requests = import_module("requests")
    seen: list[Any] = []
    session = requests.Session()
    prepared = requests.Request("POST", f"{good}/prompt", json=GOOD).prepare()
    body, length = prepared.body, prepared.headers["Content-Length"]
    answer = session.send(prepared)
    seen += [answer.request is prepared, prepared.body == body, prepared.headers["Content-Length"] == length]
    seen += [answer.json(), type(answer) is requests.Response, session.post(f"{bad}/prompt", json=BAD).json()]
    view = f"{good}/view?filename=a.png"
    # The response is referred to by nothing but the method that runs.
    seen += [len(b"".join(session.get(view, stream=True).iter_content(64)))]
    seen += [len(session.get(view, stream=True).content), len(next(iter(session.get(view, stream=True))))]
    with session.get(view, stream=True) as answer:
        target = io.BytesIO()
        shutil.copyfileobj(answer.raw, target)
        seen += [len(target.getvalue()), isinstance(answer, requests.Response), type(answer).__name__]
    with session.get(view, stream=True) as answer:
        seen += [len(pickle.loads(pickle.dumps(answer)).content)]  # noqa: S301  our own
    with session.get(view, stream=True) as answer:
        seen += [next(answer.iter_content(10)), len(answer.raw.read(10))]
    answer = session.post(f"{good}/prompt", data=json.dumps(GOOD), stream=True)
    seen += [answer.json()["prompt_id"], answer.status_code]
    answer.close()
    try:
        session.post(f"{dead}/prompt", json=GOOD)
    except requests.ConnectionError as error:
        seen += [type(error).__name__, error.request.body == body]
    seen += [session.get(f"{good}/history/{ID}").json()[ID]["status"]["status_str"]]
    session.close()
    return seen


def with_urllib(good: str, bad: str, dead: str) -> Any:
    data = json.dumps(GOOD).encode()
    seen: list[Any] = []
    request = urllib.request.Request(f"{good}/prompt", data=data, headers={"X-Mine": "1"})  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        seen += [json.load(answer)["prompt_id"], answer.status, type(answer).__name__, answer.read(), answer.isclosed()]
    seen += [request.data == data, request.headers]
    view = f"{good}/view?filename=a.png"
    seen += [len(urllib.request.urlopen(view).read())]  # noqa: S310
    with urllib.request.urlopen(view) as answer:  # noqa: S310
        seen += [answer.read(4), answer.readline()[:3], len(answer.read()), answer.length]
    with urllib.request.urlopen(view) as answer:  # noqa: S310
        target = io.BytesIO()
        shutil.copyfileobj(answer, target)
        seen += [len(target.getvalue())]
    urllib.request.urlopen(f"{good}/prompt", data)  # noqa: S310  fire and forget: it is not read
    gc.collect()
    try:
        urllib.request.urlopen(f"{bad}/prompt", json.dumps(BAD).encode())  # noqa: S310
    except urllib.error.HTTPError as error:
        seen += [error.code, json.loads(error.read()), error.read(), error.headers["Content-Type"]]
        error.close()
    seen += [attempt(urllib.request.urlopen, f"{dead}/prompt", data)]
    return seen


async def _with_aiohttp(good: str, bad: str, dead: str) -> Any:
    aiohttp = import_module("aiohttp")
    given, view = json.dumps(GOOD), f"{good}/view?filename=a.png"
    seen: list[Any] = [inspect.iscoroutinefunction(aiohttp.ClientSession._request)]
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{good}/prompt", json=GOOD) as answer:
            seen += [await answer.json(), json.dumps(GOOD) == given, type(answer).__name__]
        async with session.post(f"{good}/prompt", data=given.encode()) as answer:
            seen += [await answer.text()]
        async with session.post(f"{good}/prompt", json=GOOD) as answer:
            seen += [answer.status]
        async with session.post(f"{bad}/prompt", json=BAD) as answer:
            seen += [answer.status, await answer.json()]
        async with session.get(view) as answer:
            seen += [sum([len(piece) async for piece in answer.content.iter_chunked(100)])]
        async with session.get(view) as answer:
            seen += [await answer.content.read(4)]
        form = aiohttp.FormData({"image": io.BytesIO(b"x")})
        async with session.post(f"{good}/upload/image", data=form) as answer:
            seen += [answer.status]
        try:
            await session.post(f"{dead}/prompt", json=GOOD)
        except aiohttp.ClientConnectorError as error:
            seen += [type(error).__name__, error.host]
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        try:
            await session.post(f"{bad}/prompt", json=BAD)
        except aiohttp.ClientResponseError as error:
            seen += [error.status, error.message]
    return seen


def with_aiohttp(good: str, bad: str, dead: str) -> Any:
    return asyncio.run(_with_aiohttp(good, bad, dead))


FLOWS: Final = (with_httpx, with_requests, with_urllib, with_aiohttp)


def play(url: str, run: str) -> list[Any]:
    """All flows, in a job."""
    dead = "http://127.0.0.1:9"
    job = job_start(Origin("test", "flows"))
    seen = [flow(f"{url}/{run}/09", f"{url}/{run}/04", dead) for flow in FLOWS]
    job_end(job)
    return seen


def main() -> None:
    url, run, mode = sys.argv[1:]
    if mode == "plain":
        print(json.dumps(play(url, run), default=repr))
        return
    trace.set_tracer_provider(TracerProvider())
    activation.activate()
    if mode == "hooked":
        seen = play(url, run)
        failures = {name: each.failures for name, each in guard.HOOKS.items() if each.failures}
        print(json.dumps({"seen": seen, "failures": failures}, default=repr))
        return
    play(url, f"{run}-load")
    found: dict[str, list[Any]] = {}
    for name, each in [pair for pair in guard.HOOKS.items() if pair[0].startswith(OURS)]:
        each.fault = RuntimeError(f"a fault in {name}")
        found[name] = [each.failures, play(url, f"{run}-{name}")]
        found[name][0] = each.failures - found[name][0]
        each.fault = None
    print(json.dumps(found, default=repr))


if __name__ == "__main__":
    main()
