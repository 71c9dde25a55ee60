"""The `dcgm` receiver: asks NVIDIA DCGM exporters for their GPUs and hands the answers in as OTLP metrics.

An exporter asks DCGM on a schedule of its own, every 30 s unless told otherwise, and shows the same values until then.
A value that is shown twice is one measurement: handed in twice it would read as an energy counter that stands still and
then jumps. So a GPU whose values are all the same as in the last scrape is left out, until the exporter must have
measured again. What is handed in was measured after the scrape before; how long ago that was stands on the resource
(`otel_pipeline.sample_age_max_nano`), for whoever joins samples with spans.

One task on the event loop for each exporter: one that does not answer delays no other.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import aiohttp
from pydantic import Field

from otel_pipeline import __version__
from otel_pipeline.contracts import Accepted, RetryLater, Settings
from otel_pipeline.gpu.dcgm import read_page, to_request
from otel_pipeline.limits import DCGM_BODY_BYTES_MAX, DCGM_ENDPOINTS_MAX
from otel_pipeline.quiet import Quiet
from otel_pipeline.settings import Duration, Headers, TlsClient, Url, without_password
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline.contracts import Context, Entrance, Verdict
    from otel_pipeline.gpu.dcgm import Gpu, Page

log = logging.getLogger(__name__)

PATH: Final = "/metrics"
PIECE_BYTES: Final = 65536
NS: Final = 1_000_000_000
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Exporter(Settings):
    """One DCGM exporter."""

    endpoint: Url = Field(examples=["http://gpu-node-1:9400/metrics"])
    """URL; without a path it is /metrics."""
    host_name: str = Field(default="", max_length=253)
    """The host of its GPUs, as `host.name` in the spans of that host; by default the label Hostname of the exporter, or
    the host in the URL."""
    tls: TlsClient = Field(default_factory=TlsClient)
    """For https URLs."""
    headers: Headers = Field(default_factory=dict)
    """Headers of every request, such as Authorization."""


class DcgmReceiver:
    """Asks the exporters and hands in what they say."""

    class Config(Settings):
        """Scrapes NVIDIA DCGM exporters: utilization, memory, power, energy, temperatures and errors of GPUs."""

        endpoints: list[Exporter] = Field(
            min_length=1,
            max_length=DCGM_ENDPOINTS_MAX,
            examples=[[{"endpoint": "http://127.0.0.1:9400/metrics"}]],
        )
        """The exporters to ask."""
        collection_interval: Duration = Field(default=10.0, gt=0)
        """How often each is asked. It bounds how much later than the measurement the times of samples are."""
        exporter_interval: Duration = Field(default=30.0, gt=0)
        """How often the exporters measure: their --collect-interval. Values that stay the same for longer were measured
        again."""
        timeout: Duration = Field(default=5.0, gt=0)
        """Longest wait for an answer."""
        max_response_bytes: int = Field(default=DCGM_BODY_BYTES_MAX, ge=1024, le=DCGM_BODY_BYTES_MAX)
        """Largest answer; a larger one is not read."""

    def __init__(self, config: Config, context: Context, entrances: Mapping[str, Mapping[Signal, Entrance]]) -> None:
        self._config = config
        self._loop = context.loop
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None
        """Of its own: exporters that do not answer must not hold the connections to the backends."""
        entrance = entrances["http"][Signal.METRICS]
        self._scrapers = [Scraper(config, one, context, entrance) for one in config.endpoints]

    def start(self) -> None:
        """Begin to ask."""
        self._loop.run(self._begin())

    def stop(self, grace_s: float) -> None:
        """Ask no more; what was handed in has its verdict within the grace, or is given up. May be called twice."""
        if self._loop.running:
            self._loop.run(self._end(grace_s))

    async def _begin(self) -> None:
        apart_s = self._config.collection_interval / len(self._scrapers)
        self._session = session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)
        self._tasks = [
            asyncio.create_task(scraper.run(session, index * apart_s), name="dcgm")
            for index, scraper in enumerate(self._scrapers)
        ]

    async def _end(self, grace_s: float) -> None:
        handing_in = [scraper.handing_in for scraper in self._scrapers if scraper.handing_in]
        if handing_in:
            await asyncio.wait(handing_in, timeout=grace_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._session is not None:
            await self._session.close()
            self._session = None


class ScrapeError(Exception):
    """An exporter did not give what it should; `outcome` is what is counted."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


