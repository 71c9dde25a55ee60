"""The one event loop of the gateway, in a thread of its own: servers, pipelines and the HTTP client run on it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

import uvloop
from aiohttp import ClientSession, TCPConnector, web

from otel_pipeline.endpoints import split_endpoint
from otel_pipeline.limits import HTTP_CONNECTIONS_MAX, HTTP_THREADS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine

T = TypeVar("T")

IDLE_S: Final = 60.0
"""How long a connection may be open without a request."""
GRACE_S_MIN: Final = 0.02
"""aiohttp waits without end when it is told to wait 0 s."""


class EventLoop:
    """Owns the loop's thread, the servers on it and one client session. Methods are called from other threads."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(HTTP_THREADS, thread_name_prefix="loop-work"))
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop")
        self._runners: dict[int, web.AppRunner] = {}
        self._session: ClientSession | None = None

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the loop runs."""
        return self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine on the loop and wait for its result."""
        if not self._thread.is_alive():
            work.close()
            raise RuntimeError("the event loop does not run")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def serve(
        self, app: web.Application, endpoint: str, tls: ssl.SSLContext | None = None, idle_s: float = IDLE_S
    ) -> int:
        """Serve an application on host:port; returns a handle for `unserve`. Raises OSError if the port is taken.

        Bodies come as they were sent: what may be compressed, and how far it may grow, is the application's decision.
        """
        return self.run(self._serve(app, endpoint, tls, idle_s))

    def unserve(self, handle: int, grace_s: float) -> None:
        """Stop listening, let running requests end within the grace."""
        runner = self._runners.pop(handle, None)
        if runner is not None:
            self.run(_end(runner, grace_s))

    def session(self) -> ClientSession:
        """The client session, for use on the loop only."""
        if self._session is None:
            self._session = ClientSession(connector=TCPConnector(limit=HTTP_CONNECTIONS_MAX))
        return self._session

    def stop(self) -> None:
        """Stop all servers and the loop; may be called twice."""
        if self._thread.is_alive():
            for handle in list(self._runners):
                self.unserve(handle, 0.0)
            self.run(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    async def _serve(self, app: web.Application, endpoint: str, tls: ssl.SSLContext | None, idle_s: float) -> int:
        host, port = split_endpoint(endpoint)
        runner = web.AppRunner(app, access_log=None, auto_decompress=False, keepalive_timeout=idle_s)
        await runner.setup()
        try:
            await web.TCPSite(runner, host or None, port, ssl_context=tls).start()
        except OSError as error:
            await runner.cleanup()
            raise OSError(f"cannot listen on {endpoint}: {error}") from error
        handle = id(runner)
        self._runners[handle] = runner
        return handle

    async def _close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
        await self._loop.shutdown_default_executor()


async def _end(runner: web.AppRunner, grace_s: float) -> None:
    """What `AppRunner.cleanup` does, with a grace that is known only now; its own comes to nothing left to wait for."""
    for site in runner.sites:
        await site.stop()
    server = runner.server
    if server is not None:
        await asyncio.sleep(0)  # requests that are in already begin to be handled
        server.pre_shutdown()
        await server.shutdown(max(grace_s / 2, GRACE_S_MIN))  # it waits so long for the request, then again for its end
    await runner.cleanup()
