"""What a program may say itself."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Generator

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from otel_pipeline import worker
from otel_pipeline.worker import api, flow, names
from otel_pipeline.worker.api import job, measure, record_event, record_failover, stage
from otel_pipeline.worker.jobs import Origin, current_job, job_start
from tests.support.worker_spans import Spans, attributes


def test_the_package_offers_the_api_by_name() -> None:
    assert worker.job is api.job
    assert set(worker.__all__) == {"job", "measure", "record_event", "record_failover", "stage"}
    with pytest.raises(AttributeError, match="jobs_of"):
        _ = worker.jobs_of


def test_a_job_has_its_fields_and_a_pseudonym_for_the_user(spans: Spans) -> None:
    with job("render", id="j1", user="alice@example.com", workflow="portrait", tier="pro"):
        pass
    written = attributes(spans.one("process render"))
    assert (written[names.JOB_ID], written[names.WORKFLOW], written[names.JOB_TIER]) == ("j1", "portrait", "pro")
    assert "alice" not in str(written[names.USER_ID])
    assert written[names.JOB_TYPE] == "render"


def test_a_job_continues_the_span_at_work(spans: Spans) -> None:
    with trace.get_tracer("t").start_as_current_span("POST /jobs"), job("render"):
        pass
    assert len(spans.traces()) == 1


def test_an_exception_passes_through_and_fails_the_job(spans: Spans) -> None:
    with pytest.raises(LookupError), job("render"):
        raise LookupError("no such voice")
    span = spans.one("process render")
    assert attributes(span)[names.JOB_OUTCOME] == "failed"
    assert attributes(span)[names.ERROR_TYPE] == "LookupError"


def test_the_program_has_the_last_word_on_the_outcome(spans: Spans) -> None:
    with job("render") as this:
        this.outcome("partial", message="3 of 4 images")
    written = attributes(spans.one("process render"))
    assert (written[names.JOB_OUTCOME], written[names.JOB_OUTCOME_SOURCE]) == ("partial", "api")


def test_an_unknown_outcome_is_no_matter_of_the_program(spans: Spans) -> None:
    with job("render") as this:
        this.outcome("splendid")
    assert attributes(spans.one("process render"))[names.JOB_OUTCOME] == "completed"


def test_a_job_that_was_popped_is_named_not_begun_again(spans: Spans) -> None:
    assert flow.next_pop(["q"])
    flow.popped(job_start(Origin("redis", "q")))
    with job("render", id="j1") as this:
        assert this.id == "j1"
    written = attributes(spans.one("process q"))
    assert (written[names.JOB_ID], written[names.JOB_TYPE]) == ("j1", "render")


@pytest.mark.parametrize("returned", [{"error": "no such voice"}, {"status": "failed"}], ids=str)
def test_a_decorated_function_that_returns_a_failure_failed(spans: Spans, returned: dict[str, str]) -> None:
    @job("render")
    def render() -> dict[str, str]:
        return returned

    assert render() is returned
    assert render() is returned
    assert [attributes(each)[names.JOB_OUTCOME] for each in spans.named("process render")] == ["failed", "failed"]


def test_decorators_keep_the_kind_of_a_function(spans: Spans) -> None:
    @job("render")
    async def render() -> str:
        with stage("tts"):
            await asyncio.sleep(0)
        return "done"

    @stage("chunks")
    def chunks() -> Generator[int, None, None]:
        yield from range(3)

    assert inspect.iscoroutinefunction(render)
    assert inspect.isgeneratorfunction(chunks)
    assert asyncio.run(render()) == "done"
    assert list(chunks()) == [0, 1, 2]
    inner, outer = spans.one("stage tts"), spans.one("process render")
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id
    assert spans.one("stage chunks").context.trace_id != outer.context.trace_id


def test_stages_are_numbered_and_their_quantities_add_up_on_the_job(spans: Spans) -> None:
    with job("render"):
        with stage("tts", model="multilingual_v2") as speaking:
            speaking.set("characters", 120)
        with stage("tts") as again:
            again.set("characters", 30)
        with stage("image", images=2):
            pass
    stages = [attributes(each) for each in spans.all() if each.name.startswith("stage")]
    assert [each[names.STAGE_INDEX] for each in stages] == [0, 1, 2]
    assert stages[0]["gen_ai.operation.name"] == "text_to_speech"
    assert stages[0][names.MODEL] == "multilingual_v2"
    whole = attributes(spans.one("process render"))
    assert (whole[names.CHARACTERS], whole[names.IMAGES]) == (150, 2)


def test_a_stage_that_raises_is_an_error_and_the_next_one_is_its_sibling(spans: Spans) -> None:
    with job("render"):
        with pytest.raises(TimeoutError), stage("tts"):
            raise TimeoutError("slow")
        with stage("image"):
            pass
    failed, following = spans.one("stage tts"), spans.one("stage image")
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.parent is not None
    assert following.parent is not None
    assert failed.parent.span_id == following.parent.span_id


def test_a_stage_outside_of_a_job_is_a_span_too(spans: Spans) -> None:
    with stage("upload"):
        assert current_job() is None
    assert spans.one("stage upload").parent is None


def test_a_failover_is_an_event_and_the_jobs_new_backend(spans: Spans) -> None:
    with job("render"):
        record_failover("local", "runpod", reason="timeout")
    span = spans.one("process render")
    (event,) = [each for each in span.events if each.name == "failover"]
    assert event.attributes is not None
    assert event.attributes[names.FAILOVER_TO] == "runpod"
    assert attributes(span)[names.BACKEND] == "runpod"


def test_nothing_that_is_said_wrongly_reaches_the_program(spans: Spans) -> None:
    with job("render", id=object(), workflow=object()) as this, measure("not a name !", label=object()):  # type: ignore[arg-type]
        this.set("images", object())  # type: ignore[arg-type]
        record_event("job_created", detail=object())  # type: ignore[arg-type]
        record_failover("a", "b", reason=object())  # type: ignore[arg-type]
    assert attributes(spans.one("process render"))[names.JOB_OUTCOME] == "completed"
