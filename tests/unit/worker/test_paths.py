"""The path language: what a path finds, and what is said of a text that is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.worker.reading.paths import PathError, parse
from otel_pipeline.worker.reading.payload import Payload

MESSAGE = {
    "user": {"id": 7, "x-tag.y": "t", "names": ["ann", "bob"]},
    "body": json.dumps({"Message": json.dumps({"metadata": {"id": "m1"}})}),
    "ref": "user-42/job-9",
    "url": "https://me:pw@gpu-7.example:8188/api/prompt?token=abc",
    "file": "/models/sdxl/base.v1.safetensors",
    "script": "Hello",
    "json": "a key of that name",
    "args": [{"task": "a1"}, "b2"],
    "empty": "",
}


def find(path: str, message: object = MESSAGE, sides: dict[str, object] | None = None) -> object:
    payload = Payload(message)
    return next((value for each in parse(path) if (value := each.read(payload, sides)) is not None), None)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("user.id", 7),
        (" user . id ", 7),
        ('user."x-tag.y"', "t"),
        ("user.names[0]", "ann"),
        ("user.names[-1]", "bob"),
        ("user.names[9]", None),
        ("user.none.deeper", None),
        ("args[0].task", "a1"),
        ("args[1]", "b2"),
        ("body|json.Message|json.metadata.id", "m1"),
        ("body.Message.metadata.id", "m1"),
        ("ref|~user-(\\d+)~", "42"),
        ("ref~user-(\\d+)~", "42"),
        ("ref|~(user)-(?P<id>\\d+)~", "42"),
        ("ref|~job-\\d~", "job-9"),
        ("ref|~nothing~", None),
        ("user|~x~", None),
        ("url|url:host", "gpu-7.example"),
        ("url|url:port", 8188),
        ("url|url:hostport", "gpu-7.example:8188"),
        ("url|url:path", "/api/prompt"),
        ("ref|url:port", None),
        ("file|stem", "base.v1"),
        ("file|base", "base.v1.safetensors"),
        ("script|lower", "hello"),
        ("script|len", 5),
        ("user.names|len", 2),
        ("script|hash", "185f8db32271fe25"),
        ("nothing|script", "Hello"),
        ("nothing|also.nothing|user.id", 7),
        ('nothing|"json"', "a key of that name"),
        ("script|json", None),
        ("$|len", 9),
        ("env:OTELP_TEST_TIER", "gold"),
        ("env:OTELP_TEST_NOT_THERE|user.id", 7),
    ],
)
def test_a_path_finds(path: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTELP_TEST_TIER", "gold")
    assert find(path) == value


@pytest.mark.parametrize(
    ("path", "message", "value"),
    [
        ("$", "tts:123", "tts:123"),
        ("~:(\\d+)~", "tts:123", "123"),
        ("~^([^|]+)\\|~", b"a|b|c", "a"),
        ("~a\\~(b)~", "a~b", "b"),
        ("[1]", ["a", "b"], "b"),
        ("user", {b"user": b"u1"}, b"u1"),
        ("data.user", {b"data": b'{"user": "u1"}'}, "u1"),
        ("a.b", {"a": '{"b": "{\\"c\\": 1}"}'}, {"c": 1}),
    ],
)
def test_a_path_reads_texts_lists_and_bytes(path: str, message: object, value: object) -> None:
    assert find(path, message) == value


@pytest.mark.parametrize(
    ("held", "value"),
    [({b"user": b"u1"}, b"u1"), ('{"user": "u1"}', "u1"), (b'{"user": "u1"}', "u1"), (None, None), ("x", None)],
)
def test_a_side_key_is_a_hash_or_json(held: object, value: object) -> None:
    (path,) = parse("@key{video:job:{id}}.user")
    assert path.side == "video:job:{id}"
    assert path.read(Payload("id-1"), {"video:job:{id}": held}) == value


@pytest.mark.parametrize(
    ("path", "position", "allowed"),
    [
        ("", 0, "a key, [n]"),
        ("a..b", 2, "a key"),
        ("a.", 2, "a key"),
        ("a[x]", 1, "[n]"),
        ("a[1", 1, "[n]"),
        ("a|", 2, "a key, [n]"),
        ("a b", 2, "or the end"),
        ("a}", 1, "or the end"),
        ('a."b', 4, 'closing "'),
        ("a|~x", 4, "closing ~"),
        ("a|~(x~", 3, "regular expression"),
        ("@x", 0, "@key{template}"),
        ("@key{job", 8, "closing }"),
        ("@key{}", 6, "template"),
        ("env:1", 4, "the name of a variable"),
        ("a" * 2000, 1024, "at most 1024"),
    ],
)
def test_a_text_that_is_no_path_is_told_where_and_what_is_allowed(path: str, position: int, allowed: str) -> None:
    with pytest.raises(PathError) as error:
        parse(path)
    assert error.value.position == position
    assert allowed in str(error.value)
    assert f"at character {position}" in str(error.value)


@given(st.text(alphabet='ab.[]|{}~"@$;:\\ 01', max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    paths: Any = ()
    position = 0
    try:
        paths = parse(text)
    except PathError as refused:
        position = refused.position
    assert 0 <= position <= len(text)
    found = [path.read(Payload({"a": {"b": ["x"]}}), {}) for path in paths]
    assert len(found) == len(paths)


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda each: st.lists(each) | st.dictionaries(st.text(), each))
)
def test_any_message_is_read_without_a_fault(message: Any) -> None:
    paths = ("a.b[0]", "[0]", "$|json.a", "$|~(a)~", "a|url:host", "a|len|stem")
    assert len([find(path, message) for path in paths]) == len(paths)
