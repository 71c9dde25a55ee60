"""What spans that are alike say of themselves, and what that makes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from otel_pipeline.ledger import spans
from otel_pipeline.ledger.shares import UNTOLD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set

    from otel_pipeline.wire.batch import Batch

_KIND_BY_KEY: Final = {
    spans.OUTCOME: spans.JOB_KIND,
    spans.STAGE: spans.STAGE_KIND,
    spans.NODE: spans.NODE_KIND,
    spans.PROMPT: spans.PROMPT_KIND,
}
"""The first that is there counts."""


@dataclass(frozen=True, slots=True)
class Said:
    """What spans that are alike say of themselves.

    texts:     values by attribute; without those that are absent or empty
    shown:     attributes that are there, whatever their value
    gpus:      ids of the GPUs that it ran on; ambiguous: that it ran on one, but not on which
    reported:  its sender says what it cost
    is_outer:  a span below it tells the same call
    may_claim: the operator says so, or nothing: None
    share:     how much of its GPUs it had, see shares.py
    """

    texts: Mapping[str, str]
    shown: Set[str] = frozenset()
    span_kind: int = 0
    failed: bool = False
    gpus: tuple[str, ...] = ()
    gpu_name: str = ""
    ambiguous: bool = False
    reported: bool = False
    is_outer: bool = False
    may_claim: bool | None = None
    share: int = UNTOLD
    dimensions: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> int:
        """What the span is, as a place in KINDS."""
        for key, number in _KIND_BY_KEY.items():
            if key in self.shown:
                return number
        return spans.CALL_KIND if self.is_call else spans.OTHER_KIND

    @property
    def is_on_gpu(self) -> bool:
        """Whether it pays for GPUs, if it is no call: jobs, stages, prompts and nodes, and spans of a model that are no
        calls of others; or what the operator says.
        """
        if not self.gpus and not self.ambiguous:
            return False
        if self.may_claim is not None:
            return self.may_claim
        own = not self.shown.isdisjoint(_KIND_BY_KEY)
        inner = self.span_kind not in (spans.CLIENT, spans.PRODUCER)
        return own or (inner and not self.shown.isdisjoint((spans.MODEL, spans.OPERATION)))

    @property
    def is_call(self) -> bool:
        """Whether it may be charged directly. A span that used a GPU of its host must name a provider or backend for
        that.
        """
        shown = self.shown
        is_stage = spans.STAGE in shown
        if self.is_outer or spans.OUTCOME in shown or not (is_stage or shown.isdisjoint((spans.PROMPT, spans.NODE))):
            return False
        told = not shown.isdisjoint((spans.MODEL, spans.OPERATION)) and not self.is_on_gpu
        told = told or not shown.isdisjoint(spans.PROVIDERS) or (is_stage and spans.BACKEND in shown)
        may_pay = self.span_kind < spans.SERVER or self.span_kind == spans.CLIENT
        return told and may_pay and self.texts.get(spans.OPERATION, "") not in spans.NOT_CALLS

    @property
    def provider(self) -> str:
        """Of a call."""
        return self.texts.get(spans.PROVIDERS[0]) or self.texts.get(spans.PROVIDERS[1]) or ""


def texts_of(batch: Batch, keys: Sequence[str], row: int) -> dict[str, str]:
    """The texts and numbers of some attributes of one row, as texts; without those that are absent or empty."""
    values = ((key, batch.value(key, row)) for key in keys)
    return {key: text for key, value in values if (text := _text(value))}


def _text(value: object) -> str:
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    return "" if value is None else str(value)
