"""What a Redis key is for, told by its name and by who asks: a queue of jobs, a framework's own, or something else.

No list of names is complete, so the operator has the last word: a key that an explicit glob of OTEL_PIPELINE_QUEUES
matches is a queue whatever it is called, one that OTEL_PIPELINE_QUEUES_EXCLUDED matches never is.
"""

from __future__ import annotations

import fnmatch
import functools
import itertools
import re
import sys
from enum import IntEnum
from types import CodeType
from typing import Any, Final

from otel_pipeline.worker.settings import settings

KEYS_MAX: Final = 4096
"""Key names whose purpose is remembered; programs make names without end, from job ids."""
FRAMES_MAX: Final = 40
"""Frames between a hook and the program's own code; redis-py and the instrumentation take about ten."""


class Purpose(IntEnum):
    FRAMEWORK = -1
    """Of a queue framework that has an adapter of its own: neither spans nor jobs come from here."""
    OTHER = 0
    HELD = 1
    """Where a worker keeps what it has taken from a queue, until it is done with it."""
    PERHAPS = 2
    """Nothing in the name speaks against a queue: lists and streams are taken for one."""
    QUEUE = 3
    """It is named like one, or the operator says so."""


_FRAMEWORKS: Final = re.compile(
    r"rq:|_kombu|unacked|arq:|dramatiq[:.]|bull:|\{?taskiq|huey|celery[-:.@]|celery\x06|apscheduler|asgi[:.]|asgi__"
    r"|otelp:|.*:celery-task-meta|.*celery-task-meta-"
)
_LIBRARIES: Final = frozenset(
    {
        "celery",
        "kombu",
        "rq",
        "rq_scheduler",
        "arq",
        "dramatiq",
        "huey",
        "taskiq",
        "taskiq_redis",
        "bullmq",
        "channels_redis",
        "apscheduler",
        "limits",
        "socketio",
        "flask_limiter",
        "slowapi",
        "redbeat",
    }
)
_BETWEEN: Final = frozenset(
    {"redis", "wrapt", "opentelemetry", "contextlib", "asyncio", "threading", "concurrent", "upstash_redis"}
)
_QUEUE_WORDS: Final = frozenset(
    {
        "queue",
        "queues",
        "queued",
        "job",
        "jobs",
        "task",
        "tasks",
        "todo",
        "work",
        "works",
        "pending",
        "waiting",
        "ready",
        "inbox",
        "incoming",
        "request",
        "requests",
        "delayed",
        "scheduled",
        "schedule",
        "priority",
        "backlog",
    }
)
_HELD_WORDS: Final = frozenset(
    {"processing", "inflight", "working", "inprogress", "reserved", "running", "leased", "claimed", "taken"}
)
_NEVER_WORDS: Final = frozenset(
    {
        "result",
        "results",
        "response",
        "responses",
        "reply",
        "replies",
        "answer",
        "answers",
        "output",
        "outputs",
        "callback",
        "callbacks",
        "done",
        "completed",
        "finished",
        "failed",
        "failures",
        "dead",
        "dlq",
        "deadletter",
        "deadletters",
        "poison",
        "progress",
        "status",
        "statuses",
        "heartbeat",
        "heartbeats",
        "lock",
        "locks",
        "semaphore",
        "slot",
        "slots",
        "token",
        "tokens",
        "permit",
        "permits",
    }
)
_SELDOM_WORDS: Final = frozenset(
    {
        "log",
        "logs",
        "history",
        "event",
        "events",
        "metric",
        "metrics",
        "stat",
        "stats",
        "cache",
        "cached",
        "audit",
        "error",
        "errors",
        "session",
        "sessions",
        "recent",
        "latest",
        "timeline",
        "feed",
        "leaderboard",
        "score",
        "scores",
        "seen",
        "online",
        "presence",
        "index",
        "ratelimit",
    }
)
"""Not queues, unless a later word says so: `event_queue`."""
NOT_WORK: Final = _NEVER_WORDS | _SELDOM_WORDS
"""Of queues in the process, which are all named so: `event_queue` holds events."""
_WORDS: Final = re.compile(r"[^a-zA-Z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
_OWN_ID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|(?:^|[^0-9A-Za-z])(?=[0-9a-f]*[0-9])[0-9a-f]{12,}(?:$|[^0-9A-Za-z])|(?:^|\D)\d{5,}(?:$|\D)",
    re.IGNORECASE,
)
_REPLY_WORDS: Final = frozenset(
    {
        "result",
        "results",
        "response",
        "responses",
        "reply",
        "replies",
        "answer",
        "answers",
        "output",
        "outputs",
        "callback",
        "done",
        "notify",
    }
)


