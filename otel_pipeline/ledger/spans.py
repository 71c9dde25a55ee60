"""What a span is, what it used, and what its sender says it cost.

    span                                                            kind      may be charged directly
    has the outcome of a job                                        job       no: its stages are
    has a stage's name                                              stage     yes
    has a ComfyUI prompt's id, or a node's type                     prompt, node   no
    has a provider, model or operation, and is no server's          call      yes
    anything else                                                   other     no

The same call is often told by several spans. Those of agents, workflows and tools sum up what is below them: they are
no calls (`NOT_CALLS`). So are spans of servers and queues: who answers a call does not pay for it. Where two spans tell
one call of the same model, one below the other, the inner one is charged: it is closer to the provider.

What makes spans differ is looked at once for all that are alike (`said.py`); numbers that differ from span to span come
in columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from otel_pipeline.ledger.money import CURRENCY, NANO
from otel_pipeline.ledger.plans import NANO_MAX, UNKNOWN
from otel_pipeline.ledger.records import KINDS
from otel_pipeline.wire.batch import ABSENT, Strings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Set

    from otel_pipeline.wire.batch import Batch, Ints, Mask

OUTCOME: Final = "otel_pipeline.job.outcome"
STAGE: Final = "otel_pipeline.stage.name"
PROMPT: Final = "comfyui.prompt.id"
NODE: Final = "comfyui.node.type"
JOB_ID: Final = "otel_pipeline.job.id"
USER: Final = "enduser.pseudo.id"
MODEL: Final = "gen_ai.request.model"
BACKEND: Final = "otel_pipeline.backend.name"
OPERATION: Final = "gen_ai.operation.name"
PROVIDERS: Final = ("gen_ai.provider.name", "gen_ai.system")
WORKFLOW: Final = "otel_pipeline.workflow.name"
TIER: Final = "otel_pipeline.job.tier"
JOB_TYPE: Final = "otel_pipeline.job.type"
ATTEMPT: Final = "otel_pipeline.job.attempt"
RESOLUTION: Final = "otel_pipeline.quantity.resolution"
WIDTH: Final = "otel_pipeline.quantity.width"
HEIGHT: Final = "otel_pipeline.quantity.height"
NOT_CALLS: Final = frozenset(
    {"create_agent", "invoke_agent", "invoke_workflow", "execute_tool", "plan", "retrieval"}
    | {"create_memory", "update_memory", "search_memory", "delete_memory"}
)
"""Operations whose usage is that of the calls below them, or that call no model."""
SERVER, CLIENT, PRODUCER = 2, 3, 4
"""Span kinds."""
JOB_KIND, STAGE_KIND, PROMPT_KIND, NODE_KIND, CALL_KIND, OTHER_KIND = range(len(KINDS))

_QUANTITY: Final = "otel_pipeline.quantity."
_USAGE: Final = "gen_ai.usage."
QUANTITIES: Final = {
    f"{_QUANTITY}items": ("items", 1),
    f"{_QUANTITY}images": ("images", 1),
    f"{_QUANTITY}input_images": ("input_images", 1),
    f"{_QUANTITY}video_seconds": ("video_ns", NANO),
    f"{_QUANTITY}audio_seconds": ("audio_ns", NANO),
    f"{_QUANTITY}characters": ("characters", 1),
    f"{_USAGE}prompt_tokens": ("input_tokens", 1),
    f"{_USAGE}completion_tokens": ("output_tokens", 1),
    f"{_USAGE}input_tokens": ("input_tokens", 1),
    f"{_USAGE}output_tokens": ("output_tokens", 1),
    f"{_USAGE}cache_read.input_tokens": ("cached_input_tokens", 1),
    f"{_USAGE}cache_creation.input_tokens": ("cache_write_tokens", 1),
    f"{_USAGE}image.input_tokens": ("image_input_tokens", 1),
    f"{_USAGE}audio.input_tokens": ("audio_input_tokens", 1),
    f"{_USAGE}image.output_tokens": ("image_output_tokens", 1),
    f"{_USAGE}audio.output_tokens": ("audio_output_tokens", 1),
}
"""Attribute -> column and units. Of two for one column the later one counts: names as they are now go over old ones."""
UNITS_MAX: Final = 2.0**53
"""What a double counts exactly: 104 days of video."""

_COST: Final = f"{_USAGE}cost"
REPORTED: Final[tuple[tuple[str, ...], ...]] = (
    (f"{_COST}.amount",),
    (f"{_COST}.total",),
    (f"{_COST}.prompt", f"{_COST}.completion"),
    (_COST,),
    (f"{_USAGE}input_cost", f"{_USAGE}output_cost"),
    ("gen_ai.cost.usd",),
    ("ai.total_cost",),
    ("operation.cost",),
)
"""Attributes that say what a call cost, the first that is there counts: OpenTelemetry's proposal, genai-otel, OpenLIT,
Laminar, others, Sentry, Logfire. Of several in one line the sum."""
COST_CURRENCY: Final = f"{_COST}.currency"
COST_SOURCE: Final = f"{_COST}.source"
IN_DOLLARS: Final = "gen_ai.cost.usd"
BY_PROVIDER: Final = "provider"

REPORTED_KEYS: Final = tuple(key for keys in REPORTED for key in keys)


@dataclass(frozen=True, slots=True)
class Reported:
    """What the senders say that spans cost: n$, or UNKNOWN."""

    nano: Ints
    by_provider: Mask
    """Whether the provider said it; else the client reckoned it."""
    currency: Strings


def quantities(batch: Batch, having: Set[str], more: Mapping[str, tuple[str, int]]) -> tuple[tuple[str, ...], Ints]:
    """What each span used: names of quantities that any span tells, and a line each (names, rows); UNKNOWN where it
    says nothing. `more` are attributes besides QUANTITIES.
    """
    if having.isdisjoint(QUANTITIES) and having.isdisjoint(more):
        return (), np.empty((0, len(batch)), np.int64)
    asked = {key: told for key, told in {**QUANTITIES, **more}.items() if key in having}
    lines = batch.wholes(tuple(asked), [units for _, units in asked.values()], UNITS_MAX)
    names = dict.fromkeys(name for name, _ in asked.values())
    if len(names) < len(asked):
        merged: dict[str, Ints] = {}
        for (name, _), line in zip(asked.values(), lines, strict=True):
            merged[name] = np.where(line >= 0, line, merged[name]) if name in merged else line
        lines = np.stack([*merged.values()])
    return tuple(names), lines


def reported(batch: Batch, having: Set[str], currency: str) -> Reported | None:
    """What the senders say that spans cost; None if none says anything. `currency` is that of costs without one.

    A cost of 0 that the client has reckoned mostly means that its list has no such model: it counts as unknown.
    """
    if having.isdisjoint(REPORTED_KEYS):
        return None
    nano = np.full(len(batch), UNKNOWN, np.int64)
    in_dollars = np.zeros(len(batch), np.bool_)
    for keys in REPORTED:
        if not any(key in having for key in keys):
            continue
        parts = [batch.numbers(key) for key in keys]
        values = np.where(np.isnan(parts[0]), parts[-1], parts[0])
        if len(parts) > 1:
            values = np.where(np.isnan(parts).any(0), values, parts[0] + parts[-1])
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.rint(values * NANO)
            fresh = (nano == UNKNOWN) & (scaled >= 0) & (scaled < NANO_MAX)
        nano[fresh] = scaled[fresh].astype(np.int64)
        if IN_DOLLARS in keys:
            in_dollars |= fresh
    if not (nano >= 0).any():
        return None
    nothing = np.zeros(len(batch), np.bool_)
    by_provider = batch.strings(COST_SOURCE).where(BY_PROVIDER.__eq__) if COST_SOURCE in having else nothing
    nano[(nano == 0) & ~by_provider] = UNKNOWN
    return Reported(nano, by_provider, _currencies(batch, having, currency, in_dollars))


def _currencies(batch: Batch, having: Collection[str], currency: str, in_dollars: Mask) -> Strings:
    """The currency of each span's reported cost. A name that is none counts as not said."""
    codes = in_dollars.astype(np.int32)
    values = [currency, "USD"]
    if COST_CURRENCY in having:
        told = batch.strings(COST_CURRENCY)
        table = [index if CURRENCY.fullmatch(name) else ABSENT for index, name in enumerate(told.values, len(values))]
        named = np.array([*table, ABSENT], np.int32)[told.codes]
        codes = np.where((named >= 0) & ~in_dollars, named, codes)
        values += told.values
    return Strings(codes, values)
