"""Settings that the gateway itself reads: batch, memory_limiter, health_check."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from otel_pipeline.extensions.health_check import HealthCheck
from otel_pipeline.processors.batch import BatchSettings
from otel_pipeline.processors.memory_limiter import MemoryLimiterSettings


def test_batch_has_the_defaults_of_the_collector() -> None:
    batch = BatchSettings.Config()
    assert (batch.timeout, batch.send_batch_size, batch.send_batch_max_size) == (0.2, 8192, 0)


def test_batch_refuses_a_maximum_below_the_size() -> None:
    with pytest.raises(ValidationError, match="must be 0 or at least send_batch_size"):
        BatchSettings.Config.model_validate({"send_batch_size": 10, "send_batch_max_size": 9})
    assert BatchSettings.Config.model_validate({"send_batch_size": 10, "send_batch_max_size": 10})


@pytest.mark.parametrize(
    "written", [{"limit_mib": 100, "spike_limit_mib": 20}, {"limit_percentage": 80, "spike_limit_percentage": 25}]
)
def test_memory_limiter_takes_one_limit(written: dict[str, int]) -> None:
    assert MemoryLimiterSettings.Config.model_validate(written).check_interval == 1.0


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ({}, "needs exactly one of limit_mib and limit_percentage"),
        ({"limit_mib": 100, "limit_percentage": 80}, "needs exactly one"),
        ({"limit_mib": 100, "check_interval": "0s"}, "check_interval must be above 0s"),
        ({"limit_mib": 100, "spike_limit_mib": 100}, "spike_limit_mib must be below limit_mib"),
        ({"limit_percentage": 50, "spike_limit_percentage": 50}, "spike_limit_percentage must be below"),
        ({"limit_percentage": 101}, "less than or equal to 100"),
    ],
)
def test_memory_limiter_refuses_limits_that_cannot_be_meant(written: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        MemoryLimiterSettings.Config.model_validate(written)


def test_health_check_listens_on_loopback_unless_told_otherwise() -> None:
    health = HealthCheck.Config()
    assert (health.endpoint, health.path) == ("127.0.0.1:13133", "/")
    with pytest.raises(ValidationError):
        HealthCheck.Config.model_validate({"path": "health"})
