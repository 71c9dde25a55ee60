"""What things cost, by backend, model, job, hour, anything: the lines of a report.

Each view is a partition of the same sums: lines, and what is left to nobody, add up to what was paid, whoever bears
idle. A view that is sorted by GPU or by time knows whose idle it is; the others share it GPU by GPU.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from otel_pipeline.ledger.money import NANO
from otel_pipeline.ledger.views import IdlePolicy, StartupPolicy, with_idle
from otel_pipeline.limits import COST_JOBS_MAX
from otel_pipeline.store.database import listed
from otel_pipeline.store.ledger_runs import Ended, ended
from otel_pipeline.store.ledger_startups import borne
from otel_pipeline.store.ledger_tables import AMOUNTS, BUCKETS, FACT, GPU, JOB, NO_GPU, USER, WORD
from otel_pipeline.store.ledger_windows import Spent, dearest_jobs, paid, spent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_pipeline.store.ledger_windows import Key, Window

OF_FACTS: Final = (
    "backend", "model", "workflow", "tier", "service", "provider", "host", "region", "gpu_name", "job_type", "kind",
    "outcome", "attempt",
)  # fmt: skip
TIMES: Final = {"hour": "%Y-%m-%dT%H:00Z", "day": "%Y-%m-%d", "month": "%Y-%m"}
VIEWS: Final = (*OF_FACTS, "user", "job", "gpu", *TIMES)
"""What a report can be sorted by, besides the attributes of jobs that the processor `cost` is configured with."""
DIRECT: Final = "(direct)"
"""Name of the GPU of what ran on none, such as calls of somebody else's model."""
OTHER_JOBS: Final = "(other jobs)"
NUMBERED: Final = "\0"
"""Before the number of a job whose name was not looked up."""
STARTUP: Final = "startup"
UNKNOWN_VIEW: Final = "there is no view {}; allowed: {}, and the attributes of jobs: {}"


class NoSuchView(ValueError):
    """Costs cannot be sorted by what was asked for."""


@dataclass(slots=True)
class Line:
    """n$ of one name. `idle` is nobody's and known to belong here (a GPU, a time); it is not part of `nano`. `jobs` is
    None where it is not known which belong here.
    """

    name: str
    currency: str
    nano: int = 0
    wasted: int = 0
    idle: int = 0
    jobs: Ended | None = None


@dataclass(slots=True)
class View:
    """Lines by cost, or by time. `left`: n$ that are nobody's and in no line, by currency and bucket."""

    lines: list[Line] = field(default_factory=list)
    left: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Idle:
    """Who bears what nobody used, cold starts apart; `reserved`: who reserved a GPU, by its UUID."""

    policy: IdlePolicy = IdlePolicy.SEPARATE
    reserved: Mapping[str, str] = field(default_factory=dict)
    startup: StartupPolicy = StartupPolicy.SEPARATE


SEPARATE: Final = Idle()


def attributes(connection: sa.Connection) -> list[str]:
    """The attributes of jobs that costs can be sorted by, because something has them."""
    found: set[str] = set()
    for (text,) in connection.execute(sa.select(FACT.c.dimensions).distinct()):
        found |= json.loads(text).keys()
    return sorted(found)


def view(
    connection: sa.Connection,
    window: Window,
    by: str,
    idle: Idle = SEPARATE,
    by_fact: Mapping[int, Ended] | None = None,
) -> View:
    """Costs in the window. `by_fact`: what ended in it, where it is known. Raises NoSuchView."""
    if by not in VIEWS and by not in (known := attributes(connection)):
        raise NoSuchView(UNKNOWN_VIEW.format(by, ", ".join(VIEWS), ", ".join(known) or "none"))
    names = _Names(connection, by)
    if by == "gpu" or by in TIMES:
        found = _partition(connection, window, names, idle)
    else:
        found = _shared(connection, window, names, idle)
    if by not in {"gpu", "job"}:
        _count_jobs(connection, window, names, found, by_fact)
    if by in TIMES:
        found.lines.sort(key=lambda line: (line.currency, line.name))
    else:
        found.lines.sort(key=lambda line: (line.currency, -line.nano - line.idle, line.name))
    return found


def nobody(amounts: list[int]) -> dict[str, int]:
    """The buckets of AMOUNTS that are not empty."""
    return {name: nano for name, nano in zip(AMOUNTS, amounts, strict=True) if name in BUCKETS and nano}


