"""GPUs that are shared by weight or in fixed parts, in the book of the ledger over a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from otel_pipeline.store.database import Database
from tests.support.ledger_share_laws import LAWS


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_of_shares_holds_on_postgresql(law: Callable[[Database], None], fresh: Callable[[], Database]) -> None:
    law(fresh())
