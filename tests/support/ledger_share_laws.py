"""What every ledger must obey where spans share a GPU in other ways than alike, whatever the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from hypothesis import strategies as st

from otel_pipeline.store.database import Database
from tests.support.ledger_laws import Watched, totals
from tests.support.ledger_laws import spans as any_spans
from tests.support.ledger_records import GPU, One, price, prices, record

WEIGHTED = prices(price(shares="weighted"))
FIXED = prices(price(shares="fixed"))
QUARTERS = prices(price(shares="fixed", share="1/4"))
SEEN = {GPU: (0, 0)}


def booked(watched: Watched, *spans: One) -> dict[str, int]:
    """Totals of a minute at 0.001 a second."""
    watched.apply(record(*spans, seen=SEEN))
    watched.settle()
    found = totals(watched.books())
    assert found["total"] == 60_000_000
    watched.prove()
    return found


def weights_decide(database: Database) -> None:
    """Vector V3."""
    found = booked(Watched(database, WEIGHTED), One(1, 0, 30, share="0.75"), One(2, 20, 50, share="0.25"))
    assert (found["span 1"], found["span 2"], found["tail"]) == (27_500_000, 22_500_000, 10_000_000)


def without_weights_all_pay_alike_and_are_counted(database: Database) -> None:
    watched = Watched(database, WEIGHTED)
    found = booked(watched, One(1, 0, 30), One(2, 20, 50))
    assert (found["span 1"], found["span 2"]) == (25_000_000, 25_000_000)
    assert watched.counts["unweighted"] == 2


def weights_of_zero_pay_alike(database: Database) -> None:
    found = booked(Watched(database, WEIGHTED), One(1, 0, 40, share="0"), One(2, 0, 40, share="0"))
    assert (found["span 1"], found["span 2"]) == (20_000_000, 20_000_000)


def of_a_slice_the_rest_is_idle(database: Database) -> None:
    """Two of seven slices for the whole minute, and a third for half of it."""
    found = booked(
        Watched(database, FIXED),
        One(1, 0, 60, share="2/7", trace=1),
        One(2, 30, 60, share="1/7", trace=2),
    )
    assert (found["span 1"], found["span 2"]) == (17_142_857, 4_285_714)
    assert found["idle"] == 60_000_000 - 17_142_857 - 4_285_714


def a_time_slice_is_what_the_price_says(database: Database) -> None:
    found = booked(Watched(database, QUARTERS), One(1, 0, 60), One(2, 0, 60, trace=2, share="1/2"))
    assert (found["span 1"], found["span 2"], found["idle"]) == (15_000_000, 30_000_000, 15_000_000)


def shares_beyond_the_whole_shrink(database: Database) -> None:
    found = booked(Watched(database, FIXED), One(1, 0, 60, share="1"), One(2, 0, 60, trace=2, share="0.5"))
    assert (found["span 1"], found["span 2"]) == (40_000_000, 20_000_000)
    assert "idle" not in found


def a_span_below_has_the_share_of_the_one_above(database: Database) -> None:
    """Also if that one comes late; and their costs are told by one fact."""
    watched = Watched(database, FIXED)
    watched.apply(record(One(2, 20, 40, parent=1, kind="node"), seen=SEEN))
    watched.settle()
    assert totals(watched.books())["span 2"] == 20_000_000
    watched.apply(record(One(1, 0, 60, kind="job", share="1/4")))
    found = totals(watched.books())
    assert (found["span 1"], found["span 2"], found["idle"]) == (10_000_000, 5_000_000, 45_000_000)
    assert {key[3].share for key in watched.books()["cells"]} == {-1}
    watched.prove()


def the_way_to_share_may_change_with_the_price(database: Database) -> None:
    half = prices(price(until=30), price(since=30, shares="fixed", id="sliced"))
    spans = One(1, 0, 60, share="1/4"), One(2, 0, 60, trace=2, share="1/2")
    found = booked(Watched(database, half), *spans)
    assert (found["span 1"], found["span 2"], found["idle"]) == (22_500_000, 30_000_000, 7_500_000)


LAWS: Sequence[Callable[[Database], None]] = (
    weights_decide,
    without_weights_all_pay_alike_and_are_counted,
    weights_of_zero_pay_alike,
    of_a_slice_the_rest_is_idle,
    a_time_slice_is_what_the_price_says,
    shares_beyond_the_whole_shrink,
    a_span_below_has_the_share_of_the_one_above,
    the_way_to_share_may_change_with_the_price,
)

BOOKS = (
    WEIGHTED,
    QUARTERS,
    prices(
        price("0.0011", until=4000, shares="weighted", share="0.1"),
        price("0.0007", since=4000, shares="fixed", id="sliced"),
        price("0.0005", since=8000, id="alike"),
    ),
)


@st.composite
def spans(draw: st.DrawFn) -> list[One]:
    """Spans of which some tell their share."""
    told = st.sampled_from(["", "", "0", "1/7", "0.33", "0.5", "1"])
    return [replace(one, share=draw(told)) for one in draw(any_spans())]
