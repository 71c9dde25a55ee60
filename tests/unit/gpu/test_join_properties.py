"""Laws of the join, for any samples and spans, against an oracle in plain Python."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from otel_pipeline.gpu.join import Joined, Spans, Status, join
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.gpu.series import Sizes
from otel_pipeline.gpu.timeline import Timelines
from tests.support.gpu_oracle import History

TICK = 10_000_000
START = 1_750_000_000 * 10**9
UTILIZATION, MEMORY, POWER, ENERGY = Quantity
Samples = list[tuple[int, float]]
SCALE = {UTILIZATION: 1.0, MEMORY: 8e10, POWER: 700.0, ENERGY: 1e7}


@st.composite
def samples(draw: st.DrawFn, quantity: Quantity, *, resets: bool = True) -> Samples:
    """Spacings mostly regular, some longer, some of them gaps; times in ns, ascending."""
    spacing = st.sampled_from([10, 10, 10, 10, 11, 9, 1, 24, 25, 26, 60, 700])
    spacings = draw(st.lists(spacing, min_size=1, max_size=60))
    times = (START + np.cumsum(spacings) * TICK).tolist()
    unit = st.integers(0, 1000).map(lambda value: value / 1000)
    values = draw(st.lists(unit, min_size=len(times), max_size=len(times)))
    if quantity is ENERGY:
        values = np.cumsum(values).tolist() if not resets or draw(st.booleans()) else values
        return [(time, value * 100) for time, value in zip(times, values, strict=True)]
    return [(time, value * SCALE[quantity]) for time, value in zip(times, values, strict=True)]


@st.composite
def intervals(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Spans around the samples, some at the very times of them."""
    moment = st.one_of(st.integers(-50, 1500).map(lambda tick: tick * TICK), st.integers(0, 10**10))
    pairs = draw(st.lists(st.tuples(moment, moment), min_size=1, max_size=20))
    return [(START + min(pair), START + max(pair)) for pair in pairs if pair[0] != pair[1]]


def filled(quantity: Quantity, given_samples: Samples, **bounds: object) -> Timelines:
    timelines = Timelines(**bounds)  # type: ignore[arg-type]
    put(timelines, quantity, given_samples)
    return timelines


def put(timelines: Timelines, quantity: Quantity, given_samples: Samples) -> None:
    times = np.array([time for time, _ in given_samples], np.int64)
    timelines.add("host", "gpu", quantity, times, np.array([value for _, value in given_samples], np.float64))


def asked(timelines: Timelines, spans: list[tuple[int, int]]) -> Joined:
    starts, ends = (np.array([span[side] for span in spans], np.int64) for side in (0, 1))
    return join(timelines, Spans.on_one_gpu(starts, ends, np.full(len(spans), timelines.gpu("host", "gpu"))))


def same(one: Joined, other: Joined) -> bool:
    pairs = [(getattr(one, each.name), getattr(other, each.name)) for each in fields(Joined)]
    return all(np.array_equal(left, right, equal_nan=True) for left, right in pairs)


@given(st.data(), st.sampled_from(Quantity), intervals())
def test_it_answers_as_the_oracle_does(data: st.DataObject, quantity: Quantity, spans: list[tuple[int, int]]) -> None:
    given_samples = data.draw(samples(quantity))
    history = History(quantity, given_samples)
    found = asked(filled(quantity, given_samples), spans)
    for row, (start, end) in enumerate(spans):
        answer = history.during(start, end)
        if len(history.rows) < 2 or (quantity is ENERGY and not any(value for _, value in given_samples)):
            assert found.status[row] == Status.MISSING
            continue
        assert found.coverage[row] == answer.covered / (end - start)
        if quantity in {UTILIZATION, MEMORY}:
            highest = found.utilization_max if quantity is UTILIZATION else found.memory_max_bytes
            assert answer.highest == (None if np.isnan(highest[row]) else highest[row])
        if quantity is UTILIZATION and answer.covered:
            assert found.utilization_mean[row] == pytest.approx(float(answer.total / answer.covered), abs=1e-9)
        if quantity is POWER and answer.covered:
            assert found.energy_j[row] == pytest.approx(float(answer.total / 10**9), abs=1e-6)
        if quantity is ENERGY and answer.known:
            assert found.energy_j[row] == pytest.approx(float(answer.total), abs=1e-6)


