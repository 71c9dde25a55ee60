"""Numbers for what many rows of the ledger share: facts, users, GPUs, charges. They are remembered, for they come with
every batch. A transaction that fails takes new ones back: then all must be forgotten.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import sqlalchemy as sa

from otel_pipeline.ledger.booking import belongs
from otel_pipeline.ledger.records import FACT_FIELDS, Fact
from otel_pipeline.limits import LEDGER_NAMES_KEPT
from otel_pipeline.store.database import listed
from otel_pipeline.store.ledger_tables import CHARGE, FACT, GPU, USER, add

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Priced:
    """What charges have in common."""

    currency: str
    basis: str
    price_id: str
    status: str
    reason: str
    asked: str = ""
    """What the price was looked up by besides the span's fact, a JSON object: `resolution`, `width`, `height`, `pod`,
    and `attributes` with all keys that prices look at, empty where the span has none. Empty: not known."""


class Numbers(Generic[T]):
    """The numbers of one table, from 1; `text` is what tells values apart and stands in the column `key`."""

    def __init__(
        self, table: sa.Table, key: str, text: Callable[[T], str], row: Callable[[int, T], tuple[Any, ...]]
    ) -> None:
        self._table = table
        self._key = table.c[key]
        self._text = text
        self._row = row
        self._known: dict[T, int] = {}

    def of(self, connection: sa.Connection, values: Iterable[T]) -> dict[T, int]:
        """The numbers of the values, new ones for those that are new."""
        wanted = list(dict.fromkeys(values))
        missing = [value for value in wanted if value not in self._known]
        if missing:
            if len(self._known) + len(missing) > LEDGER_NAMES_KEPT:
                self._known.clear()
                missing = wanted
            self._known.update(self._stored(connection, missing))
        return {value: self._known[value] for value in wanted}

    def forget(self) -> None:
        """After a transaction failed."""
        self._known.clear()

    def _stored(self, connection: sa.Connection, values: list[T]) -> dict[T, int]:
        texts = {self._text(value): value for value in values}
        source = listed(connection, [("text", sa.Text(), list(texts))])
        question = sa.select(self._key, self._table.c.id).where(self._key.in_(sa.select(source.c.text)))
        found = {texts[text]: number for text, number in connection.execute(question)}
        new = [value for value in values if value not in found]
        if new:
            last = connection.execute(sa.select(sa.func.max(self._table.c.id))).scalar() or 0
            numbers = {value: number for number, value in enumerate(new, last + 1)}
            add(connection, self._table, [self._row(number, value) for value, number in numbers.items()])
            found |= numbers
        return found


class Names:
    """All numbers of one ledger. For one thread, within transactions that are alone in writing to the ledger."""

    def __init__(self) -> None:
        self.facts: Final = Numbers[Fact](FACT, "body", _fact_body, _fact_row)
        self.users: Final = Numbers[str](USER, "name", str, lambda number, name: (number, name))
        self.gpus: Final = Numbers[str](GPU, "uuid", str, lambda number, uuid: (number, uuid))
        self.charges: Final = Numbers[Priced](CHARGE, "body", _charge_body, _charge_row)
        self._facts: dict[int, Fact] = {}
        self._belonging: dict[tuple[int, int, bool], int] = {}

    def forget(self) -> None:
        """After a transaction failed."""
        for numbers in (self.facts, self.users, self.gpus, self.charges):
            numbers.forget()
        self._facts.clear()
        self._belonging.clear()

    def fact(self, connection: sa.Connection, number: int) -> Fact:
        """The fact with this number, which is stored."""
        found = self._facts.get(number)
        if found is None:
            if len(self._facts) >= LEDGER_NAMES_KEPT:
                self._facts.clear()
            found = fact_of(connection.execute(sa.select(FACT.c.body).where(FACT.c.id == number)).scalar_one())
            self._facts[number] = found
        return found

    def belonging(self, connection: sa.Connection, own: int, above: int, *, same_job: bool) -> int:
        """The number of the fact of a span below another one, see `booking.belongs`."""
        key = (own, above, same_job)
        found = self._belonging.get(key)
        if found is None:
            if len(self._belonging) >= LEDGER_NAMES_KEPT:
                self._belonging.clear()
            fact = belongs(self.fact(connection, own), self.fact(connection, above), same_job=same_job)
            found = self.facts.of(connection, [fact])[fact]
            self._belonging[key] = found
        return found


def hashed(text: str) -> int:
    """63 bits."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def fact_of(body: str) -> Fact:
    """The fact that a body tells."""
    values = json.loads(body)
    values["gpus"] = tuple(values["gpus"])
    values["dimensions"] = tuple((key, value) for key, value in values["dimensions"])
    return Fact(**values)


def _fact_body(fact: Fact) -> str:
    return json.dumps({name: getattr(fact, name) for name in FACT_FIELDS}, separators=(",", ":"))


def _fact_row(number: int, fact: Fact) -> tuple[Any, ...]:
    given = {
        **asdict(fact),
        "id": number,
        "gpus": json.dumps(fact.gpus),
        "dimensions": json.dumps(dict(fact.dimensions)),
        "body": _fact_body(fact),
    }
    return tuple(given[column.name] for column in FACT.columns)


def _charge_body(priced: Priced) -> str:
    return json.dumps([priced.currency, priced.basis, priced.price_id, priced.status, priced.reason, priced.asked])


def _charge_row(number: int, priced: Priced) -> tuple[Any, ...]:
    given = {**asdict(priced), "id": number, "body": _charge_body(priced)}
    return tuple(given[column.name] for column in CHARGE.columns)
