"""What every ledger must obey, whatever the database; and books that can be compared."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from hypothesis import strategies as st

from otel_pipeline.ledger.price_book import PriceBook
from otel_pipeline.limits import LEDGER_CHARGE_NANO_MAX
from otel_pipeline.store.database import Database
from otel_pipeline.store.ledger import Ledger
from otel_pipeline.store.ledger_names import fact_of
from otel_pipeline.store.ledger_reprice import reprice
from otel_pipeline.store.ledger_runs import RUN
from otel_pipeline.store.ledger_state import read_state
from otel_pipeline.store.ledger_sums import SUM
from otel_pipeline.store.ledger_tables import (
    ALLOCATION,
    AMOUNTS,
    ATTEMPT_COST,
    BOOKING,
    FACT,
    GPU,
    JOB,
    PERIOD,
    PRESENCE,
    SPAN,
    SPAN_KEY,
    USER,
)
from otel_pipeline.store.ledger_verify import EVER, Deviation, outdated, recompute, verify
from tests.support.ledger_records import GPU as GPU_0
from tests.support.ledger_records import HOST, T0, One, at_ns, price, prices, record

EPOCH = "epoch"
LATER_S = 10 * 86_400
Books = dict[str, dict[Any, Any]]


class Watched:
    """A ledger whose clock stands still, long after all that happens, and what it counted."""

    def __init__(
        self,
        database: Database,
        book: PriceBook | None = None,
        lateness_s: float = 600.0,
        retention_s: float = float("inf"),
    ) -> None:
        self.database = database
        self.counts = Counter[str]()
        self.now_s = float(T0 + LATER_S)
        self.applied = 0
        self._times_s = {"lateness_s": lateness_s, "retention_s": retention_s, "booking_s": float("inf")}
        self.restart(book or prices())

    def restart(self, book: PriceBook) -> None:
        """A gateway with these prices."""
        self.prices = book
        self.ledger = Ledger(self.database, book, self._count, lambda: self.now_s, **self._times_s)

    def _count(self, event: str, number: int) -> None:
        self.counts[event] += number

    def apply(self, *records: bytes) -> None:
        """The next records."""
        self.ledger.apply(EPOCH, self.applied, records)
        self.applied += len(records)

    def settle(self) -> None:
        """Long silence: everything is booked."""
        self.now_s += LATER_S
        self.ledger.tend()

    def books(self) -> Books:
        return books(self.database)

    def prove(self) -> None:
        """The laws hold, and allocating all once more changes nothing."""
        found = verify(self.database)
        assert found.deviations == []
        assert found.waiting == 0
        with self.database.read() as connection:
            state = read_state(connection)
        assert list(recompute(self.database, self.prices, state, *EVER)) == []

    def outdated(self) -> list[Deviation]:
        with self.database.read() as connection:
            state = read_state(connection)
        return list(outdated(self.database, self.prices, state, *EVER))


def books(database: Database) -> Books:
    """What is booked, added up and by names: the same for the same spans."""
    with database.read() as connection:
        gpus = {0: ""} | {row.id: row.uuid for row in connection.execute(sa.select(GPU))}
        users = {0: ""} | {row.id: row.name for row in connection.execute(sa.select(USER))}
        facts = {row.id: fact_of(row.body) for row in connection.execute(sa.select(FACT))}
        jobs = {0: ""} | {row.id: row.name for row in connection.execute(sa.select(JOB))}
        cells: Counter[Any] = Counter()
        for row in connection.execute(sa.select(ALLOCATION)):
            ids = tuple(getattr(row, name) for name in SPAN_KEY)
            key = (gpus[row.gpu], row.start_ns, ids, facts[row.fact], users[row.user_id], jobs[row.job], row.currency)
            cells[key] += row.nano
        periods: dict[Any, list[int]] = {}
        for row in connection.execute(sa.select(PERIOD)):
            sums = periods.setdefault((gpus[row.gpu], row.start_ns, row.currency), [0] * len(AMOUNTS))
            periods[gpus[row.gpu], row.start_ns, row.currency] = [
                one + getattr(row, name) for one, name in zip(sums, AMOUNTS, strict=True)
            ]
        costs = {
            (jobs[row.job], row.attempt, row.currency): row.nano for row in connection.execute(sa.select(ATTEMPT_COST))
        }
        attempts = {(jobs[row.job], row.attempt): row.last_ns for row in connection.execute(sa.select(RUN))}
    return {
        "cells": {key: nano for key, nano in cells.items() if nano},
        "periods": {key: sums for key, sums in periods.items() if any(sums)},
        "costs": {key: nano for key, nano in costs.items() if nano},
        "attempts": attempts,
    }


def totals(found: Books) -> dict[str, int]:
    """n$ by span id and bucket, over everything."""
    sums: Counter[str] = Counter()
    for key, nano in found["cells"].items():
        sums[f"span {key[2][2]}"] += nano
    for amounts in found["periods"].values():
        for name, nano in zip(AMOUNTS, amounts, strict=True):
            sums[name] += nano
    return {name: nano for name, nano in sums.items() if nano}


# -- laws --------------------------------------------------------------------------------------------------------------


def overlapping_spans_share(database: Database) -> None:
    """Vector V2, in the first minute of a GPU that is there for 30."""
    watched = Watched(database)
    watched.apply(record(One(1, 0, 30), One(2, 20, 50), seen={GPU_0: (0, 30)}))
    found = totals(watched.books())
    assert (found["span 1"], found["span 2"]) == (25_000_000, 25_000_000)
    assert found["idle"] == found["total"] - 50_000_000
    watched.prove()


def what_is_applied_twice_counts_once(database: Database) -> None:
    watched = Watched(database)
    records = [record(One(1, 0, 30), One(2, 20, 50, nano=5), seen={GPU_0: (0, 30)})]
    watched.apply(*records)
    before = watched.books()
    watched.ledger.apply(EPOCH, 0, records)
    watched.apply(*records)  # the same spans, sent once more
    watched.settle()
    assert watched.counts["repeated"] == 2
    assert totals(watched.books())["span 1"] == totals(before)["span 1"]
    watched.prove()


def a_late_span_is_a_correction_that_sums_to_nothing(database: Database) -> None:
    """Vector V12."""
    watched = Watched(database)
    watched.apply(record(One(1, 0, 30), seen={GPU_0: (0, 30)}))
    before = totals(watched.books())
    assert before["span 1"] == 30_000_000
    watched.apply(record(One(2, 20, 50)))
    after = totals(watched.books())
    assert (after["span 1"], after["span 2"], after["total"]) == (25_000_000, 25_000_000, before["total"])
    with database.read() as connection:
        late = sa.select(sa.func.sum(PERIOD.c.total), sa.func.sum(PERIOD.c.idle)).where(PERIOD.c.booking == 2)
        assert tuple(map(int, connection.execute(late).one())) == (0, -20_000_000)
    watched.prove()


def a_late_parent_gives_its_job_to_spans_that_are_booked(database: Database) -> None:
    watched = Watched(database)
    watched.apply(record(One(2, 10, 40, parent=7), seen={GPU_0: (0, 30)}))
    assert watched.books()["costs"] == {}
    watched.apply(record(One(7, 5, 6, parent=1, gpus=())))
    watched.apply(record(One(1, 0, 50, kind="job", job="J", user="u", model="m", attempt=2, outcome="error")))
    found = watched.books()
    assert found["costs"] == {("J", 2, "USD"): 50_000_000}
    (fact,) = {key[3] for key in found["cells"] if key[2][2] == 2}
    assert (fact.model, fact.attempt, fact.outcome) == ("m", 2, "error")
    watched.prove()


def direct_charges_are_booked_as_they_are(database: Database) -> None:
    watched = Watched(database)
    call = One(3, 100, 200, parent=1, gpus=(), kind="call", nano=640_000_000, currency="EUR")
    watched.apply(record(One(1, 0, 300, kind="job", job="J", gpus=()), call))
    watched.settle()
    assert watched.books()["costs"] == {("J", 1, "EUR"): 640_000_000}
    watched.prove()


def time_without_a_price_has_no_amount(database: Database) -> None:
    watched = Watched(database, prices(price(since=60)))
    watched.apply(record(One(1, 0, 120), seen={GPU_0: (0, 30)}))
    found = totals(watched.books())
    assert (found["span 1"], found["unpriced_ns"]) == (60_000_000, 60 * 10**9)
    watched.prove()


def a_gap_ends_what_is_paid_for(database: Database) -> None:
    watched = Watched(database)
    watched.apply(record(seen={GPU_0: (0, 9)}), record(seen={GPU_0: (12, 19)}), record(seen={GPU_0: (40, 60)}))
    watched.settle()
    found = totals(watched.books())
    assert found["paid_ns"] == (20 + 21) * 60 * 10**9
    assert found["unobserved"] == 120_000_000
    watched.prove()


def the_idle_time_of_a_gpu_that_is_gone_is_its_tail(database: Database) -> None:
    """A GPU that nobody ever used was idle."""
    watched = Watched(database)
    watched.apply(record(One(1, 60, 90), One(2, 300, 600), seen={GPU_0: (0, 89), "GPU-1": (0, 89)}))
    watched.settle()
    found = totals(watched.books())
    assert found["startup"] == 60_000_000
    assert found["tail"] == (5400 - 600) * 1_000_000
    assert found["idle"] == (300 - 90) * 1_000_000 + 5400 * 1_000_000
    watched.prove()


def that_a_gpu_is_gone_is_known_later(database: Database) -> None:
    """Until then what is booked is idle time; then it is corrected."""
    watched = Watched(database)
    watched.apply(record(One(1, 0, 600), seen={GPU_0: (0, 19)}), record(seen={"GPU-1": (0, 33)}))
    before = totals(watched.books())
    assert before["idle"] == (600 + 1440) * 1_000_000
    watched.prove()
    watched.apply(record(seen={"GPU-1": (34, 34)}))
    after = totals(watched.books())
    assert (after["idle"], after["tail"]) == (1500 * 1_000_000, 600 * 1_000_000)
    watched.prove()


def a_late_span_takes_from_the_tail(database: Database) -> None:
    watched = Watched(database)
    watched.apply(record(One(1, 0, 60), seen={GPU_0: (0, 29)}))
    watched.settle()
    watched.apply(record(One(2, 120, 180)))
    found = totals(watched.books())
    assert (found["idle"], found["tail"]) == (60_000_000, (1800 - 180) * 1_000_000)
    watched.prove()


def a_gpu_that_comes_back_had_no_tail(database: Database) -> None:
    """What was not seen meanwhile is not idle, but nobody knows."""
    watched = Watched(database)
    watched.apply(record(One(1, 0, 60), seen={GPU_0: (0, 29)}))
    watched.settle()
    watched.apply(record(One(2, 2000, 2040, trace=2)))
    found = totals(watched.books())
    assert (found["idle"], found["unobserved"]) == ((1800 - 60) * 1_000_000, 200 * 1_000_000)
    assert "tail" not in found
    watched.prove()


def a_serverless_worker_waits_for_work_and_has_no_tail(database: Database) -> None:
    """Vector V6, of a worker that was seen to the tenth of a second."""
    watched = Watched(database, prices(price("0.00031", basis="serverless_second")))
    watched.apply(record(One(1, 14.2, 51.5)))
    with database.write() as connection:
        connection.execute(sa.update(PRESENCE).values(start_ns=at_ns(0), end_ns=at_ns(56.5)))
    watched.settle()
    found = totals(watched.books())
    assert {name: found.get(name, 0) for name in ("span 1", *AMOUNTS[:6])} == {
        "span 1": 11_563_000,
        "total": 17_670_000,
        "startup": 4_402_000,
        "idle": 1_550_000,
        "tail": 0,
        "rounding": 155_000,
        "unobserved": 0,
    }
    watched.prove()


def a_clock_that_is_wrong_moves_no_watermark(database: Database) -> None:
    watched = Watched(database)
    watched.now_s = T0 + 700.0
    watched.apply(record(One(9, 10**8, 10**8 + 5), seen={GPU_0: (0, 11)}))
    with database.read() as connection:
        booked_ns = read_state(connection).booked_ns
    assert booked_ns == (T0 + 60) * 10**9
    watched.apply(record(One(8, -(10**8), 500)))
    assert watched.counts["implausible"] == 1
    assert verify(database).deviations == []


def a_change_of_prices_is_a_correction(database: Database) -> None:
    watched = Watched(database)
    watched.apply(record(One(1, 0, 30, job="J", kind="job"), seen={GPU_0: (0, 30)}))
    watched.settle()
    watched.prices = prices(price("0.001", until=15), price("0.002", since=15))
    found = reprice(database, watched.prices, T0 * 10**9, 0)
    assert (found.hours, found.changes) == (1, {"USD": (31 * 60 - 15) * 1_000_000})
    assert totals(watched.books())["span 1"] == 45_000_000
    assert watched.books()["costs"] == {("J", 1, "USD"): 45_000_000}
    watched.prove()
    with database.read() as connection:
        kinds = connection.execute(sa.select(BOOKING.c.kind).order_by(BOOKING.c.id)).scalars().all()
    assert kinds == ["booked", "late", "reprice"]  # the second time it was known that the GPU is gone
    assert reprice(database, watched.prices, T0 * 10**9, 0).hours == 0


def a_charge_without_a_price_gets_one_later(database: Database) -> None:
    watched = Watched(database, prices())
    call = One(3, 100, 200, gpus=(), kind="call", model="veo", quantities='{"video_ns":8000000000}')
    watched.apply(record(call))
    watched.settle()
    assert watched.books()["cells"] == {}
    row = price("0.08", basis="video_second", match={"model": "veo"})
    found = reprice(database, prices(row), T0 * 10**9, 0)
    assert (found.charges, found.changes) == (1, {"USD": 640_000_000})
    assert totals(watched.books())["span 3"] == 640_000_000
    assert verify(database).deviations == []


def old_hours_are_kept_without_spans(database: Database) -> None:
    watched = Watched(database, retention_s=LATER_S)
    first, second = One(1, 0, 30, job="J", kind="job", outcome="ok"), One(2, 3000, 4020, parent=1)
    watched.now_s = T0 + 5000.0
    watched.apply(record(first, second, seen={GPU_0: (0, 70)}))
    watched.now_s = T0 + 20_000.0
    watched.ledger.tend()
    before = watched.books()
    watched.now_s = T0 + LATER_S + 3700.0
    watched.ledger.tend()
    assert watched.counts["compacted"] == 1
    after = watched.books()
    assert sum(after["cells"].values()) == sum(before["cells"].values())
    assert totals(after)["idle"] == totals(before)["idle"]
    assert after["costs"] == before["costs"]
    assert {key[1] for key in after["periods"]} > {T0 * 10**9}
    assert verify(database).deviations == []
    watched.apply(record(first, One(9, 100, 200), seen={GPU_0: (0, 100)}))
    assert watched.counts["too_old"] == 2
    assert after["costs"] == watched.books()["costs"]
    assert verify(database).deviations == []


def what_was_tampered_with_is_named(database: Database) -> None:
    watched = Watched(database)
    watched.apply(record(One(1, 0, 30, job="J", kind="job"), seen={GPU_0: (0, 30)}))
    for table, column, kinds in (
        (ALLOCATION, "nano", {"law", "correction", "sum", "job_total"}),
        (PERIOD, "idle", {"law", "correction", "hour_total"}),
        (ATTEMPT_COST, "nano", {"job_total"}),
        (SUM, "nano", {"sum"}),
    ):
        for by in (1, -1):
            with database.write() as connection:
                connection.execute(sa.update(table).values({column: table.c[column] + by}))
            found = {one.kind for one in verify(database).deviations}
            assert found == (kinds if by == 1 else set()), table.name
    with database.write() as connection:
        connection.execute(sa.delete(SPAN))
    assert {one.kind for one in verify(database).deviations} == {"unknown_span"}


def an_hour_that_cannot_be_booked_keeps_no_other_waiting(database: Database) -> None:
    watched = Watched(database)
    most = LEDGER_CHARGE_NANO_MAX
    calls = [One(span, 100, 200, trace=span, gpus=(), kind="call", nano=most) for span in range(1, 9300)]
    watched.apply(record(*calls), record(One(1, 4000, 4030, trace=10**6), seen={GPU_0: (60, 90)}))
    watched.apply(record(One(3, 100, 200, gpus=(), trace=10**7, kind="call", nano=most + 1)))
    watched.settle()
    assert watched.counts["failed"] == 1
    assert {key[0] for key in watched.books()["cells"]} == {GPU_0}
    assert [(one.kind, one.place["hour"]) for one in verify(database).deviations] == [("not_booked", T0 * 10**9)]


LAWS: Sequence[Callable[[Database], None]] = (
    overlapping_spans_share,
    what_is_applied_twice_counts_once,
    a_late_span_is_a_correction_that_sums_to_nothing,
    a_late_parent_gives_its_job_to_spans_that_are_booked,
    direct_charges_are_booked_as_they_are,
    time_without_a_price_has_no_amount,
    a_gap_ends_what_is_paid_for,
    the_idle_time_of_a_gpu_that_is_gone_is_its_tail,
    that_a_gpu_is_gone_is_known_later,
    a_late_span_takes_from_the_tail,
    a_gpu_that_comes_back_had_no_tail,
    a_serverless_worker_waits_for_work_and_has_no_tail,
    a_clock_that_is_wrong_moves_no_watermark,
    a_change_of_prices_is_a_correction,
    a_charge_without_a_price_gets_one_later,
    old_hours_are_kept_without_spans,
    what_was_tampered_with_is_named,
    an_hour_that_cannot_be_booked_keeps_no_other_waiting,
)


# -- any order ---------------------------------------------------------------------------------------------------------

HOSTS = (HOST, "host-1")
GPUS = (GPU_0, "GPU-1")


@st.composite
def spans(draw: st.DrawFn) -> list[One]:
    """Spans of up to three traces, over three hours; some claim, some link, some are charged directly."""
    found = []
    for span in range(1, draw(st.integers(1, 14)) + 1):
        start = draw(st.integers(0, 10_800_000)) / 1000
        length = draw(st.sampled_from([0.0, 0.25, 3.3, 20.0, 61.7, 900.0, 4000.0]))
        gpus = draw(st.sampled_from([(), (GPUS[0],), (GPUS[0],), (GPUS[1],), GPUS]))
        found.append(
            One(
                span,
                start,
                start + length,
                parent=draw(st.integers(0, span - 1)),
                trace=draw(st.integers(1, 2)),
                gpus=gpus,
                host=draw(st.sampled_from(HOSTS)) if draw(st.integers(0, 5)) == 0 else HOST,
                kind=draw(st.sampled_from(["job", "stage", "node"])),
                job=draw(st.sampled_from(["", "", "J", "K"])),
                user=draw(st.sampled_from(["", "u"])),
                attempt=draw(st.integers(1, 2)),
                outcome=draw(st.sampled_from(["", "ok", "error"])),
                model=draw(st.sampled_from(["", "m", "n"])),
                nano=draw(st.sampled_from([0, 7, 11])) if not gpus else 0,
                quantities=draw(st.sampled_from(["", '{"images":1}'])) if not gpus else "",
            )
        )
    return found


seen = st.dictionaries(
    st.sampled_from(GPUS), st.tuples(st.integers(0, 170), st.integers(0, 40)).map(lambda at: (at[0], at[0] + at[1]))
)
LATER = price("0.0007", since=1234.5, id="later")
BOOKS = (
    prices(),
    prices(price("0.00123457", until=5000), LATER),
    prices(price("3.99", basis="gpu_hour", until=5000), price("1.01", basis="gpu_hour", since=6000, currency="EUR")),
    prices(price("0.00031", basis="serverless_second")),
)
"""One price; one that changes; one with a gap, and another currency behind it; a serverless worker."""


def any_order_gives_the_same_books(
    fresh: Callable[[], Database], ones: list[One], times: list[dict[str, tuple[int, int]]], seed: int, book: PriceBook
) -> None:
    """All at once, or in any order and any split, some of it twice."""
    whole = Watched(fresh(), book)
    whole.apply(record(*ones), *(record(seen=one) for one in times if one))
    whole.prove()
    chance = random.Random(seed)
    parts = [record(one) for one in ones] + [record(seen=one) for one in times if one]
    parts += chance.sample(parts, len(parts) // 3)
    chance.shuffle(parts)
    pieces = Watched(fresh(), book, lateness_s=chance.choice([0.0, 60.0, 600.0]))
    while parts:
        size = chance.randint(1, 4)
        pieces.apply(*parts[:size])
        del parts[:size]
    whole.settle()
    pieces.settle()
    whole.prove()
    pieces.prove()
    assert pieces.books() == whole.books()
