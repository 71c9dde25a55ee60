"""Columns of a batch as the ledger wants them: what each span is, what it used, and what its sender says it cost.

    span                                                            kind      may be charged directly
    has the outcome of a job                                        job       no: its stages are
    has a stage's name                                              stage     yes
    has a ComfyUI prompt's id, or a node's type                     prompt, node   no
    has a provider, model or operation, and is no server's          call      yes
    anything else                                                   other     no

The same call is often told by several spans. Those of agents, workflows and tools sum up what is below them: they are
no calls (`NOT_CALLS`). So are spans of servers and queues: who answers a call does not pay for it. For the rest see
`nested.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from otel_pipeline.ledger.money import CURRENCY, NANO
from otel_pipeline.ledger.plans import NANO_MAX, UNKNOWN
from otel_pipeline.ledger.records import KINDS
from otel_pipeline.wire import cells
from otel_pipeline.wire.batch import ABSENT, Strings

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from otel_pipeline.wire.batch import Batch, Floats, Ints, Mask

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

NUMBERS_END: Final = 2**14
"""Attempts and pixels are fewer."""

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
KEYS: Final = (
    *(OUTCOME, STAGE, PROMPT, NODE, JOB_ID, USER, MODEL, BACKEND, OPERATION, *PROVIDERS, WORKFLOW, TIER, JOB_TYPE),
    ATTEMPT,
)
"""Attributes that are looked for in all spans."""
USAGE_KEYS: Final = (RESOLUTION, WIDTH, HEIGHT, COST_CURRENCY, COST_SOURCE, *QUANTITIES, *REPORTED_KEYS)
"""Those that are looked for only if there are spans that may be charged directly."""


@dataclass(frozen=True, slots=True)
class Reported:
    """What the senders say that spans cost: n$, or UNKNOWN."""

    nano: Ints
    by_provider: Mask
    """Whether the provider said it; else the client reckoned it."""
    currency: Strings


def kinds(batch: Batch, having: Collection[str]) -> Ints:
    """What each span is, as a place in KINDS, without CALL_KIND."""
    kind = np.full(len(batch), OTHER_KIND, np.int64)
    for key, number in ((PROMPT, PROMPT_KIND), (NODE, NODE_KIND), (STAGE, STAGE_KIND), (OUTCOME, JOB_KIND)):
        if key in having:
            kind[batch.present(key)] = number
    return kind


def own_work(batch: Batch, having: Collection[str], kind: Ints) -> Mask:
    """Jobs, stages, prompts and nodes, and spans of a model that are no calls of others."""
    own: Mask = kind != OTHER_KIND
    if own.all():
        return own
    inner = (batch.kind != CLIENT) & (batch.kind != PRODUCER)
    for key in (MODEL, OPERATION):
        if key in having:
            own = own | (inner & batch.present(key))
    return own


def calls(batch: Batch, having: Collection[str], kind: Ints, on_gpu: Mask) -> Mask:
    """Which spans may be charged directly. One that used a GPU of its host must name a provider or backend for that."""
    told = np.zeros(len(batch), np.bool_)
    for key in (MODEL, OPERATION):
        if key in having:
            told |= batch.present(key)
    told &= ~on_gpu
    for key in PROVIDERS:
        if key in having:
            told |= batch.present(key)
    if BACKEND in having:
        told |= (kind == STAGE_KIND) & batch.present(BACKEND)
    if not told.any():
        return told
    told &= (kind == OTHER_KIND) | (kind == STAGE_KIND)
    told &= (batch.kind < SERVER) | (batch.kind == CLIENT)
    if OPERATION in having:
        told &= ~batch.strings(OPERATION).where(NOT_CALLS.__contains__)
    return told


def quantities(batch: Batch, having: Collection[str]) -> dict[str, Ints]:
    """What each span used, by the names of FIELDS that any span tells; UNKNOWN where it says nothing."""
    found: dict[str, Ints] = {}
    for key, (name, units) in QUANTITIES.items():
        if key in having:
            values = whole(batch.numbers(key), units)
            found[name] = np.where(values >= 0, values, found[name]) if name in found else values
    return found


def whole(values: Floats, units: int) -> Ints:
    """Numbers as whole multiples of 1/units; UNKNOWN for what is negative, too large or none."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(values * units)
        good = (scaled >= 0) & (scaled < UNITS_MAX)
    return np.where(good, scaled, UNKNOWN).astype(np.int64)


def reported(batch: Batch, having: Collection[str], currency: str) -> Reported | None:
    """What the senders say that spans cost; None if none says anything. `currency` is that of costs without one.

    A cost of 0 that the client has reckoned mostly means that its list has no such model: it counts as unknown.
    """
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


def above(batch: Batch, chosen: Mask) -> Mask:
    """The parents of chosen rows: the ledger looks through them."""
    ids, parents = batch.rows[:, cells.SPAN_ID], batch.rows[chosen, cells.PARENT_ID]
    above: Mask = np.isin(ids, parents[parents != 0])
    return above


def small_numbers(batch: Batch, key: str) -> Strings:
    """A column of whole numbers below NUMBERS_END as texts; others are absent."""
    codes = np.full(len(batch), ABSENT, np.int32)
    rows = np.flatnonzero(batch.present(key))
    numbers = batch.numbers(key)[rows]
    good = (numbers >= 0) & (numbers < NUMBERS_END)
    distinct, codes[rows[good]] = np.unique(numbers[good].astype(np.int64), return_inverse=True)
    return Strings(codes, [str(number) for number in distinct.tolist()])


def first_of(batch: Batch, having: Collection[str], keys: Sequence[str]) -> Strings:
    """The first of several attributes that a row has."""
    found: Strings | None = None
    for key in keys:
        if key not in having:
            continue
        column = batch.strings(key)
        if found is None:
            found = column
        else:
            later = np.where(column.codes >= 0, column.codes + np.int32(len(found.values)), np.int32(ABSENT))
            found = Strings(np.where(found.codes >= 0, found.codes, later), found.values + column.values)
    return found if found is not None else Strings(np.full(len(batch), ABSENT, np.int32), [])


def told_quantities(table: Ints, fields: Sequence[str]) -> Strings:
    """The quantities of each row as a JSON object; those that are unknown are left out."""
    codes = np.full(len(table), ABSENT, np.int32)
    known = table >= 0
    patterns = known @ (1 << np.arange(len(fields)))
    texts: dict[str, int] = {}
    for pattern in np.unique(patterns[patterns > 0]).tolist():
        rows = np.flatnonzero(patterns == pattern)
        places = [place for place in range(len(fields)) if pattern >> place & 1]
        template = "{" + ",".join(f'"{fields[place]}":%d' for place in places) + "}"
        told = [template % row for row in zip(*(table[rows, place].tolist() for place in places), strict=True)]
        codes[rows] = [texts.setdefault(text, len(texts)) for text in told]
    return Strings(codes, list(texts))
