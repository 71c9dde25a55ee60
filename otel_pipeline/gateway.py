"""The composition root: a configuration goes in, every object is built and wired here in plain sight, started,
drained, stopped.
"""

from __future__ import annotations

import gc
import logging
import signal as signals
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from aiohttp import web

from otel_pipeline import health
from otel_pipeline.bookkeeping import Bookkeeper
from otel_pipeline.contracts import Context, Processor, Shared
from otel_pipeline.errors import OtelPipelineError
from otel_pipeline.event_loop import EventLoop
from otel_pipeline.exporters.sender import Batching, Sender
from otel_pipeline.exposition.families import Exposition
from otel_pipeline.exposition.page import page
from otel_pipeline.limits import COALESCE_BYTES_MAX, DRAIN_S, EXPORT_ITEMS_MIN, EXPORT_WAIT_S, STOP_GRACE_S
from otel_pipeline.memory import MemoryWatch, keep_freed_memory
from otel_pipeline.outbox import Outbox
from otel_pipeline.own_work import OwnWork
from otel_pipeline.pipeline import DataPath, Pipeline
from otel_pipeline.settings import Retry
from otel_pipeline.stats import Stats
from otel_pipeline.wire.scan import COMPILED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otel_pipeline.config.loader import ComponentSettings, GatewayConfig, PipelineConfig
    from otel_pipeline.contracts import Book, Receiver, Scraped
    from otel_pipeline.wire.signal import Signal

log = logging.getLogger(__name__)

SIGNALS: Final = frozenset({signals.SIGTERM, signals.SIGINT, signals.SIGHUP})
TRANSPORTS: Final = ("grpc", "http")
MIB: Final = 1024 * 1024


