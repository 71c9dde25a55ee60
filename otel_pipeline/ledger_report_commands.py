"""The commands `ledger report`, `ledger jobs` and `ledger export`: what things cost, beside a running gateway."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from otel_pipeline import ledger_report_layouts
from otel_pipeline.command_options import (
    as_json,
    configured,
    data_dir_option,
    layout_option,
    print_rows,
    store_beside,
)
from otel_pipeline.ledger.price_rows import moment_ns
from otel_pipeline.ledger.views import IdlePolicy, StartupPolicy
from otel_pipeline.limits import COST_LINES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline.store.database import Database
    from otel_pipeline.store.ledger_windows import Window

PERIODS: Final = ("1h", "24h", "7d", "30d")
POLICIES: Final = tuple(policy.replace("_", "-") for policy in IdlePolicy)
STARTUPS: Final = tuple(policy.value for policy in StartupPolicy)


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
    lines = ledger_report_layouts.shown(found, limit)
    if layout == "json":
        click.echo(as_json(ledger_report_layouts.told(found, lines)))
    elif layout == "csv":
        click.echo(ledger_report_layouts.as_csv([ledger_report_layouts.row(line, by) for line in lines]), nl=False)
    else:
        ledger_report_layouts.print_report(found, lines)


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
            rows = [ledger_report_layouts.job(line) for line in list_jobs(connection, window, sort, limit)]
    if layout == "csv":
        click.echo(ledger_report_layouts.as_csv(rows), nl=False)
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
