"""Puts jobs into the demo's queue: good ones, and each kind of bad one. Prints the id of each job.

REDIS_URL=redis://127.0.0.1:6379/0 python -m otel_pipeline.demo.producer 8
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import Final

import redis

from otel_pipeline.demo.tts import BROKEN, RATE_LIMITED

QUEUE: Final = "video_orchestrator:queue"
JOB_KEY: Final = "video_orchestrator:job:{id}"
STATUS_KEY: Final = "video_orchestrator:status:{id}"

TEXT: Final = "A lighthouse keeper finds a letter in a bottle and sets out to answer it."
MIX: Final = (
    ("success", "portrait", ""),
    ("out_of_memory", "portrait_8k", ""),
    ("cached", "portrait", ""),
    ("validation_error", "portrait_missing_checkpoint", ""),
    ("retried", "portrait_8k", ""),
    ("execution_error", "portrait_experimental_node", ""),
    ("tts_rate_limited", "portrait", RATE_LIMITED),
    ("tts_broken", "portrait", BROKEN),
)
"""What to expect of the job, its workflow, and what its text ends with; repeated for as many jobs as wanted."""
FALLBACK: Final = "portrait"
"""The workflow for the second attempt of a `retried` job; the others have one attempt."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the worker finds under the job's key."""

    id: str
    user_id: str
    tier: str
    workflow: str
    fallback_workflow: str
    seed: int
    voice: str
    text: str
    length_seconds: int
    created_at: float
    expected: str


def make_jobs(count: int, now_s: float) -> Iterator[Job]:
    """`count` jobs of the mix; a `cached` one repeats the seed of the success before it."""
    seed = 0
    for number, (expected, workflow, marker) in enumerate(islice(cycle(MIX), count)):
        seed += expected in {"success", "retried"}
        yield Job(
            id=str(uuid.uuid4()),
            user_id=f"user-{number % 3}",
            tier=("free", "pro")[number % 2],
            workflow=workflow,
            fallback_workflow=FALLBACK if expected == "retried" else "",
            seed=seed,
            voice="narrator",
            text=TEXT + marker,
            length_seconds=(15, 30, 45)[number % 3],
            created_at=now_s,
            expected=expected,
        )


def enqueue(database: redis.Redis, job: Job) -> None:
    """Stores the job, then pushes its bare id."""
    database.set(JOB_KEY.format(id=job.id), json.dumps(asdict(job)))
    database.hset(STATUS_KEY.format(id=job.id), mapping={"status": "queued"})
    database.rpush(QUEUE, job.id)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else len(MIX)
    with redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")) as database:
        for job in make_jobs(count, time.time()):
            enqueue(database, job)
            print(job.id, job.expected, flush=True)


if __name__ == "__main__":
    main()
