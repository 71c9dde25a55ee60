"""Processor `attributes`: sets and removes attributes of spans and log records.

Metrics pipelines refuse it: the attributes of a metric are with its data points, and a batch has a row for each metric.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from otel_pipeline.conditions.nodes import all_of, any_of, compared, constant, matches, pattern
from otel_pipeline.conditions.paths import column
from otel_pipeline.contracts import Context, Settings
from otel_pipeline.processors.actions import AttributeAction, ScalarSetting
from otel_pipeline.wire import cells
from otel_pipeline.wire.batch import Constants
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from otel_pipeline.conditions.nodes import Node
    from otel_pipeline.wire.batch import Batch, How, Mask
    from otel_pipeline.wire.values import Scalar

MATCHED_TEXTS: Final[dict[str, tuple[str, str | None, frozenset[Signal]]]] = {
    "services": ("resource.attributes", "service.name", frozenset(Signal)),
    "span_names": ("name", None, frozenset({Signal.TRACES})),
    "log_bodies": ("body", None, frozenset({Signal.LOGS})),
    "log_severity_texts": ("severity_text", None, frozenset({Signal.LOGS})),
}


class MatchedAttribute(Settings):
    """An attribute that must be there."""

    key: Annotated[str, Field(min_length=1)]
    """Its key."""
    value: ScalarSetting = None
    """The value it must have, or with `regexp` the pattern that its text must contain; without it any value will do."""


class Match(Settings):
    """Properties of a span or log record. Of each list that is given one entry must match; of the attributes, all."""

    match_type: Literal["strict", "regexp"]
    """strict: equal; regexp: the text contains a match of the RE2 pattern."""
    services: tuple[str, ...] = ()
    """The resource's service.name."""
    span_names: tuple[str, ...] = ()
    """The name of a span; a log record has none and does not match."""
    log_bodies: tuple[str, ...] = ()
    """The body of a log record, if it is text; a span has none and does not match."""
    log_severity_texts: tuple[str, ...] = ()
    """The severity text of a log record; a span has none and does not match."""
    attributes: tuple[MatchedAttribute, ...] = ()
    """Attributes of the span or log record; all must match."""
    resources: tuple[MatchedAttribute, ...] = ()
    """Attributes of the resource; all must match."""

    @model_validator(mode="after")
    def _usable(self) -> Match:
        lists = [*MATCHED_TEXTS, "attributes", "resources"]
        if not any(getattr(self, name) for name in lists):
            raise ValueError(f"at least one is needed of {', '.join(lists)}")
        for signal in AttributesProcessor.signals:
            self.node(signal)
        return self

    def node(self, signal: Signal) -> Node:
        """Which rows match; raises ValueError for a pattern that cannot be used."""
        nodes: list[Node] = []
        for name, (path, key, signals) in MATCHED_TEXTS.items():
            values: tuple[str, ...] = getattr(self, name)
            if values and signal not in signals:
                return constant(value=False)
            if values:
                nodes.append(any_of([self._one(path, key, signal, value) for value in values]))
        for path, attributes in (("attributes", self.attributes), ("resource.attributes", self.resources)):
            nodes += [self._one(path, wanted.key, signal, wanted.value) for wanted in attributes]
        return all_of(nodes)

    def _one(self, path: str, key: str | None, signal: Signal, value: Scalar | None) -> Node:
        target = column(path, key, signal)[0]
        if value is None:
            return compared(target, "!=", None)
        if self.match_type == "strict":
            return compared(target, "==", value)
        if not isinstance(value, str):
            raise ValueError(f"{target.name}: with match_type regexp the value is a pattern: put it in quotes")  # noqa: TRY004
        try:
            return matches(target, pattern(value))
        except ValueError as error:
            raise ValueError(f"{target.name}: the pattern {value[:80]}: {error}") from error


class AttributesProcessor:
    """Changes the rows that match `include` and not `exclude`; without these, all."""

    signals: ClassVar = frozenset({Signal.TRACES, Signal.LOGS})
    """The pipelines it can stand in."""

    class Config(Settings):
        """Settings of `attributes`."""

        actions: Annotated[tuple[AttributeAction, ...], Field(min_length=1)]
        """What to change, in this order."""
        include: Match | None = None
        """Change only what matches this."""
        exclude: Match | None = None
        """Of that, leave alone what matches this."""

    def __init__(self, config: Config, context: Context) -> None:  # noqa: ARG002 - every component gets a context
        self._actions = config.actions
        self._include = {signal: config.include.node(signal) for signal in self.signals} if config.include else {}
        self._exclude = {signal: config.exclude.node(signal) for signal in self.signals} if config.exclude else {}
        keys = {action.key for action in config.actions}
        keys |= {action.from_attribute for action in config.actions if action.from_attribute}
        keys |= {one.key for match in (config.include, config.exclude) if match for one in match.attributes}
        self._keys = frozenset(keys)

    def attributes(self, signal: Signal) -> frozenset[str]:
        """The keys it changes, copies or matches."""
        return self._keys if signal in self.signals else frozenset()

    def process(self, batch: Batch) -> None:
        """Record the changes of the rows that match; metrics stay as they are."""
        if batch.signal not in self.signals:
            return
        where = self._where(batch)
        if not where.any():
            return
        for action in self._actions:
            if action.action == "delete":
                batch.delete(action.key, where)
            elif action.value is not None:
                batch.set(action.key, action.value, where, action.action)
            elif action.from_attribute is not None:
                _copy(batch, action.key, action.from_attribute, where, action.action)

    def _where(self, batch: Batch) -> Mask:
        """The rows to change."""
        where = self._include[batch.signal](batch)[0] if self._include else np.ones(len(batch), np.bool_)
        if self._exclude:
            where = where & ~self._exclude[batch.signal](batch)[0]
        return where


def _copy(batch: Batch, key: str, source: str, where: Mask, how: How) -> None:
    """Set `key` to the text, number or bool of `source`, with its type, where it is there.

    A number that an earlier processor has set counts as an integer if it is whole, as the batch does not tell its type.
    """
    strings = batch.strings(source)
    codes = strings.codes.copy()
    values: list[Scalar] = [*strings.values]
    numbers = batch.numbers(source)
    numeric = ~np.isnan(numbers)
    if numeric.any():
        cell = batch._column(source)
        kinds, raw = batch.rows[:, cell], batch.rows[:, cell + cells.A_A]
        as_sent = numeric & (raw == numbers)  # beyond 2**53 the float is not exact
        for rows, column_of, kind in (
            (as_sent & (kinds == cells.T_BOOL), numbers, bool),
            (as_sent & (kinds == cells.T_INT), raw, int),
            (numeric & (kinds == cells.T_DOUBLE), numbers, float),
            (numeric, numbers, _whole),
        ):
            chosen = rows & (codes < 0)
            distinct, places = np.unique(column_of[chosen], return_inverse=True)
            codes[chosen] = places + len(values)
            values += [kind(value) for value in distinct.tolist()]
    batch.set(key, Constants(codes, values), where, how)


def _whole(value: float) -> int | float:
    return int(value) if value.is_integer() and abs(value) <= 2**53 else value
