"""The commands `ledger report`, `ledger jobs` and `ledger export`: what things cost, beside a running gateway."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from otel_pipeline.command_options import (
    as_json,
    configured,
    data_dir_option,
    layout_option,
    print_rows,
    store_beside,
)
from otel_pipeline.ledger.cells import csv_line
from otel_pipeline.ledger.money import NANO, formatted
from otel_pipeline.ledger.price_rows import moment_ns
from otel_pipeline.ledger.views import IdlePolicy, StartupPolicy
from otel_pipeline.limits import COST_LINES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline.store.database import Database
    from otel_pipeline.store.ledger_report import Report
    from otel_pipeline.store.ledger_runs import Ended, JobLine
    from otel_pipeline.store.ledger_views import Line
    from otel_pipeline.store.ledger_windows import Window

PERIODS: Final = ("1h", "24h", "7d", "30d")
NOBODY: Final = "(nobody: {})"
NO_NAME: Final = "(none)"
POLICIES: Final = tuple(policy.replace("_", "-") for policy in IdlePolicy)
STARTUPS: Final = tuple(StartupPolicy)


def _moment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    try:
        return moment_ns(value) if value else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _booking_or_moment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """Of all digits it is the number of a booking."""
    if value is None:
        return None
    if value.isdecimal():
        return "booking", int(value)
    try:
        return "time", moment_ns(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _month(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else moment_ns(f"{value}-01")
    except ValueError as error:
        raise click.BadParameter("must be a month such as 2026-12") from error


def windowed(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --period, --from and --to."""
    told = "A date or a time (UTC), such as 2026-11-09 or 2026-11-09T14:00Z."
    for option in (
        click.option("--to", "until_ns", callback=_moment, metavar="TIME", help="With --from; default: now."),
        click.option("--from", "since_ns", callback=_moment, metavar="TIME", help=f"{told} Instead of --period."),
        click.option(
            "--period",
            type=click.Choice(PERIODS),
            default="24h",
            show_default=True,
            help="So long, up to what is booked.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@windowed
@click.option(
    "--by",
    default="backend",
    show_default=True,
    help="job, backend, model, workflow, tier, user, service, gpu, provider, host, region, gpu_name, job_type, kind, "
    "outcome, attempt, hour, day, month, or an attribute of jobs that the processor cost is configured with.",
)
@click.option(
    "--idle", "policy", type=click.Choice(POLICIES), help="Who bears what nobody used. Default: as configured."
)
@click.option("--startup", type=click.Choice(STARTUPS), help="Who bears cold starts of GPUs. Default: as configured.")
@click.option("--limit", type=click.IntRange(1, COST_LINES_MAX), default=50, show_default=True, help="Lines.")
@layout_option("table", "json", "csv")
@configured
@data_dir_option
def report(by: str, policy: str | None, startup: str | None, limit: int, layout: str, **options: Any) -> None:
    """Tell what was paid, for what, what of it was idle or wasted, and what has no price."""
    from otel_pipeline.store import ledger_report  # noqa: PLC0415  the other commands start faster without
    from otel_pipeline.store.ledger_views import NoSuchView  # noqa: PLC0415  as above

    with store_beside(*_place(options)) as (database, settings, _):
        config = settings.cost_reports
        if policy is not None:
            config = config.model_copy(update={"idle": IdlePolicy(policy.replace("-", "_"))})
        if startup is not None:
            config = config.model_copy(update={"startup": StartupPolicy(startup)})
        now_ns = time.time_ns()
        try:
            found = ledger_report.report(database, config, _window(database, options, now_ns), by, now_ns)
        except NoSuchView as error:
            raise click.ClickException(str(error)) from error
    lines = _lines(found, limit)
    if layout == "json":
        click.echo(as_json(told(found, lines)))
    elif layout == "csv":
        click.echo(_csv([_row(line, by) for line in lines]), nl=False)
    else:
        _print(found, lines, by)


@click.command()
@windowed
@click.option("--sort", type=click.Choice(("cost", "last", "duration")), default="cost", show_default=True)
@click.option("--limit", type=click.IntRange(1, COST_LINES_MAX), default=50, show_default=True)
@layout_option("table", "json", "csv")
@configured
@data_dir_option
def jobs(sort: str, limit: int, layout: str, **options: Any) -> None:
    """List jobs that ended, with what they cost over all attempts; empty: nothing is booked yet, or has a price."""
    from otel_pipeline.store.ledger_runs import list_jobs  # noqa: PLC0415  the other commands start faster without

    with store_beside(*_place(options)) as (database, _, _):
        window = _window(database, options, time.time_ns(), jobs=True)
        with database.read() as connection:
            rows = [_job(line) for line in list_jobs(connection, window, sort, limit)]
    if layout == "csv":
        click.echo(_csv(rows), nl=False)
    else:
        print_rows(rows, layout)


@click.command()
@click.option("--format", type=click.Choice(("focus",)), default="focus", show_default=True, expose_value=False)
@click.option("--from", "since_ns", callback=_moment, metavar="TIME", required=True, help="Such as 2026-11-01 (UTC).")
@click.option("--to", "until_ns", callback=_moment, metavar="TIME", required=True, help="The first that is left out.")
@click.option(
    "--grain", type=click.Choice(("span", "job", "gpu")), default="job", show_default=True, help="A row each."
)
@click.option("--account", default="default", show_default=True, help="BillingAccountId.")
@click.option(
    "--corrections-since",
    "since",
    callback=_booking_or_moment,
    metavar="BOOKING|TIME",
    help="Only what must be added to an earlier file of these hours: the booking that it was written up to, as this "
    "command told then, or when that was.",
)
@click.option(
    "--billing-period",
    "billing_ns",
    callback=_month,
    metavar="MONTH",
    help="In which corrections are billed, such as 2026-12. Default: this month.",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The CSV file.")
@configured
@data_dir_option
def export(grain: str, account: str, output: Path, **options: Any) -> None:
    """Write what was booked as a FOCUS file (1.2, with the split-cost columns of 1.3). It is checked before it is
    there: a mistake is told, and no file written.
    """
    from otel_pipeline.store import ledger_focus  # noqa: PLC0415  as above
    from otel_pipeline.store.ledger_windows import Window  # noqa: PLC0415  as above

    since, billing_ns = options["since"], options["billing_ns"]
    if options["since_ns"] >= options["until_ns"]:
        raise click.UsageError("--from must be before --to")
    if since is None and billing_ns is not None:
        raise click.UsageError("--billing-period needs --corrections-since")
    window = Window(options["since_ns"], options["until_ns"])
    with store_beside(*_place(options)) as (database, _, _):
        try:
            if since is None:
                told = ledger_focus.write_file(database, output, window, grain, account)
            else:
                kind, number = since
                booking = number if kind == "booking" else ledger_focus.booking_at(database, number)
                month = time.time_ns() if billing_ns is None else billing_ns
                told = ledger_focus.write_corrections(database, output, window, grain, account, booking, month)
        except ledger_focus.FocusMistakes as error:
            for mistake in error.mistakes[:20]:
                click.echo(mistake, err=True)
            raise click.ClickException(
                f"the file would have {len(error.mistakes)} mistakes; nothing written"
            ) from error
        except OSError as error:
            raise click.ClickException(f"cannot write {output}: {error.strerror}") from error
    click.echo(f"{told.rows} rows in {output}, up to booking {told.booking}")


# -- what is asked for -------------------------------------------------------------------------------------------------


def _place(options: dict[str, Any]) -> tuple[Sequence[str], Sequence[str], Path | None]:
    """Which store is meant."""
    return options["sources"], options["overrides"], options["data_dir"]


def _window(database: Database, options: dict[str, Any], now_ns: int, *, jobs: bool = False) -> Window:
    """Jobs are told that ended until now, costs until they are booked."""
    from otel_pipeline.store.ledger_report import window_of  # noqa: PLC0415  as above
    from otel_pipeline.store.ledger_windows import Window, booked_ns  # noqa: PLC0415  as above

    since_ns, until_ns = options["since_ns"], options["until_ns"]
    if since_ns is None:
        if until_ns is not None:
            raise click.UsageError("--to needs --from")
        if jobs:
            return window_of(options["period"], now_ns, 0)
        with database.read() as connection:
            return window_of(options["period"], now_ns, booked_ns(connection))
    until_ns = now_ns if until_ns is None else until_ns
    if since_ns >= until_ns:
        raise click.UsageError("--from must be before --to")
    return Window(since_ns, until_ns)


# -- what is told ------------------------------------------------------------------------------------------------------


def _lines(found: Report, limit: int) -> list[Line]:
    """The lines, those beyond the limit as one for each currency, and what is nobody's."""
    from otel_pipeline.store.ledger_views import Line  # noqa: PLC0415  as above

    shown = found.view.lines[:limit]
    rest: dict[str, Line] = {}
    for line in found.view.lines[limit:]:
        one = rest.setdefault(line.currency, Line("(others)", line.currency))
        one.nano += line.nano
        one.wasted += line.wasted
        one.idle += line.idle
    nobody = [
        Line(NOBODY.format(bucket), currency, nano)
        for currency, buckets in sorted(found.view.left.items())
        for bucket, nano in buckets.items()
    ]
    return [*shown, *rest.values(), *nobody]


def told(found: Report, lines: Sequence[Line]) -> dict[str, Any]:
    """The report as JSON: amounts are texts with all nine decimals, times are UTC."""
    budget, savings = found.budget, found.savings
    return {
        "from": _utc(found.window.start_ns),
        "to": _utc(found.window.end_ns),
        "booked_until": _utc(found.booked_ns),
        "totals": [
            {
                "currency": currency,
                "paid": formatted(total.paid),
                "spent": formatted(total.spent),
                "nobody": {name: formatted(nano) for name, nano in total.nobody.items()},
                "wasted": formatted(total.wasted),
                "superseded": formatted(total.superseded),
                "waste_ratio": total.waste_ratio,
                "paid_before": formatted(found.before[currency].paid if currency in found.before else 0),
                "trend": found.trend(currency),
            }
            for currency, total in found.totals.items()
        ],
        "jobs": _counts(found.jobs) | {"failed_for_good": found.failed_for_good, "refund_rate": found.refund_rate},
        "by": found.by,
        "lines": [_row(line, found.by) for line in lines],
        "unpriced": {
            "gpu_seconds": found.unpriced.gpu_ns / NANO,
            "calls": [
                {"basis": basis, "reason": reason, "calls": count} for basis, reason, count in found.unpriced.calls
            ],
        },
        "budget": budget
        and {
            "day": budget.day,
            "currency": budget.currency,
            "budget": formatted(budget.budget),
            "paid": formatted(budget.paid),
            "left": formatted(budget.left),
        },
        "savings": savings
        and {
            "currency": savings.currency,
            "jobs": savings.jobs,
            "reference": formatted(savings.reference),
            "paid": formatted(savings.paid),
            "saved": formatted(savings.saved),
            "jobs_without_reference": savings.without_reference,
        },
    }


def _row(line: Line, by: str) -> dict[str, Any]:
    counts: dict[str, Any] = {"succeeded": "", "failed": "", "other": ""}
    average = ""
    if line.jobs is not None:
        counts = _counts(line.jobs)
        ended = sum(counts.values())
        average = formatted(line.nano // ended) if ended else ""
    return {
        by: line.name or NO_NAME,
        "currency": line.currency,
        "cost": formatted(line.nano),
        "wasted": formatted(line.wasted),
        "idle": formatted(line.idle),
        **counts,
        "cost_per_job": average,
    }


def _counts(jobs: Ended) -> dict[str, int]:
    return {"succeeded": jobs.succeeded, "failed": jobs.failed, "other": jobs.other}


def _job(line: JobLine) -> dict[str, Any]:
    return {
        "job": line.job,
        "type": line.job_type,
        "user": line.user,
        "backend": line.backend,
        "workflow": line.workflow,
        "attempts": line.attempts,
        "outcome": line.outcome,
        "ended": _utc(line.last_ns),
        "seconds": round((line.last_ns - line.first_ns) / NANO, 3),
        "cost": "" if line.nano is None else formatted(line.nano),
        "wasted": "" if line.nano is None else formatted(line.wasted),
        "currency": line.currency,
    }


def _print(found: Report, lines: Sequence[Line], by: str) -> None:
    click.echo(f"{_utc(found.window.start_ns)} to {_utc(found.window.end_ns)}")
    if found.booked_ns < found.window.end_ns:
        click.echo(f"booked until {_utc(found.booked_ns)}: later costs are not in it yet")
    for currency, total in found.totals.items():
        trend, ratio = found.trend(currency), total.waste_ratio
        click.echo(
            f"paid {formatted(total.paid)} {currency}"
            + (f" ({trend:+.1%} to the period before)" if trend is not None else "")
            + f", used {formatted(total.spent)}, nobody's {formatted(total.idle)}"
            + (f", wasted {formatted(total.wasted + total.superseded)} ({ratio:.1%})" if ratio is not None else "")
        )
    ended, rate = found.jobs, found.refund_rate
    click.echo(
        f"jobs: {ended.succeeded} succeeded, {ended.failed} failed, {ended.other} other"
        + (f"; refund rate {rate:.1%}" if rate is not None else "")
    )
    click.echo()
    print_rows([_row(line, by) for line in lines], "table")
    click.echo()
    if found.unpriced.gpu_ns:
        click.echo(f"without a price: {found.unpriced.gpu_ns / NANO:.0f} s of GPUs, see `otel-pipeline price explain`")
    for basis, reason, count in found.unpriced.calls:
        click.echo(f"without a price: {count} calls ({basis + ', ' if basis else ''}{reason})")
    if (budget := found.budget) is not None:
        over = "over the budget" if budget.left < 0 else "left"
        click.echo(
            f"{budget.day}: {formatted(budget.paid)} of {formatted(budget.budget)} {budget.currency}, "
            f"{formatted(abs(budget.left))} {over}"
        )
    if (savings := found.savings) is not None:
        click.echo(
            f"saved {formatted(savings.saved)} {savings.currency}: {savings.jobs} jobs would have cost "
            f"{formatted(savings.reference)} at the reference price"
        )


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return ""
    return "".join(csv_line(cells) for cells in (rows[0], *(row.values() for row in rows)))


def _utc(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // NANO, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
