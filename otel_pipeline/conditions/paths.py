"""The paths that a condition can read, each as columns of a batch. See `parser.py`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

import numpy as np

from otel_pipeline.wire import cells
from otel_pipeline.wire.batch import Batch
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline.wire.batch import Floats, Ints, Mask, Strings
    from otel_pipeline.wire.values import Value


class Context(Enum):
    """What a path without a prefix belongs to."""

    ROW = "row"
    """The span, log record or metric."""
    RESOURCE = "resource"


@dataclass(frozen=True, slots=True)
class Column:
    """How to read a path; what is None does not exist for it."""

    name: str
    texts: Callable[[Batch], Strings] | None = None
    numbers: Callable[[Batch], Floats | Ints] | None = None
    """Float columns have NaN where there is no number."""
    present: Callable[[Batch], Mask] | None = None
    """None: there in every row."""


def _body_present(batch: Batch) -> Mask:
    mask: Mask = (batch.rows[:, cells.BODY_TYPE] != 0) | (batch.body().codes >= 0)
    return mask


ROW_CONTEXT: Final = {Signal.TRACES: "span", Signal.LOGS: "log", Signal.METRICS: "metric"}
NAMED: Final = {
    Signal.TRACES: (
        Column("name", texts=Batch.name),
        Column("kind", numbers=lambda batch: batch.kind),
        Column("status.code", numbers=lambda batch: batch.status_code),
        Column("status.message", texts=Batch.status_message),
        Column("duration", numbers=lambda batch: batch.duration_s),
    ),
    Signal.LOGS: (
        Column("body", texts=Batch.body, present=_body_present),
        Column("event_name", texts=Batch.name),
        Column("severity_number", numbers=lambda batch: batch.kind),
        Column("severity_text", texts=Batch.severity_text),
    ),
    Signal.METRICS: (Column("name", texts=Batch.name),),
}
SCOPE_NAME: Final = Column("instrumentation_scope.name", texts=Batch.scope_names)
SCOPE_WORDS: Final = ("instrumentation_scope", "scope")
PART_WORDS: Final = ("spanevent", "datapoint")


def column(path: str, key: str | None, signal: Signal, context: Context = Context.ROW) -> tuple[Column, str | None]:
    """The column of `path` or `path["key"]`, and the key if it is an attribute of the row.

    Raises ValueError with what is allowed.
    """
    head, _, rest = path.partition(".")
    if head in PART_WORDS:
        raise ValueError(f"a {head} is no row of its own here; conditions see whole spans, log records and metrics")
    if context is Context.RESOURCE and head not in ("resource", *SCOPE_WORDS):
        head, rest = "resource", path
    if head == "resource" and rest == "attributes" and key is not None:
        return _resource_attribute(key), None
    if head in SCOPE_WORDS and rest == "name" and key is None:
        return SCOPE_NAME, None
    if context is Context.ROW:
        own = rest if head == ROW_CONTEXT[signal] else path
        if own == "attributes" and key is not None and signal is not Signal.METRICS:
            return _attribute(key), key
        for named in NAMED[signal]:
            if named.name == own and key is None:
                return named, None
    raise ValueError(f"allowed for {signal.word} are {', '.join(_allowed(signal, context))}")


def _allowed(signal: Signal, context: Context) -> list[str]:
    if context is Context.RESOURCE:
        return ['attributes["key"]']
    attributes = [] if signal is Signal.METRICS else ['attributes["key"]']
    return [*attributes, 'resource.attributes["key"]', SCOPE_NAME.name, *(named.name for named in NAMED[signal])]


def _attribute(key: str) -> Column:
    return Column(
        f'attributes["{key}"]',
        texts=lambda batch: batch.strings(key),
        numbers=lambda batch: batch.numbers(key),
        present=lambda batch: batch.present(key),
    )


def _resource_attribute(key: str) -> Column:
    def numbers(batch: Batch) -> Floats:
        codes, resources = batch.resources()
        column: Floats = np.array([_number(resource.get(key)) for resource in resources], np.float64)[codes]
        return column

    def present(batch: Batch) -> Mask:
        codes, resources = batch.resources()
        column: Mask = np.array([resource.get(key) is not None for resource in resources], np.bool_)[codes]
        return column

    return Column(
        f'resource.attributes["{key}"]',
        texts=lambda batch: batch.resource_strings(key),
        numbers=numbers,
        present=present,
    )


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else np.nan
