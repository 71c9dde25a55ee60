"""Gateways that keep a ledger, killed while a made-up platform sends to them; and what stands in the ledger then."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import sqlalchemy as sa

from otel_pipeline.store.database import Database, open_database
from otel_pipeline.store.ledger_tables import BOOKING, BUCKETS, PERIOD
from tests.benchmarks.raw_grpc import EXPORT_TRACES, channel_options, service
from tests.e2e.gateway import CALL_S_MAX, NO_PROXY, Gateway, Ports, configuration, to_sink
from tests.e2e.ledger_world import ANNOUNCED, API, BY_HOST, UNSAMPLED, Request, World
from tests.e2e.support import HOST, Json, Launcher, environment, python, until
from tests.support.ledger_bill import HOUR_NS, Bill
from tests.support.ledger_booked import booked_bill, booked_until

EXPORT_METRICS: Final = f"/{service('metrics')}/Export"
LATENESS_S: Final = 20
SETTLED_S_MAX: Final = 45.0
COMMAND_S_MAX: Final = 60.0
PAUSE_S: Final = 0.004
AGAIN_S: Final = 0.05
JOINED_S_MAX: Final = 60.0


def ledger_config(ports: Ports, prices: Path, sink: int, url: str | None = None) -> Json:
    """Traces and metrics through `gpu_stats` and `cost`; head sampling comes behind them."""
    sampling = {"traces": {"span": [f'attributes["{UNSAMPLED}"] != nil']}}
    steps = {"gpu_stats": {"max_wait": "500ms"}, "cost": {"prices": [str(prices)]}, "filter": sampling}
    config = configuration(ports, to_sink(sink), steps)
    config["exporters"]["debug"] = {}
    config["service"]["pipelines"]["traces"]["exporters"] = ["otlp"]
    config["service"]["pipelines"]["metrics"] = {
        "receivers": ["otlp"],
        "processors": ["gpu_stats", "cost"],
        "exporters": ["debug"],
    }
    config["store"] = {"ledger": {"lateness": f"{LATENESS_S}s"}, **({"url": url} if url else {})}
    return config


def ledger_gateway(launcher: Launcher, world: World, sink: int, name: str, url: str | None = None) -> Gateway:
    prices = launcher.folder / f"{name}-prices.yaml"
    prices.write_text(world.prices())
    ports = Ports.free()
    return Gateway(launcher, ports, ledger_config(ports, prices, sink, url), name)


class Sender(threading.Thread):
    """Sends the requests of some hosts in order, each until it is acknowledged, to one gateway after the other."""

    def __init__(self, name: str, ports: Sequence[int], requests: Iterable[Request], pause_s: float = PAUSE_S) -> None:
        super().__init__(name=name)
        self.acknowledged: list[Request] = []
        self.refused = 0
        """Attempts without an acknowledgement."""
        self._requests = list(requests)
        self._ports, self._pause_s = ports, pause_s
        self.ended = threading.Event()

    def run(self) -> None:
        channels = [grpc.insecure_channel(f"{HOST}:{port}", [*channel_options(), NO_PROXY]) for port in self._ports]
        try:
            for number, request in enumerate(self._requests):
                self._send(channels[number % len(channels)], request)
                time.sleep(self._pause_s)
        finally:
            for channel in channels:
                channel.close()
            self.ended.set()

    def _send(self, channel: Any, request: Request) -> None:
        export = channel.unary_unary(EXPORT_TRACES if request.is_trace else EXPORT_METRICS)
        while True:
            try:
                export(request.body, timeout=CALL_S_MAX)
            except grpc.RpcError:
                self.refused += 1
                time.sleep(AGAIN_S)
            else:
                self.acknowledged.append(request)
                return


def with_duplicates(chance: random.Random, requests: Sequence[Request], part: float) -> list[Request]:
    """A part of the requests comes once more, somewhat later."""
    places = [(number, request) for number, request in enumerate(requests)]
    again = [(number + chance.randint(0, 60), one) for number, one in places if chance.random() < part]
    return [request for _, request in sorted([*places, *again], key=lambda pair: pair[0])]


def announce(world: World, gateways: Sequence[Gateway]) -> None:
    """Every gateway knows the GPUs of each host before spans come."""
    for gateway in gateways:
        sender = Sender("announce", [gateway.ports.grpc], world.requests[:ANNOUNCED])
        sender.run()


def load(gateways: Sequence[Gateway], requests: Sequence[Request], kills: int, seed: int) -> Counter[str]:
    """Send all, and kill gateways meanwhile; `requests` are in order. What happened, counted."""
    chance = random.Random(seed)
    sent = with_duplicates(chance, requests, 0.2)
    ports = [gateway.ports.grpc for gateway in gateways]
    hosts = [*BY_HOST, API]
    senders = [Sender(host, ports, [one for one in sent if one.host == host]) for host in hosts]
    for sender in senders:
        sender.start()
    for number, reached in enumerate(sorted(chance.sample(range(ANNOUNCED, len(sent) - 10), kills))):
        until(lambda: sum(len(one.acknowledged) for one in senders) >= reached, "requests are taken")  # noqa: B023
        gateway = gateways[number % len(gateways)]
        gateway.server.kill()
        before = [one.acknowledged[-1] for one in senders if one.acknowledged]
        gateway.restart()
        # As if their acknowledgements had been lost with the gateway.
        Sender("again", [gateway.ports.grpc], before).run()
    for sender in senders:
        assert sender.ended.wait(JOINED_S_MAX), f"{sender.name} has not sent all of its requests"
        sender.join()
    return Counter(
        sent=len(sent),
        repeated=len(sent) - len(requests),
        unanswered=sum(sender.refused for sender in senders),
        acknowledged=sum(len(sender.acknowledged) for sender in senders),
    )


# -- what stands in the ledger -----------------------------------------------------------------------------------------


def settled(gateways: Sequence[Gateway], begun_ns: int) -> Json:
    """What `ledger verify` says once all is applied, and booked until `begun_ns` at least."""
    for gateway in gateways:
        until(lambda: not _waiting(gateway), "all is applied", SETTLED_S_MAX)  # noqa: B023
    until(lambda: booked(gateways[0])[0] >= begun_ns, "time has come", SETTLED_S_MAX)
    found = verified(gateways[0])
    deadline_s = time.monotonic() + SETTLED_S_MAX
    while found["waiting"]:
        assert time.monotonic() < deadline_s, found
        found = verified(gateways[0])
    return found


def verified(gateway: Gateway) -> Json:
    """What `ledger verify` says, with everything allocated once more; the test fails if it names a deviation."""
    status, text = command(gateway, "ledger", "verify", "--recompute", "--format", "json")
    found: Json = json.loads(text) if text.startswith("{") else {"deviations": [text]}
    assert (status, found["deviations"]) == (0, [])
    return found


def booked(gateway: Gateway) -> tuple[int, Bill]:
    """Until when the ledger is booked, and what stands in it."""
    with _store(gateway) as database:
        return booked_until(database), booked_bill(database)


def corrections(gateway: Gateway) -> list[Any]:
    """By booking of what came late, GPU, hour and currency: what it changed of the total, of the time that is paid
    for, and how many n$ it moved.
    """
    hour = (PERIOD.c.start_ns - PERIOD.c.start_ns % HOUR_NS).label("hour")
    key = (PERIOD.c.booking, PERIOD.c.gpu, hour, PERIOD.c.currency)
    moved = sum(sa.func.abs(PERIOD.c[name]) for name in BUCKETS)
    sums = [sa.func.sum(column) for column in (PERIOD.c.total, PERIOD.c.paid_ns, moved)]
    late = sa.select(BOOKING.c.id).where(BOOKING.c.kind == "late")
    with _store(gateway) as database, database.read() as connection:
        question = sa.select(*key, *sums).where(PERIOD.c.booking.in_(late)).group_by(*key)
        return [(*map(int, row[4:]), row.gpu) for row in connection.execute(question)]


def command(gateway: Gateway, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command beside the gateway."""
    asked = python("otel_pipeline", *arguments, "--config", str(gateway.config), "--data-dir", str(gateway.data_dir))
    done = subprocess.run(asked, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False, env=environment())
    return done.returncode, done.stdout or done.stderr


@contextmanager
def _store(gateway: Gateway) -> Iterator[Database]:
    url = json.loads(gateway.config.read_text())["store"].get("url")
    database = open_database(url or gateway.data_dir / "store.db", owner=False)
    try:
        yield database
    finally:
        database.close()


def _waiting(gateway: Gateway) -> float:
    """Spans that are parked, records that are not yet in the store, and items that are not yet exported."""
    samples = gateway.own_metrics()
    names = ("otel_pipeline_parked_items", "otel_pipeline_records_waiting", "otel_pipeline_queued_items")
    return sum(value for name in names for _, value in samples.get(name, []))
