"""What corrections in FOCUS files must obey, whatever the database."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from otel_pipeline.ledger.focus import SAME
from otel_pipeline.store.database import Database
from otel_pipeline.store.ledger_focus import FocusMistakes, write_corrections, write_file
from otel_pipeline.store.ledger_reprice import reprice
from otel_pipeline.store.ledger_windows import Window
from tests.support.ledger_laws import Watched
from tests.support.ledger_records import GPU, SECOND, T0, One, price, prices, record
from tests.support.ledger_view_laws import DAY, GRAINS, filled, platform

LATER_NS = (T0 + 40 * 86_400) * SECOND
"""In a later month."""
Sums = Counter[tuple[str, ...]]


def sums_of(path: Path) -> Sums:
    """Costs and quantities of a FOCUS file by all that tells whose they are, in 1e-9. In which host a GPU is may be
    learnt later.
    """
    found = Sums()
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for column in ("BilledCost", "PricingQuantity"):
                key = (row[name] for name in SAME if (name, row["ResourceType"]) != ("Tags", "GPU"))
                found[column, *key] += int(row[column].replace(".", ""))
    return found


def files_of(database: Database, directory: Path, window: Window = DAY) -> tuple[dict[str, Sums], int]:
    """The files of today, and up to which booking they are."""
    booking = 0
    found = {}
    for grain in GRAINS:
        booking = write_file(database, directory / grain, window, grain, "account").booking
        found[grain] = sums_of(directory / grain)
    return found, booking


def corrections_lead_to_todays_file(
    database: Database, directory: Path, earlier: dict[str, Sums], booking: int, window: Window = DAY
) -> None:
    """What was written earlier and the corrections since then are what is written now, for each resource and key."""
    today, _ = files_of(database, directory, window)
    for grain in GRAINS:
        path = directory / f"{grain}.corrections"
        write_corrections(database, path, window, grain, "account", booking, LATER_NS)
        both = sums_of(path)
        both.update(earlier[grain])
        assert {key: one for key, one in both.items() if one} == {key: one for key, one in today[grain].items() if one}


def late_spans_and_new_prices_are_corrections(database: Database) -> None:
    watched = filled(database)
    with TemporaryDirectory() as directory:
        earlier, booking = files_of(database, Path(directory))
        watched.apply(record(One(9, 3600, 3700, kind="job", job="C", user="w", trace=9)))
        watched.apply(record(One(8, 3610, 3660, trace=3, kind="stage", model="late", gpus=(GPU, "GPU-1"))))
        reprice(database, prices(price("0.003", since=1800)), T0 * SECOND, int(watched.now_s * 1000))
        corrections_lead_to_todays_file(database, Path(directory), earlier, booking)


def an_hour_that_was_compacted_since_has_no_corrections(database: Database) -> None:
    watched = Watched(database, retention_s=2 * 86_400)
    watched.now_s = T0 + 20_000.0
    watched.apply(platform())
    with TemporaryDirectory() as directory:
        _, booking = files_of(database, Path(directory))
        watched.settle()
        watched.settle()
        with pytest.raises(FocusMistakes) as error:
            write_corrections(database, Path(directory, "x"), DAY, "job", "account", booking, LATER_NS)
        assert "are compacted" in error.value.mistakes[0]
        _, booking = files_of(database, Path(directory))
        assert write_corrections(database, Path(directory, "x"), DAY, "job", "account", booking, LATER_NS).rows == 0


LAWS: Sequence[Callable[[Database], None]] = (
    late_spans_and_new_prices_are_corrections,
    an_hour_that_was_compacted_since_has_no_corrections,
)
