r"""The path language: where in a message, a Redis key beside it or the environment a field of a job is found.

    user_id                      a key of the message, a stream's or hash's field, or a plain attribute
    metadata.context.user_id     a key of what is at a key; JSON inside strings is opened on the way
    "x-user.id"                  quoted: a key that holds dots, spaces or other marks
    frames[0]   args[-1]         an element of a list
    kwargs.task_id  meta.email   what a framework's message holds: args, kwargs, meta, id
    $                            the whole message
    Message|json.metadata.id     a filter, then further keys of what it gives
    ~(\w+):(?P<id>\d+)~          on a text (here the whole message): the first named group, else the first, else all;
    ref|~^user-(\d+)~            between the tildes a tilde is written \~
    env:GPU_TIER                 a variable of the environment
    @key{video:job:{id}}.user    in a Redis key, which is read before the job starts: a hash's field or JSON in text;
                                 {id} is the job's id
    user_id|owner_id             what follows | and is no filter is the next path to try; a list of paths does the same

Filters:

    json                         what the text holds as JSON
    url:host url:port url:hostport url:path    a part of a URL or of host:port
    stem                         the file's name without directories and extension
    base                         the file's name with its extension
    lower                        in small letters
    len                          characters of a text or elements of a list
    hash                         16 hexadecimal digits that stand for it

A key that has the name of a filter is quoted where it follows `|`. What a path does not find, or finds in another form
than it asks for, is nothing: the next path is tried. `PathError` tells where a text is no path and what is allowed.
"""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from otel_pipeline.worker.reading.payload import Payload, scalar
from otel_pipeline.worker.redaction import pseudonym
from otel_pipeline.worker.settings import settings

EXPRESSION_MAX: Final = 1024
"""Characters of a path that an operator writes."""
PATTERN_TEXT_MAX: Final = 4096
"""Characters that a regular expression is run on."""

_NAME: Final = re.compile(r"[^\s.\[\]|{}~\"@$;]+")
_INDEX: Final = re.compile(r"\[\s*(-?\d{1,6})\s*\]")
_ENV: Final = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_FILTER: Final = re.compile(r"(json|stem|base|lower|len|hash|url:(?:host|port|hostport|path))(?=[\s.\[|]|$)")
_STARTS: Final = "a key, [n], $, env:NAME, @key{...} or ~regex~"


