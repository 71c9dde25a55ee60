"""Conditions: a small, safe subset of OTTL, the Collector's condition language, computed over columns.

    attributes["http.route"] == "/health" and (kind == SPAN_KIND_SERVER or not IsMatch(name, "^GET"))

A text is parsed once, into functions from a batch to a mask (`condition_nodes.py`); nothing of it is ever evaluated as
Python, and patterns run in linear time. What can be read stands in `condition_paths.py`.

Three answers. A comparison always has one: a missing attribute is nil, equals nil alone and is neither above nor below
anything, and values of different types differ. A function has none where its argument has no text (`HasPrefix` of a
number or of nil, `IsMatch` of an array or a structured body): such a row does not match, and neither does `not` of it,
unless the rest of the condition decides without it. So a row that cannot be judged is kept, as with the Collector's
`error_mode: ignore`.

What differs from the Collector: true and 1 are alike, and so are false and 0; integers are compared as float64, exactly
up to 2**53; an attribute that is there without a value is not nil. `duration` (seconds) is ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from otel_pipeline import limits
from otel_pipeline.conditions.nodes import (
    COMPARISONS,
    all_of,
    any_of,
    compared,
    constant,
    has_text,
    matches,
    negated,
    pattern,
)
from otel_pipeline.conditions.paths import Column, Context, column
from otel_pipeline.wire.values import INT_MAX, INT_MIN

if TYPE_CHECKING:
    from otel_pipeline.conditions.nodes import Literal, Node
    from otel_pipeline.wire.batch import Batch, Mask
    from otel_pipeline.wire.signal import Signal

ENUMS: Final[dict[str, int]] = {
    **dict(Span.SpanKind.items()),
    **dict(Status.StatusCode.items()),
    **dict(SeverityNumber.items()),
}
MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
FUNCTIONS: Final = ("IsMatch", "HasPrefix", "HasSuffix")
ESCAPES: Final = {"\\": "\\", '"': '"', "n": "\n", "r": "\r", "t": "\t"}
TOKENS: Final = re.compile(
    r"""(?P<space>\s+) | (?P<text>"(?:\\.|[^"\\])*") | (?P<number>[-+]?(?:\d*\.\d+(?:[eE][-+]?\d+)?|\d+)(?![\w.]))
    | (?P<word>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*) | (?P<sign>==|!=|<=|>=|<|>|\(|\)|\[|\]|,)""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition for rows of one signal."""

    text: str
    attributes: frozenset[str]
    """The attribute keys of spans or log records that it reads: the batch must have their columns."""
    node: Node

    def mask(self, batch: Batch) -> Mask:
        """The rows where it holds."""
        return self.node(batch)[0]


def parse(text: str, signal: Signal, context: Context = Context.ROW) -> Condition:
    """Raises ValueError with what is wrong, at which character, and what is allowed."""
    if len(text) > limits.CONDITION_CHARS_MAX:
        raise ValueError(f"the condition has {len(text)} characters; allowed are {limits.CONDITION_CHARS_MAX}")
    parser = Parser(text, signal, context)
    node = parser.whole()
    return Condition(text, frozenset(parser.attributes), node)


# -- from text to functions --------------------------------------------------------------------------------------------


class Token(NamedTuple):
    """A piece of a condition; `kind` is a group of `TOKENS` or `end`."""

    kind: str
    text: str
    at: int


class Parser:
    """Recursive descent over the tokens: or, and, not, then a comparison, a function or parentheses."""

    def __init__(self, text: str, signal: Signal, context: Context) -> None:
        self.attributes: set[str] = set()
        self._signal = signal
        self._context = context
        self._tokens = tokens(text)
        self._next = 0
        self._depth = 0

    def whole(self) -> Node:
        """The node of the whole text."""
        node = self._any()
        if self._peek.kind != "end":
            raise mistake(self._peek, "allowed are and, or, and the end of the condition")
        return node

    @property
    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _accept(self, text: str) -> bool:
        if self._peek.kind in ("word", "sign") and self._peek.text == text:
            self._next += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise mistake(self._peek, f"here stands {text}")

    def _any(self) -> Node:
        nodes = [self._all()]
        while self._accept("or"):
            nodes.append(self._all())
        return nodes[0] if len(nodes) == 1 else any_of(nodes)

    def _all(self) -> Node:
        nodes = [self._one()]
        while self._accept("and"):
            nodes.append(self._one())
        return nodes[0] if len(nodes) == 1 else all_of(nodes)

    def _one(self) -> Node:
        start = self._peek
        if start.kind in ("word", "sign") and start.text in ("not", "("):
            self._depth += 1
            if self._depth > limits.CONDITION_NESTING_MAX:
                raise mistake(start, f"at most {limits.CONDITION_NESTING_MAX} levels of ( and not are allowed")
            self._next += 1
            if start.text == "not":
                node = negated(self._one())
            else:
                node = self._any()
                self._expect(")")
            self._depth -= 1
            return node
        if start.kind == "word" and start.text in FUNCTIONS:
            return self._function()
        return self._comparison()

    def _function(self) -> Node:
        name = self._take()
        self._expect("(")
        at = self._peek
        target = self._operand()
        if not isinstance(target, Column) or target.texts is None:
            raise mistake(at, f"{name.text} takes a path with text first")
        self._expect(",")
        at = self._peek
        argument = self._operand()
        if not isinstance(argument, str):
            raise mistake(at, f"{name.text} takes a string literal second")
        self._expect(")")
        if name.text == "IsMatch":
            try:
                return matches(target, pattern(argument))
            except ValueError as error:
                raise ValueError(f"at character {at.at + 1}: the pattern {at.text[:80]}: {error}") from error
        test = str.startswith if name.text == "HasPrefix" else str.endswith
        return has_text(target, lambda value: test(value, argument))

    def _comparison(self) -> Node:
        start = self._peek
        left = self._operand()
        if isinstance(left, bool) and self._peek.text not in COMPARISONS:
            return constant(value=left)
        sign = self._take()
        if sign.kind != "sign" or sign.text not in COMPARISONS:
            raise mistake(sign, f"allowed are {' '.join(COMPARISONS)}")
        name = sign.text
        right = self._operand()
        if not isinstance(left, Column):
            left, right, name = right, left, MIRRORED.get(name, name)
        if not isinstance(left, Column) or isinstance(right, Column):
            raise mistake(start, "a comparison is allowed between one path and one literal")
        try:
            return compared(left, name, right)
        except ValueError as error:
            raise mistake(start, str(error)) from error

    def _operand(self) -> Column | Literal:
        token = self._take()
        if token.kind == "text":
            return unquoted(token)
        if token.kind == "number":
            return number(token)
        if token.kind != "word":
            raise mistake(token, "allowed are a path, a literal, true, false, nil, not, (, " + ", ".join(FUNCTIONS))
        if token.text in ("true", "false", "nil"):
            return {"true": True, "false": False, "nil": None}[token.text]
        if token.text in ENUMS:
            return ENUMS[token.text]
        key = None
        if self._accept("["):
            if self._peek.kind != "text":
                raise mistake(self._peek, "allowed is one key in double quotes")
            key = unquoted(self._take())
            self._expect("]")
        try:
            found, own_key = column(token.text, key, self._signal, self._context)
        except ValueError as error:
            raise mistake(token, str(error)) from error
        if own_key is not None:
            self.attributes.add(own_key)
        return found


def tokens(text: str) -> list[Token]:
    """The pieces of a condition without white space, and an end."""
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = TOKENS.match(text, at)
        if match is None or match.lastgroup is None:
            raise mistake(
                Token("unknown", text[at], at),
                "nothing allowed begins so; strings stand in double quotes, and there is no arithmetic",
            )
        if match.lastgroup != "space":
            found.append(Token(match.lastgroup, match.group(), at))
        at = match.end()
    return [*found, Token("end", "", len(text))]


def unquoted(token: Token) -> str:
    """The value of a string literal."""

    def plain(match: re.Match[str]) -> str:
        letter = match.group(1)
        if letter[0] == "u" and len(letter) == 5:
            return chr(int(letter[1:], 16))
        if letter not in ESCAPES:
            place = Token("text", match.group(), token.at + 1 + match.start())
            raise mistake(place, 'the escapes are \\\\ \\" \\n \\r \\t \\u0000; a pattern needs two backslashes')
        return ESCAPES[letter]

    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", plain, token.text[1:-1], flags=re.DOTALL)


def number(token: Token) -> int | float:
    """The value of a number literal."""
    if "." in token.text:
        return float(token.text)
    value = int(token.text) if len(token.text) < 21 else INT_MAX + 1
    if not INT_MIN <= value <= INT_MAX:
        raise mistake(token, "integers have 64 bits")
    return value


def mistake(token: Token, allowed: str) -> ValueError:
    """The error for a token that cannot stand there."""
    shown = token.text[:80] or "the end"
    return ValueError(f"at character {token.at + 1}: {shown}: {allowed}")
