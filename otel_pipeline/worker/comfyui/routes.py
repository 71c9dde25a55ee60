"""What a URL means to ComfyUI. Pure: no socket, no clock, no state.

All routes exist with and without `/api`, and behind any prefix of a proxy; so a route is told by the end of the path,
and whether a server is a ComfyUI at all by what is configured or was seen of it (`exchange.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import SplitResult, parse_qs, urlsplit

URL_CHARACTERS_MAX: Final = 8192
"""Longer URLs carry data, not a ComfyUI route."""
DEFAULT_PORT: Final = 8188
"""Where ComfyUI listens if it is not told otherwise: enough to take a server for one."""


class Endpoint(StrEnum):
    """Low cardinality: the label of the metrics."""

    PROMPT = "prompt"
    HISTORY = "history"
    QUEUE = "queue"
    JOBS = "jobs"
    VIEW = "view"
    UPLOAD = "upload"
    INTERRUPT = "interrupt"
    SYSTEM_STATS = "system_stats"
    OBJECT_INFO = "object_info"
    FREE = "free"
    SOCKET = "ws"
    ROOT = "root"
    OTHER = "other"


_LAST: Final = {
    "prompt": Endpoint.PROMPT,
    "history": Endpoint.HISTORY,
    "queue": Endpoint.QUEUE,
    "view": Endpoint.VIEW,
    "interrupt": Endpoint.INTERRUPT,
    "system_stats": Endpoint.SYSTEM_STATS,
    "object_info": Endpoint.OBJECT_INFO,
    "free": Endpoint.FREE,
    "ws": Endpoint.SOCKET,
    "models": Endpoint.OTHER,
    "embeddings": Endpoint.OTHER,
    "extensions": Endpoint.OTHER,
    "features": Endpoint.OTHER,
}
"""The last segment of a path."""
_BEFORE_LAST: Final = {
    "history": Endpoint.HISTORY,
    "object_info": Endpoint.OBJECT_INFO,
    "models": Endpoint.OTHER,
    "upload": Endpoint.UPLOAD,
}
"""The segment before the last."""
UNMISTAKABLE: Final = frozenset({Endpoint.SYSTEM_STATS, Endpoint.OBJECT_INFO})
"""Nothing else has such a path."""


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    endpoint: Endpoint
    host: str
    port: int
    prefix: str
    """The path of the server, without `/api`."""
    argument: str = ""
    """The id in `/history/{id}` and `/api/jobs/{id}`; `cancel` for the cancelling of jobs, `{id}/cancel` with one."""
    query: str = ""

    @property
    def base(self) -> str:
        """The server: what two URLs of one server have in common."""
        return f"{self.host}:{self.port}{self.prefix}"

    @property
    def backend(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def reads(self) -> bool:
        return self.method in {"GET", "HEAD", "OPTIONS"}

    def parameter(self, name: str) -> str:
        return parse_qs(self.query).get(name, [""])[0]


def classify(method: str, url: str) -> Route | None:
    """The ComfyUI route that the URL would be, if its server were one."""
    if len(url) > URL_CHARACTERS_MAX:
        return None
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), _port(parts)
    except ValueError:
        return None
    if not host or not port:
        return None
    found = _endpoint([each for each in parts.path.split("/") if each])
    if found is None:
        return None
    endpoint, argument, before = found
    if before and before[-1] == "api":
        before = before[:-1]
    prefix = "".join(f"/{each}" for each in before)
    return Route(method.upper(), endpoint, host, port, prefix, argument, parts.query)


def base_of(text: str) -> str:
    """The base of a configured server: a URL or host:port."""
    parts = urlsplit(text if "://" in text else f"http://{text}")
    path = parts.path.rstrip("/").removesuffix("/api")
    return f"{(parts.hostname or '').lower()}:{_port(parts)}{path}"


def _port(parts: SplitResult) -> int:
    return parts.port or {"http": 80, "https": 443, "ws": 80, "wss": 443}.get(parts.scheme, 0)


def _endpoint(segments: list[str]) -> tuple[Endpoint, str, list[str]] | None:
    """The endpoint, its argument, and the segments in front of it."""
    if not segments:
        return Endpoint.ROOT, "", []
    last = segments[-1]
    if last in _LAST:
        return _LAST[last], "", segments[:-1]
    if len(segments) >= 2 and segments[-2] in _BEFORE_LAST:
        return _BEFORE_LAST[segments[-2]], last, segments[:-2]
    for index in range(max(1, len(segments) - 3), len(segments)):
        # Only newer versions have it, only behind /api; `jobs` alone is too common a word.
        if segments[index] == "jobs" and segments[index - 1] == "api":
            return Endpoint.JOBS, "/".join(segments[index + 1 :]), segments[: index - 1]
    return None
