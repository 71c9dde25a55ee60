"""The job core: beginning, evidence, one end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.trace import StatusCode

from otel_pipeline.worker import jobs, names
from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.jobs import Job, Origin, current_job, job_end, job_start
from otel_pipeline.worker.messages import extract, send_end, send_start
from otel_pipeline.worker.settings import Settings
from tests.support.worker_spans import Spans, attributes

QUEUE = Origin("redis", "render")
FAILED = Evidence(Source.STATUS, Outcome.FAILED, "ValueError", "no such model")


def test_a_job_without_a_parent_is_a_root_whatever_is_ambient(spans: Spans) -> None:
    with trace.get_tracer("t").start_as_current_span("ambient"):
        job_end(job_start(QUEUE))
    assert spans.one("process render").parent is None
    assert len(spans.traces()) == 2


def test_a_job_continues_the_trace_of_the_message(spans: Spans) -> None:
    send = send_start("redis", "render", b'{"job_id": "j1"}')
    assert send is not None
    send_end(send)
    job_end(job_start(QUEUE, parent=extract(send.headers)))
    sent, processed = spans.one("send render"), spans.one("process render")
    assert processed.parent is not None
    assert processed.parent.span_id == sent.context.span_id
    assert len(spans.traces()) == 1


def test_in_link_mode_it_is_a_trace_of_its_own_that_links(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "settings", lambda: Settings(relation="link"))
    send = send_start("redis", "render")
    assert send is not None
    send_end(send)
    job_end(job_start(QUEUE, parent=extract(send.headers)))
    sent, processed = spans.one("send render"), spans.one("process render")
    assert processed.parent is None
    assert [link.context.span_id for link in processed.links] == [sent.context.span_id]


def test_what_is_ambient_comes_back_after_the_job(spans: Spans) -> None:
    with trace.get_tracer("t").start_as_current_span("ambient") as ambient:
        job = job_start(QUEUE)
        assert current_job() is job
        job_end(job)
        assert current_job() is None
        assert trace.get_current_span() is ambient
    assert len(spans.all()) == 2


def test_without_evidence_it_is_completed(spans: Spans) -> None:
    job_end(job_start(QUEUE))
    written = attributes(spans.one("process render"))
    assert (written[names.JOB_OUTCOME], written[names.JOB_OUTCOME_SOURCE]) == ("completed", "end")
    assert spans.one("process render").status.status_code is StatusCode.UNSET


def test_a_failure_is_an_error_with_its_type(spans: Spans) -> None:
    job_end(job_start(QUEUE), FAILED)
    span = spans.one("process render")
    written = attributes(span)
    assert (written[names.JOB_OUTCOME], written[names.JOB_OUTCOME_SOURCE]) == ("failed", "status")
    assert written[names.ERROR_TYPE] == "ValueError"
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no such model")


def test_a_failure_without_a_type_gets_the_fallback_of_the_conventions(spans: Spans) -> None:
    job_end(job_start(QUEUE), Evidence(Source.RETURN, Outcome.FAILED))
    assert attributes(spans.one("process render"))[names.ERROR_TYPE] == "_OTHER"


@pytest.mark.parametrize("outcome", [Outcome.PARTIAL, Outcome.CANCELLED, Outcome.SKIPPED, Outcome.UNKNOWN])
def test_other_outcomes_are_no_errors(spans: Spans, outcome: Outcome) -> None:
    job_end(job_start(QUEUE), Evidence(Source.FRAMEWORK, outcome))
    span = spans.one("process render")
    assert attributes(span)[names.JOB_OUTCOME] == outcome.value
    assert span.status.status_code is StatusCode.UNSET


def test_the_first_end_counts(spans: Spans) -> None:
    job = job_start(QUEUE)
    job_end(job, FAILED)
    job_end(job, Evidence(Source.API, Outcome.COMPLETED))
    assert attributes(spans.one("process render"))[names.JOB_OUTCOME] == "failed"


def test_ends_from_many_threads_make_one_span(spans: Spans) -> None:
    job = job_start(QUEUE)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: job_end(job), range(50)))
    assert len(spans.named("process render")) == 1


def test_an_adopted_span_is_left_open_for_its_owner(spans: Spans) -> None:
    official = trace.get_tracer("t").start_span("run/render")
    job_end(job_start(QUEUE, adopt=official), FAILED)
    assert spans.all() == []
    official.end()
    assert attributes(spans.one("run/render"))[names.JOB_OUTCOME] == "failed"


def test_spans_of_the_job_carry_its_id(spans: Spans) -> None:
    job = job_start(QUEUE, job_id="j1", attributes={names.WORKFLOW: "portrait", names.JOB_TIER: "pro"})
    with trace.get_tracer("t").start_as_current_span("inner"):
        pass
    job_end(job)
    written = attributes(spans.one("inner"))
    assert (written[names.JOB_ID], written[names.WORKFLOW], written[names.JOB_TIER]) == ("j1", "portrait", "pro")


def test_spans_after_the_job_do_not(spans: Spans) -> None:
    job_end(job_start(QUEUE, job_id="j1"))
    with trace.get_tracer("t").start_as_current_span("after"):
        pass
    assert names.JOB_ID not in attributes(spans.one("after"))
    assert spans.one("after").parent is None


def test_the_job_travels_as_baggage(spans: Spans) -> None:
    job = job_start(QUEUE, job_id="j1")
    assert baggage.get_baggage(names.JOB_ID) == "j1"
    job_end(job)
    assert baggage.get_baggage(names.JOB_ID) is None
    assert len(spans.all()) == 1


def test_a_span_in_another_process_takes_the_job_from_baggage(spans: Spans) -> None:
    token = context.attach(baggage.set_baggage(names.JOB_ID, "j9"))
    with trace.get_tracer("t").start_as_current_span("remote"):
        pass
    context.detach(token)
    assert attributes(spans.one("remote"))[names.JOB_ID] == "j9"


def test_what_close_says_counts_for_the_verdict(spans: Spans) -> None:
    job = job_start(QUEUE)
    job.cleanup.append(lambda each: each.observe(Evidence(Source.COMFYUI, Outcome.FAILED, "torch.OutOfMemoryError")))
    job_end(job)
    assert attributes(spans.one("process render"))[names.ERROR_TYPE] == "torch.OutOfMemoryError"


def test_the_oldest_of_too_many_open_jobs_is_ended_as_unknown(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "OPEN_MAX", 3)
    begun: list[Job] = [job_start(QUEUE, job_id=str(number)) for number in range(5)]
    ended = [attributes(span) for span in spans.named("process render")]
    assert [(each[names.JOB_ID], each[names.JOB_OUTCOME]) for each in ended] == [("0", "unknown"), ("1", "unknown")]
    for job in begun:
        job_end(job)


def test_evidence_is_bounded_and_keeps_the_first_and_the_newest(spans: Spans) -> None:
    job = job_start(QUEUE)
    for number in range(1000):
        job.observe(Evidence(Source.LOG, Outcome.FAILED, f"E{number}"))
    assert len(job.evidence) == jobs.EVIDENCE_MAX
    assert (job.evidence[0].error_type, job.evidence[-1].error_type) == ("E0", "E999")
    job_end(job)
    assert len(spans.all()) == 1


def test_a_time_of_the_end_before_now_is_kept(spans: Spans) -> None:
    job = job_start(QUEUE)
    job_end(job, end_ns=job.started_ns + 5)
    assert spans.one("process render").end_time == job.started_ns + 5


def test_a_forked_child_does_not_end_its_parents_job(spans: Spans) -> None:
    job = job_start(QUEUE)
    job.pid += 1
    job_end(job)
    assert spans.all() == []
