"""What the operator writes under `store.cost_reports`: by what costs are judged."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from otel_pipeline.contracts import Settings
from otel_pipeline.ledger.money import CURRENCY, nano
from otel_pipeline.ledger.views import IdlePolicy, StartupPolicy
from otel_pipeline.limits import COST_RESERVATIONS_MAX


def _text(value: object) -> object:
    """YAML reads 0.08 as a binary float, whose shortest text is what was written."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _amount(text: str) -> str:
    if nano(text) < 0:
        raise ValueError("must not be negative")
    return text


def _currency(text: str) -> str:
    if not CURRENCY.fullmatch(text):
        raise ValueError("is no code of a currency such as USD")
    return text


Amount = Annotated[str, BeforeValidator(_text), AfterValidator(_amount)]


class CostReportsConfig(Settings):
    """Budget, reference prices and views of the cost ledger, see docs/ledger.md."""

    currency: Annotated[str, AfterValidator(_currency)] = "USD"
    """Of the budget and of the reference prices. Amounts in other currencies stand beside it, nothing is converted."""
    daily_budget: Amount = "10"
    """What a day (UTC) may cost; 0: there is no budget."""
    reference_price: Amount | None = Field(default=None, examples=["0.08"])
    """What a finished job would cost elsewhere, such as with a cloud service for everything; savings are told against
    it."""
    reference_prices: dict[str, Amount] = Field(default={}, examples=[{"image": "0.01", "video": "0.08"}])
    """The same for types of jobs, before `reference_price`."""
    idle: IdlePolicy = IdlePolicy.SEPARATE
    """Who bears what nobody used: separate (a line of its own), weighted (in proportion to what each used of the GPU),
    even, or tenant_reserved (who reserved the GPU). Cold starts are not part of it."""
    startup: StartupPolicy = StartupPolicy.SEPARATE
    """Who bears the cold start of a GPU: separate (a line of its own), charge_trigger (what used the GPU first), or
    amortise (all that used it until it stopped, in proportion to their costs)."""
    reserved: dict[str, str] = Field(default={}, max_length=COST_RESERVATIONS_MAX, examples=[{"GPU-1b2c": "acme"}])
    """Who reserved which GPU (its UUID), by the name that a report shows, for tenant_reserved."""

    def budget_nano(self) -> int:
        """The daily budget in n$."""
        return nano(self.daily_budget)

    def reference_nano(self, job_type: str) -> int | None:
        """n$ of the reference price of a job; None: there is none."""
        text = self.reference_prices.get(job_type, self.reference_price)
        return None if text is None else nano(text)
