"""What every view of a ledger must obey, whatever the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import sqlalchemy as sa

from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.ledger.views import IdlePolicy, StartupPolicy
from otel_pipeline.store.database import Database
from otel_pipeline.store.ledger_focus import write_file
from otel_pipeline.store.ledger_report import Report, report, window_of
from otel_pipeline.store.ledger_report_config import CostReportsConfig
from otel_pipeline.store.ledger_runs import Ended, list_jobs
from otel_pipeline.store.ledger_startups import startups
from otel_pipeline.store.ledger_sums import BY_JOB, SUM
from otel_pipeline.store.ledger_tables import AMOUNTS
from otel_pipeline.store.ledger_verify import verify
from otel_pipeline.store.ledger_views import VIEWS, Idle, attributes, view
from otel_pipeline.store.ledger_windows import Window, booked_ns, paid, spent
from tests.support.ledger_laws import Watched
from tests.support.ledger_records import GPU, HOST, NAME, SECOND, T0, One, price, prices, record

NOW_NS = (T0 + 86_400) * SECOND
DAY = Window(T0 * SECOND, NOW_NS)
MINUTE_NS = 60 * SECOND
GRAINS: Final = ("span", "job", "gpu")


def report_of(database: Database, by: str = "model", window: Window = DAY, **settings: object) -> Report:
    return report(database, CostReportsConfig.model_validate(settings), window, by, NOW_NS - SECOND)


def costs(found: Report) -> dict[str, int]:
    """n$ by name, in one currency."""
    return {line.name: line.nano for line in found.view.lines}


FEW: Final = ("model", "user", "job", "gpu", "hour")
BEARERS: Final = (
    (IdlePolicy.SEPARATE, StartupPolicy.SEPARATE),
    (IdlePolicy.SEPARATE, StartupPolicy.AMORTISE),
    (IdlePolicy.WEIGHTED, StartupPolicy.CHARGE_TRIGGER),
    (IdlePolicy.TENANT_RESERVED, StartupPolicy.AMORTISE),
)
"""Some of those that may bear idle and cold starts."""


def every_view_adds_up(
    database: Database,
    window: Window = DAY,
    views: Sequence[str] | None = None,
    bearers: Sequence[tuple[IdlePolicy, StartupPolicy]] | None = None,
) -> None:
    """Lines and what is left are what was paid, whatever the view and whoever bears idle and cold starts."""
    with database.read() as connection:
        wanted = {key[0]: sums[0] for key, sums in paid(connection, window).items() if key[0]}
        used = {key[0]: one.nano for key, one in spent(connection, window, []).items()}
        cold = sum(sums[AMOUNTS.index("startup")] for sums in paid(connection, window).values())
        assert sum(one.nano for one in startups(connection, window)) == cold
        for by, (policy, startup) in product((*(views or FEW), *attributes(connection)), bearers or BEARERS):
            found = view(connection, window, by, Idle(policy, {GPU: "acme"}, startup))
            sums: dict[str, int] = defaultdict(int)
            for line in found.lines:
                sums[line.currency] += line.nano + line.idle
            for currency, left in found.left.items():
                sums[currency] += sum(left.values())
            assert {key: nano for key, nano in sums.items() if nano} == {
                key: nano for key, nano in wanted.items() if nano
            }, (by, policy, startup)
            if policy is IdlePolicy.SEPARATE and startup is StartupPolicy.SEPARATE:
                assert sum(line.nano for line in found.lines) == sum(used.values()), by


def every_file_adds_up(database: Database, window: Window = DAY) -> None:
    """FOCUS files of each grain pass the check, which knows what was paid."""
    with TemporaryDirectory() as directory:
        for grain in GRAINS:
            write_file(database, Path(directory, grain), window, grain, "account")


def platform() -> bytes:
    """Two jobs on one GPU, V2 with a retry: A fails, is tried again; B; a call in another currency; idle."""
    call = {"gpus": (), "kind": "call", "nano": 640_000_000, "model": "veo"}
    return record(
        One(1, 0, 12, kind="job", job="A", user="u", outcome="failed", model="flux", dimensions=(("length", "short"),)),
        One(2, 3600, 3630, kind="job", job="A", user="u", attempt=2, outcome="completed", model="flux", trace=2),
        One(3, 3620, 3650, kind="job", job="B", user="v", outcome="completed", model="wan", backend="pod", trace=3),
        One(4, 3640, 3645, trace=3, parent=3, currency="EUR", **call),  # type: ignore[arg-type]
        seen={GPU: (0, 119)},
    )


def filled(database: Database) -> Watched:
    watched = Watched(database)
    watched.apply(platform())
    watched.settle()
    return watched


def costs_are_told_by_model(database: Database) -> None:
    filled(database)
    found = report_of(database)
    dollars = {line.name: line.nano for line in found.view.lines if line.currency == "USD"}
    assert dollars == {"flux": 12_000_000 + 25_000_000, "wan": 25_000_000}
    assert [(line.name, line.nano) for line in found.view.lines if line.currency == "EUR"] == [("veo", 640_000_000)]
    assert found.totals["USD"].paid == 7_200_000_000
    assert found.totals["USD"].idle == 7_200_000_000 - 62_000_000
    every_view_adds_up(database)
    every_file_adds_up(database)


def jobs_are_counted_where_they_belong(database: Database) -> None:
    filled(database)
    found = report_of(database)
    counts = {(line.name, line.currency): line.jobs for line in found.view.lines}
    flux, wan = counts["flux", "USD"], counts["wan", "USD"]
    assert flux is not None
    assert (flux.succeeded, flux.failed) == (1, 1)
    assert wan is not None
    assert (wan.succeeded, wan.failed) == (1, 0)
    assert (found.jobs.succeeded, found.jobs.failed, found.failed_for_good) == (2, 1, 0)
    assert found.refund_rate == 0


def a_failed_attempt_is_waste(database: Database) -> None:
    filled(database)
    total = report_of(database).totals["USD"]
    assert (total.wasted, total.superseded) == (12_000_000, 0)
    assert total.waste_ratio == 12 / 62


def an_attempt_that_was_done_again_is_waste(database: Database) -> None:
    watched = Watched(database)
    lost = One(2, 1, 11, parent=1, job="A")
    again = One(3, 20, 50, kind="job", job="A", attempt=2, outcome="completed", trace=2)
    watched.apply(record(lost, again, seen={GPU: (0, 9)}))
    watched.settle()
    total = report_of(database).totals["USD"]
    assert (total.spent, total.wasted, total.superseded) == (40_000_000, 0, 10_000_000)


def a_job_that_fails_for_good_is_refunded(database: Database) -> None:
    watched = Watched(database)
    watched.apply(
        record(
            One(1, 0, 10, kind="job", job="A", outcome="failed"),
            One(2, 20, 30, kind="job", job="A", attempt=2, outcome="lost", trace=2),
            One(3, 40, 50, kind="job", job="B", outcome="completed", trace=3),
            One(4, 40, 50, kind="job", job="C", outcome="cancelled", trace=4),
            seen={GPU: (0, 9)},
        )
    )
    watched.settle()
    found = report_of(database)
    assert (found.failed_for_good, found.refund_rate) == (1, 0.5)
    assert (found.jobs.failed, found.jobs.other) == (2, 1)


def jobs_are_listed_by_cost(database: Database) -> None:
    filled(database)
    with database.read() as connection:
        lines = list_jobs(connection, DAY, "cost", 10)
        latest = list_jobs(connection, DAY, "last", 1)
    told = [(line.job, line.currency, line.nano, line.wasted, line.attempts, line.outcome) for line in lines]
    assert told == [
        ("B", "EUR", 640_000_000, 0, 1, "completed"),
        ("B", "USD", 25_000_000, 0, 1, "completed"),
        ("A", "USD", 37_000_000, 12_000_000, 2, "completed"),
    ]
    assert [(line.job, line.currency) for line in latest] == [("B", "EUR"), ("B", "USD")]


def a_window_is_exact_to_the_minute(database: Database) -> None:
    filled(database)
    window = Window((T0 + 1800) * SECOND, (T0 + 3660) * SECOND)
    found = report_of(database, window=window)
    assert found.totals["USD"].paid == 1_860_000_000
    assert costs(found) == {"flux": 25_000_000, "wan": 25_000_000, "veo": 640_000_000}
    every_view_adds_up(database, window)


def a_period_ends_with_what_is_booked(database: Database) -> None:
    filled(database)
    with database.read() as connection:
        booked = booked_ns(connection)
    window = window_of("1h", NOW_NS, (T0 + 7000) * SECOND)
    assert window == Window((T0 + 6960 - 3600) * SECOND, (T0 + 6960) * SECOND)
    assert booked % MINUTE_NS == 0
    assert window_of("24h", NOW_NS, 0).end_ns == NOW_NS


def the_trend_is_to_the_period_before(database: Database) -> None:
    filled(database)
    window = Window((T0 + 3600) * SECOND, (T0 + 7200) * SECOND)
    found = report_of(database, window=window)
    assert found.trend("USD") == 0
    assert found.before["USD"].spent == 12_000_000
    assert report_of(database).trend("USD") is None


def idle_is_borne_as_asked(database: Database) -> None:
    """Vector V11: each in proportion."""
    watched = Watched(database)
    watched.apply(
        record(One(1, 0, 30, model="a"), One(2, 20, 50, model="b", trace=2), seen={GPU: (0, 0), "GPU-1": (0, 0)})
    )
    watched.settle()
    weighted = report_of(database, idle="weighted", window=Window(T0 * SECOND, (T0 + 60) * SECOND)).view
    assert {line.name: line.nano for line in weighted.lines} == {"a": 30_000_000, "b": 30_000_000}
    assert weighted.left == {"USD": {"idle": 60_000_000}}  # nobody used the other GPU
    reserved = report_of(database, idle="tenant_reserved", reserved={"GPU-1": "acme"}).view
    assert {line.name: line.nano for line in reserved.lines}["acme"] == 60_000_000
    assert {line.name: line.idle for line in report_of(database, by="gpu").view.lines} == {
        GPU: 10_000_000,
        "GPU-1": 60_000_000,
    }


def cold(database: Database, **options: float) -> Watched:
    """A GPU that starts twice: for job A, two minutes, then B runs, too; for job C, one minute."""
    watched = Watched(database, **options)
    watched.now_s = T0 + 20_000.0
    watched.apply(
        record(
            One(1, 120, 180, kind="job", job="A", user="u", outcome="completed", model="flux"),
            One(2, 130, 180, parent=1, model="flux"),
            One(3, 200, 260, kind="job", job="B", user="v", outcome="failed", model="wan", trace=2),
            One(4, 1860, 1890, kind="job", job="C", user="v", outcome="completed", model="wan", trace=3),
            seen={GPU: (0, 9)},
        ),
        record(seen={GPU: (30, 39)}),
    )
    watched.settle()
    return watched


def a_cold_start_is_borne_as_asked(database: Database) -> None:
    cold(database)
    kept = {"flux": 60_000_000, "wan": 90_000_000}
    separate = report_of(database, idle="weighted").view
    assert separate.left == {"USD": {"startup": 180_000_000}}
    assert costs(report_of(database)) == kept
    charged = report_of(database, startup="charge_trigger")
    assert costs(charged) == {"flux": 60_000_000 + 120_000_000, "wan": 90_000_000 + 60_000_000}
    assert charged.view.left == {"USD": {"idle": 20_000_000, "tail": 850_000_000}}
    assert costs(report_of(database, by="user", startup="charge_trigger")) == {"u": 180_000_000, "v": 150_000_000}
    spread = report_of(database, by="job", startup="amortise")
    assert costs(spread) == {"A": 120_000_000, "B": 120_000_000, "C": 90_000_000}
    assert spread.totals == report_of(database).totals
    by_gpu = report_of(database, by="gpu", startup="amortise").view
    assert [(line.nano, line.idle) for line in by_gpu.lines] == [(330_000_000, 870_000_000)]


def every_view_adds_up_whoever_bears_what_nobody_used(database: Database) -> None:
    cold(database)
    every_view_adds_up(database, DAY, VIEWS, tuple(product(IdlePolicy, StartupPolicy)))


def a_cold_start_names_its_cause(database: Database) -> None:
    cold(database)
    told = [(one.gpu, one.start_ns - T0 * SECOND, one.nano, one.job) for one in report_of(database).startups]
    assert told == [(GPU, 0, 120_000_000, "A"), (GPU, 1800 * SECOND, 60_000_000, "C")]


def a_cold_start_that_is_cut_is_borne_in_part(database: Database) -> None:
    """The job that caused it ends after the window; what ran on the GPU within it is nobody."""
    cold(database)
    window = Window((T0 + 60) * SECOND, (T0 + 120) * SECOND)
    charged = report_of(database, by="job", startup="charge_trigger", window=window)
    assert (costs(charged), charged.view.left) == ({"A": 60_000_000}, {})
    spread = report_of(database, by="job", startup="amortise", window=window)
    assert (costs(spread), spread.view.left) == ({}, {"USD": {"startup": 60_000_000}})


def cold_starts_of_a_compacted_hour_go_to_the_job_that_began_first(database: Database) -> None:
    """Spans are forgotten, and the hour is all that is known."""
    watched = cold(database, retention_s=2 * 86_400)
    assert watched.counts["compacted"]
    charged = report_of(database, by="job", startup="charge_trigger")
    assert costs(charged) == {"A": 60_000_000 + 180_000_000, "B": 60_000_000, "C": 30_000_000}
    every_view_adds_up(database)


def what_has_no_price_is_told(database: Database) -> None:
    watched = Watched(database, prices(price(since=60)))
    watched.apply(record(One(1, 0, 120), seen={GPU: (0, 9)}))
    watched.settle()
    assert report_of(database).unpriced.gpu_ns == 60 * SECOND
    every_view_adds_up(database)


def budget_and_savings(database: Database) -> None:
    watched = Watched(database)
    watched.apply(platform())
    watched.settle()
    found = report_of(database, daily_budget="5", reference_price="0.08")
    assert found.budget is not None
    assert found.savings is not None
    assert found.budget.left == 5_000_000_000 - 7_200_000_000
    assert (found.savings.jobs, found.savings.reference) == (2, 160_000_000)
    assert found.savings.saved == 160_000_000 - 7_200_000_000
    by_type = report_of(database, daily_budget="0", reference_prices={"image": 0.01})
    assert by_type.budget is None
    assert by_type.savings is not None
    assert (by_type.savings.jobs, by_type.savings.without_reference) == (0, 2)


def an_attribute_of_jobs_is_a_view(database: Database) -> None:
    filled(database)
    found = report_of(database, by="length")
    dollars = {line.name: line.nano for line in found.view.lines if line.currency == "USD"}
    assert dollars == {"short": 12_000_000, "": 50_000_000}


def costs_are_told_by_all_that_a_job_says(database: Database) -> None:
    """Below the job a stage that says nothing: what it costs is the job's."""
    watched = Watched(database)
    job = One(
        1, 0, 10, kind="job", job="A", user="u-1", outcome="ok", model="flux", backend="pod-1", workflow="portrait",
        tier="pro", dimensions=(("video.length_bucket", "30-60 s"),),
    )  # fmt: skip
    watched.apply(
        record(job, One(2, 2, 10, parent=1), One(3, 60, 70, kind="job", job="B", trace=2), seen={GPU: (0, 9)})
    )
    watched.settle()
    said = {
        "job": "A", "backend": "pod-1", "model": "flux", "workflow": "portrait", "tier": "pro", "user": "u-1",
        "video.length_bucket": "30-60 s", "outcome": "ok", "service": "worker", "host": HOST, "gpu_name": NAME,
    }  # fmt: skip
    for by, name in said.items():
        found = {line.name: line.nano for line in report_of(database, by=by).view.lines}
        shared = by in {"service", "host", "gpu_name"}
        assert found[name] == (20_000_000 if shared else 10_000_000), by
    (line,) = (line for line in report_of(database, by="video.length_bucket").view.lines if line.name == "30-60 s")
    assert line.jobs == Ended(succeeded=1)


