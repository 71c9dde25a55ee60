"""Books what a change of prices changes. What was booked stays; the differences are rows of bookings of their own.

Hours of GPUs are allocated again at the new prices. Direct charges are reckoned again where the ledger has all that the
price needs: those that a provider reported stay, and so do those whose price may depend on something that nobody looked
at when they were charged, such as an attribute that a new row of the price file names.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.ledger.charge import Charge, Quantities, Status, charge
from otel_pipeline.ledger.price_book import Subject
from otel_pipeline.ledger.price_rows import CALL_BASES, TIERED, Basis
from otel_pipeline.limits import LEDGER_BLOCKS_MAX, LEDGER_NAMES_KEPT
from otel_pipeline.store.ledger_booking import book_blocks
from otel_pipeline.store.ledger_editions import Editions
from otel_pipeline.store.ledger_marks import REPRICE, Marks
from otel_pipeline.store.ledger_names import Names, Priced
from otel_pipeline.store.ledger_nested import take_back_stored
from otel_pipeline.store.ledger_state import locked, read_state
from otel_pipeline.store.ledger_tables import BOOKING, CHARGE, CLAIM, GPU_HOUR, NO_GPU, PERIOD, PRESENCE, SPAN, keep

if TYPE_CHECKING:
    from otel_pipeline.ledger.price_book import PriceBook
    from otel_pipeline.ledger.price_rows import Row
    from otel_pipeline.ledger.records import Fact
    from otel_pipeline.store.database import Database
    from otel_pipeline.store.ledger_booking import Mark
    from otel_pipeline.store.ledger_state import State

FIELDS: Final = frozenset(Quantities.__dataclass_fields__) - {"reported", "failed", "resolution", "width", "height"}
KEY: Final = tuple(SPAN.c[name] for name in ("trace_lo", "trace_hi", "span"))


@dataclass(slots=True)
class Repriced:
    """What was done. changes: n$ by currency, of what was paid."""

    hours: int = 0
    charges: int = 0
    kept: int = 0
    """Direct charges that could not be reckoned again."""
    changes: dict[str, int] = field(default_factory=dict)


def reprice(database: Database, prices: PriceBook, since_ns: int, now_ms: int) -> Repriced:
    """Books the differences from `since_ns` on. May be broken off and done again."""
    found = Repriced()
    names, editions = Names(), Editions(prices)
    with database.read() as connection:
        state = read_state(connection)
        last: int = connection.execute(sa.select(sa.func.max(BOOKING.c.id))).scalar() or 0
        since_ns = max(since_ns, state.compacted_ns or 0)
        hours = _hours(connection, since_ns, state)
    with database.write() as connection:
        locked(connection)
        direct = _charges(connection, names, prices, since_ns, found)
    marks: list[Mark] = [(gpu, hour, max(hour, since_ns), REPRICE) for gpu, hour in hours]
    marks += [(NO_GPU, hour, hour, REPRICE) for hour in sorted(direct)]
    for first in range(0, len(marks), LEDGER_BLOCKS_MAX):
        # Booked where it is marked: a gateway that runs with older prices must not take the marks.
        with database.write() as connection:
            state = locked(connection)
            counts = book_blocks(
                connection, names, editions, state, marks[first : first + LEDGER_BLOCKS_MAX], now_ms=now_ms
            )
        found.hours += counts.total() - counts["unweighted"]
    with database.read() as connection:
        columns = PERIOD.c
        total = sa.cast(sa.func.sum(columns.total), sa.BigInteger)
        ours = sa.select(BOOKING.c.id).where((BOOKING.c.id > last) & (BOOKING.c.kind == "reprice"))
        changed = sa.select(columns.currency, total).where(columns.booking.in_(ours)).group_by(columns.currency)
        found.changes = {currency: int(nano) for currency, nano in connection.execute(changed) if nano}
    return found


def _hours(connection: sa.Connection, since_ns: int, state: State) -> list[tuple[int, int]]:
    """GPU hours that are booked, or were not for want of a price."""
    begin, end = since_ns // HOUR_NS * HOUR_NS, state.booked_ns or 0
    wanted = sa.select(GPU_HOUR.c.hour, GPU_HOUR.c.gpu).distinct()
    wanted = wanted.where((GPU_HOUR.c.hour >= begin) & (GPU_HOUR.c.gpu != NO_GPU))
    found = {(hour, gpu) for hour, gpu in connection.execute(wanted)}
    columns = PRESENCE.c
    for gpu, start, until in connection.execute(sa.select(columns.gpu, columns.start_ns, columns.end_ns)):
        low = max(start // HOUR_NS * HOUR_NS, begin)
        found.update((hour, gpu) for hour in range(low, min(until, end), HOUR_NS))
    return [(gpu, hour) for hour, gpu in sorted(found)]


def _charges(connection: sa.Connection, names: Names, prices: PriceBook, since_ns: int, found: Repriced) -> set[int]:
    """Reckons direct charges again; the hours of those that changed. The spans keep the new ones."""
    wanted = sa.select(SPAN, CHARGE.c.status, CHARGE.c.basis, CHARGE.c.price_id, CHARGE.c.currency, CHARGE.c.asked)
    wanted = wanted.join_from(SPAN, CHARGE, SPAN.c.charge == CHARGE.c.id).where(SPAN.c.end_ns >= since_ns)
    changes: list[dict[str, Any]] = []
    marks = Marks(2**63 - 1, 0)
    claims: list[tuple[int, ...]] = []
    reckoning = _Reckoning(connection, names, prices)
    for row in connection.execute(wanted).all():
        new = reckoning.again(row)
        if new is None:
            found.kept += 1
            continue
        same = (new.nano or 0, new.currency, new.status) == (row.nano or 0, row.currency, row.status)
        if same and (new.price_id == row.price_id or new.nano is None):
            continue
        told = Priced(new.currency, new.basis, new.price_id, new.status, new.reason, row.asked)
        number = names.charges.of(connection, [told])[told]
        ids = {"lo": row.trace_lo, "hi": row.trace_hi, "id": row.span}
        changes.append({**ids, "new_charge": number, "new_nano": new.nano or None})
        claims.append((NO_GPU, row.end_ns // HOUR_NS * HOUR_NS, row.trace_lo, row.trace_hi, row.span))
    if changes:
        same_span = (SPAN.c.trace_lo == sa.bindparam("lo")) & (SPAN.c.trace_hi == sa.bindparam("hi"))
        command = sa.update(SPAN).where(same_span & (SPAN.c.span == sa.bindparam("id")))
        connection.execute(command.values(charge=sa.bindparam("new_charge"), nano=sa.bindparam("new_nano")), changes)
        keep(connection, CLAIM, claims)
        # A call that tells nothing but its new price may be told by one above it, too.
        take_back_stored(connection, names, marks, sorted({(one["hi"], one["lo"]) for one in changes}))
    found.charges = len(changes)
    return {claim[1] for claim in claims} | {hour for _, hour in marks.found}


class _Reckoning:
    """Reckons charges at the new prices; those of one fact, kind and time are looked up once."""

    def __init__(self, connection: sa.Connection, names: Names, prices: PriceBook) -> None:
        self._connection = connection
        self._names = names
        self._prices = prices
        edges = {at for entry in prices.entries for at in (entry.row.start_ns, entry.row.end_ns)}
        self._edges = sorted(edges)
        self._known: dict[tuple[int, str, int], tuple[Row, Asked] | None] = {}

    def again(self, row: Any) -> Charge | None:
        """The charge at the new price; None if it stays as it is."""
        if row.basis == Basis.REPORTED or row.status == Status.PROVISIONAL:
            return None
        fact = self._names.fact(self._connection, row.fact)
        found = None if fact.claims else self._price(row, fact)
        if found is None:
            return None
        price, asked = found
        try:
            used: dict[str, Any] = {
                name: value for name, value in json.loads(row.quantities or "{}").items() if name in FIELDS
            }
        except ValueError:
            return None
        used |= {"resolution": asked.resolution, "width": asked.width, "height": asked.height, "failed": fact.failed}
        again = charge(price, Quantities(**used))
        return again if again.status is not Status.UNPRICED or row.status == Status.UNPRICED else None

    def _price(self, row: Any, fact: Fact) -> tuple[Row, Asked] | None:
        """None without a price that surely holds."""
        key = (row.fact, row.asked, bisect_right(self._edges, row.start_ns))
        if key not in self._known:
            if len(self._known) >= LEDGER_NAMES_KEPT:
                self._known.clear()
            self._known[key] = self._looked_up(row, fact, asked_of(row.asked))
        return self._known[key]

    def _looked_up(self, row: Any, fact: Fact, asked: Asked) -> tuple[Row, Asked] | None:
        subject = Subject(
            provider=fact.provider or fact.backend,
            model=fact.model,
            region=fact.region,
            host=fact.host,
            pod=asked.pod,
            attributes=tuple(sorted((key, value) for key, value in asked.attributes.items() if value)),
        )
        price = self._prices.sure(subject, row.start_ns, asked.is_unknown, CALL_BASES)
        if price is None or (price.basis in TIERED and price.prices and not asked.told):
            return None
        return price, asked


@dataclass(frozen=True, slots=True)
class Asked:
    """What a price was looked up by besides the span's fact; `told`: the ledger knows it."""

    told: bool = False
    resolution: str = ""
    width: int = 0
    height: int = 0
    pod: str = ""
    attributes: dict[str, str] = field(default_factory=dict)

    def is_unknown(self, condition: str) -> bool:
        """Whether nobody knows what the span says of it."""
        if condition == "pod":
            return not self.told
        name, mark, key = condition.partition("attributes.")
        return bool(mark) and not name and key not in self.attributes


def asked_of(text: str) -> Asked:
    """What ledger_names.Priced keeps; what cannot be read is not told."""
    try:
        told = json.loads(text or "null")
    except ValueError:
        return Asked()
    if not isinstance(told, dict) or not isinstance(told.get("attributes", {}), dict):
        return Asked()
    width, height = (size if isinstance(size := told.get(name), int) else 0 for name in ("width", "height"))
    attributes = {str(key): str(value) for key, value in told.get("attributes", {}).items()}
    resolution, pod = (str(told.get(name, "")) for name in ("resolution", "pod"))
    return Asked(told=True, resolution=resolution, width=width, height=height, pod=pod, attributes=attributes)
