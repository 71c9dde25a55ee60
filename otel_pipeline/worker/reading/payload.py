"""Reading what a program's messages hold, without running any code of the program and at a bounded cost.

A message is bytes or text (JSON or not), a mapping with text or bytes for keys, a list, or an object whose attributes
are plain. Keys are looked up by name, never iterated; JSON inside strings is opened on the way, as long as the
message's budget of text lasts. Properties, `__getattr__`, `__str__` and the like of foreign classes are never called.
"""

from __future__ import annotations

import enum
import json
import math
import types
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

TEXT_MAX: Final = 1024 * 1024
"""Characters of JSON that are parsed for one message: 1 to 25 ms. Longer ones hold images, not fields."""
SCALAR_MAX: Final = 4096
"""Longer texts are never a field's value."""
PARTS_MAX: Final = 32
"""Places of one message that fields are looked for in."""
DEPTH_MAX: Final = 4
"""Envelopes within envelopes: SQS body, SNS message, the job, its metadata."""
ITEMS_MAX: Final = 4
"""Elements of a list of arguments or of a JSON array that are looked into."""

ENVELOPES: Final = (
    *("input", "data", "payload", "body", "Body", "job", "task", "params", "metadata", "message", "Message"),
    *("args", "kwargs", "meta", "detail", "context", "request", "event", "Records", "Sns", "headers"),
)
"""Keys under which a message holds the message proper, in the order they are looked into."""
_ENVELOPES: Final = frozenset(ENVELOPES)
NAMES_MAX: Final = 4096
"""Fields of a Redis hash that is taken for a job."""

_NO_FIELDS: Final = (
    *(str, bytes, bytearray, memoryview, int, float, complex, set, frozenset, BaseException),
    *(type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.CodeType),
)
"""Kinds of values in which no field is looked for."""
_OPENED: Final = frozenset({dict, list, int, float, bool, type(None)})
"""Exact types of values that are as they are: most of what JSON gives."""


class Payload:
    """One message, opened as far as it is asked for."""

    __slots__ = ("_left", "root")

    def __init__(self, message: object, text_max: int = TEXT_MAX) -> None:
        self._left = text_max
        self.root: object = self.open(message)

    def open(self, value: object) -> object:
        """What a text holds if it is JSON, the text itself if it is not; other values as they are, None for binary."""
        if type(value) in _OPENED:
            return value
        if isinstance(value, (bytes, bytearray, memoryview)):
            value = _decoded(value) if len(value) <= self._left else None
        if not isinstance(value, str):
            return value
        text = str.__str__(value)
        if len(text) > self._left or not text or not _may_be_json(text):
            return text
        self._left -= len(text)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text

    def look(self, value: object, key: str | int) -> object:
        """What is at a key, an index or an attribute, opened; None if there is nothing."""
        value = self.open(value)
        found = item(value, key) if isinstance(key, int) else member(value, key)
        if type(found) in _OPENED:
            return found
        return self.open(found) if isinstance(found, (bytes, str)) and _may_be_json(found) else found

    def walk(self, value: object, steps: tuple[str | int, ...]) -> object:
        for step in steps:
            if value is None:
                return None
            value = self.look(value, step)
        return value

    def parts(self) -> list[tuple[str, object]]:
        """The message and the envelopes in it, each with the key it was found under, outermost first."""
        found: list[tuple[str, object]] = []
        level = [("", self.root)]
        seen: set[int] = set()
        for _ in range(DEPTH_MAX):
            inner: list[tuple[str, object]] = []
            for name, value in level:
                if not is_structure(value) or id(value) in seen or len(found) >= PARTS_MAX:
                    continue
                seen.add(id(value))
                found.append((name, value))
                inner += self._inner(name, value)
            level = inner
        return found

    def _inner(self, name: str, value: object) -> list[tuple[str, object]]:
        if isinstance(value, (list, tuple)) and not hasattr(type(value), "_fields"):
            opened = (self.open(each) for each in value[:ITEMS_MAX])
            return [(name, each) for each in opened if is_structure(each)]
        there = sorted(present(value, _ENVELOPES), key=ENVELOPES.index)
        inner = ((key, self.look(value, key)) for key in there)
        return [(key, each) for key, each in inner if is_structure(each)]


class Index:
    """Where in a message, and in the envelopes in it, the names of a fixed set are found."""

    __slots__ = ("_payload", "found", "parts")

    def __init__(self, payload: Payload, wanted: frozenset[str]) -> None:
        self._payload = payload
        self.found: dict[str, list[tuple[str, object]]] = {}
        """By name, the envelopes that have it, each under its own name."""
        self.parts = payload.parts()
        for place, part in self.parts:
            for name in present(part, wanted):
                self.found.setdefault(name, []).append((place, part))

    def values(self, name: str) -> Iterator[object]:
        """What is there under the name, opened, outermost first."""
        return (self._payload.look(part, name) for _, part in self.found.get(name, ()))

    def walked(self, steps: tuple[str, ...]) -> Iterator[tuple[str, object, object]]:
        """The values at a way of several names, each with the name of its envelope and the envelope."""
        walk = self._payload.walk if len(steps) > 1 else None
        for place, part in self.found.get(steps[0], ()):
            yield place, part, walk(part, steps) if walk else self._payload.look(part, steps[0])

    def raw(self, name: str) -> Iterator[object]:
        """What is there under the name, unopened."""
        return (member(part, name) for _, part in self.found.get(name, ()))


