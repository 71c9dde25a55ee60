"""The HTTP loop: ports, their errors, grace, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from otel_pipeline.event_loop import EventLoop
from tests.support.net import free_endpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

TIMEOUT_S = 20.0


@pytest.fixture
def host() -> Iterator[EventLoop]:
    one = EventLoop()
    one.start()
    yield one
    one.stop()


def app(handler: Callable[[web.Request], Awaitable[web.Response]] | None = None) -> web.Application:
    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    made = web.Application()
    made.router.add_get("/", handler or hello)
    return made


def get(endpoint: str) -> str:
    connection = http.client.HTTPConnection(endpoint, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_several_ports_are_served_and_given_up_on_their_own(host: EventLoop) -> None:
    first, second = free_endpoint(), free_endpoint()
    handle = host.serve(app(), first)
    host.serve(app(), second)
    assert (get(first), get(second)) == ("hello", "hello")
    host.unserve(handle, 1.0)
    host.unserve(handle, 1.0)
    with pytest.raises(ConnectionRefusedError):
        get(first)
    assert get(second) == "hello"
    host.serve(app(), first)
    assert get(first) == "hello"


def test_an_empty_host_is_every_interface(host: EventLoop) -> None:
    port = free_endpoint().rpartition(":")[2]
    host.serve(app(), f":{port}")
    assert get(f"127.0.0.1:{port}") == "hello"


@pytest.mark.parametrize("endpoint", ["taken", "no-such-host.invalid:80"])
def test_an_address_that_cannot_be_had_is_an_error_that_names_it(host: EventLoop, endpoint: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        if endpoint == "taken":
            endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {endpoint}"):
            host.serve(app(), endpoint)


class Stuck:
    """A handler that ends when it is told to."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.release = threading.Event()

    async def handle(self, _: web.Request) -> web.Response:
        self.inside.set()
        await asyncio.to_thread(self.release.wait, TIMEOUT_S)
        return web.Response(text="at last")


def test_a_running_request_may_end_within_the_grace(host: EventLoop) -> None:
    stuck, endpoint = Stuck(), free_endpoint()
    handle = host.serve(app(stuck.handle), endpoint)
    with ThreadPoolExecutor(2) as pool:
        request = pool.submit(get, endpoint)
        assert stuck.inside.wait(TIMEOUT_S)
        ending = pool.submit(host.unserve, handle, TIMEOUT_S)
        stuck.release.set()
        assert request.result(TIMEOUT_S) == "at last"
        ending.result(TIMEOUT_S)


@pytest.mark.parametrize("grace_s", [0.0, 0.1])
def test_a_request_that_does_not_end_is_cut_off_after_the_grace(host: EventLoop, grace_s: float) -> None:
    stuck, endpoint = Stuck(), free_endpoint()
    handle = host.serve(app(stuck.handle), endpoint)
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(get, endpoint)
        assert stuck.inside.wait(TIMEOUT_S)
        began_s = time.monotonic()
        host.unserve(handle, grace_s)
        assert time.monotonic() - began_s < 5.0
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            request.result(TIMEOUT_S)
        stuck.release.set()


def test_a_connection_without_a_request_is_closed(host: EventLoop) -> None:
    endpoint = free_endpoint()
    host.serve(app(), endpoint, idle_s=0.1)
    name, _, port = endpoint.rpartition(":")
    with socket.create_connection((name, int(port)), TIMEOUT_S) as idle:
        idle.sendall(b"GET / HT")
        assert idle.recv(1) == b""


def test_bodies_come_as_they_were_sent(host: EventLoop) -> None:
    seen = []

    async def keep(request: web.Request) -> web.Response:
        seen.append(await request.read())
        return web.Response()

    endpoint = free_endpoint()
    made = web.Application()
    made.router.add_post("/", keep)
    host.serve(made, endpoint)
    connection = http.client.HTTPConnection(endpoint, timeout=TIMEOUT_S)
    connection.request("POST", "/", b"no gzip", {"Content-Encoding": "gzip"})
    assert connection.getresponse().status == 200
    connection.close()
    assert seen == [b"no gzip"]


def test_the_loop_runs_coroutines_and_passes_their_errors_on(host: EventLoop) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def succeed() -> str:
        return "done"

    assert host.run(succeed()) == "done"
    with pytest.raises(ZeroDivisionError):
        host.run(fail())


def test_the_client_session_is_one_for_all(host: EventLoop) -> None:
    async def session_twice() -> bool:
        return host.session() is host.session()

    assert host.run(session_twice())


def test_stop_ends_servers_and_threads_and_may_be_called_twice() -> None:
    before = set(threading.enumerate())
    host, endpoint = EventLoop(), free_endpoint()
    stuck = Stuck()
    stuck.release.set()
    host.start()
    try:
        host.serve(app(stuck.handle), endpoint)
        assert get(endpoint) == "at last"
    finally:
        host.stop()
    host.stop()
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        get(endpoint)


def test_a_host_that_was_never_started_can_be_stopped_and_runs_nothing() -> None:
    async def never() -> None:
        raise AssertionError

    host = EventLoop()
    with pytest.raises(RuntimeError, match="does not run"):
        host.run(never())
    host.stop()
    with pytest.raises(RuntimeError, match="does not run"):
        host.run(never())
