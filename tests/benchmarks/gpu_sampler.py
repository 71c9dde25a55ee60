"""What the GPU sampler itself costs: CPU time of the process for each second that is sampled, in percent of one core.

    python -m tests.benchmarks.gpu_sampler [--gpus 8] [--seconds 120] [--hertz 10]

The real pynvml runs over the stub library, in virtual time, so the figures are of our code, pynvml and ctypes; what the
driver needs comes on top. `live` is the thread in real time: it adds ten wake-ups a second and the readings' delivery.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from otel_pipeline.nvml.pacing import Clock, Pacing
from otel_pipeline.nvml.runner import Runner
from otel_pipeline.nvml.sampler import Sampler
from otel_pipeline.nvml.samples import Reading
from tests.support import nvml_stub
from tests.support.nvml_stub.control import ORIGIN_S, RINGS, SECOND_NS, Control, gpu

ROUNDS: Final = 5
LIVE_S: Final = 5.0
PROCESSES: Final = tuple(f"process {4000 + index} 1073741824 30" for index in range(3))
SHOWN: Final = {"ring buffers": (*RINGS, *PROCESSES), "polled": PROCESSES}


def main() -> None:
    """In this process: runs itself once for each variant, where the loader finds the stub."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--hertz", type=float, default=10.0)
    parser.add_argument("--inside", default="")
    given = parser.parse_args()
    if given.inside:
        inside(Path(given.inside), given.seconds, given.hertz)
        return
    for name, lines in SHOWN.items():
        with tempfile.TemporaryDirectory() as folder:
            control = Control(Path(folder))
            control.write(*(gpu(index, *lines) for index in range(given.gpus)))
            environment = {**os.environ, **control.environment(nvml_stub.built())}
            numbers = (f"--seconds={given.seconds}", f"--hertz={given.hertz}")
            command = (sys.executable, "-m", "tests.benchmarks.gpu_sampler", *numbers, f"--inside={folder}")
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            print(f"{name}, {given.gpus} GPUs, {given.hertz:g} Hz: {done.stdout.strip()}")


def inside(folder: Path, seconds: int, hertz: float) -> None:
    """Where the stub is found."""
    control = Control(folder)
    at_ns = [0]

    def now_ns() -> int:
        return ORIGIN_S * SECOND_NS + at_ns[0]

    pacing = Pacing(interval_s=1 / hertz)
    sampler = Sampler(pacing, clock=Clock(now_ns, now_ns))
    shares = []
    points = 0
    for _ in range(ROUNDS):
        begun_s = time.process_time()
        points = virtual(sampler, control, at_ns, seconds)
        shares.append((time.process_time() - begun_s) / seconds)
    sampler.close()
    control.set(-ORIGIN_S * SECOND_NS)  # zero: the real clock
    live_share = live(pacing)
    print(
        f"{statistics.median(shares):.3%} of a core (median of {ROUNDS}, worst {max(shares):.3%}), "
        f"{points / seconds:.0f} samples/s; live {live_share:.3%}"
    )


def virtual(sampler: Sampler, control: Control, at_ns: list[int], seconds: int) -> int:
    """Sample for so long; the number of samples."""
    points = 0
    end_ns = at_ns[0] + seconds * SECOND_NS
    flush_ns = at_ns[0] + SECOND_NS
    while at_ns[0] < end_ns:
        control.set(at_ns[0])
        wait_s = sampler.poll()
        if at_ns[0] >= flush_ns:
            flush_ns += SECOND_NS
            points += sum(len(one.values) for one in sampler.take().series)
        at_ns[0] += max(1_000_000, round(wait_s * SECOND_NS))
    return points


def live(pacing: Pacing) -> float:
    """The share of a core that the thread takes in real time."""
    taken: list[Reading] = []
    runner = Runner(Sampler(pacing), taken.append)
    runner.start()
    time.sleep(1.0)  # the library is open by then
    begun_s, cpu_s = time.monotonic(), time.process_time()
    time.sleep(LIVE_S)
    share = (time.process_time() - cpu_s) / (time.monotonic() - begun_s)
    runner.stop(5.0)
    assert taken
    assert taken[-1].devices
    return share


if __name__ == "__main__":
    main()
