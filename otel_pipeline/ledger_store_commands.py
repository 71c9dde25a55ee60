"""The commands `verify` and `reprice` of the group `ledger`, beside a running gateway."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from otel_pipeline.command_options import (
    as_json,
    configured,
    data_dir_option,
    layout_option,
    store_beside,
)
from otel_pipeline.settings import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from otel_pipeline.ledger.price_book import PriceBook
    from otel_pipeline.store.database import Database
    from otel_pipeline.store.ledger_verify import Deviation

TIMES: Final = frozenset({"start_ns", "hour"})


def moment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """ns since 1970 of a date, or of a duration ago."""
    from otel_pipeline.ledger.price_rows import moment_ns  # noqa: PLC0415  the other commands start faster without

    if value is None:
        return None
    try:
        return int((time.time() - float(str(parse_duration(value)))) * 1e9)
    except ValueError:
        pass
    try:
        return moment_ns(value)
    except ValueError as error:
        raise click.BadParameter("must be a date such as 2026-11-09, or a duration ago such as 24h") from error


_MOMENT: Final = "A date such as 2026-11-09 (UTC), or a duration ago such as 24h."


@click.command()
@click.option("--since", callback=moment, metavar="WHEN", help=f"Only hours from then on. {_MOMENT}")
@click.option("--until", callback=moment, metavar="WHEN", help="Only hours before.")
@click.option("--recompute", is_flag=True, help="Allocate all once more, too.")
@layout_option("text", "json")
@configured
@data_dir_option
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    *,
    since: int | None,
    until: int | None,
    recompute: bool,
    layout: str,
    sources: Sequence[str],
    overrides: Sequence[str],
    data_dir: Path | None,
) -> None:
    """Prove that the ledger adds up: for each GPU and minute, what spans cost and what is nobody's is what was paid.

    Names every deviation; exit code 1 if there are any. With --recompute every hour is allocated once more, at the
    prices it was booked with; where the configuration has other prices by now it is told what `ledger reprice` would
    book, which is no deviation.
    """
    from otel_pipeline.store import ledger_verify  # noqa: PLC0415  the other commands start faster without
    from otel_pipeline.store.ledger_state import read_state  # noqa: PLC0415  as above

    begin, end = ledger_verify.EVER
    window = (begin if since is None else since, end if until is None else until)
    with _store(sources, overrides, data_dir) as (database, prices):
        found = ledger_verify.verify(database, *window)
        if recompute:
            with database.read() as connection:
                state = read_state(connection)
            found.deviations += ledger_verify.recompute(database, prices, state, *window)
            found.outdated += ledger_verify.outdated(database, prices, state, *window)
        names = ledger_verify.gpu_names(database)
    told = [_told(one, names) for one in found.deviations]
    outdated = [_told(one, names) for one in found.outdated]
    if layout == "json":
        counts = {name: getattr(found, name) for name in ("periods", "spans", "bookings", "waiting", "more")}
        click.echo(as_json({**counts, "totals": _money(found.totals), "deviations": told, "outdated": outdated}))
    else:
        for one in told:
            click.echo(f"{one['kind']}: {_place(one)}: off by {one['off']}")
        for one in outdated:
            click.echo(f"other prices now: {_place(one)}: `ledger reprice` would book {one['off']}")
        totals = ", ".join(f"{amount} {currency}" for currency, amount in _money(found.totals).items())
        click.echo(
            f"{found.periods} periods, {found.spans} spans, {found.bookings} bookings, paid {totals or 'nothing'}; "
            f"{found.waiting} hours wait to be booked; "
            f"{'more than ' if found.more else ''}{len(told)} deviations"
        )
    ctx.exit(1 if told else 0)


@click.command()
@click.option("--since", callback=moment, required=True, metavar="WHEN", help=f"From when on prices changed. {_MOMENT}")
@layout_option("text", "json")
@configured
@data_dir_option
def reprice(since: int, layout: str, sources: Sequence[str], overrides: Sequence[str], data_dir: Path | None) -> None:
    """Book what a change of prices changes, as corrections; what was booked before is kept.

    The prices are those of the configuration. Restart the gateway with them first: what comes late is booked at the
    gateway's prices.
    """
    from otel_pipeline.store import ledger_reprice  # noqa: PLC0415  the other commands start faster without

    with _store(sources, overrides, data_dir) as (database, prices):
        found = ledger_reprice.reprice(database, prices, since, int(time.time() * 1000))
    if layout == "json":
        counts = {"hours": found.hours, "charges": found.charges, "kept": found.kept}
        click.echo(as_json({**counts, "changes": _money(found.changes)}))
        return
    changes = ", ".join(f"{amount} {currency}" for currency, amount in _money(found.changes).items())
    click.echo(
        f"{found.hours} hours of GPUs and {found.charges} direct charges changed, by {changes or 'nothing'}; "
        f"{found.kept} direct charges stay: they were reported, or their price needs what is not kept"
    )


@contextmanager
def _store(
    sources: Sequence[str], overrides: Sequence[str], data_dir: Path | None
) -> Iterator[tuple[Database, PriceBook]]:
    """The store of the gateway with this configuration, and its prices."""
    from otel_pipeline.store.books import prices_of  # noqa: PLC0415  as above

    with store_beside(sources, overrides, data_dir) as (database, _, config):
        users = [one.config for one in config.processors.values() if one.type == "cost"] if config else []
        yield database, prices_of(users)


def _told(one: Deviation, gpus: dict[int, str]) -> dict[str, Any]:
    """With names and times to read; ids as they stand in traces."""
    place: dict[str, Any] = {}
    for name, value in one.place.items():
        if name == "gpu":
            place[name] = gpus.get(value, value)
        elif name in TIMES:
            place[name.removesuffix("_ns")] = datetime.fromtimestamp(value / 1e9, UTC).isoformat()
        elif name == "trace_lo":
            place["trace"] = f"{one.place['trace_hi'] & (2**64 - 1):016x}{value & (2**64 - 1):016x}"
        elif name == "span":
            place[name] = f"{value & (2**64 - 1):016x}"
        elif name != "trace_hi":
            place[name] = value
    return {"kind": one.kind, **place, "off": one.nano}


def _place(told: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in told.items() if name not in {"kind", "off"})


def _money(amounts: dict[str, int]) -> dict[str, str]:
    from otel_pipeline.ledger.money import formatted  # noqa: PLC0415  as above

    return {currency: formatted(nano) for currency, nano in amounts.items()}
