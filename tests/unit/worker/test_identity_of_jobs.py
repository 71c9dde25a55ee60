"""What the job core does with identity: queues of their own fields, attempts, what the environment tells."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from otel_pipeline.worker import identity, names
from otel_pipeline.worker.identity import field_plan
from otel_pipeline.worker.jobs import Origin, job_end, job_start
from otel_pipeline.worker.settings import settings
from tests.support.worker_spans import Spans, attributes

QUEUE = Origin("redis", "render:high")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in identity.MODEL_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    field_plan.plans.cache_clear()
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_the_fields_of_a_queue_apply_to_its_jobs(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PIPELINE_JOB_FIELDS", '{"queues": {"render:*": {"tier": "level"}}}')
    job = job_start(QUEUE, '{"job_id": "a", "level": "gold"}')
    job.learn({"workflow": "portrait"})
    job_end(job)
    found = attributes(spans.one("process render:high"))
    assert found[names.JOB_TIER] == "gold"
    assert found[names.JOB_PRIORITY] == "high"
    assert found[names.WORKFLOW] == "portrait"


@pytest.mark.parametrize(("message", "given", "attempt"), [({"attempt": 3}, 1, 3), ({"attempt": 1}, 2, 2), ({}, 2, 2)])
def test_the_later_attempt_of_message_and_framework_counts(
    spans: Spans, message: dict[str, int], given: int, attempt: int
) -> None:
    job = job_start(QUEUE, message, attempt=given)
    job_end(job)
    assert job.attempt == attempt
    assert attributes(spans.one("process render:high"))[names.JOB_ATTEMPT] == attempt


def test_the_model_of_the_environment_counts_only_where_nothing_else_tells(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_MODEL_ID", "wan-2.2")
    job = job_start(QUEUE, "job-1")
    job.learn({"model": "flux"})
    job_end(job)
    job_end(job_start(QUEUE, "job-2"))
    found = {
        attributes(span)[names.JOB_ID]: attributes(span)[names.MODEL] for span in spans.named("process render:high")
    }
    assert found == {"job-1": "flux", "job-2": "wan-2.2"}
