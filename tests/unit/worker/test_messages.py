"""The producing side: a span, and what goes with the message."""

from __future__ import annotations

import pytest
from opentelemetry import baggage, trace
from opentelemetry.trace import StatusCode

from otel_pipeline.worker import names
from otel_pipeline.worker.messages import KEY_PREFIX, element_key, extract, send_end, send_start
from tests.support.worker_spans import Spans, attributes


def test_a_send_is_a_producer_in_the_ambient_trace(spans: Spans) -> None:
    with trace.get_tracer("t").start_as_current_span("POST /jobs"):
        send_end(send_start("redis", "render"))
    sent, request = spans.one("send render"), spans.one("POST /jobs")
    assert sent.kind is trace.SpanKind.PRODUCER
    assert sent.parent is not None
    assert sent.parent.span_id == request.context.span_id
    assert attributes(sent)[names.MESSAGING_DESTINATION] == "render"


def test_the_headers_name_the_send_as_parent(spans: Spans) -> None:
    send = send_start("redis", "render")
    assert send is not None
    send_end(send)
    assert f"{spans.one('send render').context.span_id:016x}" in send.headers["traceparent"]


def test_the_jobs_fields_are_known_on_the_way_already(spans: Spans) -> None:
    send = send_start("redis", "render", b'{"job_id": "j1", "workflow": "portrait"}')
    assert send is not None
    send_end(send)
    found = extract(send.headers)
    assert baggage.get_baggage(names.JOB_ID, found) == "j1"
    assert baggage.get_baggage(names.WORKFLOW, found) == "portrait"
    assert attributes(spans.one("send render"))[names.JOB_ID] == "j1"


def test_a_send_that_fails_is_an_error(spans: Spans) -> None:
    send = send_start("redis", "render")
    send_end(send, ConnectionError("refused"))
    span = spans.one("send render")
    assert (span.status.status_code, attributes(span)[names.ERROR_TYPE]) == (StatusCode.ERROR, "ConnectionError")


def test_headers_may_be_bytes_and_of_any_case(spans: Spans) -> None:
    send = send_start("redis", "render")
    assert send is not None
    send_end(send)
    found = extract({b"Traceparent": send.headers["traceparent"].encode()})
    assert found is not None
    assert trace.get_current_span(found).get_span_context().trace_id == spans.one("send render").context.trace_id


@pytest.mark.parametrize(
    "headers",
    [None, {}, {"traceparent": "00-nonsense"}, {"traceparent": 7}, {"other": "x"}, {b"\xff": b"\xff"}],
    ids=repr,
)
def test_what_is_no_context_is_none(headers: dict[object, object] | None) -> None:
    assert extract(headers) is None  # type: ignore[arg-type]  # foreign data


def test_the_flags_of_newer_sdks_are_read() -> None:
    found = extract({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03"})
    assert found is not None
    assert trace.get_current_span(found).get_span_context().trace_flags.sampled


def test_equal_elements_have_one_key_and_others_another() -> None:
    assert element_key(b"a") == element_key(b"a") != element_key(b"b")
    assert element_key(b"a").startswith(KEY_PREFIX)
