"""Patterns in linear time: one RE2 set a field finds all patterns that match a text in one pass."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import re2  # type: ignore[import-untyped]  # has no stubs

from otel_pipeline.limits import FAILURE_NAME_CHARS_MAX, FAILURE_PATTERNS_BYTES_MAX, FAILURE_TEXTS_KEPT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FLAGS: Final = "(?mi)"


def options() -> Any:
    """RE2 without its own log, with room for sets of some hundred patterns."""
    chosen = re2.Options()
    chosen.log_errors = False
    chosen.max_mem = FAILURE_PATTERNS_BYTES_MAX
    return chosen


def compiled(pattern: str) -> Any:
    """Raises ValueError with the reason if RE2 does not know it."""
    try:
        return re2.compile(FLAGS + pattern, options())
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if error.args else "unknown"
        raise ValueError(f"{pattern[:80]!r}: {reason}; allowed is the syntax of RE2") from error


def type_pattern(name: str) -> str:
    """A name of an exception type: `*` stands for anything; without a dot, of any module or package."""
    body = re2.escape(name).replace(r"\*", r"[^\n]*")
    module = "" if "." in name or name.startswith("*") else r"(?:[^\n]*[.:$/])?"
    return f"(?m)^{module}{body}$"


def matcher(patterns: dict[str, int]) -> Callable[[str], int]:
    """A function from a text to the bits of all patterns that match it."""
    if not patterns:
        return lambda _: 0
    found = re2.Set.SearchSet(options())
    for pattern in patterns:
        found.Add(pattern)
    found.Compile()
    bits = [1 << bit for bit in patterns.values()]

    def match(text: str) -> int:
        indexes: Iterable[int] = (found.Match(text) if text else None) or ()  # RE2 says None where nothing matches
        mask = 0
        for index in indexes:
            mask |= bits[index]
        return mask

    return match


def remembered(match: Callable[[str], int]) -> Callable[[str], int]:
    """For texts that come again and again: types, hosts, names. Long ones are matched anew each time."""
    kept = lru_cache(maxsize=FAILURE_TEXTS_KEPT)(match)
    return lambda text: kept(text) if len(text) <= FAILURE_NAME_CHARS_MAX else match(text)
