"""The correlation id that people search by: `x-correlation-id` in, on every span and log record, and out again.

It is a propagator, so every official instrumentation of a server, client or queue carries it. On its way through the
process it is baggage.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import baggage, propagate
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)

from otel_pipeline.worker import names
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.settings import settings

HEADER: Final = "x-correlation-id"
OTHER_HEADER: Final = "x-request-id"
"""Read where there is no correlation id; written by nobody here."""
CHARS_MAX: Final = 128
"""An id longer than this is something else."""
KEYS_MAX: Final = 256
"""Headers of one request that are looked at to see whether the program has set the id itself."""


class CorrelationPropagator(TextMapPropagator):
    """Reads and writes the headers."""

    def extract(
        self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter
    ) -> Context:
        return _extract(carrier, context, getter) or context or Context()

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        # A carrier may be an empty one, a context may be none: the hook's first argument is neither.
        _inject(self, carrier, context, setter)

    @property
    def fields(self) -> set[str]:
        return {HEADER}


@hook("correlation.install")
def install() -> None:
    """Adds the propagator to what is configured, unless that is nothing."""
    if os.environ.get("OTEL_PROPAGATORS", "").strip().lower() == "none":
        return
    existing = propagate.get_global_textmap()
    if HEADER not in existing.fields:
        propagate.set_global_textmap(CompositePropagator([existing, CorrelationPropagator()]))


@hook("correlation.extract")
def _extract(carrier: Any, context: Context | None, getter: Getter[Any]) -> Context | None:
    known = baggage.get_baggage(names.CORRELATION_ID, context)
    found = _valid(getter.get(carrier, HEADER)) or (None if known else _valid(getter.get(carrier, OTHER_HEADER)))
    return baggage.set_baggage(names.CORRELATION_ID, found, context) if found else None


@hook("correlation.inject")
def _inject(_propagator: object, carrier: Any, context: Context | None, setter: Setter[Any]) -> None:
    known = baggage.get_baggage(names.CORRELATION_ID, context)
    wanted = names.CORRELATION_ID in settings().baggage
    if wanted and isinstance(known, str) and _valid([known]) and not _has_its_own(carrier):
        setter.set(carrier, HEADER, known)


def _has_its_own(carrier: Any) -> bool:
    """What the program writes is the program's."""
    if not isinstance(carrier, Mapping) and not hasattr(carrier, "keys"):
        return False
    keys = [key for key, _ in zip(carrier.keys(), range(KEYS_MAX), strict=False)]
    return any(isinstance(key, str) and key.lower() == HEADER for key in keys)


def _valid(values: list[str] | None) -> str | None:
    if not values or not isinstance(values[0], str):
        return None
    text = values[0].strip()
    return text if 0 < len(text) <= CHARS_MAX and text.isascii() and text.isprintable() else None
