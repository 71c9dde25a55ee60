"""How many cases a property test tries: `OTEL_PIPELINE_TEST_PROFILE` is `default`, `ci` (the same ones each time) or
`full` (10,000 of each).
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

_SLOW: Final = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)
settings.register_profile("ledger-default", max_examples=20, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("ledger-ci", settings.get_profile("ledger-default"), derandomize=True)
settings.register_profile("ledger-full", settings.get_profile("ledger-ci"), max_examples=10_000)
_PROFILE: Final = os.environ.get("OTEL_PIPELINE_TEST_PROFILE", "ci" if os.environ.get("CI") else "default")
PROPERTIES: Final = settings.get_profile(f"ledger-{_PROFILE}")
