"""Every test that takes `kernel` runs over both variants of the engine; a missing extension is a failure, not a skip.

How many examples a property test tries: `OTEL_PIPELINE_TEST_PROFILE` is `default`, `ci` (the same ones each time) or
`full`.
"""

from __future__ import annotations

import os
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

from otel_pipeline.wire.kernel import COMPILED, Kernel, variants

NO_EXTENSIONS: Final = os.environ.get("OTEL_PIPELINE_NO_EXTENSIONS") == "1"
NAMES: Final = ("interpreted",) if NO_EXTENSIONS else ("interpreted", "compiled")

_SLOW: Final = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)
settings.register_profile("default", max_examples=200, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.register_profile("full", settings.get_profile("ci"), max_examples=500)
settings.load_profile(os.environ.get("OTEL_PIPELINE_TEST_PROFILE", "ci" if os.environ.get("CI") else "default"))


@pytest.fixture(scope="session", params=NAMES)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """Each variant of the engine."""
    for variant in variants():
        if variant.name == request.param:
            return variant
    pytest.fail(f"the {request.param} variant is absent: run setup.py build_ext --inplace (COMPILED is {COMPILED})")
