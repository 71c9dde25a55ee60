"""The store of derived metrics: counting in columns, the cap, exemplars, reading while others write."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric

from otel_pipeline.errors import ConfigError
from otel_pipeline.exposition.families import OVERFLOW, OVERFLOW_METRIC, Exemplars, Exposition
from otel_pipeline.exposition.label_columns import Groups, group_rows, one
from otel_pipeline.limits import EXEMPLAR_INTERVAL_S, EXPOSITION_FAMILIES_MAX, LABEL_CHARS_MAX
from otel_pipeline.wire.batch import Strings


def column(*values: str | None) -> Strings:
    """A column as the scanner makes it: a code for each distinct value, -1 for None."""
    distinct = list(dict.fromkeys(value for value in values if value is not None))
    return Strings(np.array([-1 if value is None else distinct.index(value) for value in values], np.int32), distinct)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


def samples(metric: Metric | None) -> dict[tuple[str, ...], float]:
    """The value of each sample by its name's suffix, if any, and its label values."""
    assert metric is not None
    return {
        (*((suffix,) if (suffix := one_sample.name.removeprefix(metric.name)) else ()), *one_sample.labels.values()): (
            one_sample.value
        )
        for one_sample in metric.samples
    }


# -- grouping ----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(*[st.sampled_from(["", "a", "b", "ü", None])] * 3, st.booleans()), min_size=1, max_size=60),
    st.sampled_from([1, 3000, 2_000_000_000]),
)
def test_groups_are_what_counting_row_by_row_gives(
    rows: list[tuple[str | None, str | None, str | None, bool]], unused: int
) -> None:
    """Also when columns have so many values that keys are sorted, or would leave 64 bits."""
    columns = [column(*values) for values in list(zip(*rows, strict=True))[:3]]
    padded = [Strings(one_column.codes, Padded(one_column.values, unused)) for one_column in columns]
    mask = np.array([row[3] for row in rows])
    groups = group_rows(padded, mask)
    expected: dict[tuple[str, ...], int] = {}
    for *values, kept in rows:
        if kept:
            key = tuple(value or "" for value in values)
            expected[key] = expected.get(key, 0) + 1
    counted: dict[tuple[str, ...], int] = {}
    for labels, count in zip(groups.labels, groups.counts.tolist(), strict=True):
        counted[labels] = counted.get(labels, 0) + count
    assert counted == expected
    chosen = np.flatnonzero(mask) if groups.rows is None else groups.rows
    assert [groups.labels[group] for group in groups.group] == [
        tuple(value or "" for value in rows[row][:3]) for row in chosen
    ]


class Padded(list[str]):
    """Says that it has many values more, which no row has."""

    def __init__(self, values: list[str], unused: int) -> None:
        super().__init__(values)
        self._unused = unused

    def __len__(self) -> int:
        return super().__len__() + self._unused


# -- counters and gauges -----------------------------------------------------------------------------------------------


def test_a_counter_counts_rows_by_label_values() -> None:
    counter = Exposition().counter("jobs_total", "Jobs.", ["backend", "status"])
    groups = group_rows([column("fal", "fal", "runpod", None), column("ok", "ok", "ok", "failed")])
    counter.add(groups)
    counter.add(groups)
    assert samples(counter.collect()) == {
        ("_total", "fal", "ok"): 4,
        ("_total", "runpod", "ok"): 2,
        ("_total", "", "failed"): 2,
    }


def test_equal_values_with_two_codes_are_one_series() -> None:
    counter = Exposition().counter("jobs_total", "Jobs.", ["service"])
    twice = Strings(np.array([0, 1, 1], np.int32), ["worker", "worker"])
    counter.add(group_rows([twice]))
    assert samples(counter.collect()) == {("_total", "worker"): 3}


def test_amounts_are_added_for_the_rows_of_the_mask_only() -> None:
    counter = Exposition().counter("cost_dollars_total", "Cost.", ["backend"])
    groups = group_rows([column("fal", "fal", "fal")], np.array([True, False, True]))
    counter.add(groups, floats(1.5, 100.0, 2.0))
    assert samples(counter.collect()) == {("_total", "fal"): 3.5}


def test_amounts_that_no_counter_can_take_are_left_out_and_make_no_series() -> None:
    counter = Exposition().counter("cost_dollars_total", "Cost.", ["backend"])
    groups = group_rows([column("fal", "fal", "nan", "negative", "inf", "zero")])
    counter.add(groups, floats(1.0, math.nan, math.nan, -1.0, math.inf, 0.0))
    counter.add(one("scalar"), -1.0)
    assert samples(counter.collect()) == {("_total", "fal"): 1.0}


