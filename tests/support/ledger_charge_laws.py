"""What calls and hours are charged, whatever the database: once, and at the prices that were booked with."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from otel_pipeline.ledger.price_book import PriceBook
from otel_pipeline.store.database import Database
from otel_pipeline.store.ledger import Ledger
from otel_pipeline.store.ledger_reprice import reprice
from otel_pipeline.store.ledger_tables import CHARGE, CLAIM, SPAN
from otel_pipeline.store.ledger_verify import verify
from tests.support.ledger_laws import LATER_S, Watched, totals
from tests.support.ledger_records import GPU as GPU_0
from tests.support.ledger_records import T0, One, price, prices, record


def a_call_that_two_spans_tell_is_charged_once(database: Database) -> None:
    """However late the inner one comes, and through whichever gateway."""
    watched = Watched(database)
    outer = One(1, 100, 300, gpus=(), kind="call", model="veo", nano=7)
    watched.apply(record(outer, One(2, 110, 290, parent=1, gpus=(), kind="other")))
    watched.settle()
    assert totals(watched.books()) == {"span 1": 7, "total": 7}
    inner = One(3, 120, 280, parent=2, gpus=(), kind="call", model="veo", nano=7)
    other = Ledger(database, watched.prices, clock=lambda: watched.now_s)
    other.apply("another gateway", 0, [record(inner)])
    assert totals(watched.books()) == {"span 3": 7, "total": 7}
    assert [one.kind for one in verify(database).deviations] == []
    watched.apply(record(inner, outer))
    watched.settle()
    assert totals(watched.books()) == {"span 3": 7, "total": 7}
    watched.prove()


def calls_that_are_told_by_nobody_else_keep_their_charge(database: Database) -> None:
    watched = Watched(database)
    calls = (
        One(1, 100, 300, gpus=(), kind="call", model="agent", nano=1),
        One(2, 110, 120, parent=1, gpus=(), kind="call", model="veo", nano=10),
        One(3, 130, 140, parent=1, gpus=(), kind="call", model="veo", nano=100),
        One(4, 131, 132, parent=3, gpus=(), kind="call", model="", nano=1000),
        One(5, 100, 300, trace=2, gpus=(), kind="call", model="", nano=10_000),
        One(6, 110, 120, trace=2, parent=5, gpus=(), kind="call", model="veo", quantities='{"images":1}'),
    )
    watched.apply(record(*calls))
    watched.settle()
    found = totals(watched.books())
    assert found == {"span 1": 1, "span 2": 10, "span 3": 100, "span 4": 1000, "total": 1111}
    assert watched.counts["told_twice"] == 1
    watched.prove()


def a_new_price_of_the_inner_call_takes_the_charge_of_the_outer(database: Database) -> None:
    """Before, the inner one told nothing."""
    watched = Watched(database)
    outer = One(1, 100, 300, gpus=(), kind="call", model="veo", nano=7)
    watched.apply(record(outer, One(2, 110, 120, gpus=(), kind="call", model="veo", nano=5, currency="EUR")))
    with database.write() as connection:
        connection.execute(sa.update(SPAN).where(SPAN.c.span == 2).values(parent=1, nano=None))
        connection.execute(sa.delete(CLAIM).where(CLAIM.c.span == 2))
        connection.execute(sa.update(CHARGE).where(CHARGE.c.currency == "EUR").values(status="unpriced", currency=""))
    watched.settle()
    assert totals(watched.books()) == {"span 1": 7, "total": 7}
    book = prices(price("0.5", basis="request", match={"model": "veo"}))
    assert reprice(database, book, T0 * 10**9, 0).changes == {"USD": 500_000_000 - 7}
    assert totals(watched.books()) == {"span 2": 500_000_000, "total": 500_000_000}
    watched.prove()


def a_call_that_is_charged_twice_is_named(database: Database) -> None:
    watched = Watched(database)
    calls = (
        One(1, 0, 9, gpus=(), kind="call", model="veo", nano=7),
        One(2, 1, 8, gpus=(), kind="call", model="veo", nano=7),
    )
    watched.apply(record(*calls))
    watched.settle()
    with database.write() as connection:
        connection.execute(sa.update(SPAN).where(SPAN.c.span == 2).values(parent=1))
    (found,) = verify(database).deviations
    assert (found.kind, found.place["span"], found.nano) == ("charged_twice", 1, 7)


def a_late_span_is_booked_at_the_prices_of_its_hour(database: Database) -> None:
    """A price that was changed in place, without a date, changes nothing that is booked until `ledger reprice`."""
    watched = Watched(database)
    watched.apply(record(One(1, 0, 30), seen={GPU_0: (0, 30)}))
    watched.settle()
    before = totals(watched.books())
    dearer = prices(price("0.003"))
    watched.restart(dearer)
    watched.apply(record(One(2, 20, 50)))
    after = totals(watched.books())
    assert (after["span 1"], after["span 2"], after["total"]) == (25_000_000, 25_000_000, before["total"])
    watched.prove()
    assert [one.nano for one in watched.outdated()] == [31 * 60 * 2_000_000]
    found = reprice(database, dearer, T0 * 10**9, 0)
    assert (found.hours, found.changes) == (1, {"USD": 31 * 60 * 2_000_000})
    assert totals(watched.books())["span 2"] == 75_000_000
    assert watched.outdated() == []
    watched.prove()


def what_is_not_booked_yet_is_booked_at_new_prices(database: Database) -> None:
    """An hour may be half booked when a price changes in place."""
    watched = Watched(database)
    watched.now_s = T0 + 10 * 60.0 + 600
    watched.apply(record(seen={GPU_0: (0, 19)}))
    assert totals(watched.books())["total"] == 10 * 60 * 1_000_000
    watched.restart(prices(price("0.003")))
    watched.now_s = float(T0 + LATER_S)
    watched.apply(record(One(1, 540, 660), seen={GPU_0: (20, 29)}))
    watched.settle()
    found = totals(watched.books())
    assert found["total"] == (10 * 1 + 20 * 3) * 60 * 1_000_000
    assert found["span 1"] == (1 + 3) * 60 * 1_000_000
    watched.prove()
    watched.restart(prices())
    watched.apply(record(One(2, 570, 630)))
    assert totals(watched.books())["total"] == found["total"]
    watched.prove()
    reprice(database, watched.prices, (T0 + 20 * 60) * 10**9, 0)
    assert totals(watched.books())["total"] == (10 * 1 + 10 * 3 + 10 * 1) * 60 * 1_000_000
    watched.prove()


def a_charge_is_reckoned_again_by_what_its_price_was_looked_up_by(database: Database) -> None:
    """As far as it is kept: what a price may depend on and nobody looked at leaves the charge as it is."""
    watched = Watched(database)
    used = {"gpus": (), "kind": "call", "model": "veo", "quantities": '{"video_ns":8000000000}', "nano": 7}
    watched.apply(record(*(One(span, 100, 200, trace=span, currency=f"X{span}", **used) for span in (1, 2, 3))))
    watched.settle()
    asked = {
        1: {"resolution": "1080p", "attributes": {"tier": "pro"}},
        2: {"width": 640, "height": 480, "attributes": {}},
    }
    with database.write() as connection:
        for span, told in asked.items():
            same = CHARGE.c.currency == f"X{span}"
            connection.execute(sa.update(CHARGE).where(same).values(asked=json.dumps(told)))
    match = {"model": "veo"}
    plain = price("0.1", basis="video_second", match=match, prices={"480p": "0.05"})
    found = reprice(database, prices(plain), T0 * 10**9, 0)
    assert (found.charges, found.kept) == (2, 1)
    assert totals(watched.books())["total"] == 800_000_000 + 400_000_000 + 7
    pro = price("0.3", basis="video_second", match={"model": "veo", "attributes": {"tier": "pro"}}, id="pro")
    found = reprice(database, prices(plain, pro), T0 * 10**9, 0)
    assert (found.charges, found.kept) == (1, 2)
    assert totals(watched.books())["total"] == 2_400_000_000 + 400_000_000 + 7
    assert verify(database).deviations == []


CHARGE_LAWS: Sequence[Callable[[Database], None]] = (
    a_call_that_two_spans_tell_is_charged_once,
    calls_that_are_told_by_nobody_else_keep_their_charge,
    a_new_price_of_the_inner_call_takes_the_charge_of_the_outer,
    a_call_that_is_charged_twice_is_named,
    a_late_span_is_booked_at_the_prices_of_its_hour,
    what_is_not_booked_yet_is_booked_at_new_prices,
    a_charge_is_reckoned_again_by_what_its_price_was_looked_up_by,
)


def new_prices_hold_after_reprice_alone(
    fresh: Callable[[], Database], ones: list[One], times: list[dict[str, tuple[int, int]]], seed: int, book: PriceBook
) -> None:
    """The prices change in place while records come: what is booked stays provable, and `reprice` makes of it what
    would have been booked at the new prices.
    """
    chance = random.Random(seed)
    parts = [record(one) for one in ones] + [record(seen=one) for one in times if one]
    chance.shuffle(parts)
    whole, changed = Watched(fresh(), book), Watched(fresh(), prices(price("0.0042")), lateness_s=60.0)
    whole.apply(*parts)
    turn = chance.randint(0, len(parts))
    for number, part in enumerate(parts):
        if number == turn:
            changed.restart(book)
        changed.apply(part)
    changed.restart(book)
    whole.settle()
    changed.settle()
    changed.prove()
    reprice(changed.database, book, (T0 - 86_400) * 10**9, 0)
    assert changed.outdated() == []
    changed.prove()
    assert changed.books() == whole.books()
