"""The money adds up whatever happens: real gateways that are killed, and an oracle that reckons the bill itself."""

from __future__ import annotations

import csv
import os
import time
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from otel_pipeline.store.ledger_tables import NO_GPU
from tests.e2e.gateway import Gateway, Sink
from tests.e2e.ledger_runs import announce, booked, command, corrections, ledger_gateway, load, settled
from tests.e2e.ledger_world import MINUTES, UNSAMPLED, Request, World, world
from tests.e2e.support import Launcher
from tests.support.ledger_bill import DIRECT, HOUR_NS, MINUTE_NS, SECOND_NS, TAILS, Bill
from tests.support.postgres import server_for_tests

FULL: Final = os.environ.get("OTEL_PIPELINE_TEST_PROFILE") == "full"
KILLS: Final = 20 if FULL else 6
FLEET_KILLS: Final = 8 if FULL else 4
JOBS_APART_S: Final = 30.0 if FULL else 75.0
SEED: Final = 6
BEGIN_MINUTE: Final = 58
"""Of an hour by the clock, when the made-up hour begins: what is booked hour by hour is the same in every run."""


def made_up(seed: int) -> World:
    """It is over now."""
    over_ns = time.time_ns() - (MINUTES + 5 + BEGIN_MINUTE) * MINUTE_NS
    begin_ns = over_ns // HOUR_NS * HOUR_NS + BEGIN_MINUTE * MINUTE_NS
    return world(seed, begin_ns, jobs_apart_s=JOBS_APART_S, late=0.15, last=0.05)


def test_a_ledger_of_a_gateway_that_is_killed_is_the_bill_of_what_was_sent(launcher: Launcher, sink: Sink) -> None:
    made = made_up(SEED)
    gateway = ledger_gateway(launcher, made, sink.port, "gateway")
    announce(made, [gateway])
    what_is_sent_is_booked([gateway], made, KILLS)
    the_sink_has_what_was_sampled(made, sink)


def test_two_gateways_that_are_killed_keep_one_ledger(launcher: Launcher, sink: Sink) -> None:
    """On PostgreSQL; the spans of a trace go to both, repetitions to either."""
    made = made_up(SEED + 1)
    with server_for_tests() as url:
        gateways = [ledger_gateway(launcher, made, sink.port, name, url) for name in ("one", "two")]
        announce(made, gateways)
        what_is_sent_is_booked(gateways, made, FLEET_KILLS)
        the_sink_has_what_was_sampled(made, sink)
        for gateway in gateways:
            gateway.server.stop()


def what_is_sent_is_booked(gateways: list[Gateway], made: World, kills: int) -> None:
    """In two parts: the load, and what comes when all of it is booked."""
    counted = load(gateways, made.requests, kills, SEED)
    assert counted["acknowledged"] == counted["sent"]
    assert counted["repeated"] > 0.15 * len(made.requests)
    before = settled(gateways, made.end_ns)
    as_the_oracle_reckons(gateways[0], made, made.everything[: len(made.requests)])
    load(gateways, made.last, 1, SEED + 1)
    after = settled(gateways, made.end_ns)
    assert after["bookings"] > before["bookings"]
    bill = as_the_oracle_reckons(gateways[0], made, made.everything)
    as_what_was_paid(made, bill)
    as_the_operator_is_told(gateways[0], made, bill, after["totals"])
    corrections_move_money_only_where_the_bill_changed(gateways[0])


def as_the_oracle_reckons(gateway: Gateway, made: World, requests: list[Request]) -> Bill:
    """Every span, bucket, total and job, to the n$; without one of the requests it would be another bill."""
    booked_ns, found = booked(gateway)
    assert booked_ns >= made.end_ns
    assert made.bill(booked_ns, requests).differences(found) == []
    without = max(requests, key=lambda one: sum(len(span.done.gpus) for span in one.spans))
    assert made.bill(booked_ns, [one for one in requests if one is not without]).differences(found)
    return found


def as_what_was_paid(made: World, bill: Bill) -> None:
    """The law, GPU by GPU; every kind of cost occurs; each call is charged once."""
    used: Counter[tuple[str, str]] = Counter()
    for (gpu, _, currency, _), nano in [*bill.cells.items(), *bill.buckets.items()]:
        used[gpu, currency] += nano
    paid: Counter[tuple[str, str]] = Counter()
    for (gpu, _, currency), nano in bill.totals.items():
        paid[gpu, currency] += nano
    assert used == paid
    assert paid.keys() == {(gpu, tariff.currency) for gpu, tariff in made.tariffs().items()} | {
        (DIRECT, "USD"),
        (DIRECT, "EUR"),
    }
    kinds = {"idle", "startup", "rounding", "unobserved"} | ({"tail"} if TAILS else set())
    assert {name for (_, _, _, name), nano in bill.buckets.items() if nano} == kinds
    calls = Counter(key for (gpu, _, _, key), nano in bill.cells.items() if gpu == DIRECT and nano)
    assert set(calls.values()) == {1}
    assert calls.keys() == {span.done.key for span in made.spans() if span.done.direct and span.done.direct[1]}


def as_the_operator_is_told(gateway: Gateway, made: World, bill: Bill, totals: dict[str, str]) -> None:
    """What `verify` and the FOCUS file say in all."""
    paid: Counter[str] = Counter()
    for (_, _, currency), nano in bill.totals.items():
        paid[currency] += nano
    assert {currency: nano_of(total) for currency, total in totals.items()} == paid
    path = gateway.data_dir.parent / "focus.csv"
    hours = [made.begin_ns // HOUR_NS, time.time_ns() // HOUR_NS + 1]
    window = [datetime.fromtimestamp(hour * 3600, UTC).isoformat() for hour in hours]
    asked = ("--format", "focus", "--from", window[0], "--to", window[1], "-o", str(path))
    status, text = command(gateway, "ledger", "export", *asked)
    assert status == 0, text
    told: Counter[str] = Counter()
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            told[row["BillingCurrency"]] += nano_of(row["BilledCost"])
    assert told == paid


def nano_of(amount: str) -> int:
    nano = Decimal(amount) * SECOND_NS
    assert nano == int(nano)
    return int(nano)


def corrections_move_money_only_where_the_bill_changed(gateway: Gateway) -> None:
    found = corrections(gateway)
    assert any(moved and not total for total, _, moved, _ in found)
    assert [one for one in found if one[0] and not one[1] and one[3] != NO_GPU] == []


def the_sink_has_what_was_sampled(made: World, sink: Sink) -> None:
    """Head sampling left out some traces; the ledger has them all the same."""
    sampled = {span.done.key[1] for span in made.spans() if UNSAMPLED not in span.attributes}
    assert len(sampled) < 0.9 * len(made.spans())
    assert {int.from_bytes(key, "big") for key in sink.ids()} == sampled