def test_a_gauge_keeps_the_last_row_that_has_a_value() -> None:
    gauge = Exposition().gauge("queue_size", "Jobs that wait.", ["queue"])
    groups = group_rows([column("a", "a", "a", "b")])
    gauge.set(groups, floats(1.0, 5.0, math.nan, math.nan))
    gauge.set(one("c"), 7)
    assert samples(gauge.collect()) == {("a",): 5, ("c",): 7}


def test_long_label_values_are_cut_and_meet_in_one_series() -> None:
    counter = Exposition().counter("jobs_total", "Jobs.", ["name"])
    long = "x" * LABEL_CHARS_MAX
    counter.add(group_rows([column(long + "1", long + "2")]))
    counter.add(group_rows([column(long + "1")]))
    assert samples(counter.collect()) == {("_total", long): 3}


# -- histograms --------------------------------------------------------------------------------------------------------


def test_a_bucket_takes_values_up_to_and_including_its_bound() -> None:
    histogram = Exposition().histogram("seconds", "Duration.", ["stage"], [1.0, 2.5])
    histogram.observe(group_rows([column("a", "a", "a", "a")]), floats(0.0, 1.0, 1.1, 3.0))
    assert samples(histogram.collect()) == {
        ("_bucket", "a", "1.0"): 2,
        ("_bucket", "a", "2.5"): 3,
        ("_bucket", "a", "+Inf"): 4,
        ("_count", "a"): 4,
        ("_sum", "a"): 5.1,
    }


def test_values_that_no_histogram_can_take_are_left_out_and_make_no_series() -> None:
    histogram = Exposition().histogram("seconds", "Duration.", ["stage"], [1.0])
    groups = group_rows([column("a", "b", "a", "c", "d")], np.array([True, True, True, True, False]))
    histogram.observe(groups, floats(0.5, math.nan, -1.0, math.inf, 0.5))
    assert samples(histogram.collect()) == {
        ("_bucket", "a", "1.0"): 1,
        ("_bucket", "a", "+Inf"): 1,
        ("_count", "a"): 1,
        ("_sum", "a"): 0.5,
    }


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), min_size=1, max_size=50))
def test_a_histogram_counts_like_a_loop(rows: list[tuple[str, float]]) -> None:
    bounds = [0.1, 1.0, 5.0]
    histogram = Exposition().histogram("seconds", "Duration.", ["stage"], bounds)
    for half in (rows[::2], rows[1::2]):
        if half:
            histogram.observe(group_rows([column(*(stage for stage, _ in half))]), floats(*(x for _, x in half)))
    read = samples(histogram.collect())
    for stage in {stage for stage, _ in rows}:
        values = [value for name, value in rows if name == stage]
        for bound in bounds:
            assert read["_bucket", stage, str(bound)] == sum(value <= bound for value in values)
        assert read["_count", stage] == len(values)
        assert read["_sum", stage] == pytest.approx(sum(values))


def test_each_bucket_has_the_exemplar_of_the_last_eligible_row() -> None:
    now = [100.0]
    histogram = Exposition(lambda: now[0]).histogram("seconds", "Duration.", ["stage"], [1.0])
    groups = group_rows([column("a", "a", "a", "a")])
    looked_up: list[int] = []

    def ids(row: int) -> tuple[str, str]:
        looked_up.append(row)
        return f"trace{row}", f"span{row}"

    eligible = np.array([True, True, False, False])
    histogram.observe(groups, floats(0.1, 0.2, 0.3, 5.0), Exemplars(ids, eligible))
    first, above, *_ = _buckets(histogram.collect())
    assert first.exemplar is not None
    assert first.exemplar.labels == {"trace_id": "trace1", "span_id": "span1"}
    assert (first.exemplar.value, first.exemplar.timestamp) == (0.2, 100.0)
    assert above.exemplar is None
    histogram.observe(groups, floats(0.1, 0.2, 0.3, 5.0), Exemplars(ids))
    assert looked_up == [1, 3], "within the interval only the empty bucket takes one"
    now[0] += EXEMPLAR_INTERVAL_S
    histogram.observe(groups, floats(0.1, 0.2, 0.3, 0.4), Exemplars(ids))
    assert looked_up == [1, 3, 3]


