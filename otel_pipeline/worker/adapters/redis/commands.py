"""What Redis commands do with queues, and what their answers hold: arguments and answers in, values out.

Answers come in the shapes of redis-py 5 to 8, RESP2 and RESP3, parsed or not, text or bytes. Elements that lie in a
list of several are found together with the place of that list, so that it can be replaced (redis_batch.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Arguments = Sequence[Any]

BATCH_MAX: Final = 1000
"""Elements of one answer that become jobs one by one."""
VALUE_MAX: Final = 64 * 1024
"""Bytes of a value that is looked into for a status or a field."""
FIELDS_MAX: Final = 256
"""Fields of one hash or stream entry that are looked at."""


def text(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    return value if isinstance(value, str) else str(value)


def raw(value: Any) -> bytes:
    """The bytes that redis-py sends for a value, and that come back for it."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    return (repr(value) if isinstance(value, float) else str(value)).encode("utf-8", "surrogateescape")


def raw_fields(fields: Mapping[Any, Any]) -> bytes:
    """A stream entry as bytes, for its hash."""
    return b"\0".join(raw(name) + b"\1" + raw(value) for name, value in fields.items())


def decoded(fields: Mapping[Any, Any]) -> dict[str, Any]:
    return {text(name): fields[name] for name in list(fields)[:FIELDS_MAX]}


@dataclass(slots=True)
class Element:
    """One element as it was popped, read or claimed."""

    key: str
    value: Any
    """As the program sees it."""
    message: Any
    """What the job's identity is read from: bytes, or the fields of a stream entry."""
    raw: bytes
    message_id: str | None = None
    group: str | None = None
    redelivered: bool = False
    """Redis says that it was delivered before."""
    attempt: int = 0
    """Redis says how often it was delivered."""


@dataclass(slots=True)
class Found:
    """Elements that lie in one list of an answer, or a single one."""

    elements: list[Element | None]
    """At the index of the list; None for what is no element."""
    items: list[Any] | None = None
    """The list itself; None for a single element."""
    put: Callable[[list[Any]], None] = field(default=lambda _: None)
    """Replaces the list in the answer."""


# -- pops --------------------------------------------------------------------------------------------------------------


def _one(args: Arguments) -> list[Any]:
    return [args[1]]


def _all_but_timeout(args: Arguments) -> list[Any]:
    return list(args[1:-1])


def _counted(at: int) -> Callable[[Arguments], list[Any]]:
    return lambda args: list(args[at + 1 : at + 1 + int(args[at])])


