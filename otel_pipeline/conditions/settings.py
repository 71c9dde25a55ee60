"""Conditions as types of settings: checked when the configuration is read, kept as text."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator

from otel_pipeline.conditions.parser import parse
from otel_pipeline.conditions.paths import Context as Paths
from otel_pipeline.wire.signal import Signal


def _checked(signal: Signal, paths: Paths = Paths.ROW) -> tuple[BeforeValidator, AfterValidator]:
    def one(value: Any) -> Any:  # whatever stands in the file
        if isinstance(value, dict):
            raise ValueError("write the condition itself, as text with a prefix to its paths, such as span.name")  # noqa: TRY004
        return value

    def parsed(text: str) -> str:
        parse(text, signal, paths)
        return text

    return BeforeValidator(one), AfterValidator(parsed)


def _nothing(reason: str) -> BeforeValidator:
    def check(value: Any) -> Any:  # whatever stands in the file
        if value:
            raise ValueError(reason)
        return value

    return BeforeValidator(check)


SpanCondition: TypeAlias = Annotated[str, *_checked(Signal.TRACES)]
SpanResourceCondition: TypeAlias = Annotated[str, *_checked(Signal.TRACES, Paths.RESOURCE)]
LogCondition: TypeAlias = Annotated[str, *_checked(Signal.LOGS)]
LogResourceCondition: TypeAlias = Annotated[str, *_checked(Signal.LOGS, Paths.RESOURCE)]
MetricCondition: TypeAlias = Annotated[str, *_checked(Signal.METRICS)]
MetricResourceCondition: TypeAlias = Annotated[str, *_checked(Signal.METRICS, Paths.RESOURCE)]
SpanEvents: TypeAlias = Annotated[
    tuple[str, ...], _nothing("events of a span cannot be dropped here; allowed are resource and span")
]
DataPoints: TypeAlias = Annotated[
    tuple[str, ...], _nothing("data points of a metric cannot be dropped here; allowed are resource and metric")
]
