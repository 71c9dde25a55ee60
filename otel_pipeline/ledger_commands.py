"""The commands `ledger` and `price`. Each reads its arguments, calls one function and prints what it says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from otel_pipeline.ledger.price_book import PriceBook, Verdict

NEAR_MISSES: Final = 10
"""Where there is no price: rows that miss by one condition, shown at most."""


@click.group()
def ledger() -> None:
    """Cost of GPUs, split among those who used them."""


@ledger.command()
@click.argument("source", type=click.File("rb"), default="-")
def allocate(source: BinaryIO) -> None:
    """Split the cost of the case in SOURCE (default: stdin), one JSON object; prints one.

    A case names a period, GPUs with their prices and billed times, and the claims of spans, in seconds and $ a second.
    """
    from otel_pipeline.ledger.case import answer  # noqa: PLC0415  the other commands start faster without
    from otel_pipeline.limits import LEDGER_CASE_BYTES_MAX  # noqa: PLC0415  as above

    found, warnings = answer(source.read(LEDGER_CASE_BYTES_MAX + 1))
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(json.dumps(found, indent=2))


@click.group()
def price() -> None:
    """What things cost."""


@price.command()
@click.option("--provider", default="", help="Such as runpod, aws, openai, gcp.gemini.")
@click.option("--model", default="", help="The model that was asked for.")
@click.option("--gpu", default="", help='The GPU as the driver names it, such as "NVIDIA H100 80GB HBM3".')
@click.option("--region", default="")
@click.option("--host", default="")
@click.option("--pod", default="")
@click.option("--attribute", "attributes", multiple=True, metavar="KEY=VALUE", help="Repeatable.")
@click.option("--basis", "bases", multiple=True, help="Only rows of this basis, such as gpu_hour. Repeatable.")
@click.option("--at", "at", default="", metavar="DATE", help="When, such as 2026-11-09. Default: now.")
@click.option(
    "--prices",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Your price file. Without one, only the shipped prices.",
)
@click.option("--format", "layout", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def explain(
    ctx: click.Context,
    /,
    *,
    attributes: Sequence[str],
    bases: Sequence[str],
    at: str,
    prices: Path | None,
    layout: str,
    **fields: str,
) -> None:
    """Tell which price holds for something, why, and which rows lost; exit code 1 if there is no price."""
    from otel_pipeline.ledger.price_book import subject  # noqa: PLC0415  the other commands start faster without
    from otel_pipeline.ledger.price_rows import Basis, moment_ns  # noqa: PLC0415  as above

    if wrong := [pair for pair in attributes if "=" not in pair]:
        raise click.BadParameter(f"{wrong[0]} is not KEY=VALUE", param_hint="--attribute")
    try:
        at_ns = moment_ns(at or datetime.now(UTC).isoformat())
        wanted = frozenset(map(Basis, bases)) or frozenset(Basis)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    asked = subject(fields, dict(pair.split("=", 1) for pair in attributes))
    book = _book(prices)
    verdicts = book.explain(asked, at_ns, wanted)
    found = book.lookup(asked, at_ns, wanted)
    shown = [one for one in verdicts if one.outcome != "no match"]
    if not found.entry:
        shown += [one for one in verdicts if one.outcome == "no match" and len(one.missed) == 1][:NEAR_MISSES]
    if layout == "json":
        click.echo(json.dumps({"reason": found.reason, "rows": [_told(one) for one in shown]}, indent=2))
    else:
        _print(shown, found.reason)
    ctx.exit(0 if found.entry else 1)


def _book(prices: Path | None) -> PriceBook:
    from otel_pipeline.ledger.price_book import PriceBook  # noqa: PLC0415  the other commands start faster without
    from otel_pipeline.ledger.price_file import read_file, shipped  # noqa: PLC0415  as above

    if prices is None:
        return PriceBook([], shipped())
    own = read_file(prices)
    return PriceBook(own.prices, shipped() if own.defaults else ())


def _told(verdict: Verdict) -> dict[str, Any]:
    """The row as a line of the answer."""
    from otel_pipeline.ledger.price_rows import day_of, told_prices  # noqa: PLC0415  as above

    row = verdict.entry.row
    return {
        "outcome": verdict.outcome,
        "id": row.id,
        "price": told_prices(row),
        "from": day_of(row.effective_from) or "always",
        "origin": verdict.entry.origin,
        "source": row.source,
        "url": row.url,
        "read": row.read.isoformat() if row.read else "",
        "why": verdict.why,
    }


def _print(verdicts: Sequence[Verdict], reason: str) -> None:
    if reason:
        click.echo(f"unknown: {reason}")
    for verdict in verdicts:
        told = _told(verdict)
        click.echo(f"{told['outcome']}: {told['id']} ({told['origin']}): {told['price']}, from {told['from']}")
        click.echo(f"    {told['why']}")
        if told["source"] and verdict.outcome == "won":
            read = f"read {told['read']}" if told["read"] else ""
            click.echo(f"    {', '.join(filter(None, (told['source'], told['url'], read)))}")