def test_exemplars_come_from_rows_of_the_mask() -> None:
    histogram = Exposition().histogram("seconds", "Duration.", ["stage"], [1.0])
    groups = group_rows([column("a", "b", "a", "b")], np.array([False, True, True, True]))
    histogram.observe(groups, floats(0.1, 0.2, 0.3, math.nan), Exemplars(lambda row: (str(row), str(row))))
    found = {sample.labels["stage"]: sample.exemplar for sample in _buckets(histogram.collect()) if sample.exemplar}
    assert {stage: exemplar.labels["span_id"] for stage, exemplar in found.items()} == {"a": "2", "b": "1"}


def _buckets(metric: Metric | None) -> list:  # type: ignore[type-arg]  # of Sample
    assert metric is not None
    return [sample for sample in metric.samples if sample.name.endswith("_bucket")]


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_combinations_above_the_cap_share_one_series_and_are_counted() -> None:
    exposition = Exposition()
    counter = exposition.counter("jobs_total", "Jobs.", ["backend", "status"], 2)
    histogram = exposition.histogram("seconds", "Duration.", ["backend", "status"], [1.0], 2)
    groups = group_rows([column("a", "b", "c", "d", "d"), column("ok", "ok", "ok", "ok", "ok")])
    for _ in range(2):
        counter.add(groups)
        histogram.observe(groups, floats(1.0, 1.0, 1.0, 1.0, 1.0))
    assert samples(counter.collect()) == {
        ("_total", "a", "ok"): 2,
        ("_total", "b", "ok"): 2,
        ("_total", OVERFLOW, OVERFLOW): 6,
    }
    assert samples(histogram.collect())["_bucket", OVERFLOW, OVERFLOW, "1.0"] == 6
    overflow = next(metric for metric in exposition.collect() if metric.name == OVERFLOW_METRIC.removesuffix("_total"))
    assert samples(overflow) == {("_total", "jobs_total"): 6, ("_total", "seconds"): 6}


def test_the_same_family_registered_twice_is_one() -> None:
    exposition = Exposition()
    assert exposition.counter("a_total", "A.", ["x"]) is exposition.counter("a_total", "A.", ["x"])


@pytest.mark.parametrize(
    "register",
    [
        lambda exposition: exposition.counter("no_suffix", "A."),
        lambda exposition: exposition.counter("a total", "A."),
        lambda exposition: exposition.counter("b_total", "B.", ["le"]),
        lambda exposition: exposition.counter("b_total", "B.", ["__name__"]),
        lambda exposition: exposition.counter("b_total", "B.", ["x", "x"]),
        lambda exposition: exposition.counter("taken_total", "B.", ["other"]),
        lambda exposition: exposition.gauge("taken_total", "B.", ["x"]),
        lambda exposition: exposition.histogram("h", "H.", ["x"], []),
        lambda exposition: exposition.histogram("h", "H.", ["x"], [2.0, 1.0]),
        lambda exposition: exposition.histogram("h", "H.", ["x"], [1.0, math.inf]),
        lambda exposition: exposition.histogram("taken", "H.", ["x"], [2.0]),
    ],
)
def test_a_family_that_cannot_be_is_a_mistake_of_the_configuration(register) -> None:  # type: ignore[no-untyped-def]
    exposition = Exposition()
    exposition.counter("taken_total", "A.", ["x"])
    exposition.histogram("taken", "H.", ["x"], [1.0])
    with pytest.raises(ConfigError):
        register(exposition)


def test_families_are_bounded() -> None:
    exposition = Exposition()
    for number in range(EXPOSITION_FAMILIES_MAX):
        exposition.gauge(f"g{number}", "G.")
    with pytest.raises(ConfigError, match="more than"):
        exposition.gauge("another", "G.")


def test_a_wrong_number_of_labels_is_the_programmers_mistake() -> None:
    with pytest.raises(ValueError, match="has 1 labels, not 2"):
        Exposition().counter("jobs_total", "Jobs.", ["backend"]).add(one("a", "b"))


def test_no_sample_without_series() -> None:
    exposition = Exposition()
    exposition.counter("jobs_total", "Jobs.")
    assert exposition.collect() == []


def test_a_scrape_while_others_write_sees_whole_histograms() -> None:
    exposition = Exposition()
    histogram = exposition.histogram("seconds", "Duration.", ["stage"], [1.0])
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            groups = Groups([(f"s{number % 500}",)], np.zeros(4, np.int64), np.full(1, 4))
            histogram.observe(groups, floats(0.5, 0.5, 2.0, 2.0))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(50):
            metric = histogram.collect()
            read = samples(metric) if metric else {}
            for key, value in read.items():
                if key[0] == "_sum":
                    assert read["_count", key[1]] * 1.25 == value
                    assert read["_bucket", key[1], "1.0"] * 2 == read["_bucket", key[1], "+Inf"]
    finally:
        stop.set()
        writer.join()
