"""Fields of a job from keys beside the queue that the operator named: known from its first span on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_pipeline.demo.redis_server import redis_server
from otel_pipeline.worker import names
from tests.integration.worker.test_redis_loops import HEAD
from tests.support.worker_redis import run

FIELDS = 'side: "video:job:{id}"\nworkflow: "template.name"\ntier: plan'
HASH = """
r.hset("video:job:j1", mapping={"template": json.dumps({"name": "portrait"}), "plan": "pro"})
"""
STRING = """
r.set("video:job:j1", json.dumps({"template": {"name": "portrait"}, "plan": "pro"}))
"""
LOOP = """
r.rpush("jobs", "j1")
r.blpop("jobs", timeout=1)
r.set("half", "way")
r.blpop("jobs", timeout=1)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.mark.parametrize("stored", [HASH, STRING], ids=["a hash", "JSON"])
def test_a_key_beside_the_queue_tells_of_the_job(tmp_path: Path, server: str, stored: str) -> None:
    environment = {"REDIS_URL": server, "OTEL_PIPELINE_JOB_FIELDS": FIELDS}
    ran = run(tmp_path, HEAD + "r.flushall()\n" + stored + LOOP, environment=environment)
    (job,) = [span for span in ran.spans if span.name == "process jobs"]
    (inner,) = [span for span in ran.spans if span.name == "SET" and span.trace_id == job.trace_id]
    for span in (job, inner):
        assert span.attributes[names.WORKFLOW] == "portrait"
        assert span.attributes[names.JOB_TIER] == "pro"


def test_a_key_that_is_not_there_changes_nothing(tmp_path: Path, server: str) -> None:
    environment = {"REDIS_URL": server, "OTEL_PIPELINE_JOB_FIELDS": FIELDS}
    ran = run(tmp_path, HEAD + "r.flushall()\n" + LOOP, environment=environment)
    (job,) = [span for span in ran.spans if span.name == "process jobs"]
    assert job.attributes[names.JOB_ID] == "j1"
    assert names.WORKFLOW not in job.attributes
    assert not ran.failures
