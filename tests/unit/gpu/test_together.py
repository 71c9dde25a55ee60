"""GPUs that are read together answer as each of them does when it is read alone."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.gpu.join import Joined, Spans, join
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.gpu.series import SECOND_NS
from otel_pipeline.gpu.timeline import Timelines
from otel_pipeline.gpu.together import Together

START = 1_750_000_000 * SECOND_NS
STEP = SECOND_NS // 10
ROWS = 400
UTILIZATION, MEMORY, POWER, ENERGY = Quantity
SCALE = {UTILIZATION: 1.0, MEMORY: 8e10, POWER: 700.0, ENERGY: 70.0}
QUIRKS = (
    "none",
    "no counter",
    "dead counter",
    "only power",
    "shifted",
    "fewer",
    "old gap",
    "new gap",
    "reset",
    "old source",
)


def sampled(quirks: list[str], seed: int) -> Timelines:
    """A host whose GPUs are sampled at once, but for their quirks."""
    chance = np.random.default_rng(seed)
    timelines = Timelines()
    for number, quirk in enumerate(quirks):
        times = START + np.arange(ROWS) * STEP + (STEP // 3 if quirk == "shifted" else 0)
        for quantity in Quantity:
            values = chance.random(ROWS) * SCALE[quantity]
            if quantity is ENERGY:
                values = np.cumsum(values) if quirk != "dead counter" else values * 0.0
                values[ROWS // 2 :] -= values[ROWS // 2] if quirk == "reset" else 0.0
            kept = np.ones(ROWS, np.bool_)
            kept[{"old gap": slice(20, 40), "new gap": slice(200, 240), "fewer": slice(0, 7)}.get(quirk, slice(0))] = (
                False
            )
            if (quirk == "no counter" and quantity is ENERGY) or (quirk == "only power" and quantity is not POWER):
                continue
            age = SECOND_NS if quirk == "old source" else 0
            timelines.add("host", f"gpu {number}", quantity, times[kept], values[kept], age_max_ns=age)
    return timelines


def asked(timelines: Timelines, gpus: list[int], spans: list[tuple[int, int]]) -> Joined:
    starts, ends = (np.array([span[side] for span in spans], np.int64) for side in (0, 1))
    return join(timelines, Spans.on_one_gpu(starts, ends, np.array(gpus, np.int64)))


def spans_within(begin_s: float, end_s: float, seed: int, count: int = 60) -> list[tuple[int, int]]:
    chance = np.random.default_rng(seed)
    moments = START + (chance.uniform(begin_s, end_s, (count, 2)) * SECOND_NS).astype(np.int64)
    moments[::3] = moments[::3] // STEP * STEP  # at the very times of samples
    moments[::4, 1] = moments[::4, 0] + moments[::4, 1] % SECOND_NS  # short ones
    return [(int(min(pair)), int(max(pair))) for pair in moments.tolist()]


def runs_of(
    timelines: Timelines, gpus: list[int], spans: list[tuple[int, int]], patch: pytest.MonkeyPatch
) -> list[int]:
    """How many GPUs were read at once, one time after the other."""
    seen: list[int] = []

    def noted(self: Together) -> object:
        seen.append(len(self._gpus))
        return original(self)

    original = Together.gpu
    patch.setattr(Together, "gpu", noted)
    asked(timelines, gpus, spans)
    return seen


def expect_the_same(timelines: Timelines, gpus: list[int], spans: list[tuple[int, int]]) -> None:
    at_once = asked(timelines, gpus, spans)
    for gpu in set(gpus):
        rows = [row for row, other in enumerate(gpus) if other == gpu]
        alone = asked(timelines, [gpu] * len(rows), [spans[row] for row in rows])
        for each in fields(Joined):
            found, right = getattr(at_once, each.name)[rows], getattr(alone, each.name)
            assert np.array_equal(found, right, equal_nan=True), (each.name, gpu)


@given(
    st.lists(st.sampled_from(QUIRKS + ("none",) * 10), min_size=2, max_size=8),
    st.sampled_from([(15.0, 30.0), (5.0, 39.0), (-2.0, 45.0), (15.0, 39.95), (15.0, 16.0), (28.0, 30.0)]),
    st.integers(0, 1000),
)
def test_together_they_answer_as_alone(quirks: list[str], within_s: tuple[float, float], seed: int) -> None:
    spans = spans_within(*within_s, seed)
    gpus = np.random.default_rng(seed).integers(-1, len(quirks) + 1, len(spans)).tolist()
    expect_the_same(sampled(quirks, seed), gpus, spans)


def test_gpus_with_the_same_times_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = spans_within(15.0, 30.0, 1)
    gpus = [row % 4 for row in range(len(spans))]
    assert runs_of(sampled(["none"] * 4, 1), gpus, spans, monkeypatch) == [4]


@pytest.mark.parametrize(
    ("quirk", "runs"),
    [
        ("no counter", [1, 1, 2]),
        ("dead counter", [1, 1, 2]),
        ("shifted", [1, 1, 2]),
        ("fewer", [1, 1, 2]),
        ("old gap", [1, 1, 2]),
        ("new gap", [1, 1, 2]),
        ("reset", [1, 1, 2]),
        ("old source", [1, 1, 2]),
    ],
)
def test_a_gpu_that_differs_is_read_alone(quirk: str, runs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    spans = spans_within(15.0, 30.0, 1)
    gpus = [row % 4 for row in range(len(spans))]
    assert runs_of(sampled(["none", quirk, "none", "none"], 1), gpus, spans, monkeypatch) == runs


@pytest.mark.parametrize("within_s", [(-1.0, 30.0), (15.0, 41.0)])
def test_spans_beyond_the_samples_are_read_gpu_by_gpu(
    within_s: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = [*spans_within(15.0, 30.0, 1), (START + int(within_s[0] * SECOND_NS), START + int(within_s[1] * SECOND_NS))]
    gpus = [row % 3 for row in range(len(spans))]
    assert runs_of(sampled(["none"] * 3, 1), gpus, spans, monkeypatch) == [1, 1, 1]


def test_holes_before_all_spans_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = spans_within(15.0, 30.0, 1)
    gpus = [row % 3 for row in range(len(spans))]
    timelines = sampled(["old gap"] * 3, 1)
    assert runs_of(timelines, gpus, spans, monkeypatch) == [3]
    expect_the_same(timelines, gpus, spans)
