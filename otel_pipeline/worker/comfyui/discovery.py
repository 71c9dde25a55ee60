"""Where ComfyUI is at the moment: its pod writes its URL to a Redis key, workers read it from there.

    python -m otel_pipeline.worker.comfyui.discovery publish --redis-url redis://... --url https://pod-8188.example

    backend = ComfyUIURL(redis.Redis(...))          # or AsyncComfyUIURL(redis.asyncio.Redis(...))
    url = backend.get()                             # or await backend.get()

A reader asks Redis once in `ttl_s`. While Redis is away it goes on with the last URL that it knows and counts the
failures; a key that is not there means that there is no such ComfyUI, and gives the default. What was found is the
backend of the current job and span. Any client with `get(key)` will do; redis is not imported here but by the command.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_pipeline import __version__
from otel_pipeline.worker import names
from otel_pipeline.worker.flow import error_name
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import current_job

KEY: Final = "current_comfyui_url"
TTL_S: Final = 60.0
"""How long a URL is used before Redis is asked again, and how long a published one outlives its publisher."""
RETRY_S: Final = 5.0
"""How long Redis is left alone after a failure: a job must not wait for a connection at each call."""
URL_MAX: Final = 2_048
CHECK_TIMEOUT_S: Final = 3.0

_log = logging.getLogger("otel_pipeline.worker.discovery")
_failures: Final = metrics.get_meter("otel_pipeline.worker", __version__).create_counter(
    "comfyui.discovery.failures", "{failure}", "Reads of ComfyUI's URL from Redis that failed."
)


class _Client(Protocol):
    def get(self, name: str, /) -> Any: ...


class _Known:
    """The URL as last read, and when to read it again."""

    def __init__(
        self,
        redis: _Client,
        key: str = KEY,
        ttl_s: float = TTL_S,
        default: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failures = 0
        """Reads that failed."""
        self._redis = redis
        self._key = key
        self._ttl_s = ttl_s
        self._default = default
        self._clock = clock
        self._url: str | None = default
        self._due_s = float("-inf")

    def _is_due(self) -> bool:
        """Whether this caller is to read. The others go on with what is known meanwhile."""
        now_s = self._clock()
        if now_s < self._due_s:
            return False
        self._due_s = now_s + RETRY_S
        return True

    def _found(self, value: object) -> None:
        self._url = _valid(value) or self._default
        self._due_s = self._clock() + self._ttl_s

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self._due_s = self._clock() + min(RETRY_S, self._ttl_s)
        _count(error)

    def _answer(self) -> str | None:
        if self._url is not None:
            _mark(self._url)
        return self._url


class ComfyUIURL(_Known):
    """Through a client of the ordinary kind. May be shared by threads."""

    def get(self) -> str | None:
        """The URL without a slash at its end; None if there is none and no default."""
        if self._is_due():
            try:
                with suppress_instrumentation():
                    value = self._redis.get(self._key)
                self._found(value)
            except Exception as error:  # noqa: BLE001  whatever the client raises, the worker goes on
                self._failed(error)
        return self._answer()


class AsyncComfyUIURL(_Known):
    """Through an asyncio client. May be shared by tasks of one loop."""

    async def get(self) -> str | None:
        """The URL without a slash at its end; None if there is none and no default."""
        if self._is_due():
            try:
                with suppress_instrumentation():
                    reading: Awaitable[Any] = self._redis.get(self._key)
                    value = await reading
                self._found(value)
            except Exception as error:  # noqa: BLE001  whatever the client raises, the worker goes on
                self._failed(error)
        return self._answer()


def _valid(value: object) -> str | None:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if not isinstance(text, str) or len(text) > URL_MAX:
        return None
    text = text.strip().rstrip("/")
    try:
        parts = urlsplit(text)
        right = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return text if right else None


def backend_name(url: str) -> str:
    """The backend of a URL: host and port, never user and password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


@hook("discovery.mark")
def _mark(url: str) -> None:
    name, job = backend_name(url), current_job()
    if job is not None:
        job.set(names.BACKEND, name)
    trace.get_current_span().set_attribute(names.BACKEND, name)


@hook("discovery.count")
def _count(error: Exception) -> None:
    _failures.add(1, {names.ERROR_TYPE: error_name(error)})


# -- the publisher -----------------------------------------------------------------------------------------------------

