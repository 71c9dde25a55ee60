"""Records for the ledger, written by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from otel_pipeline.ledger.price_book import PriceBook
from otel_pipeline.ledger.price_rows import Row
from otel_pipeline.ledger.records import NUMBERS, TEXTS, Fact, Presence, Spans, encode
from otel_pipeline.ledger.shares import parts_of
from otel_pipeline.wire.batch import Strings

SECOND = 10**9
T0 = 1_800_000_000 // 86_400 * 86_400
"""A midnight, in seconds."""
GPU = "GPU-0"
HOST = "host-0"
NAME = "NVIDIA Test"


@dataclass(frozen=True)
class One:
    """A span; times in seconds after T0."""

    span: int
    start: float = 0.0
    end: float = 0.0
    parent: int = 0
    trace: int = 1
    gpus: tuple[str, ...] = (GPU,)
    host: str = HOST
    kind: str = "stage"
    job: str = ""
    user: str = ""
    attempt: int = 1
    outcome: str = ""
    model: str = ""
    backend: str = ""
    workflow: str = ""
    tier: str = ""
    nano: int = 0
    currency: str = "USD"
    quantities: str = ""
    share: str = ""
    dimensions: tuple[tuple[str, str], ...] = field(default=())


def record(
    *spans: One,
    seen: dict[str, tuple[int, int]] | None = None,
    host: str = HOST,
    energy: Sequence[tuple[float, int]] = (),
    counter: str = "hw",
) -> bytes:
    """A record of spans, and of GPUs that were seen in minutes [first, last] after T0. `energy`: readings of GPU's
    counter, seconds after T0 and mJ."""
    presence = [
        Presence((host,), gpu, NAME, tuple(T0 // 60 + minute for minute in range(first, last + 1)))
        for gpu, (first, last) in (seen or {}).items()
    ]
    if energy:
        readings = tuple((counter, T0 * 1000 + round(at * 1000), mj) for at, mj in energy)
        presence.append(Presence((host,), GPU, NAME, energy=readings))
    return encode(columns(spans) if spans else None, presence)


def columns(spans: tuple[One, ...]) -> Spans:
    facts: dict[Fact, int] = {}
    codes = [facts.setdefault(fact_of(one), len(facts)) for one in spans]
    numbers = {
        "trace_hi": [one.trace * 7 for one in spans],
        "trace_lo": [-one.trace if one.trace % 2 else one.trace for one in spans],
        "span": [one.span for one in spans],
        "parent": [one.parent for one in spans],
        "start_ns": [at_ns(one.start) for one in spans],
        "end_ns": [at_ns(one.end) for one in spans],
        "nano": [one.nano for one in spans],
        "reported_nano": [-1 for _ in spans],
        "energy_mj": [-1 for _ in spans],
    }
    told = {
        "job": [one.job for one in spans],
        "user": [one.user for one in spans],
    }
    verdicts: dict[tuple[str, ...], int] = {}
    used = [json.loads(one.quantities or "{}") for one in spans]
    fields = tuple(dict.fromkeys(name for told in used for name in told))
    lines = [[told.get(name, -1) for told in used] for name in fields]
    texts: dict[str, Any] = {name: strings(told.get(name, [""] * len(spans))) for name in TEXTS}
    arrays: dict[str, Any] = {name: np.array(numbers[name], dtype=np.int64) for name in NUMBERS}
    verdict = [verdicts.setdefault(told, len(verdicts)) if (told := _verdict(one)) else -1 for one in spans]
    return Spans(
        facts=list(facts),
        fact=np.array(codes, dtype=np.int32),
        verdicts=list(verdicts),
        verdict=np.array(verdict, dtype=np.int32),
        fields=fields,
        used=np.array(lines, dtype=np.int64).reshape(len(fields), len(spans)),
        **arrays,
        **texts,
    )


def _verdict(one: One) -> tuple[str, ...]:
    if one.nano:
        return (one.currency, "image", "per-image", "final", "", "")
    return ("", "", "", "unpriced", "", "") if one.quantities else ()


def fact_of(one: One) -> Fact:
    return Fact(
        service="worker",
        host=one.host,
        gpus=one.gpus,
        gpu_name=NAME if one.gpus else "",
        model=one.model,
        backend=one.backend,
        workflow=one.workflow,
        tier=one.tier,
        attempt=one.attempt,
        outcome=one.outcome,
        share=parts_of(one.share),
        kind=one.kind,
        claims=bool(one.gpus),
        dimensions=one.dimensions,
    )


def strings(texts: list[str]) -> Strings:
    values = sorted({text for text in texts if text})
    codes = {text: index for index, text in enumerate(values)}
    return Strings(np.array([codes.get(text, -1) for text in texts], dtype=np.int32), values)


def at_ns(seconds: float) -> int:
    return T0 * SECOND + round(seconds * SECOND)


def price(
    text: str = "0.001",
    since: float | None = None,
    until: float | None = None,
    basis: str = "gpu_second",
    match: dict[str, Any] | None = None,
    **more: Any,
) -> Row:
    """A price of the test's GPUs; times in seconds after T0."""
    fields = {
        "id": "test",
        "match": match or {"gpu": NAME},
        "basis": basis,
        "price": text,
        "effective_from": None if since is None else moment(since),
        "effective_to": None if until is None else moment(until),
        **more,
    }
    return Row.model_validate(fields)


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(T0 + seconds, UTC).isoformat()


def prices(*rows: Row) -> PriceBook:
    return PriceBook(rows or [price()])
