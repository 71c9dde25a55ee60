"""FOCUS files of one row each, one for each shape of a row: what a validator that looks at whole files must see.

python -m tests.support.focus_shapes DIRECTORY
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from otel_pipeline.ledger.focus import write
from otel_pipeline.store.database import open_database
from otel_pipeline.store.ledger_focus import write_corrections, write_file
from tests.support.ledger_correction_laws import LATER_NS
from tests.support.ledger_records import One, record
from tests.support.ledger_view_laws import DAY, filled

WORDS = ("ChargeClass", "ChargeCategory", "ServiceCategory", "ServiceSubcategory", "PricingUnit", "x_Bucket")


def rows(directory: Path) -> list[dict[str, str]]:
    """Rows of a small ledger in each grain, and corrections of a span that came late."""
    database = open_database(directory / "store.db", owner=True)
    watched = filled(database)
    found = []
    for grain in ("span", "job", "gpu"):
        path = directory / f"{grain}.csv"
        last = write_file(database, path, DAY, grain, "account").booking
        found += _read(path)
    watched.apply(record(One(9, 3700, 3730, kind="job", job="C", trace=9)))
    watched.apply(record(One(10, 3740, 3745, trace=9, gpus=(), kind="call", nano=5, currency="EUR", model="veo")))
    for grain in ("span", "job", "gpu"):
        path = directory / f"{grain}-corrections.csv"
        write_corrections(database, path, DAY, grain, "account", last, LATER_NS)
        found += _read(path)
    database.close()
    return found


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def shape(row: dict[str, str]) -> tuple[object, ...]:
    """What makes rows different for a validator: which columns are null, and words from lists."""
    return (*sorted(key for key, value in row.items() if value), *(row.get(word, "") for word in WORDS))


def main() -> None:
    target = Path(sys.argv[1])
    with TemporaryDirectory() as directory:
        shapes = {shape(row): row for row in rows(Path(directory))}
    for number, row in enumerate(shapes.values()):
        with (target / f"shape-{number:02d}.csv").open("w", encoding="utf-8", newline="") as file:
            write([row], file)
    print(f"{len(shapes)} shapes of rows")


if __name__ == "__main__":
    main()