def _streams(args: Arguments) -> list[Any]:
    rest = list(args[_index(args, "STREAMS") + 1 :])
    return rest[: len(rest) // 2]


def _index(args: Arguments, word: str) -> int:
    for index, each in enumerate(args):
        if isinstance(each, (str, bytes)) and text(each).upper() == word:
            return index
    raise ValueError(word)


POPS: Final[dict[str, Callable[[Arguments], list[Any]]]] = {
    **dict.fromkeys(("LPOP", "RPOP", "RPOPLPUSH", "BRPOPLPUSH", "LMOVE", "BLMOVE", "ZPOPMIN", "ZPOPMAX"), _one),
    **dict.fromkeys(("BLPOP", "BRPOP", "BZPOPMIN", "BZPOPMAX"), _all_but_timeout),
    **dict.fromkeys(("LMPOP", "ZMPOP"), _counted(1)),
    **dict.fromkeys(("BLMPOP", "BZMPOP"), _counted(2)),
    **dict.fromkeys(("XREAD", "XREADGROUP"), _streams),
    **dict.fromkeys(("XCLAIM", "XAUTOCLAIM"), _one),
}
"""Commands that take or deliver elements, and which of their arguments are the keys."""
MOVES: Final = frozenset({"RPOPLPUSH", "BRPOPLPUSH", "LMOVE", "BLMOVE"})


def popped(name: str, args: Arguments, answer: Any, put: Callable[[Any], None]) -> list[Found]:
    """The elements in the answer to a pop; `put` replaces the whole answer."""
    if not answer:
        return []
    if name in _KEY_FIRST:
        return _KEY_FIRST[name](text(answer[0]), answer[1], _at(answer, 1))
    if name in _KEY_ASKED:
        return _KEY_ASKED[name](text(args[1]), answer, put)
    return (_read if name in {"XREAD", "XREADGROUP"} else _claimed)(name, args, answer, put)


def _at(holder: Any, place: Any) -> Callable[[Any], None]:
    def put(new: Any) -> None:
        if isinstance(holder, (list, dict)):
            holder[place] = new

    return put


def _element(key: str, value: Any) -> Element:
    data = raw(value)
    return Element(key, value, data, data)


def _plain(key: str, value: Any, put: Callable[[Any], None]) -> list[Found]:
    if isinstance(value, list):
        return [Found([_element(key, each) for each in value[:BATCH_MAX]], value, put)] if value else []
    return [Found([_element(key, value)])] if value is not None else []


def _pairs(key: str, value: Any, put: Callable[[Any], None]) -> list[Found]:
    if value and isinstance(value[0], (list, tuple)):
        return [Found([_element(key, pair[0]) for pair in value[:BATCH_MAX]], value, put)]
    # Flat, as it comes from the server: member, score, member, score.
    flat: list[Element | None] = [_element(key, each) if not at % 2 else None for at, each in enumerate(value)]
    return [Found(flat[: 2 * BATCH_MAX], value, put)] if value else []


_KEY_FIRST: Final[dict[str, Callable[[str, Any, Callable[[Any], None]], list[Found]]]] = {
    **dict.fromkeys(("BLPOP", "BRPOP", "LMPOP", "BLMPOP", "BZPOPMIN", "BZPOPMAX"), _plain),
    **dict.fromkeys(("ZMPOP", "BZMPOP"), _pairs),
}
"""Pops whose answer begins with the key, and the shape of the rest."""
_KEY_ASKED: Final[dict[str, Callable[[str, Any, Callable[[Any], None]], list[Found]]]] = {
    **dict.fromkeys(("LPOP", "RPOP", *MOVES), _plain),
    **dict.fromkeys(("ZPOPMIN", "ZPOPMAX"), _pairs),
}
"""Pops whose answer is the elements alone."""


def _read(name: str, args: Arguments, answer: Any, _: Callable[[Any], None]) -> list[Found]:
    group = text(args[_index(args, "GROUP") + 1]) if name == "XREADGROUP" else None
    rest = list(args[_index(args, "STREAMS") + 1 :])
    half = len(rest) // 2
    anew = {
        text(key): text(since) in {">", "$"} or group is None
        for key, since in zip(rest[:half], rest[half:], strict=False)
    }
    streams = [(key, _at(answer, key), answer[key]) for key in answer] if isinstance(answer, dict) else []
    if isinstance(answer, list):
        streams = [(pair[0], _at(pair, 1), pair[1]) for pair in answer]
    found: list[Found] = []
    for key, put, value in streams:
        entries, place = value, put
        if len(value) == 1 and isinstance(value[0], list):  # redis-py 5 on RESP3 has one list too many
            entries, place = value[0], _at(value, 0)
        found += _entries(text(key), entries, place, group, redelivered=not anew.get(text(key), True))
    return found


def _claimed(name: str, args: Arguments, answer: Any, put: Callable[[Any], None]) -> list[Found]:
    entries = answer
    if name == "XAUTOCLAIM":
        if len(answer) < 2 or not isinstance(answer[1], list):
            return []
        entries, put = answer[1], _at(answer, 1)
    return _entries(text(args[1]), entries, put, text(args[2]), redelivered=True)


def _entries(
    key: str, entries: Any, put: Callable[[Any], None], group: str | None, *, redelivered: bool
) -> list[Found]:
    if not isinstance(entries, list):
        return []
    elements = [_entry(key, entry, group, redelivered=redelivered) for entry in entries[:BATCH_MAX]]
    return [Found(elements, entries, put)] if any(elements) else []


def _entry(key: str, entry: Any, group: str | None, *, redelivered: bool) -> Element | None:
    if not isinstance(entry, (list, tuple)) or len(entry) < 2 or not entry[0] or not entry[1]:
        return None  # deleted since, or its id alone was asked for
    fields = entry[1]
    if isinstance(fields, list):
        fields = dict(zip(fields[::2], fields[1::2], strict=False))
    deliveries = int(entry[3]) if len(entry) > 3 else 0
    return Element(
        key=key,
        value=entry,
        message=decoded(fields),
        raw=raw_fields(fields),
        message_id=text(entry[0]),
        group=group,
        redelivered=redelivered or deliveries > 1,
        attempt=deliveries,
    )


# -- pushes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pushed:
    """One element on its way into a list, stream or sorted set."""

    value: Any
    message: Any
    raw: bytes


def _list_values(args: Arguments) -> list[Pushed]:
    return [_pushed(value) for value in args[2 : 2 + BATCH_MAX]]


def _inserted(args: Arguments) -> list[Pushed]:
    return [_pushed(args[4])]


def _pushed(value: Any) -> Pushed:
    data = raw(value)
    return Pushed(value, data, data)


def _added(args: Arguments) -> list[Pushed]:
    at = 2
    while at < len(args):
        word = text(args[at]).upper()
        if word in {"NOMKSTREAM", "KEEPREF", "DELREF", "ACKED"}:
            at += 1
        elif word in {"MAXLEN", "MINID", "LIMIT"}:
            at += 3 if text(args[at + 1]) in {"~", "="} else 2
        elif word in {"IDMPAUTO", "IDMP"}:
            at += 2 if word == "IDMPAUTO" else 3
        else:
            break
    rest = args[at + 1 :]
    fields = {text(name): value for name, value in zip(rest[::2], rest[1::2], strict=False)}
    return [Pushed(fields, decoded(fields), raw_fields(fields))] if fields else []


def _scored(args: Arguments) -> list[Pushed]:
    at = 2
    while at < len(args) and text(args[at]).upper() in {"NX", "XX", "GT", "LT", "CH", "INCR"}:
        if text(args[at]).upper() == "INCR":
            return []
        at += 1
    return [_pushed(member) for member in args[at + 1 : at + 2 * BATCH_MAX : 2]]


PUSHES: Final[dict[str, Callable[[Arguments], list[Pushed]]]] = {
    **dict.fromkeys(("LPUSH", "RPUSH", "LPUSHX", "RPUSHX"), _list_values),
    "LINSERT": _inserted,
    "XADD": _added,
    "ZADD": _scored,
}
"""Commands that put elements into a structure."""
PEEKS: Final = frozenset({"ZRANGEBYSCORE", "ZREVRANGEBYSCORE", "ZRANGE", "ZREVRANGE", "ZRANGEBYLEX"})
"""What comes before a ZREM that takes a member."""


def members(args: Arguments, answer: Any) -> list[bytes]:
    """The members of a sorted set in the answer to a peek, with or without scores."""
    if not isinstance(answer, list):
        return []
    if answer and isinstance(answer[0], (list, tuple)):
        return [raw(pair[0]) for pair in answer[:BATCH_MAX] if pair]
    scores = any(isinstance(each, (str, bytes)) and text(each).upper() == "WITHSCORES" for each in args[3:])
    return [raw(each) for each in (answer[::2] if scores else answer)[:BATCH_MAX]]


def taken_together(pipeline: Sequence[tuple[str, Arguments]]) -> frozenset[int]:
    """The looks of a pipeline whose elements it removes as well: LRANGE with LTRIM, ZRANGE with ZREMRANGEBYRANK."""
    removed = {(name, text(args[1])) for name, args in pipeline if name in _REMOVALS and len(args) > 3}
    if not removed:
        return frozenset()
    found: set[int] = set()
    for index, (name, args) in enumerate(pipeline):
        if name == "LRANGE" and ("LTRIM", text(args[1])) in removed:
            found.add(index)
        if name in PEEKS and {("ZREMRANGEBYRANK", text(args[1])), ("ZREMRANGEBYSCORE", text(args[1]))} & removed:
            found.add(index)
    pushed = {text(args[1]) for name, args in pipeline if name in PUSHES}
    return frozenset(index for index in found if text(pipeline[index][1][1]) not in pushed)


_REMOVALS: Final = frozenset({"LTRIM", "ZREMRANGEBYRANK", "ZREMRANGEBYSCORE"})


def peeked(name: str, args: Arguments, answer: Any, put: Callable[[Any], None]) -> list[Found]:
    """The elements in the answer to a look that is a pop, with what comes after it."""
    if not isinstance(answer, list) or not answer:
        return []
    if name == "LRANGE" or not isinstance(answer[0], (list, tuple)):
        return _plain(text(args[1]), answer, put)
    return _pairs(text(args[1]), answer, put)


# -- what is said about a job ------------------------------------------------------------------------------------------


def _value_at(at: int) -> Callable[[Arguments], Any]:
    return lambda args: args[at]


def _hash_fields(args: Arguments) -> dict[str, Any]:
    rest = args[2 : 2 + 2 * FIELDS_MAX]
    return {text(name): value for name, value in zip(rest[::2], rest[1::2], strict=False)}


WRITES: Final[dict[str, Callable[[Arguments], Any]]] = {
    **dict.fromkeys(("SET", "GETSET", "SETNX", "PUBLISH", "SPUBLISH"), _value_at(2)),
    **dict.fromkeys(("SETEX", "PSETEX", "JSON.SET"), _value_at(3)),
    **dict.fromkeys(("HSET", "HMSET", "HSETNX"), _hash_fields),
}
"""Commands that write a value to a key, and that value."""


def _answered(_: Arguments, answer: Any) -> Any:
    return answer


def _one_field(args: Arguments, answer: Any) -> Any:
    return {text(args[2]): answer}


def _some_fields(args: Arguments, answer: Any) -> Any:
    asked = args[2] if len(args) == 3 and isinstance(args[2], (list, tuple)) else args[2:]
    return {text(name): value for name, value in zip(asked, answer or (), strict=False) if value is not None}


READS: Final[dict[str, Callable[[Arguments, Any], Any]]] = {
    **dict.fromkeys(("GET", "HGETALL", "JSON.GET", "GETEX", "GETDEL"), _answered),
    "HGET": _one_field,
    "HMGET": _some_fields,
}
"""Commands that read what is known of something, and that as one message."""
REMOVES: Final = frozenset({"XACK", "XACKDEL", "XDEL", "LREM", "ZREM", "SREM", "HDEL", "DEL", "UNLINK"})


def small(value: Any) -> Any:
    """The value in a form to look into, or None if it is too large. Mappings lose their large values."""
    if isinstance(value, Mapping):
        return {text(name): each for name, each in list(value.items())[:FIELDS_MAX] if small(each) is not None} or None
    if isinstance(value, (str, bytes)):
        return value if len(value) <= VALUE_MAX else None
    if isinstance(value, (list, tuple)):
        return value if len(value) <= FIELDS_MAX and len(json.dumps(value, default=str)) <= VALUE_MAX else None
    return value
