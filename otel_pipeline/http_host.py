"""The one asyncio loop of the gateway: serves every HTTP port and carries the HTTP client, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import ClientSession, TCPConnector, web

from otel_pipeline.limits import HTTP_CONNECTIONS_MAX
from otel_pipeline.settings import split_endpoint

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine

T = TypeVar("T")


class HttpHost:
    """Owns the loop's thread, the servers on it and one client session. Methods are called from other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http")
        self._runners: dict[int, web.AppRunner] = {}
        self._session: ClientSession | None = None

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine on the loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def serve(self, app: web.Application, endpoint: str, tls: ssl.SSLContext | None = None) -> int:
        """Serve an application on host:port; returns a handle for `unserve`. Raises OSError if the port is taken."""
        return self.run(self._serve(app, endpoint, tls))

    def unserve(self, handle: int, grace_s: float) -> None:
        """Stop listening, let running requests end within the grace."""
        runner = self._runners.pop(handle, None)
        if runner is not None:
            runner._shutdown_timeout = grace_s  # aiohttp takes it at construction only
            self.run(runner.cleanup())

    def session(self) -> ClientSession:
        """The client session, for use on the loop only."""
        if self._session is None:
            self._session = ClientSession(connector=TCPConnector(limit=HTTP_CONNECTIONS_MAX))
        return self._session

    def stop(self) -> None:
        """Stop all servers and the loop; may be called twice."""
        if not self._thread.is_alive():
            return
        for handle in list(self._runners):
            self.unserve(handle, 0.0)
        self.run(self._close_session())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, app: web.Application, endpoint: str, tls: ssl.SSLContext | None) -> int:
        host, port = split_endpoint(endpoint)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, host or None, port, ssl_context=tls).start()
        except OSError:
            await runner.cleanup()
            raise
        handle = id(runner)
        self._runners[handle] = runner
        return handle

    async def _close_session(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
