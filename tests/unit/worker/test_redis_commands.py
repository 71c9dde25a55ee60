"""Arguments and answers of Redis commands, in the shapes of all versions."""

from __future__ import annotations

from typing import Any

import pytest

from otel_pipeline.worker.adapters.redis import commands

ENTRY = ("1-1", {"job_id": "x"})


def elements(name: str, args: tuple[Any, ...], answer: Any) -> list[tuple[str, bytes, str | None]]:
    found = commands.popped(name, args, answer, lambda _: None)
    return [(each.key, each.raw, each.message_id) for one in found for each in one.elements if each is not None]


@pytest.mark.parametrize(
    ("args", "keys"),
    [
        (("LPOP", "q", 3), ["q"]),
        (("BLPOP", "a", "b", 5), ["a", "b"]),
        (("BLMOVE", "q", "p", "LEFT", "RIGHT", 1), ["q"]),
        (("LMPOP", 2, "a", "b", "LEFT", "COUNT", 2), ["a", "b"]),
        (("BZMPOP", 1.5, 1, "z", "MIN"), ["z"]),
        (("XREADGROUP", "GROUP", "g", "me", "COUNT", 1, b"STREAMS", "a", "b", ">", "0"), ["a", "b"]),
        (("XREAD", "BLOCK", 5, "streams", "a", "$"), ["a"]),
        (("XAUTOCLAIM", "s", "g", "me", 0, "0-0"), ["s"]),
    ],
)
def test_the_keys_of_a_pop(args: tuple[Any, ...], keys: list[str]) -> None:
    assert commands.POPS[args[0]](args) == keys


@pytest.mark.parametrize(
    ("args", "answer", "expected"),
    [
        (("LPOP", "q"), "x", [("q", b"x", None)]),
        (("LPOP", "q"), None, []),
        (("LPOP", "q", 2), [b"x", b"y"], [("q", b"x", None), ("q", b"y", None)]),
        (("BRPOP", "q", 1), (b"q", b"x"), [("q", b"x", None)]),
        (("BRPOP", "q", 1), ["q", "x"], [("q", b"x", None)]),
        (("LMOVE", "q", "p", "LEFT", "LEFT"), "x", [("q", b"x", None)]),
        (("LMPOP", 1, "q", "LEFT"), ["q", ["x", "y"]], [("q", b"x", None), ("q", b"y", None)]),
        (("ZPOPMIN", "z", 2), [("x", 1.0), ("y", 2.0)], [("z", b"x", None), ("z", b"y", None)]),
        (("ZPOPMIN", "z"), ["x", 1.0], [("z", b"x", None)]),
        (("ZPOPMIN", "z", 2), [b"x", b"1", b"y", b"2"], [("z", b"x", None), ("z", b"y", None)]),
        (("BZPOPMIN", "z", 1), ("z", "x", 1.0), [("z", b"x", None)]),
        (("ZMPOP", 1, "z", "MIN"), ["z", [["x", "1"]]], [("z", b"x", None)]),
        (("XREAD", "STREAMS", "s", "$"), [["s", [ENTRY]]], [("s", b"job_id\1x", "1-1")]),
        (("XREAD", "STREAMS", "s", "$"), {"s": [ENTRY]}, [("s", b"job_id\1x", "1-1")]),
        (("XREAD", "STREAMS", "s", "$"), {b"s": [[ENTRY]]}, [("s", b"job_id\1x", "1-1")]),
        (("XCLAIM", "s", "g", "me", 0, "1-1"), [(b"1-1", {b"job_id": b"x"})], [("s", b"job_id\1x", "1-1")]),
        (("XCLAIM", "s", "g", "me", 0, "1-1", "JUSTID"), [b"1-1"], []),
        (("XAUTOCLAIM", "s", "g", "me", 0, "0"), ["0-0", [ENTRY, (None, None)], []], [("s", b"job_id\1x", "1-1")]),
        (("XAUTOCLAIM", "s", "g", "me", 0, "0"), ["0-0", [], []], []),
    ],
)
def test_the_elements_in_an_answer(args: tuple[Any, ...], answer: Any, expected: list[Any]) -> None:
    assert elements(args[0], args, answer) == expected


def test_what_a_group_reads_again_is_told_from_what_is_new() -> None:
    args = ("XREADGROUP", "GROUP", "g", "me", "STREAMS", "new", "old", ">", "0")
    found = commands.popped(args[0], args, [["new", [ENTRY]], ["old", [("1-2", {"a": "b"})]]], lambda _: None)
    assert [(each.key, each.group, each.redelivered) for one in found for each in one.elements if each] == [
        ("new", "g", False),
        ("old", "g", True),
    ]


@pytest.mark.parametrize(
    ("args", "raws"),
    [
        (("LPUSH", "q", "a", b"b", 3, 1.5), [b"a", b"b", b"3", b"1.5"]),
        (("LINSERT", "q", "BEFORE", "a", "b"), [b"b"]),
        (("XADD", "s", "*", "f", "v"), [b"f\1v"]),
        (("XADD", "s", "NOMKSTREAM", "MAXLEN", "~", 100, "LIMIT", 5, "*", "f", "v", "g", 1), [b"f\1v\0g\x011"]),
        (("XADD", "s", b"MAXLEN", 100, "1-1", "f", "v"), [b"f\1v"]),
        (("ZADD", "z", "NX", "CH", 1, "a", 2, "b"), [b"a", b"b"]),
        (("ZADD", "z", "INCR", 1, "a"), []),
    ],
)
def test_the_elements_of_a_push(args: tuple[Any, ...], raws: list[bytes]) -> None:
    assert [each.raw for each in commands.PUSHES[args[0]](args)] == raws


def test_a_stream_entry_has_the_same_bytes_when_it_is_pushed_and_when_it_is_read() -> None:
    pushed = commands.PUSHES["XADD"](("XADD", "s", "*", "a", 1, b"b", "ü"))[0].raw
    assert pushed == commands.raw_fields({b"a": b"1", b"b": "ü".encode()}) == commands.raw_fields({"a": "1", "b": "ü"})


def test_a_look_and_a_removal_in_one_pipeline_are_a_pop() -> None:
    pipeline = [
        ("LRANGE", ("LRANGE", "q", 0, 4)),
        ("LTRIM", ("LTRIM", "q", 5, -1)),
        ("ZRANGE", ("ZRANGE", "z", 0, 0)),
        ("ZREMRANGEBYRANK", ("ZREMRANGEBYRANK", "z", 0, 0)),
        ("LPUSH", ("LPUSH", "log", "x")),
        ("LTRIM", ("LTRIM", "log", 0, 9)),
        ("LRANGE", ("LRANGE", "log", 0, 9)),
    ]
    assert commands.taken_together(pipeline) == {0, 2}


def test_large_values_are_not_looked_into() -> None:
    large = "x" * (commands.VALUE_MAX + 1)
    assert commands.small(large) is None
    assert commands.small({"status": "failed", "image": large}) == {"status": "failed"}


@pytest.mark.parametrize(
    ("args", "answer", "expected"),
    [
        (("HGET", "k", "user_id"), b"u", {"user_id": b"u"}),
        (("HMGET", "k", "a", "b"), ["1", None], {"a": "1"}),
        (("GET", "k"), "text", "text"),
    ],
)
def test_what_is_read_is_one_message(args: tuple[Any, ...], answer: Any, expected: Any) -> None:
    assert commands.READS[args[0]](args, answer) == expected
