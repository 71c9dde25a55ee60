"""What the operator writes under `store`. Knows nothing of the database's library, which takes long to import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from otel_pipeline.contracts import Settings
from otel_pipeline.limits import ERROR_GROUP_RETENTION_S, LEDGER_LATENESS_S, LEDGER_RETENTION_S
from otel_pipeline.settings import Duration
from otel_pipeline.store.ledger_report_config import CostReportsConfig

SCHEMES: Final = ("sqlite", "postgresql", "postgresql+psycopg")
RETENTION_S_MIN: Final = 3600.0
LEDGER_PERIOD_S: Final = 60.0
HOUR_S: Final = 3600
LEDGER_RETENTION_S_MIN: Final = 2 * 86_400.0
"""The ledger looks back a day for the begin of a GPU's life, and a span may be two days long."""


def _checked_url(url: str) -> str:
    """Nothing of a password may stand where it would be shown: user and password go before the host, escaped."""
    scheme, mark, rest = url.partition("://")
    if not mark or scheme not in SCHEMES:
        raise ValueError(
            f"is no URL of a store; allowed: {', '.join(SCHEMES)}, such as postgresql://otel@127.0.0.1/otel"
        )
    user = rest.rpartition("@")[0]
    if any(character in user for character in "/@ "):
        raise ValueError("has /, @ or a blank in the user or password; write %2F, %40 or %20")
    if "password=" in rest:
        raise ValueError("has a password behind the host; write it before: postgresql://user:password@host/database")
    return url


def _checked_period(seconds: float) -> float:
    """Hours are booked in whole periods."""
    if not seconds.is_integer() or HOUR_S % seconds:
        raise ValueError("must be whole seconds that an hour is a multiple of, such as 1s, 10s or 1m")
    return seconds


class ErrorGroupsConfig(Settings):
    """Groups of failures, see docs/errors.md."""

    retention: Annotated[Duration, Field(ge=RETENTION_S_MIN)] = ERROR_GROUP_RETENTION_S
    """How long a group is kept that is not seen any more."""


class LedgerConfig(Settings):
    """What GPUs cost and who used them, see docs/cost.md."""

    lateness: Annotated[Duration, Field(ge=0)] = LEDGER_LATENESS_S
    """So long after a minute it is booked; what comes later is booked as a correction. Sums are the same either way."""
    period: Annotated[Duration, Field(ge=1, le=HOUR_S), AfterValidator(_checked_period)] = LEDGER_PERIOD_S
    """In pieces of this length is booked; an hour must be a multiple of it. Sums are the same either way; shorter ones
    are booked sooner, and need more rows. A ledger keeps the period that it began with."""
    retention: Annotated[Duration, Field(ge=LEDGER_RETENTION_S_MIN)] = LEDGER_RETENTION_S
    """How long spans are kept one by one. What is older is kept by the hour, with the same sums; spans that come later
    than that are counted and passed over."""


class StoreConfig(Settings):
    """Where is kept what must sum over restarts, such as groups of failures."""

    url: Annotated[str, AfterValidator(_checked_url)] | None = Field(
        default=None, examples=["postgresql://otel:secret@127.0.0.1/otel"]
    )
    """A database, as sqlite:////path/to/file or postgresql://user:password@host/database; by default the SQLite file
    `store.db` in the data directory."""
    error_groups: ErrorGroupsConfig = ErrorGroupsConfig()
    """Groups of failures."""
    ledger: LedgerConfig = LedgerConfig()
    """What GPUs cost and who used them."""
    cost_reports: CostReportsConfig = CostReportsConfig()
    """Budget, reference prices and views of the cost ledger."""

    def place(self, data_dir: Path) -> str | Path:
        """The URL, or the path of a SQLite file."""
        return self.url or data_dir / "store.db"
