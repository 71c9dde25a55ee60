"""Whether the gateway lives and should get traffic: /livez, /readyz and, as in the Collector, one path for both."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

LIVE: Final = "/livez"
READY: Final = "/readyz"


class Health:
    """The state of the gateway and of what was put under watch. Changes of the state are logged."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = "starting"
        self._checks: dict[str, tuple[Callable[[], str], str]] = {}

    def watch(self, name: str, trouble: Callable[[], str], detail: str = "") -> None:
        """Not ready while `trouble` returns a reason; `detail` is shown when all is well."""
        self._checks[name] = (trouble, detail)

    def ready(self) -> None:
        """All parts run."""
        self._become("ready")

    def stopping(self) -> None:
        """No more traffic, please."""
        self._become("stopping")

    def report(self) -> tuple[bool, dict[str, object]]:
        """Whether to send traffic, and why not."""
        troubles = {name: trouble() for name, (trouble, _) in self._checks.items()}
        parts = {name: troubles[name] or detail or "ok" for name, (_, detail) in self._checks.items()}
        return self._state == "ready" and not any(troubles.values()), {"status": self._state, "components": parts}

    def _become(self, state: str) -> None:
        with self._lock:
            if state != self._state:
                log.info("health: %s -> %s", self._state, state)
                self._state = state


def application(health: Health, path: str) -> web.Application:
    """/livez is 200 as long as it can answer; /readyz and `path` are 503 while traffic is not wanted."""
    app = web.Application()

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        wanted, body = health.report()
        return web.json_response(body, status=200 if wanted else 503)

    app.router.add_get(LIVE, livez)
    for address in {READY, path}:
        app.router.add_get(address, readyz)
    return app
