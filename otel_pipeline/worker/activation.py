"""The table of adapters: which module of which library, once it is imported, is given which hooks. Nothing is imported
for it: a hook waits until the program imports the library itself.

`opentelemetry-instrument` calls `pre_instrument` and `post_instrument` (entry points in entry.py). The adapters go in
last, so that their wrappers are around those of the official instrumentations and can silence a span that would only be
noise, such as one for each empty pop.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Final

import wrapt

from otel_pipeline.worker.settings import settings

_log = logging.getLogger("otel_pipeline.worker")


@dataclass(frozen=True, slots=True)
class Adapter:
    """`patch(module)` in our module `code` is called when `library` is imported. Several rows may share a name."""

    name: str
    library: str
    code: str
    patch: str = "patch"


ADAPTERS: Final = (
    Adapter("tasks", "uvloop", "tasks", "patch_uvloop"),
    Adapter("redis", "redis.client", "adapters.redis"),
    Adapter("redis", "redis.asyncio.client", "adapters.redis"),
    Adapter("redis", "redis.cluster", "adapters.redis", "patch_cluster"),
    Adapter("redis", "redis.asyncio.cluster", "adapters.redis", "patch_cluster"),
    Adapter("celery", "celery", "adapters.celery"),
    Adapter("celery", "kombu.messaging", "adapters.celery", "patch_producer"),
    Adapter("celery", "celery.app.task", "adapters.celery", "patch_task"),
    Adapter("celery", "celery.backends.base", "adapters.celery", "patch_backend"),
    Adapter("celery", "celery.backends.redis", "adapters.celery", "patch_redis_backend"),
    Adapter("celery", "celery.worker.request", "adapters.celery_parent"),
    Adapter("rq", "rq.job", "adapters.rq", "patch_job"),
    Adapter("rq", "rq.queue", "adapters.rq", "patch_queue"),
    Adapter("rq", "rq.worker", "adapters.rq", "patch_worker"),
    Adapter("arq", "arq.worker", "adapters.arq", "patch_worker"),
    Adapter("arq", "arq.connections", "adapters.arq", "patch_connections"),
    Adapter("dramatiq", "dramatiq.broker", "adapters.dramatiq"),
    Adapter("bullmq", "bullmq.worker", "adapters.bullmq", "patch_worker"),
    Adapter("bullmq", "bullmq.queue", "adapters.bullmq", "patch_queue"),
    Adapter("bullmq", "bullmq.flow_producer", "adapters.bullmq", "patch_flow"),
    Adapter("runpod", "runpod.serverless", "adapters.runpod"),
    Adapter("sqs", "botocore.client", "adapters.sqs"),
    Adapter("sqs", "aiobotocore.client", "adapters.sqs", "patch_aio"),
    Adapter("pika", "pika.channel", "adapters.pika"),
    Adapter("pika", "pika.adapters.blocking_connection", "adapters.pika", "patch_blocking"),
    Adapter("aio_pika", "aio_pika.queue", "adapters.aio_pika", "patch_queue"),
    Adapter("aio_pika", "aio_pika.exchange", "adapters.aio_pika", "patch_exchange"),
    Adapter("aio_pika", "aio_pika.message", "adapters.aio_pika", "patch_message"),
    Adapter("aio_pika", "aio_pika.robust_queue", "adapters.aio_pika", "patch_robust"),
    Adapter("kombu", "kombu.messaging", "adapters.kombu"),
    Adapter("kombu", "kombu.message", "adapters.kombu", "patch_message"),
    Adapter("temporal", "temporalio.client", "adapters.temporal", "patch_client"),
    Adapter("temporal", "temporalio.worker", "adapters.temporal", "patch_worker"),
    Adapter("background", "starlette.background", "adapters.background"),
    Adapter("comfyui_client", "httpx", "comfyui.client_httpx"),
    Adapter("comfyui_client", "httpx2", "comfyui.client_httpx"),
    Adapter("comfyui_client", "requests.sessions", "comfyui.client_requests"),
    Adapter("comfyui_client", "aiohttp.client", "comfyui.client_aiohttp"),
    Adapter("comfyui_client", "urllib.request", "comfyui.client_urllib"),
    Adapter("comfyui_client", "websocket", "comfyui.client_websocket"),
    # websockets imports its halves when they are asked for.
    Adapter("comfyui_client", "websockets.asyncio.connection", "comfyui.client_websockets"),
    Adapter("comfyui_client", "websockets.trio.connection", "comfyui.client_websockets"),
    Adapter("comfyui_client", "websockets.sync.connection", "comfyui.client_websockets", "patch_sync"),
    Adapter("comfyui_client", "websockets.legacy.protocol", "comfyui.client_websockets", "patch_legacy"),
    Adapter("comfyui_server", "execution", "comfyui.server", "patch_execution"),
    Adapter("comfyui_server", "server", "comfyui.server", "patch_server"),
    Adapter("loguru", "loguru", "logs", "patch_loguru"),
)
"""In code a new adapter is one file and its rows here."""
ALWAYS: Final = (
    ("tasks", "tasks"),
    ("inprocess", "adapters.inprocess"),
    ("functions", "adapters.functions"),
    ("logs", "logs"),
)
"""Adapters of the standard library and of the program itself: (name, code)."""

_done: set[tuple[str, str]] = set()


def activate() -> None:
    """Arms every adapter that is not disabled. Idempotent; never raises."""
    if "otel_pipeline" in _disabled() or "*" in _disabled():
        return
    for name, code in ALWAYS:
        if name not in _disabled():
            _apply(code, "patch", None)
    for adapter in ADAPTERS:
        if adapter.name not in _disabled():
            wrapt.register_post_import_hook(_on_import(adapter), adapter.library)


def _disabled() -> frozenset[str]:
    official = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")
    return frozenset(settings().adapters_disabled) | {name.strip() for name in official if name.strip()}


def _on_import(adapter: Adapter) -> Callable[[ModuleType], None]:
    return lambda module: _apply(adapter.code, adapter.patch, module)


def _apply(code: str, patch: str, module: ModuleType | None) -> None:
    """Loads our half and lets it patch. A library of another shape than expected costs its adapter, nothing else."""
    key = (f"{code}.{patch}", module.__name__ if module is not None else "")
    if key in _done:
        return
    _done.add(key)
    try:
        function = getattr(importlib.import_module(f"otel_pipeline.worker.{code}"), patch)
        function() if module is None else function(module)
    except Exception:  # noqa: BLE001  the program must start whatever happens here
        _log.warning("no hooks for %s: this version of it is not understood", module or code, exc_info=True)
