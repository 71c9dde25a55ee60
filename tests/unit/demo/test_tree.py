"""The drawing of traces: pure text from OTLP JSON lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from otel_pipeline.demo import tree
from otel_pipeline.demo.spans import read

TRACE = "0af7651916cd43dd8448eb211c80319c"
Json = dict[str, Any]


def attribute(key: str, value: str) -> Json:
    return {"key": key, "value": {"stringValue": value}}


def span(number: int, parent: int = 0, name: str = "work", trace: str = TRACE, **fields: Any) -> Json:
    """Span `number` starts at that second and lasts 5 ms."""
    start_ns = number * 1_000_000_000
    return {
        "traceId": trace,
        "spanId": f"{number:016x}",
        "parentSpanId": f"{parent:016x}" if parent else "",
        "name": name,
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + 5_000_000),
        **fields,
    }


def line(*spans: Json, service: str = "worker") -> str:
    resource = {"attributes": [attribute("service.name", service)]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]})


def test_children_hang_under_their_parent_in_order_of_time() -> None:
    assert tree.render(
        [line(span(3, 1, "second"), span(2, 1, "first"), span(4, 2, "below")), line(span(1, name="job"))]
    ) == (
        f"trace {TRACE} · 4 spans · 3 s · worker\n"
        "● job · 5 ms · worker\n"
        "  ├─ first · 5 ms\n"
        "  │  └─ below · 5 ms\n"
        "  └─ second · 5 ms"
    )


def test_the_service_is_named_where_it_changes() -> None:
    text = tree.render([line(span(1, name="enqueue"), service="api"), line(span(2, 1, "process"), span(3, 2, "GET"))])
    assert "● enqueue · 5 ms · api" in text
    assert "└─ process · 5 ms · worker" in text
    assert text.endswith("└─ GET · 5 ms")


def test_a_failed_span_shows_its_exception() -> None:
    event = {
        "name": "exception",
        "attributes": [attribute("exception.type", "E"), attribute("exception.message", "no\nGPU")],
    }
    failed = span(1, status={"code": 2}, events=[event], attributes=[attribute("error.type", "E")])
    text = tree.render([line(failed)])
    assert "ERROR E no GPU" in text
    assert "1 error" in text


def test_a_status_by_name_counts_as_an_error_and_shows_its_message() -> None:
    text = tree.render([line(span(1, status={"code": "STATUS_CODE_ERROR", "message": "out of memory"}))])
    assert "ERROR out of memory" in text


def test_an_orphan_stands_at_the_top_and_is_marked() -> None:
    text = tree.render([line(span(1, name="job"), span(2, 9, "lost"), span(3, 2, "below"))])
    assert "● lost · 5 ms · worker · (parent 0000000000000009 not seen)\n  └─ below" in text


def test_a_circle_of_parents_is_cut_and_marked() -> None:
    text = tree.render([line(span(1, 2, "a"), span(2, 1, "b"), span(3, 3, "self"))])
    assert "● a · 5 ms · worker · (circle of parents)\n  └─ b" in text
    assert "● self · 5 ms · worker · (circle of parents)" in text


def test_key_attributes_are_shown_short_and_others_are_not() -> None:
    attributes = [
        attribute("prompt", "a secret"),
        attribute("url.full", "http://127.0.0.1:8188/history/1?x=y"),
        attribute("otel_pipeline.job.id", "job-1"),
        {"key": "comfyui.node.cached", "value": {"boolValue": True}},
        {"key": "http.response.status_code", "value": {"intValue": "200"}},
    ]
    text = tree.render([line(span(1, attributes=attributes))])
    shown = "job.id=job-1 · http.response.status_code=200 · url.full=/history/1 · comfyui.node.cached=true"
    assert text.endswith(shown)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0.000157303", "0.0001573"),
        ("197.74374781491406", "197.7"),
        ("2.4713000001e-05", "2.471e-05"),
        ("0.0015", "0.0015"),
        ("1.2.34567", "1.2.34567"),
        ("42", "42"),
    ],
)
def test_what_a_span_cost_is_shown_with_the_digits_that_one_reads(value: str, shown: str) -> None:
    text = tree.render([line(span(1, attributes=[attribute("otel_pipeline.cost.amount", value)]))])
    assert f" · cost.amount={shown}" in text


def test_equal_neighbours_become_one_line_but_failures_do_not() -> None:
    polls = [span(n, 1, "GET", attributes=[attribute("url.full", f"http://h/history/{n}")]) for n in range(2, 8)]
    failed = span(8, 1, "GET", status={"code": 2})
    text = tree.render([line(span(1, name="job"), *polls, failed)])
    assert "├─ GET /history x 6 · 30 ms in all" in text
    assert "└─ GET · 5 ms · ERROR" in text
    assert len(text.splitlines()) == 4


def test_three_neighbours_stay_apart() -> None:
    text = tree.render([line(span(1), *(span(n, 1, "GET") for n in range(2, 5)))])
    assert text.count("─ GET · 5 ms") == 3


def test_control_characters_never_reach_the_terminal() -> None:
    text = tree.render([line(span(1, name="a\x1b[31mb\r\nc\u202ed"), service="s\x07")])
    assert "● a [31mb c d · 5 ms · s" in text


def test_long_names_are_cut() -> None:
    text = tree.render([line(span(1, name="x" * 500))])
    assert "x" * (tree.CHARACTERS_SHOWN - 1) + "…" in text
    assert "x" * tree.CHARACTERS_SHOWN not in text


def test_traces_of_one_span_come_last_and_the_rest_is_summed_up() -> None:
    lines = [line(span(n, trace=f"{n:032x}")) for n in range(1, 5)]
    lines.append(line(span(8, name="job"), span(9, 8, status={"code": 2})))
    text = tree.render(lines, traces_shown=2)
    assert text.startswith(f"trace {TRACE}")
    assert f"trace {1:032x}" in text
    assert text.endswith("... and 3 traces more: 3 spans, 0 with errors")


def test_a_trace_without_end_is_cut_and_counted() -> None:
    text = tree.render([line(*(span(n, name=f"n{n}") for n in range(1, tree.LINES_SHOWN + 6)))])
    assert len(text.splitlines()) == 1 + tree.LINES_SHOWN + 1
    assert text.endswith("... 5 lines more")


def test_a_deep_trace_is_cut() -> None:
    text = tree.render([line(*(span(n, n - 1) for n in range(1, 2000)))])
    assert text.endswith("└─ ... deeper spans are not shown")


def test_redelivered_spans_are_drawn_once() -> None:
    text = tree.render([line(span(1)), line(span(1))])
    assert "· 1 span ·" in text
    assert text.endswith("1 span came twice and is drawn once")


@pytest.mark.parametrize(
    "bad",
    [
        "not json",
        "{}",
        "[]",
        '{"resourceSpans": 1}',
        '{"resourceSpans": [null]}',
        '{"resourceMetrics": []}',
        line({"traceId": "a"}),
        line({**span(2), "startTimeUnixNano": "soon"}),
        line({**span(2), "startTimeUnixNano": float("inf")}),
        line({**span(2), "attributes": [{"key": "a", "value": 1}]}),
        "[" * 100_000,
    ],
)
def test_a_line_that_is_no_request_is_skipped_and_counted(bad: str) -> None:
    text = tree.render([bad, line(span(1, name="good"))])
    assert "● good" in text
    assert text.endswith("1 line skipped: no OTLP JSON")


def test_empty_lines_count_for_nothing() -> None:
    assert tree.render(["", "\n"]) == "no spans"


def test_a_url_that_cannot_be_parsed_does_no_harm() -> None:
    assert "url.full=" in tree.render([line(span(1, attributes=[attribute("url.full", "http://[")]))])


def test_a_span_that_ends_before_it_starts_lasts_nothing() -> None:
    assert "● work · 0 ns" in tree.render([line(span(1, endTimeUnixNano="1"))])


def test_reading_stops_keeping_spans_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_pipeline.demo.spans.SPANS_READ_MAX", 2)
    reading = read([line(span(1), span(2), span(3))])
    assert (len(reading.spans), reading.left_out) == (2, 1)


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [(999, "999 ns"), (1_500, "1.5 µs"), (99_940_000, "99.9 ms"), (999_900_000, "1000 ms"), (83_210_000_000, "83.2 s")],
)
def test_durations_keep_three_digits(nanoseconds: int, shown: str) -> None:
    assert f"· {shown} ·" in tree.render([line(span(1, endTimeUnixNano=str(1_000_000_000 + nanoseconds)))])


def test_what_the_span_above_says_too_is_not_said_again() -> None:
    job = span(1, name="job", attributes=[attribute("otel_pipeline.job.id", "j1")])
    told = [attribute("otel_pipeline.job.id", "j1"), attribute("comfyui.outcome", "success")]
    text = tree.render([line(job, span(2, 1, "inner", attributes=told))])
    assert text.count("job.id=j1") == 1
    assert "└─ inner · 5 ms · comfyui.outcome=success" in text
