"""How many examples a property test tries: `OTEL_PIPELINE_TEST_PROFILE` is `default`, `ci` (the same few each time) or
`full`, which is for the slower steps of `.ci/run`.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)
settings.register_profile("unit-default", max_examples=15, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("unit-ci", settings.get_profile("unit-default"), derandomize=True)
settings.register_profile("unit-full", settings.get_profile("unit-ci"), max_examples=500)
_PROFILE = os.environ.get("OTEL_PIPELINE_TEST_PROFILE", "ci" if os.environ.get("CI") else "default")
settings.load_profile(f"unit-{_PROFILE}")