def present(value: object, wanted: frozenset[str]) -> set[str]:
    """Which of these names a structure has. Costs no more than the smaller of the two is long."""
    if isinstance(value, dict):
        if value and isinstance(next(iter(dict.keys(value))), bytes):
            return {name for name in wanted if name.encode() in value} if len(value) <= NAMES_MAX else set()
        keys = dict.keys(value)
        return set(wanted.intersection(keys)) if len(keys) < len(wanted) else keys & wanted
    if not is_structure(value) or isinstance(value, list):
        return set()
    if isinstance(value, tuple) or type(value) is types.MappingProxyType:
        return {name for name in wanted if member(value, name) is not None}
    names = dict.keys(_namespace(value)) & wanted
    for kind in type(value).__mro__:
        names |= {name for name in kind.__dict__.get("__slots__", ()) if isinstance(name, str)} & wanted
    return names


def member(value: object, name: str) -> object:
    """What a mapping holds under a name, or a plain attribute of an object; None if there is none."""
    if isinstance(value, dict):
        found = dict.get(value, name)
        if found is None:
            for first in dict.keys(value):
                return dict.get(value, name.encode()) if isinstance(first, bytes) else None
        return found
    if type(value) is types.MappingProxyType:
        return member(dict(value), name) if len(value) <= 256 else None
    if value is None or isinstance(value, (list, *_NO_FIELDS)):
        return None
    if isinstance(value, tuple):
        names = getattr(type(value), "_fields", None)
        return item(value, names.index(name)) if isinstance(names, tuple) and name in names else None
    return _attribute(value, name)


def item(value: object, index: int) -> object:
    """An element of a list or tuple; None if there is none."""
    if isinstance(value, list) and -len(value) <= index < len(value):
        return list.__getitem__(value, index)
    if isinstance(value, tuple) and -len(value) <= index < len(value):
        return tuple.__getitem__(value, index)
    return None


def is_structure(value: object) -> bool:
    """Whether it can hold fields."""
    if isinstance(value, (dict, list, tuple)):
        return bool(value)
    return not (value is None or isinstance(value, _NO_FIELDS))


def scalar(value: object) -> str | int | float | bool | None:
    """A value's plain form, as one of these types themselves; None for anything else and for texts without content."""
    if type(value) in _EXACT:
        return _EXACT[type(value)](value)
    for kind, plain in _PLAIN:
        if isinstance(value, kind):
            return plain(value)
    return None


def _namespace(value: object) -> dict[str, object]:
    """The attributes of an instance itself."""
    for kind in type(value).__mro__:
        space = kind.__dict__.get("__dict__")
        if isinstance(space, types.GetSetDescriptorType | types.MemberDescriptorType):
            own = space.__get__(value)
            return own if type(own) is dict else {}
    return {}


def _attribute(value: object, name: str) -> object:
    own = _namespace(value)
    if name in own:
        return own[name]
    for kind in type(value).__mro__:
        slot = kind.__dict__.get(name)
        if type(slot) is types.MemberDescriptorType:
            try:
                return slot.__get__(value)
            except AttributeError:
                return None
    return None


def _decoded(value: bytes | bytearray | memoryview) -> str | None:
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        return None


def _may_be_json(text: str | bytes) -> bool:
    if isinstance(text, str):
        return text[:16].lstrip()[:1] in {"{", "[", '"'}
    return text[:16].lstrip()[:1] in {b"{", b"[", b'"'}


def _plain_text(value: Any) -> str | None:
    text = str.__str__(value)
    return (text.strip() or None) if len(text) <= SCALAR_MAX else None


def _plain_bytes(value: Any) -> str | None:
    try:
        return _plain_text(bytes(value).decode()) if len(value) <= SCALAR_MAX else None
    except UnicodeDecodeError:
        return None


def _plain_float(value: Any) -> float | None:
    number = float.__float__(value)
    return number if math.isfinite(number) else None


def _plain_enum(value: Any) -> str | int | float | bool | None:
    inner = _attribute(value, "_value_")
    return None if isinstance(inner, enum.Enum) else scalar(inner)


def _plain_int(value: Any) -> int | None:
    number = int.__int__(value)
    return number if abs(number) < 2**63 else None  # an attribute holds 64 bits


_PLAIN: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any], str | int | float | bool | None]], ...]] = (
    (str, _plain_text),
    (bool, bool),
    (int, _plain_int),
    (float, _plain_float),
    ((bytes, bytearray), _plain_bytes),
    (enum.Enum, _plain_enum),
    (uuid.UUID, uuid.UUID.__str__),
)
_EXACT: Final[dict[type, Callable[[Any], str | int | float | bool | None]]] = {
    **{kind: plain for kind, plain in _PLAIN if isinstance(kind, type)},
    **dict.fromkeys((type(None), dict, list), lambda _: None),
}
"""The same for the types themselves, which are nearly all values."""
