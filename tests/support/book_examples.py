"""How many examples a property of the store tries: each fills a database, so they are few, and the same each time."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

FULL: Final = os.environ.get("OTEL_PIPELINE_TEST_PROFILE") == "full"


def examples(usual: int, full: int | None = None) -> settings:
    """`usual` of them, `full` in the full profile."""
    return settings(
        max_examples=usual if full is None or not FULL else full,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
