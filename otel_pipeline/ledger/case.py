"""One case of allocation as JSON, for `otel-pipeline ledger allocate`: to try the law, and to check it from outside.

Times are seconds, prices $ per second; both may be numbers or texts and are taken as they are written, exactly.

    {"period": [0, 60], "mode": "equal" | "weighted" | "fixed",
     "gpus": {"g0": {"rate": [[0, "0.001"]], "billed": [[0, 60]], "ready": 0}},
     "claims": [{"id": "A", "gpu": "g0", "start": 0, "end": 30, "parent": null, "weight": 1, "share": null,
                 "attempt": 1, "outcome": "ok"}]}

May be left out: all of a claim behind `end`, `mode` (equal), `billed` (the period), `ready` (at once; one value, or
one for each billed time). Beyond that a GPU may have `draining` (takes no more work from here on), `unobserved`
([[from, to]]) and `round_up` (billed times are rounded up to multiples of it, such as 1). A claim may have several
GPUs as a list, or null: then it costs nothing and links its children to its parent. It may have a `weight` that changes
([[from, weight]]), a `share` such as "1/7", a `job`, `outputs` and `outputs_failed`.

The answer has nine decimals: `spans` (self cost, over all GPUs), `inclusive` (with descendants), `buckets` and
`total` by GPU, `waste` and its parts by span, `waste_ratio` (of what spans cost), `jobs`, `dropped` (claims that end
before they start).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import lcm
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from otel_pipeline.errors import ConfigError
from otel_pipeline.ledger import sums
from otel_pipeline.ledger.allocation import Mode, allocate
from otel_pipeline.ledger.claims import OK, Claim, ClaimTable, claim_table
from otel_pipeline.ledger.money import NANO, exact, formatted, rounded
from otel_pipeline.ledger.tape import Billed, Tape
from otel_pipeline.limits import LEDGER_CASE_BYTES_MAX, LEDGER_WEIGHT_MAX

_TIME_NS_MAX: Final = 2**62


def _number(value: Any) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise ValueError("must be a number")  # noqa: TRY004  pydantic takes ValueError for a mistake
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise ValueError("must be a number") from error
    if not number.is_finite() or abs(number.adjusted()) > 30:
        raise ValueError("must be a number of at most 30 digits")
    return Fraction(number)


def _ns(value: Any) -> int:
    number = _number(value) * NANO
    at = rounded(number.numerator, number.denominator)
    if abs(at) >= _TIME_NS_MAX:
        raise ValueError("is too far away: seconds are expected")
    return at


def _price(value: Any) -> Fraction:
    return exact(value) if isinstance(value, str) else _number(value)


def _share(value: Any) -> Fraction | None:
    if value is None:
        return None
    if isinstance(value, str) and "/" in value:
        above, _, below = value.partition("/")
        if not (above.isdigit() and below.isdigit() and int(below)):
            raise ValueError("must be a number or a quotient such as 1/7")
        return Fraction(int(above), int(below))
    return _number(value)


def _weight(value: Any) -> Any:
    if not isinstance(value, list):
        return Fraction(1) if value is None else _number(value)
    if not all(isinstance(step, list) and len(step) == 2 for step in value):
        raise ValueError("must be a number, or steps as [from, weight]")
    return [(_ns(at), _number(weight)) for at, weight in value]


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _gpus(value: Any) -> Any:
    return [] if value is None else _listed(value)


Seconds = Annotated[int, BeforeValidator(_ns)]
Rate = Annotated[Fraction, BeforeValidator(_price)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, arbitrary_types_allowed=True)


class _Gpu(_Part):
    rate: list[tuple[Seconds, Rate]]
    billed: list[tuple[Seconds, Seconds]] | None = None
    ready: Annotated[list[Seconds | None], BeforeValidator(_listed)] = [None]
    draining: Seconds | None = None
    unobserved: list[tuple[Seconds, Seconds]] = []
    round_up: Seconds | None = None


class _Claim(_Part):
    id: str
    gpu: Annotated[list[str], BeforeValidator(_gpus)]
    start: Seconds
    end: Seconds
    parent: str | None = None
    weight: Annotated[Any, BeforeValidator(_weight)] = Fraction(1)
    share: Annotated[Fraction | None, BeforeValidator(_share)] = None
    attempt: int = 1
    outcome: str | None = OK
    job: str | None = None
    outputs: Annotated[int, Field(ge=0)] = 0
    outputs_failed: Annotated[int, Field(ge=0)] = 0


class _Case(_Part):
    period: tuple[Seconds, Seconds]
    mode: Mode = Mode.EQUAL
    gpus: Annotated[dict[str, _Gpu], Field(min_length=1)]
    claims: list[_Claim] = []


def answer(text: str | bytes) -> tuple[dict[str, Any], list[str]]:
    """The allocation of a case, and what of the case is not known and left out. ConfigError with every mistake."""
    case = _read(text)
    table, tapes = _built(case)
    allocations = [allocate(tape, table, case.period, case.mode) for tape in tapes]
    costs = sums.row_costs(table, allocations)
    wasted = sums.wasted_costs(table, costs)
    spans = dict.fromkeys((claim.id for claim in case.claims if not claim.gpu), 0) | sums.span_costs(table, costs)
    by_span = {name: nano for name, nano in sums.span_costs(table, wasted).items() if nano}
    jobs = sums.job_costs(table, costs, wasted)
    found = {
        "spans": _money(spans),
        "inclusive": _money(sums.inclusive_costs(table, spans)),
        "buckets": {one.gpu: _money(one.by_bucket()) for one in allocations},
        "total": {one.gpu: formatted(sum(one.totals)) for one in allocations},
        "waste": formatted(sum(wasted)),
        "waste_spans": _money(by_span),
        "waste_ratio": formatted(rounded(sum(wasted) * NANO, sum(costs)) if sum(costs) else 0),
        "jobs": {name: {"cost": formatted(job.nano), "waste": formatted(job.wasted)} for name, job in jobs.items()},
        "dropped": [{"id": span, "gpu": gpu, "reason": "ends before it starts"} for span, gpu in table.dropped],
    }
    return found, [f"{place}: is not known and left out" for place in _unknown(case)]


def _read(text: str | bytes) -> _Case:
    if len(text) > LEDGER_CASE_BYTES_MAX:
        raise ConfigError([f"the case is longer than {LEDGER_CASE_BYTES_MAX} bytes"])
    try:
        return _Case.model_validate(json.loads(text, parse_float=Decimal))
    except ValidationError as error:
        raise ConfigError(
            [
                f"{'.'.join(map(str, one['loc'])) or 'the case'}: {one['msg'].removeprefix('Value error, ')}"
                for one in error.errors()
            ]
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"the case is no JSON: {error}"]) from error


def _built(case: _Case) -> tuple[ClaimTable, list[Tape]]:
    mistakes = []
    if case.period[0] >= case.period[1]:
        mistakes.append("period: must end after it starts")
    scale, reason = _weight_scale(case)
    if reason:
        mistakes.append(reason)
    for index, claim in enumerate(case.claims):
        mistakes += [
            f"claims.{index}.gpu: {gpu} is not in gpus; one of {', '.join(case.gpus)}"
            for gpu in claim.gpu
            if gpu not in case.gpus
        ]
        if claim.share is not None and not 0 <= claim.share <= 1:
            mistakes.append(f"claims.{index}.share: must be between 0 and 1")
    tapes = []
    for name, gpu in case.gpus.items():
        try:
            tapes.append(_tape(name, gpu, case.period))
        except ValueError as error:
            mistakes.append(f"gpus.{name}: {error}")
    if not mistakes:
        try:
            links = {claim.id: claim.parent for claim in case.claims if claim.parent and not claim.gpu}
            return claim_table([one for claim in case.claims for one in _claims(claim, scale)], links), tapes
        except ValueError as error:
            mistakes.append(f"claims: {error}")
    raise ConfigError(mistakes)


def _tape(name: str, gpu: _Gpu, period: tuple[int, int]) -> Tape:
    times = gpu.billed if gpu.billed is not None else [period]
    ready = gpu.ready if len(gpu.ready) > 1 else gpu.ready * len(times)
    if len(ready) != len(times):
        raise ValueError("ready must be one value, or one for each billed time")
    if gpu.round_up is not None and gpu.round_up <= 0:
        raise ValueError("round_up must be more than 0 seconds")
    billed = []
    for (start, end), at in zip(times, ready, strict=True):
        if end < start:
            raise ValueError("a billed time ends before it starts")
        bill_end = Billed.rounded_up(start, end, gpu.round_up).end_ns if gpu.round_up else end
        billed.append(Billed(start, bill_end, ready_ns=at, draining_ns=gpu.draining, stop_ns=end))
    return Tape(name, gpu.rate, billed, gpu.unobserved)


def _claims(claim: _Claim, scale: int) -> Iterator[Claim]:
    steps = claim.weight
    weight = tuple((at, int(one * scale)) for at, one in steps) if isinstance(steps, list) else int(steps * scale)
    for gpu in dict.fromkeys(claim.gpu):
        yield Claim(
            span=claim.id,
            gpu=gpu,
            start_ns=claim.start,
            end_ns=claim.end,
            parent=claim.parent,
            weight=weight,
            share=claim.share,
            attempt=claim.attempt,
            outcome=claim.outcome or OK,
            job=claim.job or "",
            outputs=claim.outputs,
            outputs_failed=claim.outputs_failed,
        )


def _weight_scale(case: _Case) -> tuple[int, str]:
    """What makes all weights whole, or why there is no such number."""
    weights = [
        weight
        for claim in case.claims
        for weight in ([one for _, one in claim.weight] if isinstance(claim.weight, list) else [claim.weight])
    ]
    scale = 1
    for weight in weights:
        scale = lcm(scale, weight.denominator)
        if weight < 0 or scale > LEDGER_WEIGHT_MAX:
            break
    if any(weight < 0 or weight * scale > LEDGER_WEIGHT_MAX for weight in weights):
        return 1, f"claims: weights must be 0 or more and, as whole numbers, at most {LEDGER_WEIGHT_MAX}"
    return scale, ""


def _money(amounts: dict[str, int]) -> dict[str, str]:
    return {name: formatted(nano) for name, nano in amounts.items()}


def _unknown(case: _Case) -> Iterator[str]:
    yield from case.model_extra or ()
    for name, gpu in case.gpus.items():
        yield from (f"gpus.{name}.{key}" for key in gpu.model_extra or ())
    for index, claim in enumerate(case.claims):
        yield from (f"claims.{index}.{key}" for key in claim.model_extra or ())
