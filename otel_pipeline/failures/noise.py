"""Failures that are nobody's concern: health checks, and HEAD requests that asked whether something is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from otel_pipeline.failures.evidence import NUMBERS
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from otel_pipeline.wire.batch import Batch, Mask

HEALTH_PATHS: Final = (
    "health", "healthz", "livez", "readyz", "startupz", "healthcheck", "health-check", "health_check", "_health",
    "liveness", "readiness", "healthy", "ping",
)  # fmt: skip
PROBES: Final = ("live", "ready", "alive", "up", "startup", "started")
"""Below a health path, below `-` and at the root of a host: `/health/ready`, `/-/ready`, `/ready`."""
HEALTH_KEYS: Final = ("http.route", "url.path", "http.target")
AGENT_KEYS: Final = ("user_agent.original", "http.user_agent")
AGENTS: Final = (
    "kube-probe", "ELB-HealthChecker", "GoogleHC", "Consul Health Check", "Amazon-Route53-Health-Check", "Envoy/HC",
    "Edge Health Probe", "Azure Traffic Manager Endpoint Monitor", "Load Balancer Agent",
)  # fmt: skip
METHOD_KEYS: Final = ("http.request.method", "http.method")
KEYS: Final = (*HEALTH_KEYS, *AGENT_KEYS, *METHOD_KEYS)


def noise(batch: Batch) -> Mask:
    """The rows that are such, failed or not."""
    found = np.zeros(len(batch), np.bool_)
    if batch.signal is not Signal.TRACES:
        return found
    found |= batch.name().where(lambda name: name.startswith("grpc.health.") or _health_path(name.rpartition(" ")[2]))
    for key in HEALTH_KEYS:
        if batch.present(key).any():
            found |= batch.strings(key).where(_health_path)
    for key in AGENT_KEYS:
        if batch.present(key).any():
            found |= batch.strings(key).where(lambda agent: agent.startswith(AGENTS))
    for key in METHOD_KEYS:
        if batch.present(key).any():
            asked = batch.strings(key).where("HEAD".__eq__) & batch.exception()[0].where("".__eq__)
            for status in NUMBERS[:2]:
                found |= asked & (batch.numbers(status) == 404)
    return found


def _health_path(path: str) -> bool:
    if not path.startswith("/"):
        return False
    above, _, last = path.partition("?")[0].rstrip("/").lower().rpartition("/")
    return last in HEALTH_PATHS or (last in PROBES and above.rpartition("/")[2] in {"", "-", *HEALTH_PATHS})