class Gateway:
    """All parts of one running gateway. `start`, then `stop`; between them it runs on its own threads."""

    def __init__(self, config: GatewayConfig, data_dir: Path) -> None:
        self._config = config
        self._stats = Stats()
        self._exposition = Exposition()
        self._loop = EventLoop()
        self._health = health.Health()
        self._memory = MemoryWatch.from_settings(_of_type(config, "memory_limiter"))
        self._shared = Shared()
        self._books = self._open_books(data_dir)
        self._outbox = self._open_outbox(data_dir)
        self._keepers = [Bookkeeper(book, self._outbox, self._stats) for book in self._books.values()]
        self._path = DataPath(self._outbox, self._stats, self._memory.short)
        self._data_dir = data_dir
        self._own_work = OwnWork(self._path, self._outbox)
        self._senders, self._scraped = self._build_exporters()
        self._receivers = self._build_receivers()

    # -- building ------------------------------------------------------------------------------------------------------

    def _open_books(self, data_dir: Path) -> dict[str, Book]:
        """The books that the processors in use leave records for."""
        used = {name for pipeline in self._config.pipelines.values() for name in pipeline.processors}
        users: dict[str, list[object]] = {}
        for step in (self._config.processors[name] for name in sorted(used)):
            for book in _books_of(step):
                users.setdefault(book, []).append(step.config)
        if not users:
            return {}
        from otel_pipeline.store.books import open_book  # noqa: PLC0415  the database's library takes 15 MB

        store = self._config.store
        return {name: open_book(name, store, data_dir, self._stats, users[name]) for name in sorted(users)}

    def _open_outbox(self, data_dir: Path) -> Outbox:
        settings = self._config.outbox
        capacity = settings.max_size_mib * MIB
        outbox = Outbox(
            settings.directory or data_dir / "outbox",
            {name: (one.signal.word, one.exporters) for name, one in self._config.pipelines.items()},
            bytes_max=capacity,
            sync=settings.sync,
            sync_interval_s=settings.sync_interval,
            books=list(self._books),
        )
        self._stats.watch(outbox.states, lambda: outbox.bytes_used, capacity)
        self._health.watch("outbox", lambda: "full" if outbox.bytes_used >= capacity - 2 * COALESCE_BYTES_MAX else "")
        return outbox

    def _build_exporters(self) -> tuple[list[Sender], list[Scraped]]:
        """A sender for each exporter that some pipeline uses, with a stream for each of these pipelines."""
        senders: dict[str, Sender] = {}
        scraped: list[Scraped] = []
        for pipeline_id, pipeline in self._config.pipelines.items():
            for exporter_id in pipeline.exporters:
                settings = self._config.exporters[exporter_id]
                if exporter_id not in senders:
                    exporter = settings.component(settings.config, self._context(exporter_id))
                    senders[exporter_id] = Sender(exporter_id, exporter, self._outbox, self._stats)
                    if hasattr(exporter, "paths"):
                        scraped.append(exporter)
                retry = getattr(settings.config, "retry_on_failure", None) or Retry()
                senders[exporter_id].add(pipeline_id, pipeline.signal, self._batching(pipeline), retry)
        return list(senders.values()), scraped

    def _build_receivers(self) -> list[Receiver]:
        """Each receiver with an entrance for each transport and signal, leading to the pipelines that name it."""
        pipelines = {name: self._build_pipeline(name, one) for name, one in self._config.pipelines.items()}
        receivers: list[Receiver] = []
        for receiver_id, settings in self._config.receivers.items():
            fed: dict[Signal, list[Pipeline]] = {}
            for name, one in self._config.pipelines.items():
                if receiver_id in one.receivers:
                    fed.setdefault(one.signal, []).append(pipelines[name])
            if fed:
                entrances = {
                    transport: {one: self._path.lane(receiver_id, transport, one, fed[one]) for one in fed}
                    for transport in TRANSPORTS
                }
                receivers.append(settings.component(settings.config, self._context(receiver_id), entrances))
        return receivers

    def _build_pipeline(self, name: str, pipeline: PipelineConfig) -> Pipeline:
        processors = self._build_processors(name, pipeline)
        built = Pipeline(name, pipeline.signal, processors, self._stats)
        for component_id, processor in processors:
            self._own_work.add(built, component_id, processor)
        return built

    def _build_processors(self, name: str, pipeline: PipelineConfig) -> list[tuple[str, Processor]]:
        """The processors of one pipeline; `batch` and `memory_limiter` are settings of the gateway, no steps."""
        chosen = [self._config.processors[each] for each in pipeline.processors]
        return [(one.id, one.component(one.config, self._of_step(name, pipeline, one))) for one in chosen if one.built]

    def _of_step(self, name: str, pipeline: PipelineConfig, step: ComponentSettings) -> Context:
        books = {book: self._books[book] for book in _books_of(step)}
        return replace(
            self._context(step.id),
            directory=self._directory("pipelines", name, step.id),
            common_directory=self._directory("common", step.id),
            signal=pipeline.signal,
            books=books,
        )

    def _directory(self, *names: str) -> Path:
        return self._data_dir.joinpath("components", *(quote(name, safe="") for name in names))

    def _batching(self, pipeline: PipelineConfig) -> Batching:
        for name in pipeline.processors:
            settings = self._config.processors[name]
            if settings.type == "batch":
                batch = settings.config
                return Batching(batch.send_batch_size, batch.timeout, batch.send_batch_max_size)
        return Batching(EXPORT_ITEMS_MIN, EXPORT_WAIT_S)

    def _context(self, component_id: str) -> Context:
        return Context(component_id, self._stats, self._exposition, self._loop, shared=self._shared)

    # -- running -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start from the inside out: who takes work is ready before who hands it in. Raises OSError for a port."""
        if not COMPILED:
            log.warning("the compiled kernel is not built: the interpreted one is about 300 times slower")
        self._health.watch("kernel", lambda: "", "compiled" if COMPILED else "interpreted, about 300 times slower")
        self._loop.start()
        self._serve_extensions()
        self._serve_own_metrics()
        for exporter in self._scraped:
            self._serve(exporter.paths, exporter.endpoint)
        for keeper in self._keepers:
            keeper.start()
        for sender in self._senders:
            sender.start()
        self._loop.run(self._own_work.start())
        for receiver in self._receivers:
            receiver.start()
        gc.collect()
        gc.freeze()  # what lives until the end need not be looked at in each collection
        self._health.ready()

    def stop(self, drain_s: float = DRAIN_S) -> None:
        """Take no more, finish what was taken, deliver what can be delivered before the deadline. May be called
        twice.
        """
        deadline_s = time.monotonic() + drain_s
        self._health.stopping()
        for receiver in self._receivers:
            receiver.stop(min(STOP_GRACE_S, drain_s))
        if self._loop.running:
            self._loop.run(self._own_work.stop())
            self._loop.run(self._path.stop())
        for sender in self._senders:
            sender.stop(deadline_s)
        for keeper in self._keepers:
            keeper.stop(deadline_s)
        self._loop.stop()
        self._outbox.close()

    def _serve_extensions(self) -> None:
        for extension_id in self._config.service_extensions:
            settings = self._config.extensions[extension_id]
            if settings.type == "health_check":
                self._loop.serve(health.application(self._health, settings.config.path), settings.config.endpoint)

    def _serve_own_metrics(self) -> None:
        address = self._config.telemetry.metrics_address
        if address:
            self._serve({"/metrics": self._own_metrics}, address)

    def _own_metrics(self, accept: str) -> tuple[str, bytes]:
        return page(list(self._stats.registry.collect()), accept)

    def _serve(self, paths: dict[str, Callable[[str], tuple[str, bytes]]], endpoint: str) -> None:
        app = web.Application()
        for path, render in paths.items():
            app.router.add_get(path, _page(render))
        self._loop.serve(app, endpoint)


def run(config: GatewayConfig, data_dir: Path) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    keep_freed_memory()
    # Before any thread exists, so that all inherit the mask: a signal that one of grpc's threads took would be lost.
    signals.pthread_sigmask(signals.SIG_BLOCK, SIGNALS)
    for warning in config.warnings:
        log.warning("%s", warning)
    try:
        gateway = Gateway(config, data_dir)
    except (OtelPipelineError, OSError) as error:
        log.error("cannot start: %s", error)  # noqa: TRY400 - the operator needs the reason, not the stack
        return 1
    try:
        gateway.start()
        log.info("ready: %s", ", ".join(sorted(config.pipelines)))
        while signals.sigwait(SIGNALS) is signals.SIGHUP:
            log.warning("SIGHUP: a new configuration needs a restart")
        log.info("stopping: draining for up to %.0f s", DRAIN_S)
    except OSError as error:
        log.error("cannot start: %s", error)  # noqa: TRY400
        return 1
    finally:
        gateway.stop()
    return 0


def _page(render: Callable[[str], tuple[str, bytes]]) -> Any:  # an aiohttp handler
    async def page(request: web.Request) -> web.Response:
        content_type, body = render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    return page


def _books_of(step: ComponentSettings) -> tuple[str, ...]:
    names = getattr(step.component, "books", None)
    return tuple(names(step.config)) if names else ()


def _of_type(config: GatewayConfig, kind: str) -> list[Any]:
    """The settings of the processors of a type that some pipeline uses."""
    used = {name for pipeline in config.pipelines.values() for name in pipeline.processors}
    return [one.config for name, one in config.processors.items() if name in used and one.type == kind]
