"""One text: what in it is secret, and the text without that."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final

from otel_pipeline.limits import REDACTION_TEXT_CHARS_KEPT, REDACTION_TEXTS_KEPT
from otel_pipeline.secrets.personal import PERSONAL, is_mere_number
from otel_pipeline.secrets.prefilter import prefilter
from otel_pipeline.secrets.rules import KINDS, SWEEPS, Found
from otel_pipeline.secrets.structures import STRUCTURES
from otel_pipeline.secrets.tokens import TOKENS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from otel_pipeline.secrets.rules import Kind, Rule

RULES: Final[tuple[Rule, ...]] = (*TOKENS, *STRUCTURES, *PERSONAL)
_RANK: Final = {kind: rank for rank, kind in enumerate(KINDS)}
_MARK: Final = re.compile(r"\[redacted:[a-z_]{1,24}(?::[0-9a-f]{16})?\]")
DIGEST_CHARS: Final = 16
"""Of a keyed hash: 64 bits tell the values of one platform apart."""


class Finder:
    """Finds secrets of the chosen kinds. `more` are further triggers of words, for `places` alone."""

    def __init__(self, kinds: Collection[Kind] = KINDS, more: Sequence[str] = ()) -> None:
        rules = [rule for rule in RULES if rule.kind in kinds]
        self._sweeps = [
            _Sweep([rule for rule in rules if rule.sweep == sweep], more if sweep == "words" else ())
            for sweep in SWEEPS
        ]
        self._clean: dict[str, None] = {}

    def places(self, data: bytes) -> list[int] | None:
        """Where in raw bytes something may be, in rising order; None: nearly everywhere."""
        found: list[int] = []
        for sweep in self._sweeps:
            places = sweep.prefilter.places(data) if sweep.prefilter else []
            if places is None:
                return None
            found += [place for place in places if not is_mere_number(data, place)]
        return sorted(found)

    def find(self, text: str) -> list[Found]:
        """What is secret in a text, in order, without overlaps."""
        if text in self._clean:
            return []
        raw = text.encode("utf-8", "surrogatepass")
        found = merged([one for sweep in self._sweeps for rule in sweep.triggered(raw) for one in apply(rule, text)])
        if not found and len(text) <= REDACTION_TEXT_CHARS_KEPT:
            if len(self._clean) >= REDACTION_TEXTS_KEPT:
                self._clean.clear()
            self._clean[text] = None
        return found


class _Sweep:
    """The rules whose triggers share an automaton."""

    def __init__(self, rules: Sequence[Rule], more: Sequence[str]) -> None:
        triggers = list(dict.fromkeys([*(rule.trigger for rule in rules), *more]))
        self.prefilter = prefilter(triggers) if triggers else None
        self._rules: dict[int, list[Rule]] = {}
        for rule in rules:
            self._rules.setdefault(triggers.index(rule.trigger), []).append(rule)

    def triggered(self, raw: bytes) -> list[Rule]:
        """The rules to ask about a text."""
        if self.prefilter is None:
            return []
        return [rule for index in self.prefilter.which(raw) for rule in self._rules.get(index, ())]


def apply(rule: Rule, text: str) -> list[Found]:
    """All that one rule finds."""
    found = []
    for match in rule.pattern.finditer(text):
        if rule.check is None or rule.check(match):
            start, end = match.span(_group(match))
            if end > start and not _was_removed(match.string[start:end]):
                found.append(Found(rule.kind, start, end))
    return found


def _was_removed(secret: str) -> bool:
    """Whether it is the mark of an earlier pass with hardly anything else, such as a scheme."""
    rest = _MARK.sub("", secret)
    return len(rest) < len(secret) and sum(map(str.isalnum, rest)) <= 6


def merged(found: Sequence[Found]) -> list[Found]:
    """Overlapping ones as one, of the kind that ranks first."""
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