_DELETE_OWN: Final = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
"""Another pod may have taken over in the meantime."""


class Publisher:
    """Keeps a URL in Redis as long as it runs and `check` says that ComfyUI answers."""

    def __init__(self, redis: Any, key: str, url: str, ttl_s: float, check: Callable[[], bool]) -> None:
        self._redis = redis
        self._key = key
        self._url = url
        self._ttl_ms = max(1, int(ttl_s * 1000))
        self._check = check
        self._told: str | None = None
        """What the log was told last: each state once."""

    def publish(self) -> bool:
        """Writes the URL once; False if ComfyUI or Redis is away."""
        if not self._check():
            self._tell("ComfyUI does not answer; its URL is left to expire")
            return False
        try:
            self._redis.set(self._key, self._url, px=self._ttl_ms)
        except Exception as error:  # noqa: BLE001  Redis comes back, or its operator sees the log
            self._tell(f"Redis is away: {error_name(error)}")
            return False
        self._tell(f"published {backend_name(self._url)} as {self._key}")
        return True

    def withdraw(self) -> None:
        """Deletes the key if it still holds this URL."""
        try:
            self._redis.eval(_DELETE_OWN, 1, self._key, self._url)
        except Exception as error:  # noqa: BLE001  then it expires
            self._tell(f"not withdrawn: {error_name(error)}")

    def run(self, interval_s: float, stop: threading.Event) -> None:
        """Publishes until told to stop, then withdraws."""
        while not stop.is_set():
            self.publish()
            stop.wait(interval_s)
        self.withdraw()

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            _log.info(text)


def own_url(environment: Mapping[str, str], port: int) -> str:
    """How this pod's ComfyUI is reached from outside, as far as the provider's environment says it."""
    pod, address = environment.get("RUNPOD_POD_ID"), environment.get("PUBLIC_IPADDR")
    if pod:
        return f"https://{pod}-{port}.proxy.runpod.net"
    if address and environment.get(f"VAST_TCP_PORT_{port}"):
        return f"http://{address}:{environment[f'VAST_TCP_PORT_{port}']}"
    return f"http://{environment.get('POD_IP') or socket.gethostname()}:{port}"


def answers(base_url: str) -> bool:
    """Whether a ComfyUI answers there."""
    request = urllib.request.Request(f"{base_url.rstrip('/')}/prompt")  # noqa: S310  see main: http and https only
    try:
        with suppress_instrumentation(), urllib.request.urlopen(request, timeout=CHECK_TIMEOUT_S) as answer:  # noqa: S310
            document = json.loads(answer.read(65_536))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and "exec_info" in document


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    url = _valid(given.url or own_url(os.environ, given.port))
    if url is None or (given.check and _valid(given.check) is None):
        parser.error("--url and --check are http:// or https:// URLs")
    if not 0 < given.interval < given.ttl:
        parser.error("--interval is less than --ttl, or the key would come and go")
    try:
        import redis  # noqa: PLC0415  the readers go without
    except ImportError:
        parser.error("the package redis is not installed")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    client = redis.Redis.from_url(
        given.redis_url, socket_timeout=CHECK_TIMEOUT_S, socket_connect_timeout=CHECK_TIMEOUT_S
    )
    check = functools.partial(answers, given.check) if given.check else lambda: True
    publisher, stop = Publisher(client, given.key, url, given.ttl, check), threading.Event()
    if given.once:
        return 0 if publisher.publish() else 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    publisher.run(given.interval, stop)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m otel_pipeline.worker.comfyui.discovery", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    publish = parser.add_subparsers(required=True).add_parser("publish", help="keep this pod's URL in Redis")
    publish.add_argument("--redis-url", default=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
    publish.add_argument("--key", default=KEY)
    publish.add_argument(
        "--url", help="default: from the environment of RunPod, Vast or Kubernetes, else the host name"
    )
    publish.add_argument("--port", type=int, default=8188, help="of ComfyUI, if --url is not given")
    publish.add_argument("--ttl", type=float, default=TTL_S, help="seconds after which an URL that is not renewed goes")
    publish.add_argument("--interval", type=float, default=TTL_S / 3, help="seconds between renewals")
    publish.add_argument("--check", help="base URL at which ComfyUI has to answer, such as http://127.0.0.1:8188")
    publish.add_argument("--once", action="store_true", help="write it once and exit")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
