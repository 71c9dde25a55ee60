"""What follows from a pattern before it is searched: of which bytes its matches are made, and how they begin.

Triggers of digits and separators match only within runs of such bytes, and most texts have no long run. Of which bytes,
and how long, follows from the triggers themselves, by Python's own parser of patterns; what this file does not know
may be any byte and any length. So a new trigger can make the search slower, but never blind.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

_ANY: Final = frozenset(range(256))
_PARSER: Final[Any] = re._parser  # type: ignore[attr-defined]  # nothing else parses this syntax
_OP: Final[Any] = re._constants  # type: ignore[attr-defined]
_REPEATS: Final = frozenset((_OP.MAX_REPEAT, _OP.MIN_REPEAT))
_PLACES: Final = frozenset((_OP.AT, _OP.ASSERT, _OP.ASSERT_NOT))
"""What takes no character."""
OPENINGS_MAX: Final = 48
"""Of more characters the look at the first one would save nothing."""
_FOLDED: Final = {"s": "\u017f", "k": "\u212a", "i": "\u0130\u0131"}
"""Characters beyond ASCII that are equal to one of it where case does not count."""
_FLAGS: Final = re.compile(r"\(\?[aimsux]+\)")


def shape(trigger: str) -> tuple[frozenset[int], int]:
    """The bytes that matches of a trigger can be made of, and the length of the shortest."""
    parsed = _PARSER.parse(trigger.encode("latin-1"))
    found = bytes(_bytes(parsed))
    return frozenset(found) | frozenset(found.lower()) | frozenset(found.upper()), parsed.getwidth()[0]


@cache
def signs(trigger: str) -> tuple[bytes, ...]:
    """Literals, one of which stands in each match: an item of the trigger chooses between them. Empty: not known."""
    parsed = _PARSER.parse(trigger.encode("latin-1"))
    if parsed.state.flags & re.IGNORECASE:
        return ()
    return min((found for item in parsed if (found := _choice(*item))), key=len, default=())


def hastened(pattern: re.Pattern[str]) -> re.Pattern[str]:
    """A pattern that matches the same, and looks at the first character first.

    `re` tries each alternative at each place of a text where case does not count; most places cannot be a beginning.
    """
    first, is_optional = _openings(_PARSER.parse(pattern.pattern))
    if first is None or is_optional or len(first) > OPENINGS_MAX:
        return pattern
    either = {other for one in first for other in (one, one.lower(), one.upper(), *_FOLDED.get(one.lower(), ""))}
    head = "".join(re.escape(one) for one in sorted(either) if len(one) == 1)
    return re.compile(f"(?=[{head}])(?:{_FLAGS.sub('', pattern.pattern, count=1)})", pattern.flags)


def _bytes(items: Any) -> frozenset[int]:
    return frozenset[int]().union(*(_bytes_of(operation, argument) for operation, argument in items))


def _bytes_of(operation: Any, argument: Any) -> frozenset[int]:
    """The bytes of one item of a parsed pattern."""
    if operation is _OP.LITERAL:
        found = frozenset((argument,))
    elif operation is _OP.RANGE:
        found = frozenset(range(argument[0], argument[1] + 1))
    elif operation is _OP.IN:
        found = _bytes(argument)
    elif operation in _REPEATS:
        found = _bytes(argument[2])
    elif operation is _OP.SUBPATTERN:
        found = _bytes(argument[3])
    elif operation is _OP.BRANCH:
        found = frozenset[int]().union(*map(_bytes, argument[1]))
    else:
        found = _ANY
    return found


def _choice(operation: Any, argument: Any) -> tuple[bytes, ...]:
    """The literals of an item that is a choice between some."""
    if operation is _OP.SUBPATTERN and len(argument[3]) == 1 and not argument[1]:
        return _choice(*argument[3][0])
    if operation is not _OP.BRANCH or any(item is not _OP.LITERAL for branch in argument[1] for item, _ in branch):
        return ()
    return tuple(bytes(byte for _, byte in branch) for branch in argument[1])


def _openings(items: Any) -> tuple[frozenset[str] | None, bool]:
    """The characters with which a match begins, None if that may be any, and whether it may be empty."""
    found: set[str] = set()
    for operation, argument in items:
        first, is_optional = _openings_of(operation, argument)
        if first is None:
            return None, False
        found |= first
        if not is_optional:
            return frozenset(found), False
    return frozenset(found), True


def _openings_of(operation: Any, argument: Any) -> tuple[frozenset[str] | None, bool]:
    """The same of one item."""
    found: tuple[frozenset[str] | None, bool] = None, False
    if operation in _PLACES:
        found = frozenset(), True
    elif operation is _OP.LITERAL:
        found = frozenset(chr(argument)), False
    elif operation is _OP.IN and all(_is_ascii(item, what) for item, what in argument):
        found = frozenset(map(chr, _bytes(argument))), False
    elif operation is _OP.SUBPATTERN:
        found = _openings(argument[3])
    elif operation in _REPEATS:
        first, is_optional = _openings(argument[2])
        found = first, is_optional or argument[0] == 0
    elif operation is _OP.BRANCH:
        each = [_openings(branch) for branch in argument[1]]
        firsts = [first for first, _ in each if first is not None]
        if len(firsts) == len(each):
            found = frozenset[str]().union(*firsts), any(is_optional for _, is_optional in each)
    return found


def _is_ascii(operation: Any, argument: Any) -> bool:
    last = argument[1] if operation is _OP.RANGE else argument
    return operation in {_OP.LITERAL, _OP.RANGE} and last < 128