def days_and_months_have_a_line_each(database: Database) -> None:
    watched = Watched(database)
    later = 20 * 86_400
    watched.now_s = T0 + 3 * later
    watched.apply(record(One(1, 0, 10, job="A", kind="job"), seen={GPU: (0, 0)}))
    watched.apply(
        record(One(2, later, later + 30, job="B", kind="job", trace=2), seen={GPU: (later // 60, later // 60)})
    )
    watched.settle()
    window = Window(DAY.start_ns, DAY.start_ns + 2 * later * SECOND)
    for by, names in {"day": ["2027-01-15", "2027-02-04"], "month": ["2027-01", "2027-02"]}.items():
        lines = report_of(database, by=by, window=window).view.lines
        assert [(line.name, line.nano, line.idle) for line in lines] == [
            (names[0], 10_000_000, 50_000_000),
            (names[1], 30_000_000, 30_000_000),
        ]


def times_are_in_order(database: Database) -> None:
    filled(database)
    lines = [line for line in report_of(database, by="hour").view.lines if line.currency == "USD"]
    assert [line.nano + line.idle for line in lines] == [3_600_000_000, 3_600_000_000]
    assert lines[0].name < lines[1].name
    assert lines[0].jobs is not None
    assert lines[0].jobs.failed == 1


def compaction_changes_no_view_of_whole_hours(database: Database) -> None:
    watched = Watched(database, retention_s=2 * 86_400)
    watched.now_s = T0 + 20_000.0
    watched.apply(platform())
    watched.settle()
    window = Window(DAY.start_ns, DAY.start_ns + 2 * HOUR_NS)
    before = [report_of(database, by, window).view for by in ("model", "job", "user", "hour")]
    watched.settle()
    assert watched.counts["compacted"]
    assert [report_of(database, by, window).view for by in ("model", "job", "user", "hour")] == before
    every_view_adds_up(database)
    every_file_adds_up(database)


def sums_that_were_tampered_with_are_named(database: Database) -> None:
    filled(database)
    assert verify(database).deviations == []
    for column in ("nano", "wasted"):
        with database.write() as connection:
            connection.execute(sa.update(SUM).where(SUM.c.what == BY_JOB).values({column: SUM.c[column] + 1}))
        (kind,) = {one.kind for one in verify(database).deviations}
        assert kind == "sum"
        with database.write() as connection:
            connection.execute(sa.update(SUM).where(SUM.c.what == BY_JOB).values({column: SUM.c[column] - 1}))


LAWS: Sequence[Callable[[Database], None]] = (
    costs_are_told_by_model,
    jobs_are_counted_where_they_belong,
    a_failed_attempt_is_waste,
    an_attempt_that_was_done_again_is_waste,
    a_job_that_fails_for_good_is_refunded,
    jobs_are_listed_by_cost,
    a_window_is_exact_to_the_minute,
    a_period_ends_with_what_is_booked,
    the_trend_is_to_the_period_before,
    idle_is_borne_as_asked,
    a_cold_start_is_borne_as_asked,
    every_view_adds_up_whoever_bears_what_nobody_used,
    a_cold_start_names_its_cause,
    a_cold_start_that_is_cut_is_borne_in_part,
    cold_starts_of_a_compacted_hour_go_to_the_job_that_began_first,
    what_has_no_price_is_told,
    budget_and_savings,
    an_attribute_of_jobs_is_a_view,
    costs_are_told_by_all_that_a_job_says,
    days_and_months_have_a_line_each,
    times_are_in_order,
    sums_that_were_tampered_with_are_named,
    compaction_changes_no_view_of_whole_hours,
)