def compiled(text: str) -> re.Pattern[str]:
    """The regular expression; what Python may read otherwise in the future is no warning to the host program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(text)


class PathError(ValueError):
    """A text that is no path; `position` counts characters from 0."""

    def __init__(self, text: str, position: int, allowed: str) -> None:
        super().__init__(f"path {text[:80]!r} cannot be read at character {position}: allowed here: {allowed}")
        self.position = position


Step = Callable[[Payload, Any], object]


@dataclass(frozen=True, slots=True)
class Path:
    """One way to a value."""

    text: str
    steps: tuple[Step, ...] = ()
    variable: str = ""
    """It begins at a variable of the environment."""
    side: str = ""
    """It begins at the Redis key of this template."""

    def read(self, payload: Payload, sides: Mapping[str, object] | None = None) -> object:
        """The value; None if there is none. `sides` is what the side keys hold, by template."""
        if self.variable:
            value: object = os.environ.get(self.variable)
        elif self.side:
            value = payload.open(sides.get(self.side)) if sides else None
        else:
            value = payload.root
        for step in self.steps:
            if value is None:
                return None
            value = step(payload, value)
        return value


@dataclass
class _Parser:
    text: str
    position: int = 0
    found: list[Path] = field(default_factory=list)

    def paths(self) -> tuple[Path, ...]:
        self._space()
        while True:
            begin = self.position
            self._one(begin)
            if self.position >= len(self.text):
                return tuple(self.found)
            self._expect("|", ". [ | ~ or the end")

    def _one(self, begin: int) -> None:
        """One path, up to the end or to a `|` that begins another."""
        variable = side = ""
        steps: list[Step] = []
        self._space()
        env = _ENV.match(self.text, self.position)
        if env:
            variable, self.position = env[1], env.end()
        elif self._at("env:"):
            raise PathError(self.text, self.position + 4, "the name of a variable: letters, digits and _")
        elif self._at("@"):
            side = self._template()
        elif self._at("$"):
            self.position += 1
        elif self._at("~"):
            steps.append(self._regex())
        elif self._at("["):
            steps.append(self._index())
        else:
            steps.append(self._key(_STARTS))
        steps += self._rest()
        self.found.append(Path(self.text[begin : self.position].strip(), tuple(steps), variable, side))

    def _rest(self) -> list[Step]:
        steps: list[Step] = []
        while True:
            self._space()
            if self._at("."):
                self.position += 1
                steps.append(self._key("a key"))
            elif self._at("["):
                steps.append(self._index())
            elif self._at("~"):
                steps.append(self._regex())
            elif self._at("|"):
                step = self._filter()
                if step is None:
                    return steps
                steps.append(step)
            else:
                return steps

    def _filter(self) -> Step | None:
        """The filter after a `|`; None, and the mark left in place, if another path follows."""
        bar = self.position
        self.position += 1
        self._space()
        if self._at("~"):
            return self._regex()
        match = _FILTER.match(self.text, self.position)
        if match is None:
            self.position = bar
            return None
        self.position = match.end()
        return _FILTERS[match[1]]

    def _key(self, allowed: str) -> Step:
        self._space()
        if self._at('"'):
            end = self.text.find('"', self.position + 1)
            if end < 0:
                raise PathError(self.text, len(self.text), 'a closing "')
            name, self.position = self.text[self.position + 1 : end], end + 1
        else:
            match = _NAME.match(self.text, self.position)
            if match is None:
                raise PathError(self.text, self.position, allowed)
            name, self.position = match[0], match.end()
        return lambda payload, value: payload.look(value, name)

    def _index(self) -> Step:
        match = _INDEX.match(self.text, self.position)
        if match is None:
            raise PathError(self.text, self.position, "[n] with n a whole number")
        self.position = match.end()
        index = int(match[1])
        return lambda payload, value: payload.look(value, index)

    def _regex(self) -> Step:
        begin = self.position + 1
        end = begin
        while end < len(self.text) and self.text[end] != "~":
            end += 2 if self.text[end] == "\\" else 1
        if end >= len(self.text):
            raise PathError(self.text, len(self.text), "a closing ~")
        try:
            pattern = compiled(self.text[begin:end].replace("\\~", "~"))
        except (re.error, OverflowError, RecursionError) as error:
            at = begin + (getattr(error, "pos", None) or 0)
            raise PathError(self.text, at, f"a regular expression ({error})") from error
        self.position = end + 1
        return lambda _, value: _search(pattern, value)

    def _template(self) -> str:
        match = re.compile(r"@(?:key)?\{").match(self.text, self.position)
        if match is None:
            raise PathError(self.text, self.position, "@key{template}")
        depth, end = 1, match.end()
        while end < len(self.text) and depth:
            depth += {"{": 1, "}": -1}.get(self.text[end], 0)
            end += 1
        if depth or end - 1 == match.end():
            raise PathError(self.text, end, "the template of a key and a closing }")
        self.position = end
        return self.text[match.end() : end - 1]

    def _expect(self, mark: str, allowed: str) -> None:
        if not self._at(mark):
            raise PathError(self.text, self.position, allowed)
        self.position += 1

    def _at(self, mark: str) -> bool:
        return self.text.startswith(mark, self.position)

    def _space(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1


def parse(text: str) -> tuple[Path, ...]:
    """The paths of an expression, in the order they are tried. Raises `PathError`."""
    if len(text) > EXPRESSION_MAX:
        raise PathError(text, EXPRESSION_MAX, f"a path of at most {EXPRESSION_MAX} characters")
    return _Parser(text).paths()


def stem(text: str) -> str:
    """A file's name without directories and extension."""
    name = base(text)
    return name.rsplit(".", 1)[0] if "." in name[1:] else name


def base(text: str) -> str:
    """A file's name without directories."""
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1]


def url_part(text: str, part: str) -> str | int | None:
    """host, port, hostport or path of a URL or of host:port; never its credentials or its query."""
    try:
        url = urlsplit(text if "://" in text else f"//{text}")
        host, port = url.hostname, url.port
    except ValueError:
        return None
    if part == "path":
        return url.path or None
    if part == "port" or not host:
        return port if host else None
    shown = f"[{host}]" if ":" in host else host
    return shown if part == "host" or port is None else f"{shown}:{port}"


def _search(pattern: re.Pattern[str], value: object) -> str | None:
    text = scalar(value)
    if text is None or isinstance(text, bool):
        return None
    match = pattern.search(str(text)[:PATTERN_TEXT_MAX])
    if match is None:
        return None
    named = next((each for each in match.groupdict().values() if each is not None), None)
    if named is not None or pattern.groupindex:
        return named
    return match[1] if pattern.groups else match[0]


def _of_text(function: Callable[[str], object]) -> Step:
    def step(_: Payload, value: object) -> object:
        text = scalar(value)
        return function(text) if isinstance(text, str) else None

    return step


def _json(payload: Payload, value: object) -> object:
    opened = payload.open(value)  # what a key held may have been opened by then
    return opened if opened is not value or not isinstance(opened, str | bytes) else None


def _length(_: Payload, value: object) -> int | None:
    return len(value) if isinstance(value, str | bytes | list | tuple | dict) else None


def _hash(_: Payload, value: object) -> str | None:
    plain = scalar(value)
    return None if plain is None else pseudonym(str(plain), settings().user_key)


_FILTERS: Final[dict[str, Step]] = {
    "json": _json,
    "stem": _of_text(stem),
    "base": _of_text(base),
    "lower": _of_text(str.lower),
    "len": _length,
    "hash": _hash,
    **{
        f"url:{part}": _of_text(functools.partial(url_part, part=part)) for part in ("host", "port", "hostport", "path")
    },
}
