"""Views of the ledger over a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from otel_pipeline.store.database import Database
from otel_pipeline.store.ledger_metrics import LedgerMetrics
from otel_pipeline.store.ledger_report_config import CostReportsConfig
from tests.support import ledger_correction_laws
from tests.support.ledger_records import T0
from tests.support.ledger_view_laws import LAWS, filled


@pytest.mark.parametrize("law", [*LAWS, *ledger_correction_laws.LAWS], ids=lambda law: law.__name__)
def test_a_law_of_views_holds_on_postgresql(law: Callable[[Database], None], fresh: Callable[[], Database]) -> None:
    law(fresh())


def test_prometheus_is_told_the_day_of_a_ledger_on_postgresql(fresh: Callable[[], Database]) -> None:
    database = fresh()
    filled(database)
    metrics = LedgerMetrics(database, CostReportsConfig(), lambda: T0 + 80_000.0)
    metrics.read()
    day = next(family for family in metrics.collect() if family.name == "otel_pipeline_day_cost")
    assert {sample.labels["currency"]: sample.value for sample in day.samples} == {"USD": 7.2, "EUR": 0.64}
