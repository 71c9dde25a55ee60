"""CPU, latency and memory of gateways side by side: python -m tests.benchmarks.gateways [--quick].

Every figure comes from processes of their own: load generator -> gateway -> sink, all on loopback. The CPU of the
gateway process is read from /proc around one run, the end sample only after the sink holds every acknowledged span, so
that a gateway which acknowledges first and exports later pays for its export. Peers are interleaved and repeated, and
medians are compared: on a shared machine only the ratios within one session mean something.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.benchmarks import peers, report
from tests.benchmarks.drive import LoadProcess, SinkProcess, run_load
from tests.benchmarks.load import Plan
from tests.benchmarks.payloads import FAILING
from tests.benchmarks.peers import Peer
from tests.benchmarks.process import ChildError, exit_on_sigterm
from tests.benchmarks.report import Run

RESULTS = Path(__file__).with_name("results")
RATE_SIZES = (512, 100)
_QUICK = {"repeat": 1, "seconds": 2.0, "warmup": 0.5, "rate_seconds": 5.0}


def main() -> int:
    options = _options()
    exit_on_sigterm()
    chosen = _present(peers.select(options.peers))
    session = report.Session.now(
        command=shlex.join(["python", "-m", "tests.benchmarks.gateways", *sys.argv[1:]]),
        options=vars(options),
        variant=peers.variant(),
        notes={peer.name: peer.note for peer in chosen},
    )
    runs = []
    with tempfile.TemporaryDirectory(prefix="gateways-") as scratch:
        for index, plan in enumerate(_plans(options)):
            turn = index % len(chosen)
            for peer in chosen[turn:] + chosen[:turn]:  # Nobody is always the first.
                run = _attempt(peer, plan, options, Path(scratch) / f"{index}-{peer.name}")
                if run:
                    print(report.line(run), flush=True)
                    runs.append(run)
    markdown, _ = report.write(RESULTS, session, runs)
    print(markdown.read_text())
    print(f"written to {markdown.relative_to(peers.REPOSITORY)}")
    return 0 if runs else 1


def measure(peer: Peer, plan: Plan, *, warmup_s: float, compression: str, directory: Path) -> Run:
    """One run of one peer, with a sink and a gateway that are started for it."""
    directory.mkdir(parents=True)
    load_log = directory / "load.txt"
    with SinkProcess(directory / "sink.txt") as sink:
        place = peers.site(sink.grpc_port, directory, compression)
        with peers.start(peer, place) as gateway:
            plan = replace(plan, target=place.listen)
            warm = run_load(replace(plan, seconds=warmup_s, rate_spans_s=0.0), load_log)
            sink.wait_for(warm.spans)
            with LoadProcess(replace(plan, first=warm.next_number), load_log) as load:
                before = sink.stats()
                rss_mb_before = gateway.memory().rss_mb
                cpu_s_before = gateway.cpu_s()
                load.go()
                result = load.result()
                acked_s = time.monotonic()
            is_drained = sink.wait_for(before.spans + result.spans)
            drain_s = time.monotonic() - acked_s
            cpu_s = gateway.cpu_s() - cpu_s_before
            memory = gateway.memory()
            delivered = sink.stats().spans - before.spans
    return Run(
        peer=peer.name,
        spans_per_request=plan.spans_per_request,
        rate_spans_s=plan.rate_spans_s,
        cpu_s=cpu_s,
        acked_spans=result.spans,
        delivered_spans=delivered,
        spans_s=result.spans_s,
        ack_p50_ms=result.ack_p50_ms,
        ack_p99_ms=result.ack_p99_ms,
        ack_max_ms=result.ack_max_ms,
        behind_ms_max=result.behind_ms_max,
        retries=result.retries,
        errors=result.errors,
        is_drained=is_drained,
        drain_s=drain_s,
        rss_mb_before=rss_mb_before,
        rss_mb=memory.rss_mb,
        peak_mb=memory.peak_mb,
    )


def _plans(options: argparse.Namespace) -> list[Plan]:
    base = Plan(
        target="", in_flight=options.in_flight, connections=options.connections, retry=True, failing=options.failing
    )
    fast = replace(base, seconds=options.seconds)
    steady = replace(base, seconds=options.rate_seconds, rate_spans_s=options.rate)
    return [replace(fast, spans_per_request=size) for size in options.sizes for _ in range(options.repeat)] + [
        replace(steady, spans_per_request=size) for size in RATE_SIZES if options.rate_seconds
    ]


def _attempt(peer: Peer, plan: Plan, options: argparse.Namespace, directory: Path) -> Run | None:
    try:
        return measure(peer, plan, warmup_s=options.warmup, compression=options.compression, directory=directory)
    except ChildError as error:
        # One broken peer must not cost the figures of the others; its row is then missing from the table.
        print(f"{peer.name}, {plan.spans_per_request} spans/request: {error}", file=sys.stderr)
        return None


def _present(chosen: list[Peer]) -> list[Peer]:
    for peer in chosen:
        if peer.missing():
            print(f"skipped {peer.name}: {peer.missing()}", file=sys.stderr)
    present = [peer for peer in chosen if not peer.missing()]
    if not present:
        raise SystemExit("none of the chosen peers can run here")
    return present


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=_words, default=list(peers.USUAL), help=f"some of {','.join(peers.PEERS)}")
    parser.add_argument("--sizes", type=_numbers, default=[1, 20, 100, 512], help="spans per request, by commas")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one run as fast as it goes")
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=10_000.0, help="spans/s of the runs at a fixed rate")
    parser.add_argument("--rate-seconds", type=float, default=20.0, help="length of one run at a fixed rate, 0 = none")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--compression", choices=("none", "gzip"), default="none", help="between gateway and sink")
    parser.add_argument("--failing", choices=FAILING, default="some", help="which spans are errors")
    parser.add_argument("--quick", action="store_true", help=f"sets {_QUICK}")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(_QUICK)
    return options


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
