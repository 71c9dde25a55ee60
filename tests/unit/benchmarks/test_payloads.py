"""The numbered payloads of the benchmarks, and the sets of numbers with which runs are judged."""

from __future__ import annotations

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.benchmarks import ranges
from tests.benchmarks.payloads import SPANS_PER_REQUEST_MAX, SpanRequests, count_spans, span_numbers
from tests.benchmarks.sink import NUMBERS_MAX, Seen, Sink

NOW_NS = 1_800_000_000_000_000_000
SIZES = [1, 7, 8, 20, 100, 512]


def spans_of(body: bytes) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(body)
    [resource_spans] = request.resource_spans
    [scope_spans] = resource_spans.scope_spans
    return list(scope_spans.spans)


@pytest.mark.parametrize("size", SIZES)
def test_span_ids_carry_consecutive_numbers(size: int) -> None:
    requests = SpanRequests(size)
    for first in (0, 3 * size, 1_000_003):
        numbers = span_numbers(span.span_id for span in spans_of(requests.request(first, NOW_NS)))
        assert numbers.tolist() == list(range(first, first + size))


@pytest.mark.parametrize("size", SIZES)
def test_spans_are_counted_without_parsing(size: int) -> None:
    assert count_spans(SpanRequests(size).request(5, NOW_NS)) == size


def test_a_request_of_512_spans_has_the_size_that_the_design_names() -> None:
    body = SpanRequests(512).request(0, NOW_NS)
    assert len(body) / 512 == pytest.approx(464, abs=3)


def test_every_span_has_ten_attributes_with_distinct_keys() -> None:
    for span in spans_of(SpanRequests(100).request(0, NOW_NS)):
        assert len({attribute.key for attribute in span.attributes}) == 10


def test_a_trace_is_one_job_whose_first_span_is_the_parent_of_the_others() -> None:
    spans = spans_of(SpanRequests(20).request(400, NOW_NS))
    for root, children in ((spans[0], spans[1:8]), (spans[8], spans[9:16]), (spans[16], spans[17:])):
        assert root.parent_span_id == b""
        assert {child.parent_span_id for child in children} == {root.span_id}
        assert {child.trace_id for child in children} == {root.trace_id}
    assert len({span.trace_id for span in spans}) == 3


def test_ids_inside_attributes_change_with_the_number() -> None:
    requests = SpanRequests(20)
    for first in (0, 20):
        for span in spans_of(requests.request(first, NOW_NS)):
            values = {attribute.key: attribute.value.string_value for attribute in span.attributes}
            assert values["url.full"].endswith("/" + span.span_id.hex())
            assert values["otel_pipeline.job.id"] == span.trace_id[:8].hex()


def test_the_first_span_starts_now_and_no_span_ends_before_it_starts() -> None:
    spans = spans_of(SpanRequests(100).request(0, NOW_NS))
    assert spans[0].start_time_unix_nano == NOW_NS
    assert all(span.start_time_unix_nano < span.end_time_unix_nano for span in spans)


def test_requests_differ_only_in_fields_of_fixed_width() -> None:
    requests = SpanRequests(100)
    assert len(requests.request(0, NOW_NS)) == len(requests.request(1 << 40, NOW_NS))


@pytest.mark.parametrize("size", [0, -1, SPANS_PER_REQUEST_MAX + 1])
def test_a_size_out_of_bounds_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="spans_per_request"):
        SpanRequests(size)


def test_the_sink_tells_duplicates_and_foreign_numbers_from_new_ones() -> None:
    seen = Seen()
    assert seen.add(np.array([1, 2, 3, 2], dtype=np.uint64)) == (1, 0)
    assert seen.add(np.array([3, 4, NUMBERS_MAX], dtype=np.uint64)) == (1, 1)
    assert seen.ranges() == [(1, 5)]


def test_the_sink_grows_to_numbers_beyond_its_first_size() -> None:
    seen = Seen()
    assert seen.add(np.array([NUMBERS_MAX // 8], dtype=np.uint64)) == (0, 0)
    assert seen.ranges() == [(NUMBERS_MAX // 8, NUMBERS_MAX // 8 + 1)]


@pytest.mark.parametrize("verify", [False, True])
def test_the_sink_counts_spans_of_merged_requests(verify: bool) -> None:  # noqa: FBT001 - a parameter of the test
    requests = SpanRequests(20)
    sink = Sink(verify=verify)
    sink.record(requests.request(0, NOW_NS) + requests.request(20, NOW_NS))
    sink.record(requests.request(20, NOW_NS))
    stats = sink.stats()
    assert (stats["requests"], stats["spans"]) == (2, 60)
    assert stats["duplicates"] == (20 if verify else 0)
    assert sink.seen() == ([(0, 40)] if verify else [])


def test_numbers_become_ranges() -> None:
    assert ranges.from_numbers([]) == []
    assert ranges.from_numbers([7, 3, 4, 0]) == [(0, 1), (3, 5), (7, 8)]


def test_the_difference_of_ranges_is_what_the_other_lacks() -> None:
    lost = ranges.difference([(0, 10), (20, 30)], [(2, 4), (8, 22), (29, 99)])
    assert lost == [(0, 2), (4, 8), (22, 29)]
    assert ranges.size(lost) == 13
    assert ranges.difference([(5, 6)], [(5, 6)]) == []
    assert ranges.difference([], [(5, 6)]) == []


def test_in_a_storm_every_span_fails_with_a_message_of_its_own() -> None:
    requests = SpanRequests(100, failing="all")
    spans = [*spans_of(requests.request(0, NOW_NS)), *spans_of(requests.request(100, NOW_NS))]
    messages = {span.events[0].attributes[1].value.string_value for span in spans}
    assert len(messages) == 200
    assert not any(letter.isdigit() for message in messages for letter in message)
    assert {span.status.code for span in spans} == {2}


def test_none_fails_if_none_is_asked_for() -> None:
    assert {span.status.code for span in spans_of(SpanRequests(100, failing="none").request(0, NOW_NS))} == {0}
