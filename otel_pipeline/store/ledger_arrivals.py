"""Spans of many records as columns with common numbers for facts, users, jobs and charges: what the ledger stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.ledger.charge import Status
from otel_pipeline.ledger.claims import Ints
from otel_pipeline.limits import LEDGER_CHARGE_NANO_MAX, LEDGER_CLAIM_S_MAX
from otel_pipeline.store.ledger_names import Names, Priced, hashed
from otel_pipeline.store.ledger_tables import NO_GPU
from otel_pipeline.wire.batch import ABSENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import sqlalchemy as sa

    from otel_pipeline.ledger.records import Fact, Spans
    from otel_pipeline.wire.batch import Strings

BOOKED: Final = frozenset({Status.FINAL, Status.FREE})
CLAIM_NS_MAX: Final = int(LEDGER_CLAIM_S_MAX * 1e9)


@dataclass(slots=True)
class Arrivals:
    """Columns, a row a span. `ids`: [row, 3] trace_hi, trace_lo, span. Jobs: name and rows by number."""

    ids: Ints
    parent: Ints
    start_ns: Ints
    end_ns: Ints
    fact: Ints
    job: Ints
    user: Ints
    charge: Ints
    """0: none"""
    nano: Ints
    reported_nano: Ints
    energy_mj: Ints
    reported_currency: list[str | None]
    quantities: list[str | None]
    facts: dict[int, Fact]
    """Those of the rows, by number."""
    jobs: dict[int, str]

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, rows: npt.NDArray[Any]) -> Arrivals:
        """Some of the rows; a mask or places."""
        places = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        arrays: dict[str, Any] = {name: getattr(self, name)[places] for name in _ARRAYS}
        lists: dict[str, Any] = {name: [getattr(self, name)[place] for place in places.tolist()] for name in _LISTS}
        return Arrivals(**arrays, **lists, facts=self.facts, jobs=self.jobs)

    def claiming(self) -> list[tuple[Fact, Ints]]:
        """Facts that claim GPUs, and their rows that take some time there, but not too much."""
        length = self.end_ns - self.start_ns
        fits = (length > 0) & (length <= CLAIM_NS_MAX)
        return [
            (fact, np.flatnonzero((self.fact == number) & fits))
            for number, fact in self.facts.items()
            if fact.claims and fact.gpus
        ]

    def implausible(self) -> int:
        """Spans that would claim GPUs for too long."""
        return int(np.count_nonzero(self.end_ns - self.start_ns > CLAIM_NS_MAX))

    def direct(self) -> Ints:
        """Rows that cost something by themselves."""
        return np.flatnonzero(self.nano)

    def rows(self) -> list[tuple[Any, ...]]:
        """As they are stored, in the order of the table's key."""
        order = np.lexsort((self.ids[:, 2], self.ids[:, 0], self.ids[:, 1]))
        columns: list[list[Any]] = [self.ids[order, place].tolist() for place in (1, 0, 2)]
        columns += [getattr(self, name)[order].tolist() for name in ("parent", "start_ns", "end_ns", "fact", "job")]
        columns.append(self.user[order].tolist())
        priced = self.charge[order] > 0
        for name, present in (
            ("charge", priced),
            ("nano", self.nano[order] != 0),
            ("reported_nano", self.reported_nano[order] >= 0),
            ("energy_mj", self.energy_mj[order] >= 0),
        ):
            if present.any():
                values = getattr(self, name)[order].tolist()
                columns.append(
                    [value if is_there else None for value, is_there in zip(values, present.tolist(), strict=True)]
                )
            else:
                columns.append([None] * len(order))
        for name in _LISTS:
            values = getattr(self, name)
            columns.append([values[place] for place in order.tolist()])
        return list(zip(*columns, strict=True))


_ARRAYS: Final = (
    "ids", "parent", "start_ns", "end_ns", "fact", "job", "user", "charge", "nano", "reported_nano", "energy_mj",
)  # fmt: skip
_LISTS: Final = ("reported_currency", "quantities")


def gather(connection: sa.Connection, names: Names, spans: Sequence[Spans]) -> Arrivals:
    """All spans, each once: of those with one id the first."""
    jobs: dict[int, str] = {}
    parts = [_part(connection, names, one, jobs) for one in spans]
    columns: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in _ARRAYS}
    columns |= {name: [value for part in parts for value in part[name]] for name in _LISTS}
    facts = {number: fact for part in parts for number, fact in part["facts"].items()}
    arrivals = Arrivals(**columns, facts=facts, jobs=jobs)
    ids = arrivals.ids
    order = np.lexsort((ids[:, 2], ids[:, 1], ids[:, 0]))
    repeated = np.zeros(len(ids), dtype=np.bool_)
    repeated[order[1:]] = (ids[order[1:]] == ids[order[:-1]]).all(axis=1)
    return arrivals.only(~repeated) if repeated.any() else arrivals


