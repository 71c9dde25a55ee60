"""The book of the ledger against a bill that is reckoned from the same spans in another way."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.store.database import Database
from tests.support.book_examples import examples
from tests.support.ledger_bill import SECOND_NS, Bill, Done, Tariff, bill
from tests.support.ledger_booked import booked_bill, booked_until, unsigned
from tests.support.ledger_laws import GPUS, Watched, seen, spans
from tests.support.ledger_records import T0, One, at_ns, columns, price, prices, record

EVER_NS = -(2**62)
TARIFFS = (
    (prices(), Tariff("USD", [(EVER_NS, Fraction("0.001"))])),
    (
        prices(price("0.00123457", until=5000), price("0.0007", since=5000, id="later")),
        Tariff("USD", [(EVER_NS, Fraction("0.00123457")), (at_ns(5000), Fraction("0.0007"))]),
    ),
    (prices(price("3.99", basis="gpu_hour", currency="EUR")), Tariff("EUR", [(EVER_NS, Fraction("3.99") / 3600)])),
    (
        prices(price("0.00031", basis="serverless_second")),
        Tariff("USD", [(EVER_NS, Fraction("0.00031"))], unit_ns=SECOND_NS),
    ),
)


@st.composite
def around_the_hour(draw: st.DrawFn) -> list[One]:
    """A few spans of some minutes about the end of an hour."""
    found = []
    for span in range(1, draw(st.integers(1, 6)) + 1):
        start = draw(st.integers(50 * 60, 80 * 60))
        length = draw(st.sampled_from([0.25, 20.0, 61.7, 300.0]))
        gpus = draw(st.sampled_from([(GPUS[0],), GPUS]))
        found.append(One(span, start, start + length, parent=draw(st.integers(0, span - 1)), gpus=gpus))
    return found


seen_shortly = st.dictionaries(
    st.sampled_from(GPUS), st.tuples(st.integers(48, 82), st.integers(0, 2)).map(lambda at: (at[0], at[0] + at[1]))
)
CASES = st.one_of(
    st.tuples(spans(), st.lists(seen, max_size=4)), st.tuples(around_the_hour(), st.lists(seen_shortly, max_size=6))
)


def done(one: One) -> Done:
    numbers = columns((one,))
    trace = unsigned(int(numbers.trace_hi[0])) << 64 | unsigned(int(numbers.trace_lo[0]))
    direct = (one.currency, one.nano) if one.nano else None
    return Done((trace, one.span), one.parent, at_ns(one.start), at_ns(one.end), one.gpus, direct)


def reckoned(ones: Sequence[One], times: Iterable[dict[str, tuple[int, int]]], tariff: Tariff, until_ns: int) -> Bill:
    minutes: dict[str, set[int]] = defaultdict(set)
    for gpu, (first, last) in (pair for one in times for pair in one.items()):
        minutes[gpu].update(range(T0 // 60 + first, T0 // 60 + last + 1))
    outer = calls_that_are_told_twice(ones)
    charged = [replace(one, nano=0) if (one.trace, one.span) in outer else one for one in ones]
    return bill([done(one) for one in charged], minutes, dict.fromkeys(GPUS, tariff), until_ns)


def calls_that_are_told_twice(ones: Sequence[One]) -> set[tuple[int, int]]:
    """Charged calls above a charged call of the same model; one that names none is of any."""
    known = {(one.trace, one.span): one for one in ones}
    found = set()
    for one in ones:
        above, steps = known.get((one.trace, one.parent)), 0
        while one.nano and above is not None and steps < len(ones):
            if above.nano and above.model in ("", one.model):
                found.add((above.trace, above.span))
            above, steps = known.get((above.trace, above.parent)), steps + 1
    return found


@examples(15, 150)
@given(CASES, st.integers(0, 10**6), st.sampled_from(TARIFFS))
def test_whatever_comes_in_whatever_order_is_billed_as_reckoned(
    fresh: Callable[[], Database],
    case: tuple[list[One], list[dict[str, tuple[int, int]]]],
    seed: int,
    priced: tuple[object, Tariff],
) -> None:
    """By span, bucket and minute, to the n$."""
    (ones, times), (book, tariff) = case, priced
    chance = random.Random(seed)
    parts = [record(one) for one in ones] + [record(seen=one) for one in times if one]
    chance.shuffle(parts)
    watched = Watched(fresh(), book, lateness_s=chance.choice([0.0, 60.0, 600.0]))  # type: ignore[arg-type]
    for part in parts:
        watched.apply(part)
    watched.settle()
    expected = reckoned(ones, times, tariff, booked_until(watched.database))
    found = booked_bill(watched.database)
    expected.jobs = found.jobs
    assert expected.differences(found) == []
