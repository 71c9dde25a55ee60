"""Which price holds? Of all rows whose conditions hold and that are in effect at the time, the first by:

1. the operator's rows go over the shipped ones;
2. more conditions go over fewer (the provider and the model over the model alone);
3. exact texts go over patterns, and longer patterns over shorter ones;
4. the row that came into effect last goes over older ones; one without a date is the oldest;
5. the id decides the rest, so that the answer never depends on the order in a file.

No row is an answer too: unknown, with the reason. It is never a price of 0.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

from otel_pipeline.ledger.price_rows import ALWAYS_NS, FOREVER_NS, Basis, Row, Shares, day_of
from otel_pipeline.limits import PRICE_LOOKUPS_KEPT

ANY_BASIS: Final = frozenset(Basis)
FIELDS: Final = ("provider", "model", "gpu", "region", "host", "pod")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked for. Empty is unknown. `attributes` are sorted pairs; `subject()` makes one."""

    provider: str = ""
    model: str = ""
    gpu: str = ""
    region: str = ""
    host: str = ""
    pod: str = ""
    attributes: tuple[tuple[str, str], ...] = ()

    def told(self) -> str:
        """The subject in words, such as provider=runpod gpu=NVIDIA H100."""
        fields = [(name, getattr(self, name)) for name in FIELDS]
        return " ".join(f"{name}={value}" for name, value in (*fields, *self.attributes) if value) or "nothing"


def subject(fields: Mapping[str, str], attributes: Mapping[str, str] | None = None) -> Subject:
    """The subject of fields by name; ValueError for a name that is none."""
    if strange := sorted(fields.keys() - set(FIELDS)):
        raise ValueError(f"{strange[0]} is not known; one of {', '.join(FIELDS)}")
    return Subject(**fields, attributes=tuple(sorted((attributes or {}).items())))


@dataclass(frozen=True, slots=True)
class Entry:
    """A row and whose it is."""

    row: Row
    own: bool
    conditions: tuple[tuple[str, tuple[re.Pattern[str], ...]], ...]
    rank: tuple[Any, ...]

    @property
    def origin(self) -> str:
        return "own" if self.own else "default"


@dataclass(frozen=True, slots=True)
class Found:
    """The price that holds, or why there is none."""

    entry: Entry | None
    reason: str

    @property
    def row(self) -> Row | None:
        return self.entry.row if self.entry else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a row: `won`, `lost` or `no match`, and why. `missed` are the conditions that don't hold."""

    entry: Entry
    outcome: str
    why: str
    missed: tuple[str, ...] = ()


class PriceBook:
    """The rows of the operator and, unless they are switched off, the shipped ones."""

    def __init__(self, own: Iterable[Row], defaults: Iterable[Row] = ()) -> None:
        entries = [_entry(row, own=True) for row in own] + [_entry(row, own=False) for row in defaults]
        self.entries = sorted(entries, key=lambda entry: entry.rank)
        self._known: OrderedDict[tuple[Subject, frozenset[Basis]], list[Entry]] = OrderedDict()

    @cached_property
    def has_energy(self) -> bool:
        """Whether some row is about energy: else nobody need keep any."""
        return any(entry.row.tariff for entry in self.entries)

    @cached_property
    def has_shares(self) -> bool:
        """Whether it matters to some row how much of a GPU a span had."""
        return any(entry.row.shares is not Shares.EQUAL for entry in self.entries)

    @cached_property
    def attribute_keys(self) -> frozenset[str]:
        """The attributes that some row looks at: no others need be read."""
        return frozenset(key for entry in self.entries for key in entry.row.match.attributes)

    def lookup(self, asked: Subject, at_ns: int, bases: frozenset[Basis] = ANY_BASIS) -> Found:
        """The price that holds for the subject at the time, among rows of the bases."""
        matching = self._matching(asked, bases)
        for entry in matching:
            if entry.row.start_ns <= at_ns < entry.row.end_ns:
                return Found(entry, "")
        if matching:
            return Found(None, f"no price is in effect on {day_of(at_ns)} for {asked.told()}")
        return Found(None, f"no price for {asked.told()}")

    def steps(
        self, asked: Subject, start_ns: int, end_ns: int, bases: frozenset[Basis] = ANY_BASIS
    ) -> list[tuple[int, Found]]:
        """The prices from start to end: (from when, what holds), each different from the one before."""
        matching = self._matching(asked, bases)
        edges = {edge for entry in matching for edge in (entry.row.start_ns, entry.row.end_ns)}
        steps: list[tuple[int, Found]] = []
        for at in [start_ns, *sorted(edge for edge in edges if start_ns < edge < end_ns)]:
            found = self.lookup(asked, at, bases)
            if not steps or found.entry is not steps[-1][1].entry:
                steps.append((at, found))
        return steps

    def sure(
        self, asked: Subject, at_ns: int, unknown: Callable[[str], bool], bases: frozenset[Basis] = ANY_BASIS
    ) -> Row | None:
        """The row that holds whatever is unknown: names of conditions, such as pod or attributes.tier. None if there is
        none, or if another one might hold.
        """
        for entry in self.entries:
            if entry.row.basis in bases and entry.row.start_ns <= at_ns < entry.row.end_ns:
                missed = list(_missed(entry, asked))
                if not missed:
                    return entry.row
                if all(map(unknown, missed)):
                    return None
        return None

    def explain(self, asked: Subject, at_ns: int, bases: frozenset[Basis] = ANY_BASIS) -> list[Verdict]:
        """What became of every row: the winner, then those that lost, best first, then those that do not match."""
        won: list[Verdict] = []
        lost: list[Verdict] = []
        others: list[Verdict] = []
        for entry in self.entries:
            missed = tuple(_missed(entry, asked))
            if entry.row.basis not in bases:
                others.append(Verdict(entry, "no match", f"is a price of a {entry.row.basis}", ("basis", *missed)))
            elif missed:
                others.append(Verdict(entry, "no match", _unmatched(entry, asked, missed), missed))
            elif not entry.row.start_ns <= at_ns < entry.row.end_ns:
                lost.append(Verdict(entry, "lost", _out_of_effect(entry.row, at_ns)))
            elif won:
                lost.append(Verdict(entry, "lost", _why(won[0].entry, entry)))
            else:
                won.append(Verdict(entry, "won", "the first of the rows that match"))
        return won + lost + others

    def _matching(self, asked: Subject, bases: frozenset[Basis]) -> list[Entry]:
        key = (asked, bases)
        known = self._known.get(key)
        if known is None:
            known = [entry for entry in self.entries if entry.row.basis in bases and not any(_missed(entry, asked))]
            self._known[key] = known
            if len(self._known) > PRICE_LOOKUPS_KEPT:
                self._known.popitem(last=False)
        return known