class Scraper:
    """Asks one exporter."""

    def __init__(self, config: DcgmReceiver.Config, exporter: Exporter, context: Context, entrance: Entrance) -> None:
        self.handing_in: asyncio.Future[Verdict] | None = None
        self._config = config
        self._exporter = exporter
        self._clock = context.clock
        self._entrance = entrance
        self._id = context.component_id
        self._quiet = Quiet(log)
        self._scrapes = context.stats.dcgm_scrapes
        self._left_out = context.stats.dcgm_left_out
        self._tls = exporter.tls.ssl_context()
        parts = urlsplit(exporter.endpoint)
        self._url = exporter.endpoint if parts.path.strip("/") else parts._replace(path=PATH).geturl()
        self._shown_url = without_password(self._url)
        self._own_host = socket.gethostname() if parts.hostname in LOOPBACK else parts.hostname or ""
        self._headers = {name: value.get_secret_value() for name, value in exporter.headers.items()}
        self._headers |= {"User-Agent": f"otel-pipeline/{__version__}", "Accept-Encoding": "identity"}
        self._shown = Shown(config.exporter_interval)

    async def run(self, session: aiohttp.ClientSession, delay_s: float) -> None:
        """Ask at a steady pace until cancelled; nothing that an exporter does ends it."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + delay_s
        while True:
            await asyncio.sleep(due_s - loop.time())
            try:
                outcome = await self._scrape(session)
            except ScrapeError as error:
                outcome = error.outcome
                self._quiet.warning("receiver %s: %s: %s", self._id, self._shown_url, error)
            except Exception:  # noqa: BLE001 - the next scrape may do better
                outcome = "failed"
                self._quiet.exception("receiver %s: %s", self._id, self._shown_url)
            self._scrapes.labels(self._id, outcome).inc()
            due_s = max(due_s + self._config.collection_interval, loop.time())

    async def _scrape(self, session: aiohttp.ClientSession) -> str:
        """Ask once and hand in what is new; the outcome. Raises ScrapeError."""
        body, now_s = await self._ask(session)
        page = read_page(body.decode(errors="replace"))
        fresh, age_max_s = self._shown.fresh(page, now_s)
        for reason, lines in page.dropped.items():
            self._left_out.labels(self._id, reason).inc(lines)
        if not page.gpus:
            raise ScrapeError("no_gpus", "the answer tells of no GPU")
        if not fresh:
            return "cached"
        request = to_request(
            fresh,
            int(now_s * NS),
            age_max_ns=int(age_max_s * NS),
            host=self._exporter.host_name,
            own_host=self._own_host,
            version=__version__,
        )
        verdict = await self._hand_in(request)
        if isinstance(verdict, Accepted):
            return "ok"
        self._shown = Shown(self._config.exporter_interval)  # the same values may be handed in again
        outcome = "retry_later" if isinstance(verdict, RetryLater) else "rejected"
        raise ScrapeError(outcome, f"a scrape is dropped: {verdict.reason}")

    async def _hand_in(self, request: bytes) -> Verdict:
        """Wait for the verdict. A cancelled caller leaves the request under way."""
        self.handing_in = asyncio.ensure_future(self._entrance.accept(request))
        try:
            return await asyncio.shield(self.handing_in)
        finally:
            self.handing_in = None

    async def _ask(self, session: aiohttp.ClientSession) -> tuple[bytes, float]:
        """The answer, and when it began to come: what is in it was measured before."""
        try:
            async with session.get(
                self._url,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=self._config.timeout),
                ssl=self._tls,
                server_hostname=self._exporter.tls.server_name_override,
                allow_redirects=False,
            ) as response:
                now_s = self._clock()
                if response.status != 200:
                    raise ScrapeError("http_status", f"HTTP {response.status}")
                return await self._read(response), now_s
        except TimeoutError as error:
            raise ScrapeError("timeout", f"no answer in {self._config.timeout:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ScrapeError("unreachable", without_password(f"{type(error).__name__} {error}")) from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ScrapeError("encoding", "the answer is compressed, which was not asked for")
        answer = bytearray()
        async for piece in response.content.iter_chunked(PIECE_BYTES):
            answer += piece
            if len(answer) > self._config.max_response_bytes:
                raise ScrapeError("too_large", f"the answer has more than {self._config.max_response_bytes} bytes")
        return bytes(answer)


class Shown:
    """What an exporter showed last, to tell new measurements from old ones."""

    def __init__(self, exporter_interval_s: float) -> None:
        self._interval_s = exporter_interval_s
        self._asked_s: float | None = None
        self._last: dict[str, Seen] = {}

    def fresh(self, page: Page, now_s: float) -> tuple[list[Gpu], float]:
        """The GPUs that were measured since they were last handed in, and how long ago that may be at most, in
        seconds. The others are counted as `cached` in the page.
        """
        before_s = self._asked_s
        self._asked_s = now_s
        age_max_s = self._interval_s
        if before_s is not None:
            age_max_s = min(max(now_s - before_s, 0.0), self._interval_s)
        fresh: list[Gpu] = []
        seen: dict[str, Seen] = {}
        for gpu_id, gpu in page.gpus.items():
            last = self._last.get(gpu_id)
            if last is not None and last.values == gpu.values and 0 <= now_s - last.since_s < self._interval_s:
                page.dropped["cached"] += len(gpu.values)
                seen[gpu_id] = last
            else:
                fresh.append(gpu)
                seen[gpu_id] = Seen(gpu.values, now_s)
                if last is None or last.values == gpu.values:
                    age_max_s = self._interval_s
        self._last = seen
        return fresh, age_max_s


@dataclass(frozen=True, slots=True)
class Seen:
    """The values of a GPU."""

    values: Mapping[str, float]
    since_s: float
    """When they were handed in."""
