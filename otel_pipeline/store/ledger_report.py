"""A report of costs: what was paid, for what, what of it was idle or wasted, saved, over budget; and what has no price.

For commands and the API, beside a gateway. Money is n$ by currency, nothing is converted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.ledger.charge import Status
from otel_pipeline.ledger.money import NANO
from otel_pipeline.limits import COST_REASONS_MAX
from otel_pipeline.store.ledger_runs import Ended, ended, failed_for_good, succeeded_by_type, superseded
from otel_pipeline.store.ledger_startups import Caused, dearest_startups
from otel_pipeline.store.ledger_tables import AMOUNTS, CHARGE, GPU_HOUR, PERIOD, SPAN
from otel_pipeline.store.ledger_views import Idle, View, nobody, view
from otel_pipeline.store.ledger_windows import Window, booked_ns, paid, spent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline.store.database import Database
    from otel_pipeline.store.ledger_report_config import CostReportsConfig

PERIODS_NS: Final = {"1h": HOUR_NS, "24h": 24 * HOUR_NS, "7d": 168 * HOUR_NS, "30d": 720 * HOUR_NS}
PAID: Final = AMOUNTS.index("total")
UNPRICED: Final = AMOUNTS.index("unpriced_ns")


@dataclass(slots=True)
class Total:
    """n$ of one currency. paid = spent + the sum of nobody. `wasted` is of what was spent: for jobs that came to
    nothing, and (`superseded`, not within wasted) for attempts that were done again with success.
    """

    paid: int = 0
    spent: int = 0
    nobody: dict[str, int] = field(default_factory=dict)
    wasted: int = 0
    superseded: int = 0

    @property
    def idle(self) -> int:
        """All that is nobody's."""
        return sum(self.nobody.values())

    @property
    def waste_ratio(self) -> float | None:
        """The wasted part of what was spent; None if nothing was."""
        return (self.wasted + self.superseded) / self.spent if self.spent else None


@dataclass(frozen=True, slots=True)
class Budget:
    """n$ that a day (UTC) may cost, and what of it is gone; `left` may be negative."""

    day: str
    currency: str
    budget: int
    paid: int

    @property
    def left(self) -> int:
        return self.budget - self.paid


@dataclass(frozen=True, slots=True)
class Savings:
    """What the finished jobs would have cost at the reference price, and what was paid for all in that currency."""

    currency: str
    jobs: int
    reference: int
    paid: int
    without_reference: int
    """Finished jobs of types that have no reference price."""

    @property
    def saved(self) -> int:
        """Negative: the reference would have been cheaper."""
        return self.reference - self.paid


@dataclass(slots=True)
class Unpriced:
    """What has no amount: time of GPUs, and calls by basis and reason, the most frequent first. gpu_reasons: no_price,
    unknown_energy.
    """

    gpu_ns: int = 0
    calls: list[tuple[str, str, int]] = field(default_factory=list)
    gpu_reasons: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """All of it. `before` is the window of the same length that ends where this one starts."""

    window: Window
    booked_ns: int
    by: str
    totals: dict[str, Total]
    before: dict[str, Total]
    view: View
    startups: list[Caused]
    """The dearest cold starts."""
    jobs: Ended
    failed_for_good: int
    unpriced: Unpriced
    budget: Budget | None
    savings: Savings | None

    @property
    def refund_rate(self) -> float | None:
        """Jobs that failed for good among those that succeeded or did so; None if there are none."""
        known = self.jobs.succeeded + self.failed_for_good
        return self.failed_for_good / known if known else None

    def trend(self, currency: str) -> float | None:
        """How much more was paid than before, 0.5 is half as much again; None if nothing was paid before."""
        before = self.before[currency].paid if currency in self.before else 0
        now = self.totals[currency].paid if currency in self.totals else 0
        return (now - before) / before if before else None


def report(database: Database, config: CostReportsConfig, window: Window, by: str, now_ns: int) -> Report:
    """The report of a window. Raises NoSuchView, StoreError."""
    with database.read() as connection:
        found = totals(connection, window)
        jobs, by_fact = Ended(), ended(connection, window, "fact")
        for one in by_fact.values():
            jobs.add(one)
        return Report(
            window=window,
            booked_ns=booked_ns(connection),
            by=by,
            totals=found,
            before=totals(connection, window.before()),
            view=view(connection, window, by, Idle(config.idle, config.reserved, config.startup), by_fact),
            startups=dearest_startups(connection, window),
            jobs=jobs,
            failed_for_good=failed_for_good(connection, window),
            unpriced=unpriced(connection, window),
            budget=budget(connection, config, now_ns),
            savings=savings(connection, config, window, found, by_fact),
        )


