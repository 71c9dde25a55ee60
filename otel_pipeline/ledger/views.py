"""Ways to show idle: who bears what nobody used. A view moves amounts for a report and never touches the ledger.

    separate        idle stays a line of its own
    weighted        in proportion to what each used
    even            the same for each
    tenant_reserved to the tenant who reserved the GPU

Without anybody to bear it idle stays, whatever the policy: a line that vanishes reads as "that was free".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from otel_pipeline.ledger.money import split_named


class IdlePolicy(StrEnum):
    """Who bears idle in a report."""

    SEPARATE = "separate"
    WEIGHTED = "weighted"
    EVEN = "even"
    TENANT_RESERVED = "tenant_reserved"


class StartupPolicy(StrEnum):
    """Who bears the cold start of a worker in a report: nobody, the first that used it, or all in proportion."""

    SEPARATE = "separate"
    CHARGE_TRIGGER = "charge_trigger"
    AMORTISE = "amortise"


@dataclass(frozen=True, slots=True)
class View:
    """Costs by name and what is left to nobody, in n$; the sum is that of what came in."""

    costs: dict[str, int]
    left: int


def with_idle(costs: Mapping[str, int], idle: int, policy: IdlePolicy, tenant: str = "") -> View:
    """The costs with their part of idle. `tenant` is who reserved the GPU, if anybody did."""
    if policy is IdlePolicy.TENANT_RESERVED and tenant:
        return View({**costs, tenant: costs.get(tenant, 0) + idle}, 0)
    if policy in {IdlePolicy.SEPARATE, IdlePolicy.TENANT_RESERVED} or not costs:
        return View(dict(costs), idle)
    parts = split_named(idle, costs if policy is IdlePolicy.WEIGHTED else dict.fromkeys(costs, 1))
    return View({name: cost + parts[name] for name, cost in costs.items()}, 0)


def with_startup(costs: Mapping[str, int], startup: int, policy: StartupPolicy, trigger: str | None = None) -> View:
    """The costs with their part of the cold start; `trigger` is who used the GPU first, None if nobody knows."""
    if policy is StartupPolicy.CHARGE_TRIGGER and trigger is not None:
        return View({**costs, trigger: costs.get(trigger, 0) + startup}, 0)
    if policy is StartupPolicy.AMORTISE:
        return with_idle(costs, startup, IdlePolicy.WEIGHTED)
    return View(dict(costs), startup)
