"""A request in two halves."""

from __future__ import annotations

from otel_pipeline.wire.halves import halves
from otel_pipeline.wire.signal import Signal
from tests.support.otlp import logs, metrics, span_names, traces


def test_the_halves_have_all_rows_in_order() -> None:
    (first, count), (second, other) = halves(Signal.TRACES, traces(["a", "b", "c"]))
    assert (span_names(first), count) == (["a"], 1)
    assert (span_names(second), other) == (["b", "c"], 2)


def test_each_half_has_the_resource_and_is_a_request_of_its_own() -> None:
    assert [part for part, _ in halves(Signal.LOGS, logs(["a", "b"]))] == [logs(["a"]), logs(["b"])]


def test_metrics_are_cut_between_metrics_and_counted_by_points() -> None:
    parts = halves(Signal.METRICS, metrics({"a": 1.0, "b": 2.0}) + metrics({"c": 3.0}))
    assert [count for _, count in parts] == [1, 2]


def test_a_single_row_has_no_halves() -> None:
    assert halves(Signal.TRACES, traces(["only"])) == [(traces(["only"]), 1)]


def test_nothing_has_no_halves() -> None:
    assert halves(Signal.TRACES, b"") == []
