"""Claims that the allocation splits in a second: python -m tests.benchmarks.allocation.

One GPU-day (86,400 s) of nested jobs in periods of a minute; CPU time of this process, median of the repeats. A job is
three claims: itself, a load and a sampler. `table` is what it takes to make the columns from claims as objects.
`same time` is how many jobs run at once; with many of them amounts exceed 64 bits and the sums are Python's integers.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from statistics import median
from typing import Final

from otel_pipeline.ledger.allocation import Allocation, Mode, allocate
from otel_pipeline.ledger.claims import Claim, ClaimTable, claim_table
from otel_pipeline.ledger.tape import Billed, Tape

DAY_NS: Final = 86_400 * 10**9
MINUTE_NS: Final = 60 * 10**9
HOURLY: Final = Fraction("3.99") / 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", type=int, nargs="+", default=[3_000, 30_000, 300_000], help="claims in the day")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    first = f"{'claims':>8} {'same time':>9} {'mode':8}"
    print(f"{first} {'table 1/s':>11} {'allocate 1/s':>13} {'peak MiB':>9} {'B/claim':>8}")
    for count in arguments.claims:
        for at_once in (1, 3, 16):
            claims = _jobs(count // 3, at_once)
            for mode in (Mode.EQUAL, Mode.WEIGHTED):
                _row(claims, at_once, mode, arguments.repeats)


def _row(claims: list[Claim], at_once: int, mode: Mode, repeats: int) -> None:
    tape = Tape("g0", [(0, HOURLY)], [Billed(0, DAY_NS)])
    cuts = list(range(0, DAY_NS + 1, MINUTE_NS))
    table_s = _measure(lambda: claim_table(claims), repeats)
    table = claim_table(claims)
    allocate_s = _measure(lambda: allocate(tape, table, cuts, mode), repeats)
    peak, found = _peak(tape, table, cuts, mode)
    assert not found.deviations()
    speeds = f"{len(claims) / table_s:11,.0f} {len(claims) / allocate_s:13,.0f}"
    print(f"{len(claims):8,} {at_once:9} {mode:8} {speeds} {peak / 2**20:9.1f} {peak / len(claims):8.0f}")


def _jobs(count: int, at_once: int) -> list[Claim]:
    """Jobs of which `at_once` run at the same time, with times to the nanosecond; they never stop for long."""
    draw = random.Random(7)
    slot = DAY_NS * at_once // max(count, 1)
    found = []
    for index in range(count):
        start = index // at_once * slot + draw.randrange(slot // 8 + 1)
        end = start + slot * 3 // 4 + draw.randrange(slot // 8 + 1)
        load, job = start + (end - start) // 4, f"{index:016x}"
        weight = draw.randrange(101)
        found += [
            Claim(job, "g0", start, end, None, weight),
            Claim(f"{job}l", "g0", start + 1000, load, job, weight),
            Claim(f"{job}s", "g0", load + 1000, end - 1000, job, weight),
        ]
    return found


def _measure(work: Callable[[], object], repeats: int) -> float:
    gc.collect()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return median(times)


def _peak(tape: Tape, table: ClaimTable, cuts: list[int], mode: Mode) -> tuple[int, Allocation]:
    tracemalloc.start()
    found = allocate(tape, table, cuts, mode)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, found


if __name__ == "__main__":
    main()
