"""What the processor `cost` leaves, the ledger books: calls as they are, GPUs split among those who used them."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_pipeline.ledger.price_file import book_of
from otel_pipeline.store.database import open_database
from tests.support.ledger_laws import Watched, totals
from tests.support.ledger_records import T0
from tests.unit.processors.test_cost import QUANTITY, START_NS, Bench, call, counter, on_gpu, samples

PRICES = """
prices:
  - {id: rented, match: {gpu: "*H100*"}, basis: gpu_hour, price: 3.6}
  - {id: owned, match: {gpu: "*A6000*"}, basis: gpu_hour, price: 0.36, energy_price: 0.15}
"""
SHIFT_NS = T0 * 10**9 - START_NS


def booked(bench: Bench, folder: Path) -> dict[str, int]:
    """What a ledger makes of all that the processor has left."""
    database = open_database(folder / "store.db", owner=True)
    try:
        watched = Watched(database, book_of([folder / "prices.yaml"], defaults=False))
        watched.apply(*bench.left)
        watched.settle()
        watched.prove()
        return totals(watched.books())
    finally:
        database.close()


def test_what_spans_cost_is_booked(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    marks = {"otel_pipeline__job__outcome": "completed", "otel_pipeline__job__id": "j"}
    spans = [
        on_gpu(1, seconds=60, **marks),
        on_gpu(2, parent=1, seconds=30),
        call("fal", "flux", 3, parent=1, **{f"{QUANTITY}images": 4}),
    ]
    for span in spans:
        span.start_time_unix_nano += SHIFT_NS
        span.end_time_unix_nano += SHIFT_NS
    marks_sent = bench.spans(*spans)
    bench.spans(*spans)  # a sender's retry
    seen = samples(*(SHIFT_NS // 10**9 + second for second in range(0, 120, 10)), name="NVIDIA H100")
    bench.metrics(seen)
    assert [one["amount"] for one in marks_sent] == [0.03, 0.03, 0.012]
    found = booked(bench, tmp_path)
    # A $3.60 an hour GPU for two minutes: the job's own half minute, its stage's, and a minute that nobody used.
    assert found["span 1"] == found["span 2"] == 30_000_000
    assert found["span 3"] == 12_000_000
    assert found["tail"] == 60_000_000, found


def test_what_a_gpu_used_is_booked(tmp_path: Path) -> None:
    bench = Bench(tmp_path, PRICES)
    span = on_gpu(1, name="NVIDIA RTX A6000", seconds=60, otel_pipeline__gpu__energy=18_000.0)
    span.start_time_unix_nano += SHIFT_NS
    span.end_time_unix_nano += SHIFT_NS
    (marks,) = bench.spans(span)
    bench.metrics(counter(*((SHIFT_NS / 10**9 + second, 1 + 300.0 * second) for second in range(0, 121, 10))))
    found = booked(bench, tmp_path)
    # 0.36 an hour and 300 W at 0.15 a kWh are 0.00675 a minute.
    assert marks["amount"] == pytest.approx(0.00675)
    assert found["span 1"] == 6_750_000
    assert found["total"] == 2 * 6_750_000 + 6_000_000
    assert found["unpriced_ns"] == 60 * 10**9