class BooksInTurn(PriceBook):
    """Price books that hold one after the other: (from when, book) in order. The first holds before, too."""

    def __init__(self, turns: Sequence[tuple[int, PriceBook]]) -> None:
        super().__init__([])
        self._turns = turns

    def lookup(self, asked: Subject, at_ns: int, bases: frozenset[Basis] = ANY_BASIS) -> Found:
        """As in the book that holds at the time."""
        later = (book for from_ns, book in reversed(self._turns) if from_ns <= at_ns)
        return next(later, self._turns[0][1]).lookup(asked, at_ns, bases)

    def steps(
        self, asked: Subject, start_ns: int, end_ns: int, bases: frozenset[Basis] = ANY_BASIS
    ) -> list[tuple[int, Found]]:
        """Those of all books that hold from start to end; there is one at each turn."""
        begins = [ALWAYS_NS, *(from_ns for from_ns, _ in self._turns[1:]), FOREVER_NS]
        steps: list[tuple[int, Found]] = []
        for (_, book), (begin, until) in zip(self._turns, pairwise(begins), strict=True):
            if max(begin, start_ns) < min(until, end_ns):
                steps += book.steps(asked, max(begin, start_ns), min(until, end_ns), bases)
        return steps


def rate_of(row: Row) -> Fraction:
    """n$ per ns of a row of GPU time, energy left out. A serverless worker has one rate: that of its execution."""
    if row.basis is Basis.KILOWATT_HOUR:
        return Fraction(0)
    price = row.prices.get("execution", row.price)
    if price is None:
        raise ValueError(f"{row.id} is no price of GPU time")
    return price / 3600 if row.basis is Basis.GPU_HOUR else price


def _entry(row: Row, *, own: bool) -> Entry:
    conditions = row.match.conditions()
    plain = [all(not set(text) & {"*", "?"} for text in texts) for _, texts in conditions]
    letters = sum(min(len(text.replace("*", "").replace("?", "")) for text in texts) for _, texts in conditions)
    rank = (not own, -len(conditions), -sum(plain), -letters, -row.start_ns, row.id)
    compiled = tuple((name, tuple(_pattern(text) for text in texts)) for name, texts in conditions)
    return Entry(row, own, compiled, rank)


def _pattern(text: str) -> re.Pattern[str]:
    marks = {"*": ".*", "?": "."}
    return re.compile("".join(marks.get(letter) or re.escape(letter) for letter in text), re.IGNORECASE | re.DOTALL)


def _missed(entry: Entry, asked: Subject) -> Iterable[str]:
    """The conditions that don't hold."""
    for name, patterns in entry.conditions:
        value = _value(asked, name)
        if not value or not any(pattern.fullmatch(value) for pattern in patterns):
            yield name


def _value(asked: Subject, name: str) -> str:
    if not name.startswith("attributes."):
        return str(getattr(asked, name))
    return dict(asked.attributes).get(name.removeprefix("attributes."), "")


def _unmatched(entry: Entry, asked: Subject, missed: tuple[str, ...]) -> str:
    wanted = dict(entry.row.match.conditions())
    told = (f"{name} is {_value(asked, name) or 'unknown'}, not {' or '.join(wanted[name])}" for name in missed)
    return "; ".join(told)


def _out_of_effect(row: Row, at_ns: int) -> str:
    if at_ns < row.start_ns:
        return f"comes into effect on {day_of(row.effective_from)}"
    return f"was in effect until {day_of(row.effective_to)}"


def _why(winner: Entry, loser: Entry) -> str:
    """Why the one goes over the other."""
    reasons = (
        "is a default, and your own rows go first",
        f"has {len(loser.conditions)} conditions, fewer than {len(winner.conditions)}",
        "matches by a pattern where the other is exact",
        "matches by a shorter text",
        f"is older: in effect since {day_of(loser.row.effective_from) or 'always'}",
        "is equal in all; the id decided",
    )
    differs = next(
        index for index, (one, other) in enumerate(zip(winner.rank, loser.rank, strict=True)) if one != other
    )
    return reasons[differs]
