"""Small GPU days for property tests: few units of time, much overlap, odd prices, and every shape that is hard.

A day is read from one string of bytes, each field from bytes of its own, and 0 is everywhere the simplest choice. One
draw of hypothesis takes a tenth of the time of a draw for each field, and a day that fails still shrinks field by
field. `test_day_shapes.py` counts how often each hard shape comes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeVar

from hypothesis import strategies as st

from otel_pipeline.ledger.allocation import Mode
from otel_pipeline.ledger.claims import Claim
from otel_pipeline.ledger.tape import Billed, Tape

T = TypeVar("T")

END: Final = 24
GRAINS: Final = (1, 2, 3, 6, 12)
"""Times of a day are multiples of one of them: the coarser, the more edges are equal."""
SPANS: Final = "ABCDEF"
LINKS: Final = "XY"
"""Spans that may stand between those that claim, and claim nothing."""
STRANGERS: Final = LINKS + "?"
WHOLE_SHARES: Final = 2**4 * 3**2 * 5 * 7
"""A price that is a multiple of it splits among up to ten without a rest."""
DAY_NS: Final = 86_400 * 10**9

_TAPE_BYTES: Final = 33
_CLAIM_BYTES: Final = 22
_REST_BYTES: Final = 22
DAY_BYTES: Final = 2 * _TAPE_BYTES + len(SPANS) * _CLAIM_BYTES + _REST_BYTES + 3
_BIG_BYTES: Final = 18 + 12 * 16


@dataclass(frozen=True)
class Day:
    """Two GPUs, claims on both, the bounds of periods; `more` are numbers below 256 for what else a test chooses."""

    tapes: list[Tape]
    claims: list[Claim]
    links: dict[str, str]
    cuts: list[int]
    mode: Mode
    more: list[int]


class Fields:
    """Numbers from bytes, read from left to right."""

    def __init__(self, data: bytes, grain: int = 1) -> None:
        self._data = data
        self._at = 0
        self.grain = grain

    def part(self, size: int) -> Fields:
        """The next bytes by themselves: however many of them are read, what follows stays where it is."""
        self._at += size
        return Fields(self._data[self._at - size : self._at], self.grain)

    def below(self, count: int) -> int:
        """0 to count - 1, from a byte."""
        self._at += 1
        return self._data[self._at - 1] % count

    def below_large(self, count: int) -> int:
        """0 to count - 1, from eight bytes."""
        self._at += 8
        return int.from_bytes(self._data[self._at - 8 : self._at]) % count

    def rarely(self, times: int) -> bool:
        """Once in so many times."""
        return self.below(times) == times - 1

    def time(self, low: int = 0, high: int = END) -> int:
        return low + self.below((high - low) // self.grain + 1) * self.grain


ReadPrice = Callable[[Fields], Fraction]
ReadClaims = Callable[[Fields], list[Claim]]


def odd_price(fields: Fields) -> Fraction:
    return Fraction(max(fields.below(64) - 4, 0), 1 + fields.below(12))


def even_price(fields: Fields) -> Fraction:
    """So that nothing has to be rounded while all split equally."""
    return Fraction(fields.below(6) * WHOLE_SHARES)


def any_claims(fields: Fields) -> list[Claim]:
    """In any shape that senders make up: loops of parents, two reports of one claim, ends before starts."""
    found: list[Claim] = []
    for index in range(min(fields.below(len(SPANS) + 4), len(SPANS))):
        found.append(_claim(fields.part(_CLAIM_BYTES), index, found))
    return found


def nested_claims(fields: Fields) -> list[Claim]:
    """At least one, on g0; each lies within its parent, and parents come first."""
    found: list[Claim] = []
    for span in SPANS[: 1 + fields.below(len(SPANS))]:
        own = fields.part(_CLAIM_BYTES)
        parent = found[own.below(len(found))] if found and not own.rarely(4) else None
        low, high = (parent.start_ns, parent.end_ns) if parent else (0, END)
        start = own.time(low, high)
        found.append(Claim(span, "g0", start, own.time(start, high), parent.span if parent else None))
    return found


def days(price: ReadPrice = odd_price, claims: ReadClaims = any_claims) -> st.SearchStrategy[Day]:
    return _read(DAY_BYTES, lambda data: day_of(data, price, claims))


def day_of(data: bytes, price: ReadPrice = odd_price, claims: ReadClaims = any_claims) -> Day:
    """The day that DAY_BYTES tell of."""
    fields = Fields(data)
    fields.grain = GRAINS[fields.below(len(GRAINS))]
    mode = list(Mode)[fields.below(len(Mode))]
    rest = fields.part(_REST_BYTES)
    linked = LINKS + SPANS[0] if claims is any_claims else ""
    links = {span: (SPANS + LINKS)[rest.below(8)] for span in linked if rest.rarely(3)}
    whole = not rest.rarely(2)
    cuts = sorted({rest.time() for _ in range(2 + rest.below(4))} | ({0, END} if whole else set()))
    more = [rest.below(256) for _ in range(8)]
    tapes = [_tape(fields.part(_TAPE_BYTES), gpu, price) for gpu in ("g0", "g1")]
    return Day(tapes, claims(fields), links, cuts if len(cuts) > 1 else [0, END], mode, more)


def big_days() -> st.SearchStrategy[tuple[Tape, list[Claim]]]:
    """A day or a year on one GPU in real ns, paid throughout, with a price that may need more than 64 bits."""
    return _read(_BIG_BYTES, lambda data: _big_day(Fields(data)))


def _read(size: int, read: Callable[[bytes], T]) -> st.SearchStrategy[T]:
    return st.binary(min_size=size, max_size=size).map(read)


def _tape(fields: Fields, gpu: str, price: ReadPrice) -> Tape:
    """One or two billed times, which may touch or be empty, up to three prices and two gaps of the telemetry."""
    edges = sorted(fields.time() for _ in range(4))
    if fields.rarely(2):
        edges = [0, *edges[1:3], END]
    billed = [_billed(fields, *edges[:2]), _billed(fields, *edges[2:])]
    first = edges[0] if fields.rarely(4) else 0
    changes = {fields.time() for _ in range(fields.below(3))}
    rates = [(at, price(fields)) for at in (first, *sorted(one for one in changes if one > first))]
    gaps = [(min(gap), max(gap)) for gap in [(fields.time(), fields.time()) for _ in range(fields.below(3))]]
    return Tape(gpu, rates, billed, gaps)


def _billed(fields: Fields, start: int, end: int) -> Billed:
    ready, draining, stop = [fields.time(start, end) if fields.rarely(2) else None for _ in range(3)]
    return Billed(start, end, ready_ns=ready, draining_ns=draining, stop_ns=stop)


def _claim(fields: Fields, index: int, before: list[Claim]) -> Claim:
    """Of its own span, or once more of one before; its parent may be anyone, itself and strangers too."""
    span = SPANS[fields.below(index + 1)] if fields.rarely(4) else SPANS[index]
    kin, anyone = fields.below(6), fields.below(len(STRANGERS + SPANS))
    parent = (STRANGERS + SPANS)[anyone] if kin == 5 else SPANS[anyone % index] if kin and index else None
    start, end = _times(fields, [one for one in before if one.span == parent], before)
    steps = {fields.time(): _weight(fields) for _ in range(1 + fields.below(3))} if fields.rarely(2) else None
    whole = 1 + fields.below(7)
    return Claim(
        span=span,
        gpu="g1" if fields.rarely(4) else "g0",
        start_ns=start,
        end_ns=end,
        parent=parent,
        weight=_weight(fields) if steps is None else tuple(sorted(steps.items())),
        share=Fraction(fields.below(whole + 1), whole) if fields.rarely(2) else None,
        attempt=2 if fields.rarely(4) else 1,
        outcome="error" if fields.rarely(4) else "ok",
    )


def _weight(fields: Fields) -> int:
    return max(fields.below(10) - 6, 0)


def _times(fields: Fields, parents: list[Claim], before: list[Claim]) -> tuple[int, int]:
    """Anywhere, within a parent, from within a parent to after it, or as the claim before; seldom end before start."""
    place = fields.below(4)
    if place == 3 and before:
        return before[-1].start_ns, before[-1].end_ns
    if place and parents and parents[0].start_ns <= parents[0].end_ns:
        start = fields.time(parents[0].start_ns, parents[0].end_ns)
        return start, fields.time(start, parents[0].end_ns if place == 1 else END)
    start, end = sorted((fields.time(), fields.time()))
    return (end, start) if fields.rarely(16) else (start, end)


def _big_day(fields: Fields) -> tuple[Tape, list[Claim]]:
    end = DAY_NS * (365 if fields.rarely(2) else 1)
    price = Fraction(1 + fields.below_large(10**15), 1 + fields.below_large(10**13))
    claims = []
    for index in range(fields.below(13)):
        start, until = sorted((fields.below_large(end + 1), fields.below_large(end + 1)))
        claims.append(Claim(f"s{index}", "g0", start, until))
    return Tape("g0", [(0, price)], [Billed(0, end)]), claims
