"""FOCUS files of the ledger: what was booked in a window, or what has changed of that since an earlier file.

What is written adds up to what the ledger says was paid, currency by currency: that is checked, with all else, before
the file is there.
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from otel_pipeline.ledger import focus
from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.ledger.focus_check import mistakes
from otel_pipeline.ledger.focus_columns import COLUMNS
from otel_pipeline.ledger.money import NANO, formatted
from otel_pipeline.limits import FOCUS_ROWS_MAX
from otel_pipeline.store.ledger_focus_rows import FocusRows
from otel_pipeline.store.ledger_tables import BOOKING, PERIOD
from otel_pipeline.store.ledger_windows import Window, paid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otel_pipeline.store.database import Database

UNKNOWN: Final = (
    "what was booked until booking {} is not known any more for hours before {}: they are compacted "
    "(store.ledger.retention). Export them whole again"
)
OPEN: Final = (
    "the window reaches into {}, the month in which the corrections are billed: in an open billing period FOCUS knows "
    "none, export it whole again"
)


class FocusMistakes(Exception):
    """The file would be wrong."""

    def __init__(self, found: list[str]) -> None:
        super().__init__(f"{len(found)} mistakes")
        self.mistakes = found


@dataclass(frozen=True, slots=True)
class Written:
    """A file: how many rows it has, and the last booking in it."""

    rows: int
    booking: int


def write_file(database: Database, path: Path, window: Window, grain: str, account: str) -> Written:
    """Writes the rows of whole hours. Raises FocusMistakes, OSError, StoreError."""
    _whole_hours(window)
    with database.read() as connection:
        records = FocusRows(connection, window, grain, account).records()
        expected = {key[0]: amounts[0] for key, amounts in paid(connection, window).items() if key[0]}
        return Written(_write(records, path, expected), _last_booking(connection))


def write_corrections(  # noqa: PLR0917  the first five are those of write_file
    database: Database, path: Path, window: Window, grain: str, account: str, since: int, billing_ns: int
) -> Written:
    """Writes what must be added to the file of these hours that was written when `since` was the last booking, as
    corrections that are billed in the month of `billing_ns`. Raises FocusMistakes, OSError, StoreError.
    """
    _whole_hours(window)
    if window.end_ns > focus.month_ns(billing_ns):
        raise FocusMistakes([OPEN.format(_hour(focus.month_ns(billing_ns))[:7])])
    with database.read() as connection:
        _require_known(connection, window, since)
        before = FocusRows(connection, window, grain, account, since)
        after = FocusRows(connection, window, grain, account)
        records = (
            record
            for block in _changed(connection, window, since)
            for record in focus.corrected(before.block(*block), after.block(*block), billing_ns)
        )
        return Written(_write(records, path, _changes(connection, window, since)), _last_booking(connection))


def booking_at(database: Database, at_ns: int) -> int:
    """The last booking at a time; 0: there was none."""
    with database.read() as connection:
        wanted = sa.select(sa.func.max(BOOKING.c.id)).where(BOOKING.c.at_ms <= at_ns // 1_000_000)
        return connection.execute(wanted).scalar() or 0


def _last_booking(connection: sa.Connection) -> int:
    return connection.execute(sa.select(sa.func.max(BOOKING.c.id))).scalar() or 0


def _whole_hours(window: Window) -> None:
    if window.start_ns % HOUR_NS or window.end_ns % HOUR_NS:
        raise FocusMistakes(["the window must begin and end with an hour (UTC): rows are by hour"])


# -- the file ----------------------------------------------------------------------------------------------------------


def _write(records: Iterator[focus.Record], path: Path, expected: dict[str, int]) -> int:
    """Writes and checks; how many rows. `expected`: n$ that they add up to, by currency."""
    beside = path.with_name(f"{path.name}.part")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            count = focus.write(_bounded(records), file)
        found = _wrong(beside, expected)
        if found:
            raise FocusMistakes(found)
        os.replace(beside, path)  # noqa: PTH105  the same, and names both
    finally:
        beside.unlink(missing_ok=True)
    return count


def _bounded(records: Iterator[focus.Record]) -> Iterator[focus.Record]:
    for number, record in enumerate(records, 1):
        if number > FOCUS_ROWS_MAX:
            raise FocusMistakes([f"there are more than {FOCUS_ROWS_MAX} rows: export a shorter time, or --grain job"])
        yield record


def _wrong(path: Path, expected: dict[str, int]) -> list[str]:
    """Mistakes of the file as it was written; n$ that it should add up to, by currency."""
    sums: dict[str, int] = defaultdict(int)

    def counted(rows: Iterator[dict[str, str]]) -> Iterator[dict[str, str]]:
        for row in rows:
            sums[row["BillingCurrency"]] += int(row["BilledCost"].replace(".", ""))
            yield row

    with path.open(encoding="utf-8", newline="") as file:
        found = mistakes(COLUMNS, counted(csv.DictReader(file)))
    if not found:
        found = [
            f"{currency}: BilledCost adds up to {formatted(sums[currency])}, the ledger says {formatted(nano)}"
            for currency, nano in expected.items()
            if sums[currency] != nano
        ]
    return found


# -- what changed ------------------------------------------------------------------------------------------------------


def _later(window: Window, since: int) -> sa.ColumnElement[bool]:
    """Periods of the window that were booked after the booking."""
    columns = PERIOD.c
    return (columns.booking > since) & (columns.start_ns >= window.start_ns) & (columns.start_ns < window.end_ns)


def _changed(connection: sa.Connection, window: Window, since: int) -> list[tuple[int, int, str]]:
    """GPU, hour and currency of what was booked after the booking, by hour."""
    columns = PERIOD.c
    hour = (columns.start_ns - columns.start_ns % HOUR_NS).label("hour")
    question = sa.select(columns.gpu, hour, columns.currency).where(_later(window, since)).distinct()
    found = [(row.gpu, row.hour, row.currency) for row in connection.execute(question) if row.currency]
    return sorted(found, key=lambda block: (block[1], block[0], block[2]))


def _changes(connection: sa.Connection, window: Window, since: int) -> dict[str, int]:
    """n$ by currency that more was paid, by what was booked after the booking."""
    columns = PERIOD.c
    total = sa.cast(sa.func.sum(columns.total), sa.BigInteger)
    question = sa.select(columns.currency, total).where(_later(window, since)).group_by(columns.currency)
    return {currency: nano for currency, nano in connection.execute(question) if currency}


def _require_known(connection: sa.Connection, window: Window, since: int) -> None:
    """Compaction forgets which booking an amount is of."""
    compacted = sa.select(BOOKING.c.id).where((BOOKING.c.id > since) & (BOOKING.c.kind == "compacted"))
    last = sa.select(sa.func.max(PERIOD.c.start_ns)).where(_later(window, since) & PERIOD.c.booking.in_(compacted))
    found = connection.execute(last).scalar()
    if found is not None:
        raise FocusMistakes([UNKNOWN.format(since, _hour(found + HOUR_NS))])


def _hour(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // NANO, UTC).strftime("%Y-%m-%dT%H:00Z")