@given(st.data(), st.sampled_from(Quantity), intervals(), st.randoms(use_true_random=False))
def test_order_and_repetition_of_arrival_change_nothing(
    data: st.DataObject,
    quantity: Quantity,
    spans: list[tuple[int, int]],
    random: np.random.Generator,
) -> None:
    given_samples = data.draw(samples(quantity))
    at_once = asked(filled(quantity, given_samples), spans)
    again = given_samples * 2
    random.shuffle(again)
    timelines = Timelines()
    cut = data.draw(st.integers(1, 20))
    for begin in range(0, len(again), cut):
        put(timelines, quantity, again[begin : begin + cut])
        asked(timelines, spans)  # works the totals out each time
    assert same(at_once, asked(timelines, spans))
    assert timelines.counts["duplicate"] == len(given_samples)


@given(st.data(), intervals())
def test_nothing_is_negative_and_no_energy_is_above_the_counters_difference(
    data: st.DataObject, spans: list[tuple[int, int]]
) -> None:
    timelines = Timelines()
    for quantity in Quantity:
        put(timelines, quantity, data.draw(samples(quantity)))
    found = asked(timelines, spans)
    for each in fields(Joined):
        values = getattr(found, each.name)
        assert not (values < 0).any(), each.name
    assert (found.coverage <= 1).all()
    assert not (found.utilization_mean > found.utilization_max).any()

    counted = data.draw(samples(ENERGY, resets=False))
    energy = asked(filled(ENERGY, counted), spans).energy_j
    assert not (energy > counted[-1][1] - counted[0][1]).any()


