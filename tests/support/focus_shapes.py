"""FOCUS files of one row each, one for each shape of a row: what a validator that looks at whole files must see.

python -m tests.support.focus_shapes DIRECTORY
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from otel_pipeline.ledger.allocation import Mode
from otel_pipeline.ledger.corrections import Correction
from otel_pipeline.ledger.focus import Account, corrected, write
from otel_pipeline.store.database import open_database
from otel_pipeline.store.ledger_focus import write_file
from tests.support.ledger_records import SECOND, T0
from tests.support.ledger_view_laws import DAY, filled

WORDS = ("ChargeClass", "ChargeCategory", "ServiceCategory", "ServiceSubcategory", "PricingUnit", "x_Bucket")


def rows(directory: Path) -> list[dict[str, str]]:
    """Rows of a small ledger in each grain, and a correction."""
    database = open_database(directory / "store.db", owner=True)
    filled(database)
    found = []
    for grain in ("span", "job", "gpu"):
        path = directory / f"{grain}.csv"
        write_file(database, path, DAY, grain, "account")
        with path.open(encoding="utf-8", newline="") as file:
            found += list(csv.DictReader(file))
    database.close()
    late = Correction("GPU-0", T0 * SECOND, (T0 + 60) * SECOND, "span", 1, "", -5)
    account = Account(id="account", provider="self-hosted")
    return [*found, *corrected(account, "USD", [late], Mode.EQUAL)]


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
