"""Which GPUs were there, and what their counters said: each told once, within bounds."""

from __future__ import annotations

import numpy as np
import pytest

from otel_pipeline.ledger.offers import Place
from otel_pipeline.ledger.presence import ENERGY_SLOT_NS, MINUTE_NS, Minutes
from otel_pipeline.limits import LEDGER_COUNTERS_MAX
from otel_pipeline.wire.batch import Floats, Ints


def counter(*readings: tuple[float, float]) -> tuple[Ints, Floats]:
    """Readings: slots since 1970, and J."""
    times = [round(slot * ENERGY_SLOT_NS) for slot, _ in readings]
    return np.array(times, np.int64), np.array([joules for _, joules in readings])


def energy(minutes: Minutes, gpu: str = "GPU-0", **counters: tuple[Ints, Floats]) -> list[tuple[str, int, int]]:
    told = minutes.seen(("h",), gpu, "", Place(), [], counters=counters)
    return [] if told is None else list(told.energy)


def test_of_each_counter_the_first_reading_of_a_slot_is_told_once() -> None:
    minutes = Minutes()
    assert energy(minutes, hw=counter((7.9, 4.0), (7.25, 3.0), (9, 5.0))) == [
        ("hw", 72_500, 3000),
        ("hw", 90_000, 5000),
    ]
    assert energy(minutes, hw=counter((7, 2.0), (9.5, 6.0)), dcgm=counter((7, 1.0))) == [("dcgm", 70_000, 1000)]
    assert energy(minutes, hw=counter((7, 2.0))) == []
    assert energy(minutes, "GPU-1", hw=counter((7, 2.0))) == [("hw", 70_000, 2000)]


@pytest.mark.parametrize("joules", [-1.0, 5e15])
def test_a_reading_that_is_none_is_not_told(joules: float) -> None:
    assert energy(Minutes(), hw=counter((7, joules))) == []


def test_the_counter_that_is_longest_silent_is_forgotten() -> None:
    minutes = Minutes()
    reading = counter((7, 2.0))
    for number in range(LEDGER_COUNTERS_MAX + 1):
        assert len(energy(minutes, **{f"c{number}": reading})) == 1
    assert len(energy(minutes, c0=reading)) == 1
    assert energy(minutes, **{f"c{LEDGER_COUNTERS_MAX}": reading}) == []


def test_the_gpu_that_is_longest_silent_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_pipeline.ledger.presence.COST_GPUS_MAX", 1)
    minutes = Minutes()
    times = [np.array([5 * MINUTE_NS])]
    seen = [minutes.seen(("h",), gpu, "", Place(), times) for gpu in ("GPU-0", "GPU-0", "GPU-1", "GPU-0")]
    assert [one is not None and one.minutes for one in seen] == [(5,), False, (5,), (5,)]
