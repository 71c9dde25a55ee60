"""What a rule is, and the kinds of secrets. A rule looks at one text; what it must not know is where the text stood.

Theory: each rule has a *trigger* and a *pattern*. Triggers run together in one pass over raw bytes (`prefilter.py`);
a pattern runs only over a text in which its trigger was found, and decides. So a trigger must be found wherever the
pattern matches, and may be found elsewhere. In raw protobuf the bytes around a string are lengths and tags, which may
look like letters: a trigger has no word boundaries and no look-around. It knows ASCII alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

Kind: TypeAlias = Literal[
    "private_key",
    "jwt",
    "api_key",
    "authorization",
    "cookie",
    "url_credentials",
    "url_signature",
    "connection_string",
    "password",
    "one_time_code",
    "email",
    "card",
    "phone",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""Where two overlap, the one that stands first here gives its name."""

EDGE: Final = r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[nrt])|(?<=\[[0-9]m)|(?<=\[[0-9]{2}m))"
"""Where a token may begin: not within a word, but behind an escape of a URL, of JSON, or of a terminal's colours."""

Sweep: TypeAlias = Literal["words", "at", "digits"]
"""Triggers of one sweep share an automaton. Those around a rare sign, and those of digits without any fixed letters,
are kept apart: together with hundreds of words each would cost the whole automaton its speed (measured: ADR 4)."""

SWEEPS: Final[tuple[Sweep, ...]] = get_args(Sweep)

Check: TypeAlias = Callable[["re.Match[str]"], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """One form of one kind."""

    kind: Kind
    trigger: str
    """For the search over bytes: a regular expression without anchors and look-around."""
    pattern: re.Pattern[str]
    """Its group `secret` is what is removed, or all that it matches if there is no such group."""
    check: Check | None = None
    """What the pattern cannot say, such as a checksum."""
    sweep: Sweep = "words"


@dataclass(frozen=True, slots=True)
class Found:
    """A secret in a text."""

    kind: Kind
    start: int
    end: int
