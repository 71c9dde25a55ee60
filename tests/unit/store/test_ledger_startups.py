"""Cold starts in reports: any number of lives of two GPUs, each with jobs one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.ledger.money import split_named
from otel_pipeline.ledger.views import IdlePolicy, StartupPolicy
from otel_pipeline.store.database import Database
from otel_pipeline.store.ledger_windows import Window
from tests.support.book_examples import examples
from tests.support.ledger_laws import Watched
from tests.support.ledger_records import GPU, SECOND, T0, One, record
from tests.support.ledger_view_laws import costs, every_view_adds_up, report_of

NANO_A_SECOND = 1_000_000
Life = tuple[str, int, int, list[int]]
"""GPU, minutes since the one before, seconds of its cold start, seconds of each job."""

lives = st.lists(
    st.tuples(
        st.sampled_from([GPU, "GPU-1"]),
        st.integers(7, 70),
        st.integers(1, 800),
        st.lists(st.integers(1, 200), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=5,
)


def told(found: list[Life]) -> tuple[list[bytes], list[tuple[int, dict[str, int]]]]:
    """The records; of each life n$ of its cold start and of its jobs, the first of which caused it."""
    records, expected = [], []
    minute = 0
    for life, (gpu, pause, cold_s, jobs) in enumerate(found):
        minute += pause
        at = minute * 60 + cold_s
        spans = []
        for number, length in enumerate(jobs):
            ids = {"trace": life * 10 + number + 1, "kind": "job", "job": f"{life}-{number}"}
            spans.append(One(1, at, at + length, gpus=(gpu,), **ids))  # type: ignore[arg-type]
            at += length + 5
        last = at // 60
        records.append(record(*spans, seen={gpu: (minute, last)}))
        own = {f"{life}-{number}": length * NANO_A_SECOND for number, length in enumerate(jobs)}
        expected.append((cold_s * NANO_A_SECOND, own))
        minute = last
    return records, expected


@examples(5, 60)
@given(lives, st.tuples(st.integers(0, 200), st.integers(1, 200)))
def test_each_cold_start_goes_to_the_jobs_of_its_life(
    fresh: Callable[[], Database], found: list[Life], minutes: tuple[int, int]
) -> None:
    records, expected = told(found)
    database = fresh()
    watched = Watched(database)
    watched.apply(*records)
    watched.settle()
    charged, spread = Counter[str](), Counter[str]()
    for cold, own in expected:
        charged.update({**own, min(own): own[min(own)] + cold})
        spread.update({name: own[name] + part for name, part in split_named(cold, own).items()})
    for policy, wanted in ((StartupPolicy.CHARGE_TRIGGER, charged), (StartupPolicy.AMORTISE, spread)):
        report = report_of(database, by="job", startup=policy)
        assert costs(report) == wanted
        assert "startup" not in report.view.left.get("USD", {})
    start = (T0 + minutes[0] * 60) * SECOND
    bearers = list(product((IdlePolicy.SEPARATE, IdlePolicy.WEIGHTED), StartupPolicy))
    window = Window(start, start + minutes[1] * 60 * SECOND)
    every_view_adds_up(database, window, ("model", "job", "gpu", "hour"), bearers)
