"""What the operator sets for the worker side: environment variables, read once, each with its default and its meaning.

A value that cannot be read leaves the default in force and is told of in the log (`otel_pipeline.worker`): an error in
telemetry must not stop a worker. docs/worker.md is the manual; a test compares the two.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from otel_pipeline.worker import names

_log = logging.getLogger("otel_pipeline.worker")
PREFIX: Final = "OTEL_PIPELINE_"


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in (each.strip() for each in text.replace("\n", ",").split(",")) if word)


def _truth(text: str) -> bool:
    word = text.strip().lower()
    if word not in {"true", "false", "1", "0", "yes", "no", "on", "off"}:
        raise ValueError("it is true or false")
    return word in {"true", "1", "yes", "on"}


def _choice(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.strip().lower() not in words:
            raise ValueError(f"it is one of: {', '.join(words)}")
        return text.strip().lower()

    return parse


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e9:
        raise ValueError("it is a positive number")
    return number


def _setting(variable: str, default: Any, parse: Callable[[str], Any]) -> Any:
    return field(default=default, metadata={"variable": PREFIX + variable, "parse": parse})


@dataclass(frozen=True, slots=True)
class Settings:
    """One field a variable."""

    queues: tuple[str, ...] = _setting("QUEUES", ("*",), _words)
    """Globs: the Redis lists, streams and sorted sets whose elements are jobs."""
    queues_excluded: tuple[str, ...] = _setting("QUEUES_EXCLUDED", (), _words)
    """Globs: never jobs. Keys of queue frameworks are never taken for job queues of the program's own."""
    job_functions: tuple[str, ...] = _setting("JOB_FUNCTIONS", (), _words)
    """pkg.mod:function or pkg.mod:Class.method: each call is a job, or completes the job that was popped for it."""
    job_fields: str = _setting("JOB_FIELDS", "", str)
    """Where the fields of a job are found: YAML or JSON, or the path of such a file."""
    job_rules: str = _setting("JOB_RULES", "", str)
    """Rules of the operator's own for outcomes: YAML or JSON, or the path of such a file."""
    relation: str = _setting("JOB_RELATION", "parent", _choice("parent", "link"))
    """A job is a child of the span that enqueued it, or a trace of its own that links to it."""
    carrier: str = _setting("CARRIER", "side_key", _choice("side_key", "json", "off"))
    """How context crosses a Redis queue: a key beside it, a field added to JSON objects, or not at all."""
    context_ttl_s: float = _setting("CONTEXT_TTL_S", 86_400.0, _positive)
    """How long a side key waits for its job."""
    baggage: tuple[str, ...] = _setting("BAGGAGE", names.CARRIED, _words)
    """Which fields travel as baggage, also to the APIs that the worker calls; empty for none."""
    user_key: str = _setting("USER_KEY", "", str)
    """Secret for the pseudonyms of users (HMAC-SHA-256); the same on every worker. Without it a plain hash."""
    adapters_disabled: tuple[str, ...] = _setting("ADAPTERS_DISABLED", (), _words)
    """Names of adapters to leave out: redis, celery, rq, comfyui_client ..."""
    root_client_spans: bool = _setting("ROOT_CLIENT_SPANS", default=False, parse=_truth)
    """Keep spans of Redis commands outside of any trace: heartbeats, polling."""
    job_timeout_s: float = _setting("JOB_TIMEOUT_S", 6 * 3600.0, _positive)
    """A job that nobody ended by then is ended as unknown."""
    heartbeat_s: float = _setting("HEARTBEAT_S", 30.0, _positive)
    """How often an open job is reported as running; the gateway marks it lost when the reports stop."""
    flush_timeout_s: float = _setting("FLUSH_TIMEOUT_S", 2.0, _positive)
    """Longest wait for a flush where the process may vanish after a job."""
    exit_timeout_s: float = _setting("EXIT_TIMEOUT_S", 3.0, _positive)
    """Longest delay of the process's exit by telemetry."""
    comfyui_urls: tuple[str, ...] = _setting("COMFYUI_URLS", (), _words)
    """Base URLs or host:port of ComfyUI servers; without any they are told by the shape of requests and answers."""
    comfyui_node_spans: str = _setting("COMFYUI_NODE_SPANS", "auto", _choice("auto", "on", "off"))
    """Spans for nodes seen on a WebSocket: auto leaves them out where the server reports its nodes itself."""
    sample_queues: tuple[str, ...] = _setting("SAMPLE_QUEUES", (), _words)
    """Redis lists, streams and sorted sets whose depth a thread of the worker measures; key or key=stage."""
    sample_redis_url: str = _setting("SAMPLE_REDIS_URL", "", str)
    """The Redis that holds them."""
    sample_backends: tuple[str, ...] = _setting("SAMPLE_BACKENDS", (), _words)
    """Base URLs of ComfyUI servers whose health a thread of the worker measures; URL or name=URL."""
    sample_interval_s: float = _setting("SAMPLE_INTERVAL_S", 15.0, _positive)
    """How often."""
    gpu_sampling: str = _setting("GPU_SAMPLING", "auto", _choice("auto", "on", "off"))
    """Sample the GPUs of this machine in the worker, where no agent does: rented pods, serverless."""


def read(environment: Mapping[str, str]) -> Settings:
    """The settings of an environment."""
    given: dict[str, Any] = {}
    for each in fields(Settings):
        variable = each.metadata["variable"]
        text = environment.get(variable)
        if text is None or (not text.strip() and each.name != "baggage"):
            continue
        try:
            given[each.name] = each.metadata["parse"](text)
        except ValueError as error:
            _log.warning("%s=%r is ignored: %s", variable, text, error)
    return Settings(**given)


@functools.cache
def settings() -> Settings:
    """Those of this process."""
    return read(os.environ)
