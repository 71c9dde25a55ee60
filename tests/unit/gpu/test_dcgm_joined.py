"""A DCGM exporter that measures every 30 s and is asked more often: what spans are told about their energy.

From the text to the join, with a simulated exporter and clock. The counter's course is known, so the error is.
"""

from __future__ import annotations

import numpy as np
import pytest

from otel_pipeline.gpu.dcgm import read_page, to_request
from otel_pipeline.gpu.ingest import read
from otel_pipeline.gpu.join import Spans, join
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.gpu.timeline import Timelines
from otel_pipeline.receivers.dcgm import Shown
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal

UUID = "GPU-11111111-aaaa-4000-8000-000000000000"
BEGIN_S = 1_800_000_000.0
LENGTH_S = 1_800.0
MEASURES_S = 30.0
NS = 1_000_000_000


def energy_j(at_s: float) -> float:
    """The counter: 400 W in the first half of each two minutes, 60 W in the second."""
    rounds, into_s = divmod(at_s - BEGIN_S, 120.0)
    return 5e6 + rounds * (400.0 + 60.0) * 60.0 + min(into_s, 60.0) * 400.0 + max(into_s - 60.0, 0.0) * 60.0


def page_at(now_s: float) -> str:
    """What the exporter shows: what it measured at its last turn."""
    measured_s = BEGIN_S + (now_s - BEGIN_S) // MEASURES_S * MEASURES_S
    return (
        f'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0",UUID="{UUID}",Hostname="h"}} {energy_j(measured_s) * 1000:.0f}'
    )


def scraped(interval_s: float, phase_s: float) -> Timelines:
    """The timelines after half an hour of scrapes."""
    shown = Shown(MEASURES_S)
    timelines = Timelines()
    reader = BatchReader(Signal.METRICS)
    for now_s in np.arange(BEGIN_S + phase_s, BEGIN_S + LENGTH_S, interval_s).tolist():
        fresh, age_s = shown.fresh(read_page(page_at(now_s)), now_s)
        body = to_request(fresh, int(now_s * NS), age_max_ns=int(age_s * NS), host="", own_host="own", version="1")
        for block in read(reader.read([body])[0]).blocks:
            timelines.add(
                block.hosts,
                block.gpu,
                block.quantity,
                block.times_ns,
                block.values,
                source=block.source,
                age_max_ns=block.age_max_ns,
            )
    return timelines


@pytest.mark.parametrize("interval_s", [5.0, 10.0, 30.0, 45.0])
@pytest.mark.parametrize("phase_s", [0.0, 3.7, 29.9])
def test_the_energy_of_a_span_is_within_the_error_that_is_told(interval_s: float, phase_s: float) -> None:
    timelines = scraped(interval_s, phase_s)
    random = np.random.default_rng(5)
    starts_s = BEGIN_S + 120 + random.uniform(0, LENGTH_S - 400, 500)
    ends_s = starts_s + random.uniform(0.1, 200, 500)
    gpus = np.full(500, timelines.gpu(("h",), UUID))
    told = join(timelines, Spans.on_one_gpu((starts_s * NS).astype(np.int64), (ends_s * NS).astype(np.int64), gpus))
    truth = np.array([energy_j(end) - energy_j(start) for start, end in zip(starts_s, ends_s, strict=True)])
    known = told.coverage == 1.0
    assert known.sum() > 400
    assert (np.abs(told.energy_j - truth) <= told.energy_error_j + 1e-3)[known].all()


def test_a_counter_that_is_shown_twice_is_no_counter_that_stands_still() -> None:
    timelines = scraped(5.0, 2.5)
    gpu = timelines.numbered(timelines.gpu(("h",), UUID))
    assert gpu is not None
    series = gpu.settled(Quantity.ENERGY)
    assert series is not None
    assert series.count == LENGTH_S / MEASURES_S
