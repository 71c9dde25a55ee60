"""Spans through the ledger's book: CPU time, size of the store, memory.

    python -m tests.benchmarks.ledger --spans 1000000 --directory /tmp/ledger-bench

Jobs of ten nested spans run one after the other on eight GPUs, in the order in which a platform would send them.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from otel_pipeline.ledger.records import NUMBERS, TEXTS, Fact, Presence, Spans, encode
from otel_pipeline.store.database import open_database
from otel_pipeline.store.ledger import Ledger
from otel_pipeline.store.ledger_verify import verify
from otel_pipeline.wire.batch import Strings
from tests.support.ledger_records import NAME, SECOND, T0, price, prices, strings
from tests.support.postgres import binaries, server

GPUS = 8
STAGES = 9
JOB_S = 7.5
JOBS_A_RECORD = 100


def batches(spans: int, *, energy: bool = False) -> Iterator[bytes]:
    """Records of some hundred jobs each, in order of time; with readings of energy counters every 10 s, if wanted."""
    jobs = spans // (STAGES + 1)
    stages = [f"stage-{stage}" for stage in range(STAGES)]
    facts = [
        Fact(
            service="worker", host=f"host-{gpu // 4}", gpus=(f"GPU-{gpu}",), gpu_name=NAME, model=f"model-{gpu % 3}",
            workflow="txt2img" if not stage else "", backend=stages[stage - 1] if stage else "",
            kind="stage" if stage else "job", outcome="" if stage else "ok", claims=True,
        )
        for gpu in range(GPUS)
        for stage in range(STAGES + 1)
    ]  # fmt: skip
    chance = np.random.default_rng(7)
    for first in range(0, jobs, JOBS_A_RECORD):
        number = np.arange(first, min(first + JOBS_A_RECORD, jobs))
        yield _record(number, facts, chance, energy=energy)


def _record(number: np.ndarray, facts: list[Fact], chance: np.random.Generator, *, energy: bool) -> bytes:
    size = STAGES + 1
    gpu = number % GPUS
    begin = T0 * SECOND + ((number // GPUS) * JOB_S * SECOND).astype(np.int64)
    step = int(JOB_S * 0.1 * SECOND)
    stage = np.tile(np.arange(size), len(number))
    start = np.repeat(begin, size) + np.maximum(stage - 1, 0) * step
    length = np.where(stage == 0, int(JOB_S * 0.95 * SECOND), step)
    words = chance.integers(-(2**63), 2**63 - 1, (2, len(number)))
    own = chance.integers(1, 2**63 - 1, (len(number), size))
    parent = np.repeat(own[:, 0], size)
    parent[stage == 0] = 0
    numbers = {
        "trace_hi": np.repeat(words[0], size), "trace_lo": np.repeat(words[1], size), "span": own.reshape(-1),
        "parent": parent, "start_ns": start, "end_ns": start + length, "nano": np.zeros(len(start)),
        "reported_nano": np.full(len(start), -1), "energy_mj": np.full(len(start), 350_000),
    }  # fmt: skip
    none = strings([""] * len(start))
    names = [f"job-{one:012d}" for one in number.tolist()]
    job = np.where(stage == 0, np.repeat(np.arange(len(number)), size), -1).astype(np.int32)
    columns: dict[str, Any] = dict.fromkeys(TEXTS, none) | {"job": Strings(job, names)}
    fact = (np.repeat(gpu, size) * size + stage).astype(np.int32)
    arrays: dict[str, Any] = {name: numbers[name].astype(np.int64) for name in NUMBERS}
    minutes = tuple(range(int(begin[0]) // SECOND // 60, int(start[-1]) // SECOND // 60 + 1))
    slots = range(int(begin[0]) // 10**10, int(start[-1]) // 10**10 + 1) if energy else range(0)
    late_ms = chance.integers(0, 300, len(slots)).tolist()
    read = tuple(
        ("hw", slot * 10_000 + late, 1 + (slot * 10_000 - T0 * 1000 + late) * (200 + slot % 150))
        for slot, late in zip(slots, late_ms, strict=True)
    )
    seen = [Presence((f"host-{gpu // 4}",), f"GPU-{gpu}", NAME, minutes, energy=read) for gpu in range(GPUS)]
    told: dict[str, Any] = {
        "verdicts": [],
        "verdict": np.full(len(start), -1, np.int32),
        "fields": (),
        "used": np.empty((0, len(start)), np.int64),
    }
    return encode(Spans(facts=facts, fact=fact, **told, **arrays, **columns), seen)


def arguments(text: str | None, spans: int) -> argparse.ArgumentParser:
    """What the benchmarks of the ledger have in common."""
    options = argparse.ArgumentParser(description=text)
    options.add_argument("--spans", type=int, default=spans)
    options.add_argument("--directory", type=Path)
    options.add_argument("--energy", action="store_true", help="GPUs are priced by the hour and by energy")
    options.add_argument("--url", help="a PostgreSQL database instead of a file")
    options.add_argument("--postgresql", action="store_true", help="the same, on a server that is started for this")
    return options


@contextmanager
def store(given: argparse.Namespace) -> Iterator[str | Path]:
    """The file or the URL that the arguments name."""
    programs = binaries() if given.postgresql else None
    if programs is not None:
        with server(programs) as url:
            yield url
    elif given.url:
        yield given.url
    else:
        directory = given.directory or Path(tempfile.mkdtemp(prefix="ledger-"))
        directory.mkdir(exist_ok=True)
        yield directory / "ledger.db"
        if not given.directory:
            shutil.rmtree(directory)


def bytes_of(place: str | Path) -> int:
    if isinstance(place, Path):
        return sum(file.stat().st_size for file in place.parent.iterdir())
    database = open_database(place, owner=False)
    with database.read() as connection:
        size: int = connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one()
    database.close()
    return size


def main() -> None:
    options = arguments(__doc__, 100_000)
    options.add_argument("--together", type=int, default=10, help="records in one call, of 1000 spans each")
    given = options.parse_args()
    with store(given) as place:
        measure(place, given)


def measure(place: str | Path, given: argparse.Namespace) -> None:
    spans: int = given.spans
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    book = prices(price("0.36", basis="gpu_hour", energy_price="0.27")) if given.energy else prices()
    ledger = Ledger(open_database(place, owner=True), book, clock=lambda: T0 + 10**7)
    applied, cpu, wall, slowest = 0, 0.0, 0.0, 0.0
    pending: list[bytes] = []
    for record in chain(batches(given.spans, energy=given.energy), [b""]):
        pending += [record] if record else []
        if len(pending) < given.together and record:
            continue
        at, real = time.process_time(), time.perf_counter()
        ledger.apply("bench", applied, pending)
        took = time.perf_counter() - real
        cpu, wall, slowest = cpu + time.process_time() - at, wall + took, max(slowest, took)
        applied += len(pending)
        pending = []
    at, real = time.process_time(), time.perf_counter()
    while not ledger.book():
        pass
    cpu, wall = cpu + time.process_time() - at, wall + time.perf_counter() - real
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{spans} spans: {spans / cpu:,.0f} spans/s CPU ({cpu / spans * 1e6:.1f} us each), {spans / wall:,.0f} wall")
    print(f"slowest call {slowest:.2f} s; resident {memory / 1024:.0f} MiB at most, {before / 1024:.0f} before")
    ledger.close()
    size = bytes_of(place)
    print(f"store {size / 2**20:.0f} MiB, {size / spans:.0f} bytes a span")
    database = open_database(place, owner=False)
    at, real = time.process_time(), time.perf_counter()
    found = verify(database)
    cpu, wall = time.process_time() - at, time.perf_counter() - real
    print(f"verify: {wall:.1f} s, {cpu:.1f} s CPU, {len(found.deviations)} deviations, {found.periods} periods")
    database.close()


if __name__ == "__main__":
    main()
