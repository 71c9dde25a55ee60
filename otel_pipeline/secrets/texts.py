"""One text: what in it is secret, and the text without that."""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import cache
from typing import TYPE_CHECKING, Final

from otel_pipeline.limits import REDACTION_TEXT_CHARS_KEPT, REDACTION_TEXTS_KEPT
from otel_pipeline.secrets.personal import PERSONAL, is_mere_number
from otel_pipeline.secrets.prefilter import prefilter
from otel_pipeline.secrets.rules import KINDS, SWEEPS, Found
from otel_pipeline.secrets.shapes import hastened, shape, signs
from otel_pipeline.secrets.structures import STRUCTURES
from otel_pipeline.secrets.tokens import TOKENS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from otel_pipeline.secrets.rules import Kind, Rule

RULES: Final[tuple[Rule, ...]] = (*TOKENS, *STRUCTURES, *PERSONAL)
_RANK: Final = {kind: rank for rank, kind in enumerate(KINDS)}
_MARK: Final = re.compile(r"\[redacted:[a-z_]{1,24}(?::[0-9a-f]{16})?\]")
CARD_DIGITS_MIN: Final = 13
RUN_BYTES_MIN: Final = 7
"""Shorter runs stand in most ids of hexadecimal digits."""
IN_RUNS: Final = frozenset(b"0123456789 +().,:/-_\t\n\r\xc2\xa0\xe2\x80\x91\x93")
DIGEST_CHARS: Final = 16
"""Of a keyed hash: 64 bits tell the values of one platform apart."""


class Finder:
    """Finds secrets of the chosen kinds. Triggers of runs are searched in runs of `in_run` bytes alone."""

    def __init__(self, kinds: Collection[Kind] = KINDS) -> None:
        rules = [rule for rule in RULES if rule.kind in kinds]
        in_runs = [rule for rule in rules if rule.sweep == "digits" and _is_of_runs(rule.trigger)]
        others = [rule for rule in rules if rule not in in_runs]
        self._sweeps = [_Sweep([rule for rule in others if rule.sweep == sweep]) for sweep in SWEEPS]
        self._runs = _Sweep(in_runs)
        shapes = [shape(rule.trigger) for rule in in_runs]
        self.run_bytes_min: Final = min((least for _, least in shapes), default=0)
        """The shortest run that may hold anything; 0: there is nothing to find in runs."""
        self.in_run: Final = bytes(any(byte in members for members, _ in shapes) for byte in range(256))
        """For each byte whether runs are made of it."""
        self._clean: dict[str, None] = {}

    def places(self, texts: bytes) -> list[int] | None:
        """Where in texts something may be, but for what is in runs; None: nearly everywhere."""
        found: list[int] = []
        for sweep in self._sweeps:
            places = sweep.places(texts)
            if places is None:
                return None
            found += places
        return found

    def run_places(self, runs: bytes) -> list[int] | None:
        """The same for runs, but for mere numbers."""
        places = self._runs.places(runs)
        if not places:
            return places
        found = []
        judged = 0
        for place in places:
            if place < judged:
                continue
            if _is_in_word(runs, place) or is_mere_number(runs, place):
                last = _DIGITS.match(runs, place).end()  # type: ignore[union-attr]  # matches everywhere
                judged = last if last <= place + CARD_DIGITS_MIN else 0  # of a longer run it saw a part
            else:
                found.append(place)
        return found

    def find(self, text: str) -> list[Found]:
        """What is secret in a text, in order, without overlaps."""
        if text in self._clean:
            return []
        raw = text.encode("utf-8", "surrogatepass")
        found = merged(
            [one for sweep in (*self._sweeps, self._runs) for rule in sweep.triggered(raw) for one in apply(rule, text)]
        )
        if not found and len(text) <= REDACTION_TEXT_CHARS_KEPT:
            if len(self._clean) >= REDACTION_TEXTS_KEPT:
                self._clean.clear()
            self._clean[text] = None
        return found


def _is_of_runs(trigger: str) -> bool:
    """Whether what it finds is a run of digits and what stands between them, long enough to be rare."""
    members, least = shape(trigger)
    return least >= RUN_BYTES_MIN and members <= IN_RUNS


