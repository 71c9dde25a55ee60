"""Worked examples of the join, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from otel_pipeline.gpu.join import Joined, Reason, Spans, Status, join
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.gpu.timeline import NO_GPU, Timelines

SECOND = 1_000_000_000
START = 1_750_000_000 * SECOND
UTILIZATION, MEMORY, POWER, ENERGY = Quantity

Samples = list[tuple[float, float]]


def ns(*seconds: float) -> np.ndarray:
    return START + np.array([round(each * SECOND) for each in seconds], np.int64)


def put(timelines: Timelines, gpu: str, quantity: Quantity, samples: Samples) -> None:
    times, values = zip(*samples, strict=True)
    timelines.add("host", gpu, quantity, ns(*times), np.array(values, np.float64))


def asked(timelines: Timelines, start: float, end: float, *gpus: str) -> Joined:
    numbers = np.array([timelines.gpu("host", gpu) for gpu in gpus], np.int64)
    return join(timelines, Spans(ns(start), ns(end), np.array([0, len(gpus)]), numbers))


def single(quantity: Quantity, samples: Samples, start: float, end: float) -> Joined:
    timelines = Timelines()
    put(timelines, "a", quantity, samples)
    return asked(timelines, start, end, "a")


def test_v13_the_counter_is_interpolated_at_both_ends() -> None:
    found = single(ENERGY, [(0, 0), (10, 1e3), (20, 4.5e3), (30, 8e3), (40, 9e3)], 12, 28)
    assert (found.energy_j[0], found.power_mean_w[0], found.coverage[0]) == (5600, 350, 1)
    assert (found.status[0], found.reason[0]) == (Status.OK, Reason.NONE)


def test_v14_a_counter_that_began_anew_leaves_the_time_between_unknown() -> None:
    found = single(ENERGY, [(0, 9e3), (10, 9.5e3), (20, 0.2e3)], 5, 15)
    assert (found.energy_j[0], found.coverage[0], found.power_mean_w[0]) == (250, 0.5, 50)
    assert (found.status[0], found.reason[0]) == (Status.PARTIAL, Reason.RESET)


def test_v16_a_gauge_tells_about_the_time_before_its_sample() -> None:
    found = single(UTILIZATION, [(0, 0), (10, 1), (14, 0.5), (20, 0)], 10, 20)
    assert (found.utilization_mean[0], found.utilization_max[0], found.coverage[0]) == (0.2, 0.5, 1)


def test_v21_a_span_within_one_step_of_the_counter_is_flagged_by_its_bound() -> None:
    samples = [(tick / 100, 30.0 * (tick // 10)) for tick in range(40)]
    found = single(ENERGY, samples, 0.02, 0.07)
    assert (found.energy_j[0], found.energy_error_j[0]) == (0, 30)


def test_v21_read_once_a_step_the_bound_still_holds() -> None:
    found = single(ENERGY, [(0, 0), (0.1, 30), (0.2, 60)], 0.02, 0.07)
    assert found.energy_j[0] == pytest.approx(15)
    assert found.energy_error_j[0] >= 15


@pytest.mark.parametrize("quantity", list(Quantity))
def test_v22_a_sentinel_is_dropped(quantity: Quantity) -> None:
    timelines = Timelines()
    put(timelines, "a", quantity, [(0, 0.5), (1, 9223372036854775794.0), (2, 0.5)])
    assert timelines.counts["invalid"] == 1
    assert asked(timelines, 0, 2, "a").coverage[0] == 1


def test_power_is_integrated_where_there_is_no_counter() -> None:
    found = single(POWER, [(0, 100), (1, 300), (2, 100)], 0.5, 1.5)
    assert found.energy_j[0] == pytest.approx(200)
    assert found.power_mean_w[0] == pytest.approx(200)
    assert found.energy_error_j[0] >= 200


def test_power_samples_are_not_asked_where_a_counter_exists() -> None:
    timelines = Timelines()
    put(timelines, "a", ENERGY, [(0, 0), (1, 100), (2, 200)])
    put(timelines, "a", POWER, [(0, 999), (1, 999), (2, 999)])
    assert asked(timelines, 0, 2, "a").power_mean_w[0] == 100


def test_a_counter_that_never_counts_is_none() -> None:
    timelines = Timelines()
    put(timelines, "a", ENERGY, [(0, 0), (1, 0), (2, 0)])
    put(timelines, "a", POWER, [(0, 300), (1, 300), (2, 300)])
    assert asked(timelines, 0, 2, "a").energy_j[0] == 600


def test_power_tells_what_the_counter_cannot() -> None:
    timelines = Timelines()
    put(timelines, "a", ENERGY, [(0, 50), (1, 60), (2, 10), (3, 20)])
    put(timelines, "a", POWER, [(0, 300), (1, 300), (2, 300), (3, 300)])
    found = asked(timelines, 1.2, 1.8, "a")
    assert found.energy_j[0] == pytest.approx(180)
    assert found.status[0] == Status.OK


def test_the_highest_memory_is_that_of_the_samples_within_and_beside_the_span() -> None:
    samples = [(0.0, 9e9), (1.0, 7e9), (2.0, 5e9), (3.0, 6e9), (4.0, 8e9)]
    assert single(MEMORY, samples, 1.5, 2.5).memory_max_bytes[0] == 7e9
    assert single(MEMORY, samples, 2.0, 2.5).memory_max_bytes[0] == 6e9


def test_samples_behind_a_gap_say_nothing_about_a_span() -> None:
    samples = [(0.0, 1e9), (1.0, 9e9), (9.0, 9e9), (10.0, 1e9), (11.0, 1e9)]
    found = single(MEMORY, samples, 2, 8)
    assert np.isnan(found.memory_max_bytes[0])
    assert (found.status[0], found.reason[0], found.coverage[0]) == (Status.MISSING, Reason.GAP, 0)


def test_a_gap_within_the_span_lowers_coverage_but_not_the_energy() -> None:
    times = [0, 1, 2, 3, 13, 14, 15, 16]
    timelines = Timelines()
    put(timelines, "a", ENERGY, [(time, 100.0 * time) for time in times])
    found = asked(timelines, 2, 14, "a")
    assert (found.energy_j[0], found.coverage[0], found.status[0]) == (1200, 1, Status.OK)
    put(timelines, "a", UTILIZATION, [(time, 0.5) for time in times])
    found = asked(timelines, 2, 14, "a")
    assert (found.energy_j[0], found.status[0], found.reason[0]) == (1200, Status.PARTIAL, Reason.GAP)
    assert found.coverage[0] == pytest.approx(2 / 12)


def test_a_span_that_ends_in_a_gap_of_the_counter_has_a_wide_bound_and_less_coverage() -> None:
    found = single(ENERGY, [(time, 100.0 * time) for time in (0, 1, 2, 3, 13, 14, 15, 16)], 2, 8)
    assert found.energy_j[0] == 600
    assert found.energy_error_j[0] >= 500
    assert found.coverage[0] == pytest.approx(1 / 6)


def test_several_gpus_add_up() -> None:
    timelines = Timelines()
    for gpu, load in (("a", 1.0), ("b", 0.5)):
        put(timelines, gpu, UTILIZATION, [(0, 0), (1, load), (2, load)])
        put(timelines, gpu, MEMORY, [(0, 1e9), (1, 4e9), (2, 1e9)])
        put(timelines, gpu, ENERGY, [(0, 5), (1, 105), (2, 205)])
    found = asked(timelines, 0, 2, "a", "b")
    assert (found.utilization_mean[0], found.utilization_max[0]) == (0.75, 1)
    assert (found.memory_max_bytes[0], found.energy_j[0], found.power_mean_w[0]) == (8e9, 400, 200)
    assert (found.coverage[0], found.status[0]) == (1, Status.OK)


def test_one_of_two_gpus_without_samples_halves_coverage() -> None:
    timelines = Timelines()
    put(timelines, "a", ENERGY, [(0, 5), (1, 105), (2, 205)])
    found = asked(timelines, 0, 2, "a", "nobody")
    assert (found.energy_j[0], found.coverage[0]) == (200, 0.5)
    assert (found.status[0], found.reason[0]) == (Status.PARTIAL, Reason.UNKNOWN_GPU)


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (-5, -1, Reason.BEFORE),
        (-1, 1, Reason.BEFORE),
        (1, 9, Reason.LATE),
        (7, 9, Reason.LATE),
        (2, 1, Reason.INTERVAL),
    ],
)
def test_spans_outside_of_what_is_known_say_why(start: float, end: float, reason: Reason) -> None:
    found = single(UTILIZATION, [(0, 0.5), (1, 0.5), (2, 0.5)], start, end)
    assert found.reason[0] == reason
    assert found.status[0] == (Status.PARTIAL if -1 <= start < end and start < 2 else Status.MISSING)


def test_a_span_without_gpus_and_one_of_an_unknown_gpu_are_missing() -> None:
    timelines = Timelines()
    found = join(timelines, Spans(ns(0, 0), ns(1, 1), np.array([0, 0, 1]), np.array([NO_GPU])))
    assert found.reason.tolist() == [Reason.NO_GPU, Reason.UNKNOWN_GPU]
    assert found.status.tolist() == [Status.MISSING, Status.MISSING]
    assert found.coverage.tolist() == [0, 0]
    assert np.isnan(found.energy_j).all()


def test_a_single_sample_tells_about_no_time() -> None:
    assert single(UTILIZATION, [(1, 0.5)], 0, 2).reason[0] == Reason.NO_SAMPLES


def test_a_span_of_no_length_has_the_moments_values_and_no_energy() -> None:
    timelines = Timelines()
    put(timelines, "a", UTILIZATION, [(0, 0), (1, 0.25), (2, 0.75)])
    put(timelines, "a", ENERGY, [(0, 5), (1, 105), (2, 205)])
    found = asked(timelines, 1.5, 1.5, "a")
    assert (found.utilization_mean[0], found.energy_j[0], found.status[0]) == (0.75, 0, Status.OK)
    assert found.power_mean_w[0] == pytest.approx(100, rel=1e-4)


def test_no_spans_are_no_rows() -> None:
    nothing = np.empty(0, np.int64)
    assert len(join(Timelines(), Spans(nothing, nothing, np.zeros(1, np.int64), nothing)).status) == 0