@functools.lru_cache(maxsize=KEYS_MAX)
def purpose(key: str) -> Purpose:
    """What the key is for, by its name and the operator's globs."""
    config = settings()
    if any(fnmatch.fnmatchcase(key, glob) for glob in config.queues_excluded):
        return Purpose.OTHER
    if any(fnmatch.fnmatchcase(key, glob) for glob in config.queues if glob != "*"):
        return Purpose.QUEUE
    if _FRAMEWORKS.match(key) or (key == "celery" and "kombu" in sys.modules):
        return Purpose.FRAMEWORK
    return _by_words(key) if "*" in config.queues else Purpose.OTHER


def _by_words(key: str) -> Purpose:
    words = [word.lower() for word in _WORDS.split(key) if word]
    if not _HELD_WORDS.isdisjoint(words) or any(
        pair in _HELD_WORDS for pair in map("".join, itertools.pairwise(words))
    ):
        return Purpose.HELD
    if not _NEVER_WORDS.isdisjoint(words) or "deadletter" in "".join(words):
        return Purpose.OTHER
    named = [index for index, word in enumerate(words) if word in _QUEUE_WORDS]
    seldom = [index for index, word in enumerate(words) if word in _SELDOM_WORDS]
    if seldom and not (named and named[-1] > seldom[-1]):
        return Purpose.OTHER
    if _OWN_ID.search(key) and not {"queue", "queues", "jobs", "tasks", "inbox"}.intersection(words):
        return Purpose.OTHER
    return Purpose.QUEUE if named else Purpose.PERHAPS


def is_queue(key: str) -> bool:
    return purpose(key) >= Purpose.PERHAPS


@functools.lru_cache(maxsize=KEYS_MAX)
def is_reply(key: str) -> bool:
    """Whether somebody waits there for the answer to one question of theirs."""
    words = {word.lower() for word in _WORDS.split(key)}
    return not _REPLY_WORDS.isdisjoint(words) and _OWN_ID.search(key) is not None


def is_delay(key: str) -> bool:
    """Whether elements wait there for a later attempt."""
    return re.search(r"delay|retry|retries|schedul|backoff|later|deferred", key, re.IGNORECASE) is not None


def site() -> tuple[CodeType, int] | None:
    """The line of the program that gave the command; None if a queue framework did, that has an adapter of its own."""
    frame: Any = sys._getframe(1)
    for _ in range(FRAMES_MAX):
        if frame is None:
            break
        kind = _kind(str(frame.f_globals.get("__name__", "")))
        if kind is Module.LIBRARY:
            return None
        if kind is Module.PROGRAM:
            return frame.f_code, frame.f_lineno
        frame = frame.f_back
    return _UNKNOWN


class Module(IntEnum):
    """Whose code a frame is."""

    LIBRARY = 0
    """A queue framework's, that has an adapter of its own."""
    BETWEEN = 1
    """Between the program and the hook: the client, the instrumentation."""
    PROGRAM = 2


@functools.lru_cache(maxsize=KEYS_MAX)
def _kind(name: str) -> Module:
    root, _, rest = name.partition(".")
    if root in _LIBRARIES:
        return Module.LIBRARY
    ours = root == "otel_pipeline" and rest.startswith("worker")
    return Module.BETWEEN if ours or root in _BETWEEN else Module.PROGRAM


_UNKNOWN: Final = (site.__code__, 0)