def window_of(period: str, now_ns: int, booked: int) -> Window:
    """The period up to what is booked, in whole minutes: later costs are not known, and would look like a fall."""
    end = min(now_ns, booked) if booked else now_ns
    end -= end % (60 * NANO)
    return Window(end - PERIODS_NS[period], end)


def totals(connection: sa.Connection, window: Window) -> dict[str, Total]:
    """What was paid, by currency."""
    found: dict[str, Total] = {}
    for (currency,), amounts in sorted(paid(connection, window).items()):
        if currency:
            found[currency] = Total(paid=amounts[PAID], nobody=nobody(amounts))
    for (currency,), one in spent(connection, window, []).items():
        total = found.setdefault(currency, Total())
        total.spent, total.wasted = one.nano, one.wasted
    for currency, nano in superseded(connection, window).items():
        found.setdefault(currency, Total()).superseded = nano
    return found


def unpriced(connection: sa.Connection, window: Window) -> Unpriced:
    """What has no price in the window."""
    amounts = paid(connection, window).get(("",))
    question = (
        sa.select(CHARGE.c.basis, CHARGE.c.reason, sa.func.count().label("calls"))
        .join_from(CHARGE, SPAN, SPAN.c.charge == CHARGE.c.id)
        .where(CHARGE.c.status == Status.UNPRICED)
        .where((SPAN.c.end_ns >= window.start_ns) & (SPAN.c.end_ns < window.end_ns))
        .group_by(CHARGE.c.basis, CHARGE.c.reason)
        .order_by(sa.desc("calls"), CHARGE.c.reason, CHARGE.c.basis)
        .limit(COST_REASONS_MAX)
    )
    calls = [(basis, reason, count) for basis, reason, count in connection.execute(question)]
    return Unpriced(amounts[UNPRICED] if amounts else 0, calls, gpu_reasons(connection, window) if amounts else [])


def gpu_reasons(connection: sa.Connection, window: Window) -> list[str]:
    """Why there is time of GPUs without a price, as some hours tell it: to look at all would take long."""
    columns = GPU_HOUR.c
    start_ns = window.start_ns - window.start_ns % HOUR_NS
    here = (columns.hour >= start_ns) & (columns.hour < window.end_ns) & (columns.currency == "")
    hours = sa.select(columns.gpu, columns.hour).where(here & (columns.unpriced_ns > 0)).limit(COST_REASONS_MAX)
    each = hours.subquery()
    same = (PERIOD.c.gpu == each.c.gpu) & (PERIOD.c.start_ns >= each.c.hour) & (PERIOD.c.currency == "")
    same &= (PERIOD.c.start_ns < each.c.hour + HOUR_NS) & (PERIOD.c.unpriced_ns > 0)
    told = connection.execute(sa.select(PERIOD.c.price).join_from(each, PERIOD, same).distinct()).scalars()
    return sorted({reason for text in told for reason in text.split()})


def budget(connection: sa.Connection, config: CostReportsConfig, now_ns: int) -> Budget | None:
    """Of the day of now; None: there is no budget."""
    if not config.budget_nano():
        return None
    day = day_of(now_ns)
    amounts = paid(connection, day).get((config.currency,))
    name = datetime.fromtimestamp(day.start_ns // NANO, UTC).strftime("%Y-%m-%d")
    return Budget(name, config.currency, config.budget_nano(), amounts[PAID] if amounts else 0)


def day_of(now_ns: int) -> Window:
    """The day (UTC) of a time."""
    start = datetime.fromtimestamp(now_ns // NANO, UTC).replace(hour=0, minute=0, second=0)
    return Window(int(start.timestamp()) * NANO, int((start + timedelta(days=1)).timestamp()) * NANO)


def savings(
    connection: sa.Connection,
    config: CostReportsConfig,
    window: Window,
    found: Mapping[str, Total],
    by_fact: Mapping[int, Ended] | None = None,
) -> Savings | None:
    """Against the reference prices; None: there are none. `by_fact`: what ended in the window, where it is known."""
    if config.reference_price is None and not config.reference_prices:
        return None
    jobs, reference, without = 0, 0, 0
    for job_type, count in succeeded_by_type(connection, window, by_fact).items():
        price = config.reference_nano(job_type)
        if price is None:
            without += count
        else:
            jobs += count
            reference += price * count
    total = found.get(config.currency, Total())
    return Savings(config.currency, jobs, reference, total.paid, without)
