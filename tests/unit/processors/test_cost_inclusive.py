"""The processor `cost`: what a span costs itself, and with all spans below it."""

from __future__ import annotations

from itertools import permutations
from typing import Any, Final

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_pipeline.ledger.marks import INCLUSIVE
from tests.unit.processors.test_cost import COST, QUANTITY, SECOND, Bench, bench, call, on_gpu, span, usage

__all__ = ["bench"]


def job_of_stages() -> list[Span]:
    """V4 of the vectors: a job on a GPU of 0.001 $/s with load, sample, and vae below sample."""
    spans = [on_gpu(1, seconds=50), on_gpu(2, parent=1, seconds=10), on_gpu(3, parent=1, seconds=30)]
    spans.append(on_gpu(4, parent=3, seconds=5))
    for made, after in zip(spans, (0, 5, 15, 40), strict=True):
        made.start_time_unix_nano += after * SECOND
        made.end_time_unix_nano += after * SECOND
    return spans


def own_and_inclusive(found: list[dict[str, Any]]) -> list[tuple[float | None, float | None]]:
    return [(one.get(f"{COST}amount"), one.get(INCLUSIVE)) for one in found]


V4: Final = [(0.010, 0.050), (0.010, 0.010), (0.025, 0.030), (0.005, 0.005)]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_own_time_is_without_that_of_spans_below(bench: Bench, order: tuple[int, ...]) -> None:
    spans = job_of_stages()
    found = own_and_inclusive(bench.whole(*(spans[place] for place in order)))
    assert [found[order.index(place)] for place in range(4)] == V4


def test_what_is_below_may_come_in_batches_before(bench: Bench) -> None:
    job, load, sample, vae = job_of_stages()
    assert own_and_inclusive(bench.whole(load, vae)) == [V4[1], V4[3]]
    assert own_and_inclusive(bench.whole(sample)) == [V4[2]]
    assert own_and_inclusive(bench.whole(job)) == [V4[0]]


def test_parallel_spans_below_are_counted_once(bench: Bench) -> None:
    job, load, sample, _ = job_of_stages()
    twin = Span.FromString(sample.SerializeToString())
    twin.span_id = b"twintwin"
    found = bench.whole(job, load, sample, twin)
    assert found[0][f"{COST}amount"] == 0.010


def test_a_span_without_costs_tells_what_is_below_it(bench: Bench) -> None:
    images: dict[str, Any] = {f"{QUANTITY}images": 4}
    found = bench.whole(span(1), span(2, parent=1), call("fal", "flux", 3, parent=2, **images))
    assert [one.get(INCLUSIVE) for one in found] == [0.012, 0.012, 0.012]
    assert [one.get(f"{COST}currency") for one in found] == ["USD"] * 3
    assert [one.get(f"{COST}amount") for one in found] == [None, None, 0.012]


def test_a_job_in_another_batch_tells_its_calls(bench: Bench) -> None:
    images: dict[str, Any] = {f"{QUANTITY}images": 4}
    bench.whole(*(call("fal", "flux", number, parent=2, **images) for number in (3, 4)))
    bench.whole(span(2, parent=1))
    assert bench.whole(span(1))[0] == {INCLUSIVE: 0.024, f"{COST}currency": "USD"}
    assert bench.whole(span(1))[0] == {}


@pytest.mark.parametrize(
    "other", [call("upscaler", number=4, parent=1), call("nobody", number=4, parent=1)], ids=["currency", "unpriced"]
)
def test_what_cannot_be_added_up_has_no_sum(bench: Bench, other: Span) -> None:
    images: dict[str, Any] = {f"{QUANTITY}images": 4}
    found = bench.whole(span(1), call("fal", "flux", 3, parent=1, **images), other)
    assert found[0] == {}
    assert found[1][INCLUSIVE] == 0.012


def test_an_outer_span_of_the_same_call_has_what_the_inner_costs(bench: Bench) -> None:
    found = bench.whole(usage(1), usage(2, parent=1))
    assert own_and_inclusive(found) == [(None, 0.0025), (0.0025, 0.0025)]


def test_a_sum_of_a_gateway_before_this_one_goes_if_nothing_is_known(bench: Bench) -> None:
    assert (
        INCLUSIVE not in bench.whole(span(1, otel_pipeline__cost__inclusive=3.0), call("nobody", number=2, parent=1))[0]
    )


def test_spans_of_other_traces_are_not_below(bench: Bench) -> None:
    images: dict[str, Any] = {f"{QUANTITY}images": 4}
    stranger = call("fal", "flux", 3, parent=1, **images)
    stranger.trace_id = b"o" * 16
    assert bench.whole(span(1), stranger)[0] == {}
    assert bench.whole(span(1))[0] == {}
