"""How reports of costs are told: for people, as JSON, as CSV."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from otel_pipeline.command_options import print_rows
from otel_pipeline.ledger.cells import csv_line
from otel_pipeline.ledger.money import NANO, formatted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline.store.ledger_report import Report
    from otel_pipeline.store.ledger_runs import Ended, JobLine
    from otel_pipeline.store.ledger_startups import Caused
    from otel_pipeline.store.ledger_views import Line

VERSION: Final = 1
NOBODY: Final = "(nobody: {})"
NO_NAME: Final = "(none)"
STARTUPS_PRINTED: Final = 3
"""The dearest ones; all that is told stands in the JSON."""
COLUMNS: Final = frozenset({"currency", "cost", "wasted", "idle", "succeeded", "failed", "other", "cost_per_job"})


def shown(found: Report, limit: int) -> list[Line]:
    """The lines, those beyond the limit as one for each currency, and what is nobody's."""
    from otel_pipeline.store.ledger_views import Line  # noqa: PLC0415  the other commands start faster without

    own = found.view.lines[:limit]
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
    return [*own, *rest.values(), *nobody]


def told(found: Report, lines: Sequence[Line]) -> dict[str, Any]:
    """The report as JSON, of the shape that docs/ledger.md tells: amounts are texts with all nine decimals, times are
    UTC, what is not known is null. What is there stays; VERSION is another one if anything of it changes its meaning.
    """
    budget, savings = found.budget, found.savings
    return {
        "version": VERSION,
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
        "lines": [_line(line, found.by) for line in lines],
        "startups": [_startup(one) for one in found.startups],
        "unpriced": {
            "gpu_seconds": formatted(found.unpriced.gpu_ns),
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


def row(line: Line, by: str) -> dict[str, Any]:
    """A line of a table or a CSV file; empty: not known."""
    return {key: "" if value is None else value for key, value in _line(line, by).items()}


def _line(line: Line, by: str) -> dict[str, Any]:
    counts: dict[str, Any] = {"succeeded": None, "failed": None, "other": None}
    average = None
    if line.jobs is not None:
        counts = _counts(line.jobs)
        ended = sum(counts.values())
        average = formatted(line.nano // ended) if ended else None
    return {
        head(by): line.name or NO_NAME,
        "currency": line.currency,
        "cost": formatted(line.nano),
        "wasted": formatted(line.wasted),
        "idle": formatted(line.idle),
        **counts,
        "cost_per_job": average,
    }


def head(by: str) -> str:
    """What the names of lines stand under: an attribute of jobs may have the name of another column."""
    return "name" if by in COLUMNS else by


def _startup(one: Caused) -> dict[str, Any]:
    return {
        "gpu": one.gpu,
        "began": _utc(one.start_ns),
        "currency": one.currency,
        "cost": formatted(one.nano),
        "caused_by": one.job or None,
    }


def _counts(jobs: Ended) -> dict[str, int]:
    return {"succeeded": jobs.succeeded, "failed": jobs.failed, "other": jobs.other}


def job(line: JobLine) -> dict[str, Any]:
    """A line of the list of jobs."""
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


def print_report(found: Report, lines: Sequence[Line]) -> None:
    """Prints the report for people."""
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
    print_rows([row(line, found.by) for line in lines], "table")
    click.echo()
    for one in found.startups[:STARTUPS_PRINTED]:
        cause = f", caused by {one.job}" if one.job else ""
        click.echo(f"cold start of {one.gpu} at {_utc(one.start_ns)}: {formatted(one.nano)} {one.currency}{cause}")
    if found.unpriced.gpu_ns:
        gpu_s = f"{found.unpriced.gpu_ns / NANO:.0f} s of GPUs ({', '.join(found.unpriced.gpu_reasons)})"
        click.echo(f"without a price: {gpu_s}, see `otel-pipeline price explain`")
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


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """A head and a line each; nothing of no rows."""
    if not rows:
        return ""
    return "".join(csv_line(cells) for cells in (rows[0], *(one.values() for one in rows)))


def _utc(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // NANO, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
