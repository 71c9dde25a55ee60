"""The list of actions that an operator writes for the processors `resource` and `attributes`, as in the Collector."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from otel_pipeline.contracts import Settings
from otel_pipeline.wire.values import INT_MAX, INT_MIN, Scalar

ACTIONS = ("insert", "update", "upsert", "delete")


def _action(value: Any) -> Any:  # whatever stands in the file
    name = value.lower() if isinstance(value, str) else value
    if name not in ACTIONS:
        raise ValueError(
            f"allowed are {', '.join(ACTIONS)}; the Collector's hash, extract and convert do not exist here"
        )
    return name


def scalar(value: Any) -> Any:  # whatever stands in the file
    """Refuse what is no text, number or bool, with one message instead of one for each type."""
    if value is not None and not isinstance(value, str | bool | int | float):
        raise ValueError("allowed are text, an integer, a number, true and false; no lists, maps or dates")
    if isinstance(value, int) and not INT_MIN <= value <= INT_MAX:
        raise ValueError("integers have 64 bits")
    return value


ScalarSetting: TypeAlias = Annotated[Scalar | None, BeforeValidator(scalar)]


class AttributeAction(Settings):
    """One change of one attribute."""

    key: Annotated[str, Field(min_length=1)]
    """The attribute to change."""
    action: Annotated[Literal["insert", "update", "upsert", "delete"], BeforeValidator(_action)]
    """insert: only where it is missing; update: only where it is there; upsert: both; delete: remove it."""
    value: ScalarSetting = None
    """The value to set: text, integer, number, true or false; the type is kept."""
    from_attribute: Annotated[str, Field(min_length=1)] | None = None
    """The attribute to copy instead, where it is there; text, numbers and bools only, no arrays and maps."""

    @model_validator(mode="after")
    def _one_source(self) -> AttributeAction:
        sources = (self.value is not None) + (self.from_attribute is not None)
        if self.action == "delete" and sources:
            raise ValueError("delete takes neither value nor from_attribute")
        if self.action != "delete" and sources != 1:
            raise ValueError(f"{self.action} takes either value or from_attribute")
        return self
