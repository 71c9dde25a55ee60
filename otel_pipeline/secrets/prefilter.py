"""Where in raw bytes a trigger is found: one pass for all of them, at the speed of memory where hyperscan is installed.

Without it google-re2 does the same, several times slower. See docs/adr/0004-redaction-on-raw-bytes.md.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol

import re2  # type: ignore[import-untyped]  # has no stubs

from otel_pipeline.limits import AUTOMATA_KEPT, REDACTION_HITS_MAX

try:
    import hyperscan
except ImportError:  # no wheel for this machine
    hyperscan = None  # type: ignore[assignment]  # a module, else

if TYPE_CHECKING:
    from collections.abc import Sequence

FAST: Final = hyperscan is not None
"""Whether hyperscan does the pass."""


class Prefilter(Protocol):
    """Searches for triggers; each is known by its index."""

    def places(self, data: bytes) -> list[int] | None:
        """For each trigger found a place within what it found, in rising order. None: too many to tell."""
        ...

    def which(self, data: bytes) -> set[int]:
        """The triggers that are found in a text."""
        ...


def prefilter(triggers: Sequence[str], *, fast: bool = FAST) -> Prefilter:
    """The fastest that this machine has."""
    return Automaton(triggers) if fast else OneByOne(triggers)


class Automaton:
    """hyperscan: all triggers in one automaton."""

    def __init__(self, triggers: Sequence[str]) -> None:
        self._database: Any = hyperscan.loadb(_compiled(tuple(triggers)), hyperscan.HS_MODE_BLOCK)
        self._database.scratch = hyperscan.Scratch(self._database)  # of its own: two scans at once cannot share one

    def places(self, data: bytes) -> list[int] | None:
        """The last byte of each."""
        found: list[int] = []

        def note(_: int, __: int, end: int, ___: int, ____: object) -> bool:
            found.append(end - 1)
            return len(found) > REDACTION_HITS_MAX  # ends the scan

        try:
            self._database.scan(data, match_event_handler=note)
        except hyperscan.ScanTerminated:
            return None
        return sorted(found)

    def which(self, data: bytes) -> set[int]:
        """By the same automaton."""
        found: set[int] = set()

        def note(trigger: int, _: int, __: int, ___: int, ____: object) -> None:
            found.add(trigger)

        self._database.scan(data, match_event_handler=note)
        return found


@lru_cache(AUTOMATA_KEPT)
def _compiled(triggers: tuple[str, ...]) -> bytes:
    """The automaton of the triggers, to be loaded: each pipeline's redaction has the same, and compiling takes long."""
    database: Any = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    count = len(triggers)
    database.compile(
        expressions=[trigger.encode("latin-1") for trigger in triggers],
        ids=list(range(count)),
        elements=count,
        flags=[hyperscan.HS_FLAG_DOTALL] * count,
    )
    found: bytes = hyperscan.dumpb(database)
    return found


class OneByOne:
    """google-re2: one alternation for the places, each trigger by itself for the rest."""

    def __init__(self, triggers: Sequence[str]) -> None:
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.dot_nl = True
        options.max_mem = 64 * 1024 * 1024
        self._any: Any = re2.compile("|".join(f"(?:{trigger})" for trigger in triggers).encode("latin-1"), options)
        self._each: list[Any] = [re2.compile(trigger.encode("latin-1"), options) for trigger in triggers]

    def places(self, data: bytes) -> list[int] | None:
        """The first byte of each: what a match takes in after it may be another field's."""
        found: list[int] = []
        match = self._any.search(data)
        while match:
            found.append(match.start())
            if len(found) > REDACTION_HITS_MAX:
                return None
            match = self._any.search(data, match.start() + 1)
        return found

    def which(self, data: bytes) -> set[int]:
        """Each by itself, if there is any."""
        if not self._any.search(data):
            return set()
        return {index for index, pattern in enumerate(self._each) if pattern.search(data)}