@given(st.data(), st.integers(0, 2**32 - 1))
def test_spans_asked_together_are_answered_as_each_alone(data: st.DataObject, seed: int) -> None:
    timelines = Timelines()
    for gpu in ("a", "b", "c"):
        for quantity in Quantity:
            rows = data.draw(samples(quantity))
            times, values = np.array([time for time, _ in rows]), np.array([value for _, value in rows])
            timelines.add("host", gpu, quantity, times, values)
    random = np.random.default_rng(seed)
    numbers = np.array([*(timelines.gpu("host", gpu) for gpu in ("a", "b", "c")), -1, 2**40])
    sets = [random.choice(numbers, count, replace=False) for count in random.integers(0, 4, 30)]
    if seed % 2:
        sets = [random.choice(numbers[: 4 + seed % 4 // 2], 1) for _ in range(30)]
    starts = START + random.integers(-(10**8), 5 * 10**9, 30)
    ends = starts + random.integers(-(10**7), 5 * 10**9, 30)
    offsets = np.concatenate(([0], np.cumsum([len(each) for each in sets])))
    together = join(timelines, Spans(starts, ends, offsets, np.concatenate(sets)))
    for row, gpus in enumerate(sets):
        alone = join(timelines, Spans(starts[row : row + 1], ends[row : row + 1], np.array([0, len(gpus)]), gpus))
        for each in fields(Joined):
            one, other = getattr(together, each.name)[row], getattr(alone, each.name)[0]
            assert one == pytest.approx(other, nan_ok=True), each.name


@given(st.data())
def test_spans_side_by_side_add_up_to_the_counters_difference(data: st.DataObject) -> None:
    counted = data.draw(samples(ENERGY, resets=False))
    assume(len(counted) > 1 and counted[-1][1] > 0)
    begin, end = counted[0][0], counted[-1][0]
    cuts = data.draw(st.lists(st.integers(begin + 1, end - 1), max_size=30, unique=True))
    edges = [begin, *sorted(cuts), end]
    found = asked(filled(ENERGY, counted), list(pairwise(edges)))
    assert found.energy_j.sum() == pytest.approx(counted[-1][1] - counted[0][1], abs=1e-6)


@given(st.data(), st.sampled_from([UTILIZATION, POWER, ENERGY]))
def test_cutting_a_span_in_two_changes_no_sum(data: st.DataObject, quantity: Quantity) -> None:
    given_samples = data.draw(samples(quantity))
    timelines = filled(quantity, given_samples)
    start, middle, end = sorted(data.draw(st.lists(st.integers(0, 10**10), min_size=3, max_size=3, unique=True)))
    parts = [(start, end), (start, middle), (middle, end)]
    found = asked(timelines, [(START + begin, START + stop) for begin, stop in parts])
    values = np.nan_to_num(found.energy_j)
    if quantity is UTILIZATION:
        lengths = np.array([end - start, middle - start, end - middle])
        values = np.nan_to_num(found.utilization_mean) * found.coverage * lengths / 1e9
    assert values[0] == pytest.approx(values[1] + values[2], abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 3.0), st.sampled_from([0.02, 0.1, 0.25, 1.0]))
def test_the_energy_lies_within_its_bound(seed: int, seconds: float, interval: float) -> None:
    """A counter as drivers have it: its steps come every 100 ms, and it is read at some other pace."""
    random = np.random.default_rng(seed)
    ticks = np.arange(60_000)  # ms
    power = np.repeat(random.choice([20.0, 700.0, 350.0], 600), 100)[ticks]
    used = np.concatenate(([0.0], np.cumsum(power) / 1000))
    phase = int(random.integers(0, 100))

    def read(at_ms: np.ndarray) -> np.ndarray:
        return used[np.maximum((at_ms - phase) // 100 * 100 + phase, 0)]

    at_ms = np.cumsum(random.uniform(0.8, 1.2, int(50 / interval)) * interval * 1000).astype(np.int64)
    timelines = Timelines()
    timelines.add("host", "gpu", ENERGY, START + at_ms * 1_000_000, read(at_ms))
    starts = random.integers(at_ms[0] + 1000, at_ms[-1] - 6000, 50)
    ends = starts + int(seconds * 1000)
    found = asked(timelines, list(zip((START + starts * 10**6).tolist(), (START + ends * 10**6).tolist(), strict=True)))
    true = used[ends] - used[starts]
    assert (np.abs(found.energy_j - true) <= found.energy_error_j + 1e-6).all()


@given(st.data(), st.integers(0, 2**32 - 1), st.integers(60, 400))
def test_forgetting_makes_no_number_wrong_only_less_known(data: st.DataObject, seed: int, count: int) -> None:
    """Small columns: most rows are soon one in 10 s, and the oldest go."""
    counted: Samples = []
    loads: Samples = []
    time, energy = START, 0.0
    for spacing in np.random.default_rng(seed).integers(50, 150, count).tolist():
        time += spacing * TICK
        energy += spacing
        counted.append((time, energy))
        loads.append((time, 0.25 + (len(loads) % 3) / 4))
    sizes = Sizes(fine=64, coarse=24)
    small, whole = Timelines(sizes=sizes), Timelines()
    for begin in range(0, len(counted), 7):
        for timelines in (small, whole):
            put(timelines, ENERGY, counted[begin : begin + 7])
            put(timelines, UTILIZATION, loads[begin : begin + 7])
    moments = st.integers(0, (time - START) // TICK)
    pairs = data.draw(st.lists(st.tuples(moments, moments), min_size=1, max_size=20))
    spans = [(START + min(pair) * TICK, START + max(pair) * TICK) for pair in pairs if pair[0] != pair[1]]
    if not spans:
        return
    one, other = asked(small, spans), asked(whole, spans)
    assert (one.coverage <= other.coverage + 1e-12).all()
    assert not (one.energy_j > other.energy_j + one.energy_error_j + other.energy_error_j).any()
    full = (one.coverage == 1) & (other.coverage == 1)
    assert (np.abs(one.energy_j - other.energy_j)[full] <= one.energy_error_j[full] + 1e-6).all()
    lengths = np.array([end - start for start, end in spans]) / 1e9
    both_ends = np.minimum(2 * 11.5 / lengths, 1)  # a coarse row at each end, of values that differ by 0.5 at most
    off = np.abs(one.utilization_mean - other.utilization_mean)
    assert (off[full] <= both_ends[full] * 0.5 + 1e-9).all()
    assert (one.utilization_max[full] >= other.utilization_max[full]).all()
