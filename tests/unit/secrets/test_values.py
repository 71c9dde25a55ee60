"""What counts as a secret behind a name."""

from __future__ import annotations

import re
import time

import pytest

from otel_pipeline.secrets.texts import Finder
from otel_pipeline.secrets.values import SEPARATOR, VALUE, is_filled, is_issued, is_mixed, is_random, is_void, written

LONG = 16 * 1024


@pytest.fixture(scope="module")
def finder() -> Finder:
    return Finder()


@pytest.mark.parametrize("value", ["hunter22", "p@ss w0rd", "$ecret1", "S3cr(et!x", "changeme", "{h}o)p$", "a" * 5000])
def test_what_could_be_a_password_is_filled(value: str) -> None:
    assert is_filled(value)


@pytest.mark.parametrize(
    "value",
    [
        *("", "ab", "null", "required", "***", "xxxxxxxx", "${TOKEN}", "$TOKEN", "$1", "%s", ":password", "{{ x }}"),
        *("<your key>", "your-api-key-here", "[REDACTED]", "(hidden)", "N/A", "sk-****abcd", "!vault"),
        *(
            "os.environ[",
            "config.token",
            "get_token(",
            "DB_PASSWORD",
            "hf_token",
            "/run/secrets/token",
            "https://a.b/c",
        ),
    ],
)
def test_placeholders_code_and_places_are_not(value: str) -> None:
    assert not is_filled(value)


def test_what_a_machine_made_is_random() -> None:
    assert is_random("f6CGV4aMM9zedoh3")
    assert is_issued("AIhq5Xyb1Gga9Q29")
    assert is_issued("0123456789abcdef0123456789abcdef")
    assert not is_issued("outputs/2026/img_0001")
    assert not is_random("0x14ed93111f20046")
    assert not is_random("android.os.BinderProxy@2bd79ce")
    assert not is_random("^5.0.0-beta.30")
    assert not is_mixed("required")
    assert is_void("your_key_here")
    assert not is_void("hunter22")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x='a b'", "a b"),
        ('x="a\\"b"', 'a\\"b'),
        ("x=a,b=c", "a"),
        ("x=a&b=c", "a"),
        ("x=a&b", "a&b"),
        ("f(x=a)", "a"),
        ("x=a)b c", "a)b"),
        ('\\"x\\":\\"a\\"', "a"),
        ("%22x%22%3A%22a%22%7D", "a"),
        ('"name": "x", "value": "a"', "a"),
        ('("x", "a")', "a"),
        ('x("a")', "a"),
        ("x: |\n  a", "a"),
        ("x = N'a'", "a"),
        ("x ?= a", "a"),
    ],
)
def test_a_value_ends_where_its_writer_ended_it(text: str, value: str) -> None:
    match = re.search(rf"x{SEPARATOR}{VALUE}", text)
    assert match is not None
    assert written(match) == value


@pytest.mark.parametrize(
    "piece", ["password=", "token: ", "a", "T3BlbkFJ", '\\"', "code to ", "secret_A", "x-", "is the password "]
)
def test_no_text_takes_long(finder: Finder, piece: str) -> None:
    start = time.process_time()
    finder.find(piece * (LONG // len(piece)))
    assert time.process_time() - start < 2
