"""Which paths are those of health checks."""

from __future__ import annotations

import pytest

from otel_pipeline.failures.noise import _health_path


@pytest.mark.parametrize(
    "path",
    ["/health", "/api/healthz?full=1", "/v2/health/ready", "/health/live/", "/-/healthy", "/-/ready", "/ready", "/up",
     "/actuator/health/liveness", "/_health", "/Health-Check"],
)  # fmt: skip
def test_paths_of_health_checks(path: str) -> None:
    assert _health_path(path)


@pytest.mark.parametrize(
    "path", ["/v1/generate", "/v1/live", "/streams/up", "/healthy-food/recipes", "health", "/", ""]
)
def test_other_paths(path: str) -> None:
    assert not _health_path(path)