def _partition(connection: sa.Connection, window: Window, told: _Names, idle: Idle) -> View:
    """By what idle can be told apart, too: it stays where it was paid, whoever bears it."""
    key = "gpu" if told.by == "gpu" else "hour"
    costs, amounts = spent(connection, window, [key]), paid(connection, window, [key])
    names = told.of({each[0] for each in [*costs, *amounts]})
    lines: dict[tuple[str, str], Line] = {}
    for value, currency in sorted(costs.keys() | amounts.keys()):
        if not currency:
            continue
        line = lines.setdefault((names[value], currency), Line(names[value], currency))
        one = costs.get((value, currency), Spent())
        line.nano += one.nano
        line.wasted += one.wasted
        buckets = nobody(amounts.get((value, currency), [0] * len(AMOUNTS)))
        for bucket, nano in buckets.items():
            policy = idle.startup if bucket == STARTUP else idle.policy
            if policy == "separate":
                line.idle += nano
            else:
                line.nano += nano
    return View(list(lines.values()))


def _shared(connection: sa.Connection, window: Window, told: _Names, idle: Idle) -> View:
    """By what uses GPUs of all kinds at any time: who bears what nobody used is found GPU by GPU."""
    by = told.by
    key = {"user": "user_id", "job": "job"}.get(by, "fact")
    each_gpu = idle.policy is not IdlePolicy.SEPARATE

    def named(values: Iterable[int]) -> Mapping[int, str]:
        # Of jobs there are too many: those that get a line are named below.
        return {one: f"{NUMBERED}{one}" for one in values} if by == "job" else told.of(values)

    moved = list(borne(connection, window, idle.startup, key, named))
    rest: dict[Key, Spent] = {}
    if by == "job" and not each_gpu and idle.startup is not StartupPolicy.AMORTISE:
        costs, rest = _jobs(connection, window, {int(name[1:]) for _, parts in moved for name in parts})
    else:
        costs = spent(connection, window, ["gpu", key] if each_gpu else [key])
    names = named({each[-2] for each in costs})
    lines: dict[tuple[str, str], Line] = {}
    pools: dict[Key, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for each, one in costs.items():
        name, currency = names[each[-2]], each[-1]
        _add(lines, name, currency, one.nano, one.wasted)
        if each_gpu:
            pools[each[0], currency][name] += one.nano
    for (_, currency), one in rest.items():
        _add(lines, OTHER_JOBS, currency, one.nano, one.wasted)
    found = View(left=_share_idle(connection, window, idle, lines, pools))
    for currency, parts in moved:
        for name, nano in parts.items():
            _add(lines, name, currency, nano)
            found.left[currency][STARTUP] -= nano
    found.left = {currency: kept for currency, left in found.left.items() if (kept := _ordered(left))}
    found.lines = _named_jobs(connection, lines) if by == "job" else list(lines.values())
    return found


def _add(lines: dict[tuple[str, str], Line], name: str, currency: str, nano: int, wasted: int = 0) -> None:
    line = lines.get((name, currency))
    if line is None:
        line = lines[name, currency] = Line(name, currency)
    line.nano += nano
    line.wasted += wasted


def _share_idle(
    connection: sa.Connection,
    window: Window,
    idle: Idle,
    lines: dict[tuple[str, str], Line],
    pools: Mapping[Key, dict[str, int]],
) -> dict[str, dict[str, int]]:
    """Adds idle, but for cold starts, to the lines; what is left to nobody, by currency and bucket. `pools`: n$ by name
    for each GPU and currency.
    """
    left: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    each_gpu = idle.policy is not IdlePolicy.SEPARATE
    amounts = paid(connection, window, ["gpu"] if each_gpu else [])
    gpus = _Names(connection, "gpu").of({each[0] for each in amounts}) if each_gpu else {}
    for each, sums in amounts.items():
        buckets = nobody(sums) if each[-1] else {}
        left[each[-1]][STARTUP] += buckets.pop(STARTUP, 0)
        if not buckets:
            continue
        tenant = idle.reserved.get(gpus[each[0]], "") if each_gpu else ""
        pool = pools.get(each, {})
        after = with_idle(pool, sum(buckets.values()), idle.policy, tenant)
        for name, nano in after.costs.items():
            if nano != (own := pool.get(name, 0)):
                _add(lines, name, each[-1], nano - own)
        if after.left:
            for bucket, nano in buckets.items():
                left[each[-1]][bucket] += nano
    return left


def _ordered(left: Mapping[str, int]) -> dict[str, int]:
    return {bucket: left[bucket] for bucket in BUCKETS if left.get(bucket)}


def _named_jobs(connection: sa.Connection, lines: Mapping[tuple[str, str], Line]) -> list[Line]:
    """The dearest jobs by name, and all others together by currency."""
    own = [line for line in lines.values() if line.name.startswith(NUMBERED)]
    own.sort(key=lambda line: (-line.nano, line.currency, line.name))
    names = _Names(connection, "job").of({int(line.name[1:]) for line in own[:COST_JOBS_MAX]})
    found: dict[tuple[str, str], Line] = {}
    for line in own[:COST_JOBS_MAX]:
        _add(found, names[int(line.name[1:])], line.currency, line.nano, line.wasted)
    for line in own[COST_JOBS_MAX:]:
        _add(found, OTHER_JOBS, line.currency, line.nano, line.wasted)
    for line in lines.values():
        if not line.name.startswith(NUMBERED):
            _add(found, line.name, line.currency, line.nano, line.wasted)
    return list(found.values())


def _jobs(connection: sa.Connection, window: Window, also: set[int]) -> tuple[dict[Key, Spent], dict[Key, Spent]]:
    """The dearest jobs and those of `also`, and all others together by currency."""
    costs = dearest_jobs(connection, window, COST_JOBS_MAX)
    if len(costs) < COST_JOBS_MAX:
        return costs, {}
    missing = sorted(also - {job for job, _ in costs})
    if missing:
        costs |= {key: one for key, one in spent(connection, window, ["job"], missing).items() if key not in costs}
    rest: dict[Key, Spent] = {(0, key[0]): one for key, one in spent(connection, window, []).items()}
    for (_, currency), one in costs.items():
        rest[0, currency].nano -= one.nano
        rest[0, currency].wasted -= one.wasted
    return costs, {key: one for key, one in rest.items() if one.nano or one.wasted}


def _count_jobs(
    connection: sa.Connection, window: Window, told: _Names, found: View, by_fact: Mapping[int, Ended] | None
) -> None:
    """Adds how many jobs ended, to the line of the currency that comes first: a job is counted once."""
    key = "hour" if told.by in TIMES else "user_id" if told.by == "user" else "fact"
    counts = by_fact if by_fact is not None and key == "fact" else ended(connection, window, key)
    names = told.of(counts)
    by_name: dict[str, Ended] = {}
    for value, one in counts.items():
        by_name.setdefault(names[value], Ended()).add(one)
    counted: set[str] = set()
    for line in sorted(found.lines, key=lambda line: line.currency):
        if line.name not in counted:
            line.jobs = by_name.pop(line.name, Ended())
            counted.add(line.name)
    currency = min((line.currency for line in found.lines), default="")
    found.lines += [Line(name, currency, jobs=one) for name, one in by_name.items()]


class _Names:
    """How a report calls facts, users, jobs, GPUs or hours; each is looked up once."""

    def __init__(self, connection: sa.Connection, by: str) -> None:
        self.by: Final = by
        self._connection = connection
        self._known: dict[Any, str] = {}

    def of(self, values: Iterable[Any]) -> Mapping[Any, str]:
        """The names of these, and maybe of others."""
        missing = set(values) - self._known.keys()
        if self.by in TIMES:
            pattern = TIMES[self.by]
            self._known |= {at: datetime.fromtimestamp(at // NANO, UTC).strftime(pattern) for at in missing}
        elif missing:
            self._known |= dict.fromkeys(missing, "") | self._stored(sorted(missing))
        return self._known

    def _stored(self, numbers: list[int]) -> dict[Any, str]:
        tables = {"user": (USER, "name"), "job": (JOB, "name"), "gpu": (GPU, "uuid")}
        table, column = tables.get(self.by, (FACT, self.by if self.by in OF_FACTS else "dimensions"))
        wanted = listed(self._connection, [("id", WORD, numbers)])
        question = sa.select(table.c.id, table.c[column]).where(table.c.id.in_(sa.select(wanted.c.id)))
        rows = self._connection.execute(question).all()
        if column == "dimensions":
            return {number: json.loads(text).get(self.by, "") for number, text in rows}
        return {number: str(text) for number, text in rows} | ({NO_GPU: DIRECT} if self.by == "gpu" else {})
