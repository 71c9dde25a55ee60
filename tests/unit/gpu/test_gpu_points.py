"""Data points in bulk: the same as protobuf reads one by one, whatever the shape."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1 import metrics_pb2

from otel_pipeline.errors import WireError
from otel_pipeline.gpu import points as module
from otel_pipeline.gpu.points import RUN_MIN, SERIES_MAX, Budget, Series, read_points
from otel_pipeline.wire.values import any_value

numbers = st.one_of(st.floats(), st.integers(-(2**63), 2**63 - 1), st.none())
attributes = st.dictionaries(
    st.sampled_from(["hw.id", "hw.name", "gpu.index", "hw.ok"]), st.sampled_from(["a", "b", 7])
)
point = st.tuples(attributes, st.integers(0, 2**64 - 1), numbers, st.sampled_from([0, 0, 0, 1, 2**31]), st.booleans())
points = st.lists(st.tuples(point, st.sampled_from([1, 1, RUN_MIN, RUN_MIN + 3])), max_size=6)
Drawn = tuple[dict[str, Any], int, float | None, int, bool]


def metric_of(its: list[tuple[Drawn, int]], kind: str = "gauge", unit: str = "W") -> metrics_pb2.Metric:
    """A metric with each point so many times, at ascending times."""
    metric = metrics_pb2.Metric(name="hw.power", unit=unit, description="Power.")
    data: Any = getattr(metric, kind)
    data.SetInParent()
    if kind == "sum":
        data.aggregation_temporality, data.is_monotonic = 2, True
    for (its_attributes, time_ns, number, flags, started), times in its:
        for step in range(times):
            one = data.data_points.add(time_unix_nano=(time_ns + step) % 2**64, flags=flags)
            if started:
                one.start_time_unix_nano = 1
            if isinstance(number, int):
                one.as_int = number
            elif number is not None:
                one.as_double = number
            for key, value in its_attributes.items():
                one.attributes.add(key=key).value.CopyFrom(any_value(value))
    return metric


def plain(metric: metrics_pb2.Metric) -> list[Any]:
    """What is read, in a form that compares, NaN too."""
    read = read_points(metric.SerializeToString(), 1000, Budget())
    assert read is not None
    assert read.series is not None
    return [
        read.unit,
        read.is_delta,
        [(each.attributes, each.times_ns.tolist(), list(map(repr, each.values.tolist()))) for each in read.series],
    ]


def series_of(metric: bytes) -> list[Series]:
    """All that is in a metric."""
    read = read_points(metric, 1000, Budget())
    assert read is not None
    assert read.series is not None
    return read.series


@given(points, st.sampled_from(["gauge", "sum"]))
@example([(({"hw.id": "a"}, 5, 1.5, 0, False), 40), (({"hw.id": "b"}, 5, 1.5, 0, False), 40)], "sum")
@example([(({}, 5, 1, 0, False), RUN_MIN), (({}, 5, 1.0, 0, False), RUN_MIN)], "gauge")
def test_bulk_and_one_by_one_agree(its: list[tuple[Drawn, int]], kind: str) -> None:
    metric = metric_of(its, kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_in_bulk", lambda *_: None)
        expected = plain(metric)
    assert plain(metric) == expected


def test_runs_are_read_in_bulk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module, "_one_by_one")
    its: list[tuple[Drawn, int]] = [(({"hw.id": name}, 1, 0.25, 0, False), 100) for name in ("a", "b")]
    found = series_of(metric_of(its).SerializeToString())
    assert [(each.attributes, len(each.times_ns), set(each.values.tolist())) for each in found] == [
        ({"hw.id": "a"}, 100, {0.25}),
        ({"hw.id": "b"}, 100, {0.25}),
    ]


def test_series_point_by_point_in_turn_are_read_in_bulk_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module, "_one_by_one")
    its: list[tuple[Drawn, int]] = [
        (({"hw.id": name}, time_ns, float(time_ns), 0, False), 1) for time_ns in range(1, 51) for name in ("a", "b")
    ]
    found = series_of(metric_of(its).SerializeToString())
    assert [each.times_ns.tolist() for each in found] == [list(range(1, 51))] * 2
    assert [each.values.tolist() for each in found] == [[float(value) for value in range(1, 51)]] * 2


def test_more_series_than_pay_are_read_one_by_one() -> None:
    its: list[tuple[Drawn, int]] = [(({"hw.id": f"{name:03}"}, 1, 0.5, 0, False), 1) for name in range(SERIES_MAX + 1)]
    found = series_of(metric_of(its).SerializeToString())
    assert len(found) == SERIES_MAX + 1


def test_of_equal_keys_the_first_counts_and_other_types_are_left_out() -> None:
    metric = metric_of([(({"hw.id": "a"}, 1, 0.5, 0, False), 1)])
    for value in ("b", 0.5, True, ["x"]):
        metric.gauge.data_points[0].attributes.add(key="hw.id" if value == "b" else "x").value.CopyFrom(
            any_value(value)
        )
    found = series_of(metric.SerializeToString())
    assert [each.attributes for each in found] == [{"hw.id": "a"}]


def test_a_field_that_stands_twice_is_read_as_protobuf_reads_it() -> None:
    point = metrics_pb2.NumberDataPoint(time_unix_nano=5, as_double=0.5).SerializeToString() * 2
    body = (b"\x0a" + _length(point) + point) * (RUN_MIN + 1)
    found = series_of(b"\x2a" + _length(body) + body)
    assert [(each.times_ns.tolist(), each.values.tolist()) for each in found] == [
        ([5] * (RUN_MIN + 1), [0.5] * (RUN_MIN + 1))
    ]


def test_a_delta_is_told() -> None:
    metric = metric_of([(({}, 1, 0.5, 0, False), 20)], "sum")
    metric.sum.aggregation_temporality = metrics_pb2.AGGREGATION_TEMPORALITY_DELTA
    assert plain(metric)[1] is True


def test_another_kind_of_metric_has_no_points_here() -> None:
    metric = metrics_pb2.Metric(name="x")
    assert read_points(metric.SerializeToString(), 1, Budget()) is None
    metric.summary.data_points.add(time_unix_nano=1)
    assert read_points(metric.SerializeToString(), 1, Budget()) is None


def of_two_series(count: int, *names: str) -> bytes:
    """Points of two series in turn."""
    its: list[tuple[Drawn, int]] = [(({"hw.id": names[index % 2]}, 1, 0.5, 0, False), 1) for index in range(count)]
    return metric_of(its).SerializeToString()


@pytest.mark.parametrize(
    ("metric", "budget"),
    [
        (of_two_series(40, "a", "longer"), Budget(singles=39)),
        (of_two_series(40, "a", "b"), Budget(singles=39, series=1)),
        (of_two_series(40, "a", "b"), Budget(singles=39, compared_bytes=1000)),
    ],
)
def test_what_would_cost_more_than_the_budget_is_not_read(metric: bytes, budget: Budget) -> None:
    read = read_points(metric, 40, budget)
    assert read is not None
    assert read.series is None


def test_a_budget_is_for_all_metrics_of_a_batch() -> None:
    metric, budget = of_two_series(40, "a", "longer"), Budget(singles=100)
    left = [read_points(metric, 40, budget) for _ in range(3)]
    assert [one is not None and one.series is not None for one in left] == [True, True, False]


@pytest.mark.parametrize("count", [3, 40])
def test_bytes_cut_anywhere_are_an_error_or_fewer_points(count: int) -> None:
    whole = metric_of([(({"hw.id": "a"}, 1, 0.5, 0, True), count)], "sum").SerializeToString()
    for end in range(len(whole)):
        try:
            read = read_points(whole[:end], count, Budget())
        except WireError:
            continue
        assert read is None or sum(len(each.values) for each in read.series or []) <= count


@given(st.binary(max_size=200), st.integers(0, 40))
def test_any_bytes_are_read_or_refused(data: bytes, count: int) -> None:
    body = metric_of([(({"hw.id": "a"}, 1, 0.5, 0, False), count)]).gauge.SerializeToString() + data
    metric = b"\x2a" + _length(body) + body
    try:
        found = series_of(metric)
    except WireError:
        return
    for series in found:
        assert (series.times_ns.dtype.str, series.values.dtype.str) == ("<u8", "<f8")
        assert len(series.times_ns) == len(series.values)


def _length(body: bytes) -> bytes:
    out, left = bytearray(), len(body)
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    return bytes((*out, left))
