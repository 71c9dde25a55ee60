"""Runs a sampler over the stub in a process of its own, in virtual time; what it told comes back as readings.

python -m tests.support.nvml_stub.drive FOLDER <orders.json >readings.json
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any, Final

from otel_pipeline.nvml.pacing import Clock, Pacing
from otel_pipeline.nvml.sampler import Sampler
from otel_pipeline.nvml.samples import Device, Failure, Quantity, Reading, Series
from tests.support.nvml_stub.control import ORIGIN_S, SECOND_NS, Control

ROOT: Final = Path(__file__).parents[3]
TIMEOUT_S: Final = 60
BOOTED_S: Final = 5_000
"""Before the origin."""


def readings(
    folder: Path,
    library: Path | None,
    control: str,
    *orders: tuple[str, Any],
    pacing: dict[str, float] | None = None,
    quantities: Sequence[Quantity] = tuple(Quantity),
) -> list[Reading]:
    """One reading for each order: ("run", seconds) polls for so long, ("control", text) shows something else first."""
    given = {
        "orders": [("control", control), *orders],
        "pacing": pacing or {},
        "quantities": [one.value for one in quantities],
    }
    shown = Control(folder).environment(library) if library else {}
    kept = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    command = (sys.executable, "-m", "tests.support.nvml_stub.drive", str(folder))
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**kept, **shown},
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [_reading(one) for one in json.loads(done.stdout)]


def _reading(told: dict[str, Any]) -> Reading:
    def failure(one: dict[str, Any]) -> Failure:
        return Failure(**{**one, "quantity": one["quantity"] and Quantity(one["quantity"])})

    return Reading(
        told["taken_unix_nano"],
        tuple(Device(**one) for one in told["devices"]),
        tuple(
            Series(**{**one, "quantity": Quantity(one["quantity"]), "attributes": tuple(map(tuple, one["attributes"]))})
            for one in told["series"]
        ),
        tuple(map(failure, told["failures"])),
        tuple(map(failure, told["absent"])),
    )


def main() -> None:
    """In the process of its own."""
    given = json.load(sys.stdin)
    control = Control(Path(sys.argv[1]))
    at_ns = 0

    def now_ns() -> int:
        return ORIGIN_S * SECOND_NS + at_ns

    control.set(at_ns)
    sampler = Sampler(
        Pacing(**given["pacing"]),
        quantities=frozenset(map(Quantity, given["quantities"])),
        clock=Clock(now_ns, now_ns, lambda: at_ns + BOOTED_S * SECOND_NS),
    )
    told = []
    for order, argument in given["orders"]:
        if order == "control":
            control.write(argument)
            continue
        end_ns = at_ns + int(argument * SECOND_NS)
        while at_ns <= end_ns:
            control.set(at_ns)
            at_ns += max(1_000_000, round(sampler.poll() * SECOND_NS))
        at_ns = end_ns
        told.append(asdict(sampler.take()))
    sampler.close()
    json.dump(told, sys.stdout, default=lambda each: each.value if isinstance(each, Enum) else str(each))


if __name__ == "__main__":
    main()
