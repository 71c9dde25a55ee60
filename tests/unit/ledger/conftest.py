"""Property tests of money try 10,000 cases in the full profile; tests/unit/conftest.py tells of profiles."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import settings

FULL: Final = os.environ.get("OTEL_PIPELINE_TEST_PROFILE") == "full"
PROPERTIES: Final = settings(max_examples=10_000 if FULL else 20)