class _Sweep:
    """The rules whose triggers share an automaton."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        triggers = list(dict.fromkeys(rule.trigger for rule in rules))
        self._prefilter = prefilter(triggers) if triggers else None
        self._signs = _signs_of_all(triggers)
        self._rules: dict[int, list[Rule]] = {}
        for rule in rules:
            self._rules.setdefault(triggers.index(rule.trigger), []).append(rule)

    def places(self, texts: bytes) -> list[int] | None:
        """Where a trigger is found; None: nearly everywhere."""
        return self._prefilter.places(texts) if self._prefilter and self._may_find(texts) else []

    def triggered(self, raw: bytes) -> list[Rule]:
        """The rules to ask about a text."""
        if self._prefilter is None or not self._may_find(raw):
            return []
        return [rule for index in self._prefilter.which(raw) for rule in self._rules.get(index, ())]

    def _may_find(self, texts: bytes) -> bool:
        for sign in self._signs:
            if sign[:1] in texts and sign in texts:  # one byte is found several times faster than a word
                return True
        return not self._signs


def _signs_of_all(triggers: Sequence[str]) -> frozenset[bytes]:
    """What is in a text wherever any of them is found; empty if there is no such thing."""
    each = [signs(trigger) for trigger in triggers]
    return frozenset(sign for some in each for sign in some) if all(each) else frozenset()


_DIGITS: Final = re.compile(rb"[0-9]*")
_WORD: Final = re.compile(rb"[0-9]*[A-Za-z]")


def _is_in_word(runs: bytes, place: int) -> bool:
    """Whether a place is in so many digits as a card has with a letter beside them: no card, no phone."""
    first = place - CARD_DIGITS_MIN + 1
    if first < 0 or not runs[first : place + 1].isdigit():
        return False
    return _WORD.match(runs, place) is not None or runs[:first].rstrip(b"0123456789")[-1:].isalpha()


def apply(rule: Rule, text: str) -> list[Found]:
    """All that one rule finds."""
    found = []
    for match in _fast(rule.pattern.pattern, rule.pattern.flags).finditer(text):
        if rule.check is None or rule.check(match):
            start, end = match.span(_group(match))
            if end > start and not _was_removed(match.string[start:end]):
                found.append(Found(rule.kind, start, end))
    return found


@cache
def _fast(pattern: str, flags: int) -> re.Pattern[str]:
    """Made at first use: all of them would take a second. By their text, since patterns take long to hash."""
    return hastened(re.compile(pattern, flags))


def _was_removed(secret: str) -> bool:
    """Whether it is the mark of an earlier pass with hardly anything else, such as a scheme."""
    if "[redacted:" not in secret:
        return False
    rest = _MARK.sub("", secret)
    return len(rest) < len(secret) and sum(map(str.isalnum, rest)) <= 6


def merged(found: Sequence[Found]) -> list[Found]:
    """Overlapping ones as one, of the kind that ranks first."""
    if len(found) < 2:
        return list(found)
    result: list[Found] = []
    for one in sorted(found, key=lambda each: (each.start, _RANK[each.kind])):
        last = result[-1] if result else None
        if last is None or one.start >= last.end:
            result.append(one)
            continue
        kind = min(last.kind, one.kind, key=_RANK.__getitem__)
        result[-1] = Found(kind, last.start, max(last.end, one.end))
    return result


def _group(match: object) -> str | int:
    groups = match.re.groupindex  # type: ignore[attr-defined]  # re.Match is generic over what we do not care for
    if "secret" in groups:
        return "secret"
    if "a" in groups:
        return next(name for name in ("a", "b", "c") if match[name] is not None)  # type: ignore[index]
    return 0


class Replacer:
    """What stands in the place of a secret."""

    def __init__(self, hash_key: bytes = b"", pseudonym_key: bytes = b"") -> None:
        self._hash_key = hash_key
        self._pseudonym_key = hash_key or pseudonym_key

    def mark(self, kind: str, secret: str) -> str:
        """`[redacted:kind]`; with a hash key also a keyed hash, which tells equal secrets from different ones."""
        return f"[redacted:{kind}:{_digest(self._hash_key, secret)}]" if self._hash_key else f"[redacted:{kind}]"

    def pseudonym(self, who: str) -> str:
        """A name that stands for somebody and tells nobody who it is."""
        return f"user-{_digest(self._pseudonym_key, who)}"

    def without(self, text: str, found: Sequence[Found]) -> str:
        """The text with marks in the place of what was found."""
        pieces = []
        kept = 0
        for one in found:
            pieces += [text[kept : one.start], self.mark(one.kind, text[one.start : one.end])]
            kept = one.end
        return "".join([*pieces, text[kept:]])


def _digest(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:DIGEST_CHARS]