def claim_rows(connection: sa.Connection, names: Names, arrivals: Arrivals) -> list[tuple[int, ...]]:
    """GPU, hour, trace_lo, trace_hi, span of all that costs something."""
    parts: list[tuple[Ints, Ints, Ints]] = []
    for fact, rows in arrivals.claiming():
        first = arrivals.start_ns[rows] // HOUR_NS
        count = (arrivals.end_ns[rows] - 1) // HOUR_NS - first + 1
        which = np.repeat(np.arange(len(rows)), count)
        hours = (first[which] + np.arange(len(which)) - (np.cumsum(count) - count)[which]) * HOUR_NS
        gpus = names.gpus.of(connection, fact.gpus).values()
        parts += [(np.full(len(which), number), hours, rows[which]) for number in gpus]
    direct = arrivals.direct()
    parts.append((np.full(len(direct), NO_GPU), arrivals.end_ns[direct] // HOUR_NS * HOUR_NS, direct))
    gpu, hour, row = (np.concatenate(column) for column in zip(*parts, strict=True))
    hi, lo, span = arrivals.ids[row].T
    order = np.lexsort((span, hi, lo, hour, gpu))
    return list(zip(*(column[order].tolist() for column in (gpu, hour, lo, hi, span)), strict=True))


def _part(connection: sa.Connection, names: Names, spans: Spans, jobs: dict[int, str]) -> dict[str, Any]:
    used = sorted(set(spans.fact.tolist()))
    known = names.facts.of(connection, [spans.facts[place] for place in used])
    numbers = np.zeros(len(spans.facts) + 1, dtype=np.int64)
    for place in used:
        numbers[place] = known[spans.facts[place]]
    charge, booked = _charges(connection, names, spans)
    users = names.users.of(connection, [user for user in spans.user.values if user])
    own_jobs = [hashed(name) if name else 0 for name in spans.job.values]
    jobs.update((number, name) for number, name in zip(own_jobs, spans.job.values, strict=True) if number)
    return {
        "ids": np.stack([spans.trace_hi, spans.trace_lo, spans.span], axis=1).astype(np.int64),
        "parent": spans.parent,
        "start_ns": spans.start_ns,
        "end_ns": spans.end_ns,
        "fact": numbers[spans.fact],
        "job": _coded(spans.job, own_jobs),
        "user": _coded(spans.user, [users.get(user, 0) for user in spans.user.values]),
        "charge": charge,
        "nano": np.where(booked & (spans.nano <= LEDGER_CHARGE_NANO_MAX), spans.nano, 0),
        "reported_nano": spans.reported_nano,
        "energy_mj": spans.energy_mj,
        "reported_currency": _texts(spans.reported_currency),
        "quantities": _texts(spans.quantities()),
        "facts": {number: fact for fact, number in known.items()},
    }


def _charges(connection: sa.Connection, names: Names, spans: Spans) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Number of each row's charge, 0 for none; and whether its amount is booked as it is. Estimates are not."""
    charge = np.zeros(len(spans), dtype=np.int64)
    booked = np.zeros(len(spans), dtype=np.bool_)
    used = sorted(set(spans.verdict.tolist()) - {ABSENT})
    if not used:
        return charge, booked
    priced = {place: Priced(*spans.verdicts[place]) for place in used}
    known = names.charges.of(connection, [one for one in priced.values() if one.status != Status.PROVISIONAL])
    numbers = np.zeros(len(spans.verdicts) + 1, dtype=np.int64)
    counts = np.zeros(len(spans.verdicts) + 1, dtype=np.bool_)
    for place, one in priced.items():
        numbers[place], counts[place] = known.get(one, 0), one.status in BOOKED
    return numbers[spans.verdict], counts[spans.verdict]


def _coded(column: Strings, numbers: list[int]) -> Ints:
    return np.array([*numbers, 0], dtype=np.int64)[column.codes]


def _texts(column: Strings) -> list[str | None]:
    if (column.codes == ABSENT).all():
        return [None] * len(column.codes)
    values = [*column.values, None]
    return [values[code] for code in column.codes.tolist()]
