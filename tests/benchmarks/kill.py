"""Does an acknowledged span survive SIGKILL of the gateway? python -m tests.benchmarks.kill --times 20

A load generator repeats each request until it is acknowledged, while the gateway is killed at random moments and
started again on the same ports and data directory. In the end every acknowledged number must have reached the sink.
Duplicates are allowed (at least once) and counted. Two peers check the check: `passthrough` acknowledges after delivery
and must lose nothing, `rotel` acknowledges from memory and must be caught losing.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.benchmarks import peers, ranges
from tests.benchmarks.drive import LoadProcess, SinkProcess
from tests.benchmarks.load import SECONDS_MAX, LoadResult, Plan
from tests.benchmarks.peers import Peer, Site
from tests.benchmarks.process import Child, exit_on_sigterm
from tests.benchmarks.ranges import Ranges

TIMES_MAX = 1_000
DEFAULT_PEER = "otel_pipeline-bare"


@dataclass(frozen=True, slots=True)
class KillPlan:
    """The load, and how long the gateway lives from being ready to being killed."""

    spans_per_request: int = 100
    rate_spans_s: float = 10_000.0
    in_flight: int = 16
    alive_s_min: float = 0.1
    alive_s_max: float = 1.5
    grace_s: float = 60.0


@dataclass(frozen=True, slots=True)
class KillReport:
    """Counts of spans; those that are `lost` were acknowledged and never arrived."""

    kills: int
    acked: int
    delivered: int
    lost: int
    duplicates: int
    foreign: int
    retries: int
    abandoned_requests: int
    seed: int
    lost_ranges: Ranges

    def __str__(self) -> str:
        text = (
            f"{self.kills} kills, seed {self.seed}: {self.acked} spans acked, {self.delivered} delivered,"
            f" {self.lost} lost, {self.duplicates} duplicates, {self.foreign} foreign; {self.retries} retries,"
            f" {self.abandoned_requests} requests abandoned"
        )
        return f"{text}\nlost: {self.lost_ranges[:20]}" if self.lost else text


def run_kills(
    times: int, *, directory: Path, peer: str = DEFAULT_PEER, plan: KillPlan | None = None, seed: int = 0
) -> KillReport:
    """Kill the peer so many times under load; `directory` receives its data and the logs of all processes."""
    if not 1 <= times <= TIMES_MAX:
        raise ValueError(f"times is {times}, allowed are 1 to {TIMES_MAX}")
    [gateway_peer] = peers.select([peer])
    with SinkProcess(directory / "sink.txt", verify=True) as sink:
        place = peers.site(sink.grpc_port, directory / "gateway")
        with _Gateway(gateway_peer, place) as gateway:
            result = _load_and_kill(times, gateway, plan or KillPlan(), random.Random(seed))
            lost = sink.wait_for_ranges(result.acked)
        stats, seen = sink.stats(), sink.seen()
    return KillReport(
        kills=times,
        acked=result.spans,
        delivered=ranges.size(seen),
        lost=ranges.size(lost),
        duplicates=stats.duplicates,
        foreign=stats.foreign,
        retries=result.retries,
        abandoned_requests=result.abandoned,
        seed=seed,
        lost_ranges=lost,
    )


class _Gateway:
    """A peer that can be killed and brought back where it was."""

    def __init__(self, peer: Peer, place: Site) -> None:
        self._peer = peer
        self.place = place
        self._child: Child = peers.start(peer, place)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._child.stop()

    def kill_and_restart(self) -> None:
        self._child.kill()
        self._child = peers.start(self._peer, self.place)


def _load_and_kill(times: int, gateway: _Gateway, plan: KillPlan, chance: random.Random) -> LoadResult:
    load_plan = Plan(
        target=gateway.place.listen,
        spans_per_request=plan.spans_per_request,
        seconds=min(SECONDS_MAX, times * (plan.alive_s_max + peers.READY_TIMEOUT_S)),
        rate_spans_s=plan.rate_spans_s,
        in_flight=plan.in_flight,
        retry=True,
        grace_s=plan.grace_s,
    )
    with LoadProcess(load_plan, gateway.place.directory / "load.txt") as load:
        load.go()
        for _ in range(times):
            time.sleep(chance.uniform(plan.alive_s_min, plan.alive_s_max))
            gateway.kill_and_restart()
        return load.finish()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    plan = KillPlan()
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--peer", choices=list(peers.PEERS), default=DEFAULT_PEER)
    parser.add_argument("--spans-per-request", type=int, default=plan.spans_per_request)
    parser.add_argument("--rate", type=float, default=plan.rate_spans_s, help="spans/s, 0 = closed loop")
    parser.add_argument("--in-flight", type=int, default=plan.in_flight)
    parser.add_argument("--seed", type=int, default=None, help="of the moments; a random one is printed")
    parser.add_argument("--directory", type=Path, default=None, help="keep data and logs here")
    options = parser.parse_args()
    exit_on_sigterm()
    [peer] = peers.select([options.peer])
    if peer.missing():
        parser.error(f"{peer.name} cannot run here: {peer.missing()}")
    plan = KillPlan(spans_per_request=options.spans_per_request, rate_spans_s=options.rate, in_flight=options.in_flight)
    seed = random.randrange(1 << 16) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="kill-") as scratch:
        directory = options.directory or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        outcome = run_kills(options.times, directory=directory, peer=peer.name, plan=plan, seed=seed)
    print(outcome)
    return 1 if outcome.lost else 0


if __name__ == "__main__":
    sys.exit(main())
