"""Samples in: what is kept, what is dropped and counted, who is forgotten, and when a span need not wait any longer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.gpu.clocks import Offset
from otel_pipeline.gpu.join import Joined, Readiness, Reason, Spans, join, ready
from otel_pipeline.gpu.peaks import Peaks
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.gpu.series import Series, Sizes
from otel_pipeline.gpu.timeline import NO_GPU, Timelines

SECOND = 1_000_000_000
START = 1_750_000_000 * SECOND
UTILIZATION, MEMORY, POWER, ENERGY = Quantity


def ns(*seconds: float) -> np.ndarray:
    return START + np.array([round(each * SECOND) for each in seconds], np.int64)


def put(timelines: Timelines, seconds: list[float], value: float = 0.5, **more: object) -> int:
    given_for: dict[str, object] = {"hosts": "host", "gpu": "a", "quantity": UTILIZATION, **more}
    return timelines.add(times_ns=ns(*seconds), values=np.full(len(seconds), value), **given_for)  # type: ignore[arg-type]


def spans(timelines: Timelines, *intervals: tuple[float, float], host: str = "host", gpu: str = "a") -> Spans:
    number = timelines.gpu(host, gpu)
    starts, ends = (ns(*[each[side] for each in intervals]) for side in (0, 1))
    return Spans.on_one_gpu(starts, ends, np.full(len(intervals), number))


def asked(timelines: Timelines, start: float, end: float, **who: str) -> Joined:
    return join(timelines, spans(timelines, (start, end), **who))


def waiting(timelines: Timelines, end: float, **who: str) -> Readiness:
    return ready(timelines, spans(timelines, (end - 1, end), **who))


# -- what is dropped ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, 1.5, 9223372036854775794.0])
def test_a_value_that_cannot_be_is_dropped_and_counted(value: float) -> None:
    timelines = Timelines()
    assert put(timelines, [1], value) == 0
    assert timelines.counts == {"invalid": 1}


@pytest.mark.parametrize("time", [0, -5, 2**63 - 1])
def test_a_time_that_cannot_be_is_dropped_and_counted(time: int) -> None:
    timelines = Timelines()
    assert timelines.add("host", "a", UTILIZATION, np.array([time]), np.array([0.5])) == 0
    assert timelines.counts == {"invalid": 1}


@pytest.mark.parametrize(("host", "gpu"), [("", "a"), ((), "a"), ("host", ""), ("host", "x" * 1000), ("x" * 1000, "a")])
def test_samples_of_nobody_are_dropped(host: str, gpu: str) -> None:
    timelines = Timelines()
    assert put(timelines, [1, 2], hosts=host, gpu=gpu) == 0
    assert (timelines.counts, len(timelines)) == ({"invalid": 2}, 0)


def test_samples_far_ahead_of_the_hosts_clock_are_dropped() -> None:
    timelines = Timelines()
    timelines.saw("host", START, START + 5 * SECOND)
    assert put(timelines, [1, 7_000]) == 1
    assert put(timelines, [1, 9_000], hosts="other", received_ns=START) == 1
    assert timelines.counts == {"ahead": 2}


def test_a_host_whose_clock_was_ahead_begins_anew() -> None:
    timelines = Timelines()
    timelines.saw("host", int(ns(90_001)[0]), START)
    put(timelines, [90_000, 90_001])
    timelines.saw("host", START, START + 1)
    assert put(timelines, [0, 1, 2]) == 3
    assert asked(timelines, 0, 2).coverage[0] == 1


def test_samples_from_before_what_is_kept_in_detail_are_dropped() -> None:
    timelines = Timelines(sizes=Sizes(fine=64, coarse=16))
    put(timelines, list(range(200)))
    assert put(timelines, [10.5]) == 0
    assert timelines.counts["late"] == 1


# -- sources and clocks ------------------------------------------------------------------------------------------------


def test_two_sources_of_one_counter_are_not_mixed() -> None:
    timelines = Timelines()
    put(timelines, [0, 1, 2], 100.0, quantity=ENERGY, source="agent")
    assert put(timelines, [0.5, 1.5], 900.0, quantity=ENERGY, source="other") == 0
    assert timelines.counts == {"other_source": 2}


def test_another_source_goes_on_when_the_first_has_fallen_silent() -> None:
    timelines = Timelines()
    timelines.add("host", "a", ENERGY, ns(0, 1, 2), np.array([1.0, 2, 3]), source="agent")
    timelines.add("host", "a", ENERGY, ns(30, 31, 32), np.array([70.0, 71, 72]), source="other")
    found = asked(timelines, 0, 32)
    assert found.energy_j[0] == 4
    assert (found.coverage[0], found.reason[0]) == (4 / 32, Reason.RESET)


def test_a_fresher_source_takes_over_at_once() -> None:
    timelines = Timelines()
    put(timelines, [0, 30], source="scrape", age_max_ns=30 * SECOND)
    assert put(timelines, [29, 31, 32, 33], source="agent") == 3
    assert asked(timelines, 31, 33).coverage[0] == 1
    assert put(timelines, [60], source="scrape", age_max_ns=30 * SECOND) == 1


def test_times_of_another_clock_are_shifted() -> None:
    timelines = Timelines()
    timelines.saw("host", START, START + 7 * SECOND)
    assert timelines.offset_ns("host") == 7 * SECOND
    put(timelines, [7, 8, 9], offset_ns=timelines.offset_ns("host"))
    assert asked(timelines, 0, 2).coverage[0] == 1


def test_the_offset_is_the_least_delay_of_the_last_minutes() -> None:
    offset = Offset()
    assert offset.estimate_ns is None
    for second, delay in ((0, 5), (100, 2), (200, 9)):
        offset.saw(second * SECOND, (second + delay) * SECOND)
    assert offset.estimate_ns == 2 * SECOND
    offset.saw(760 * SECOND, 770 * SECOND)
    assert offset.estimate_ns == 9 * SECOND
    offset.saw(1 * SECOND, 2 * SECOND)
    assert offset.estimate_ns == 9 * SECOND


def test_nothing_is_known_of_the_clock_of_an_unknown_host() -> None:
    assert Timelines().offset_ns("host") == 0


# -- devices -----------------------------------------------------------------------------------------------------------


def test_devices_come_by_index_and_keep_what_was_said() -> None:
    timelines = Timelines()
    timelines.describe("host", "b", index=0, name="L40S")
    timelines.describe("host", "b")
    put(timelines, [1])
    assert [(each.uuid, each.index, each.name) for each in timelines.devices("host")] == [
        ("b", 0, "L40S"),
        ("a", None, ""),
    ]
    assert timelines.devices("nobody") == ()


def test_a_gpu_that_is_known_by_its_id_is_not_listed_by_its_index_too() -> None:
    timelines = Timelines()
    for gpu, index in (("index:0", 0), ("index:1", 1), ("GPU-1", 1)):
        timelines.describe("host", gpu, index=index)
    assert [each.uuid for each in timelines.devices("host")] == ["index:0", "GPU-1"]


# -- room --------------------------------------------------------------------------------------------------------------


def test_the_host_and_the_gpu_that_were_silent_longest_go_first() -> None:
    timelines = Timelines(hosts_max=2, gpus_max=2)
    for host in ("one", "two", "one", "three"):
        put(timelines, [1], hosts=host)
    assert timelines.gpu("two", "a") == NO_GPU
    assert timelines.gpu("one", "a") != NO_GPU
    for gpu in ("b", "a", "c"):
        put(timelines, [2], hosts="one", gpu=gpu)
    assert [each.uuid for each in timelines.devices("one")] == ["a", "c"]
    assert timelines.counts["hosts"] == timelines.counts["gpus"] == 1


def test_a_number_is_never_given_twice() -> None:
    timelines = Timelines(gpus_max=1)
    put(timelines, [1, 2])
    old = spans(timelines, (1, 2))
    put(timelines, [1, 2], gpu="b")
    put(timelines, [1, 2], gpu="a")
    assert join(timelines, old).reason[0] == Reason.UNKNOWN_GPU
    assert asked(timelines, 1, 2).coverage[0] == 1


def test_memory_is_bounded_and_the_oldest_samples_go_first() -> None:
    timelines = Timelines(bytes_max=1_900_000)
    put(timelines, [second / 2 for second in range(5_000)], gpu="idle")
    for begin in range(0, 30_000, 1_000):
        put(timelines, [10_000 + (begin + row) / 10 for row in range(1_000)])
        assert timelines.size_bytes <= 1_900_000
    assert asked(timelines, 0, 100, gpu="idle").coverage[0] == 0
    assert asked(timelines, 10_000, 12_999).coverage[0] == 1


def test_gpus_without_samples_are_bounded_too() -> None:
    timelines = Timelines(bytes_max=100_000)
    for gpu in range(100):
        timelines.describe("host", str(gpu), index=gpu)
    assert timelines.size_bytes <= 100_000
    assert timelines.gpu("host", "99") != NO_GPU


def test_the_gpu_that_is_written_to_stays_when_others_can_go() -> None:
    timelines = Timelines(bytes_max=60_000)
    for host in range(10, 0, -1):  # each one's samples are older than all that is there
        assert put(timelines, [host + row / 10 for row in range(100)], hosts=str(host)) == 100
        assert timelines.size_bytes <= 60_000
    assert asked(timelines, 1, 9, host="1").coverage[0] == 1
    assert timelines.devices("2") == ()


def test_a_single_gpu_may_take_what_it_needs_at_the_least() -> None:
    timelines = Timelines(bytes_max=1)
    assert put(timelines, [float(second) for second in range(100)]) == 100
    assert asked(timelines, 1, 9).coverage[0] == 1


def test_a_gpu_with_too_little_to_halve_goes_as_a_whole() -> None:
    timelines = Timelines(bytes_max=100_000)
    for gpu in range(40):
        put(timelines, [gpu + row / 10 for row in range(100)], gpu=str(gpu))
        assert timelines.size_bytes <= 100_000
    assert timelines.gpu("host", "0") == NO_GPU
    assert asked(timelines, 40, 48, gpu="39").coverage[0] == 1
    assert timelines.counts["gpus"] > 10


def test_columns_take_what_is_promised() -> None:
    timelines = Timelines(sizes=Sizes(fine=4096, coarse=1024))
    times = START + np.arange(1_000) * SECOND // 10
    for lap in range(200):
        for quantity in Quantity:
            values = np.linspace(lap, lap + 1, 1_000) / 1_000
            timelines.add("host", "a", quantity, times + lap * 100 * SECOND, values)
    assert timelines.size_bytes <= 5_120 * 150
    found = join(timelines, spans(timelines, (10_000, 19_999)))
    assert found.coverage[0] == 1
    assert found.energy_j[0] == pytest.approx(0.1, abs=1e-3)


def test_a_series_that_is_nothing_but_gaps_is_bounded_too() -> None:
    series = Series(UTILIZATION, Sizes(fine=64, coarse=16))
    times = START + np.cumsum(np.tile([1, 1, 500], 400)) * SECOND
    for begin in range(0, len(times), 5):
        series.add(times[begin : begin + 5], np.full(len(times[begin : begin + 5]), 0.5))
        series.settle()
        assert series.count <= 80
    assert series.last_ns == times[-1]


def test_a_day_at_10_hz_stays_exact_for_energy_and_known_for_the_rest() -> None:
    timelines = Timelines()
    rows = 10_000
    for lap in range(86):
        ticks = lap * rows + np.arange(rows)
        timelines.add("host", "a", ENERGY, START + ticks * (SECOND // 10), ticks * 30.0)
        timelines.add("host", "a", UTILIZATION, START + ticks * (SECOND // 10), ticks % 2 / 1.0)
    found = asked(timelines, 1_000, 85_000)
    assert found.energy_j[0] == pytest.approx(84_000 * 300, abs=1e-3)
    assert found.utilization_mean[0] == pytest.approx(0.5, abs=1e-3)
    assert found.coverage[0] == 1


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_a_span_is_ready_an_interval_after_its_end() -> None:
    timelines = Timelines()
    put(timelines, [0, 1, 2, 3])
    assert waiting(timelines, 2).ready.tolist() == [True]
    found = waiting(timelines, 2.5)
    assert found.ready.tolist() == [False]
    assert found.until_ns.tolist() == ns(3.5).tolist()


def test_waiting_follows_our_clock() -> None:
    timelines = Timelines()
    put(timelines, [0, 1, 2, 3])
    timelines.saw("host", START, START + 20 * SECOND)
    assert waiting(timelines, 2.5).until_ns.tolist() == ns(23.5).tolist()


def test_the_slowest_quantity_is_waited_for_until_it_has_ended() -> None:
    timelines = Timelines()
    put(timelines, [0, 1, 2, 3, 4, 5])
    put(timelines, [0, 1, 2, 3], 300.0, quantity=POWER)
    assert waiting(timelines, 3).ready.tolist() == [False]
    put(timelines, [float(second) for second in range(6, 20)])
    assert waiting(timelines, 3).ready.tolist() == [True]


def test_an_unknown_gpu_is_waited_for_and_none_is_not() -> None:
    timelines = Timelines()
    both = Spans(ns(0, 0), ns(1, 1), np.array([0, 1, 1]), np.array([NO_GPU]))
    assert ready(timelines, both).ready.tolist() == [False, True]


def test_all_gpus_of_a_span_are_waited_for() -> None:
    timelines = Timelines()
    put(timelines, [0, 1, 2, 3, 4])
    put(timelines, [0, 1, 2, 3], gpu="b")
    numbers = np.array([timelines.gpu("host", "a"), timelines.gpu("host", "b")])
    found = ready(timelines, Spans(ns(0), ns(3), np.array([0, 2]), numbers))
    assert (found.ready.tolist(), found.until_ns.tolist()) == ([False], ns(4).tolist())


# -- parts -------------------------------------------------------------------------------------------------------------


@given(st.data(), st.integers(1, 400))
def test_the_highest_of_any_range_is_found_while_rows_are_appended(data: st.DataObject, count: int) -> None:
    column = np.array(data.draw(st.lists(st.integers(0, 50), min_size=count, max_size=count)), np.float64)
    peaks, room, done = Peaks(), 16, 0
    while done < count:
        step = data.draw(st.integers(1, 120))
        first, done = data.draw(st.integers(max(done - 20, 0), done)), min(done + step, count)
        room = max(room, done)
        peaks.update(np.resize(column, room), first, done)
    row = st.integers(0, count - 1)
    pairs = np.array([sorted(pair) for pair in data.draw(st.lists(st.tuples(row, row), min_size=1))])
    found = peaks.highest(np.resize(column, room), pairs[:, 0], pairs[:, 1])
    assert found.tolist() == [column[first : last + 1].max() for first, last in pairs]


def test_series_know_whether_they_share_their_times() -> None:
    one, other = Series(UTILIZATION, Sizes()), Series(MEMORY, Sizes())
    for series in (one, other):
        series.add(ns(0, 1, 2), np.ones(3))
    assert one.has_times_of(other)
    one.add(ns(3, 4), np.ones(2))
    assert not one.has_times_of(other)
    other.add(ns(3, 4), np.ones(2))
    assert one.has_times_of(other)
    one.add(ns(0.5), np.ones(1))
    other.add(ns(0.7), np.ones(1))
    assert not one.has_times_of(other)
