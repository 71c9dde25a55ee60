"""What stays of a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.failures.wording import normalised


@pytest.mark.parametrize(
    ("message", "stays"),
    [
        ("No module named 'insightface'", "no module named insightface"),
        ("can't open 'my cat.txt' now", "can't open now"),
        ("prompt 'the king's new coat' is rejected", "prompt is rejected"),
        ("'seed'", "seed"),
        ("b'rq:job:11' is gone", "is gone"),
        ("Client error '404 Not Found' for url 'https://a.example/x'", "client error 404_not_found for url"),
        ("voice JBFqnCBsd6RMkjVDRZzb is gone", "voice is gone"),
        ("pod web-58d5c7b44d-svl82 on Mon, 05 May 2025", "pod on"),
        ("one\n\ntwo\nthree\nfour\nfive", "one two three four"),
    ],
)
def test_names_of_the_program_stay_and_values_go(message: str, stays: str) -> None:
    assert normalised(message) == stays


def test_what_an_answer_in_json_says_stays() -> None:
    one = "{'error': {'message': 'Try again', 'prompt': 'a cat', 'code': 500}}"
    assert "try again" in normalised(one)
    assert "cat" not in normalised(one)


@given(st.text())
def test_any_text_has_a_wording_that_stays_the_same(message: str) -> None:
    assert normalised(message) == normalised(message)
    assert len(normalised(message)) <= 2 * len(message) + 64


@pytest.mark.parametrize("unit", ["'type:", "msg: \"'", "1a", "0x", "a1b2c3d4-", "/a", "'"])
def test_what_nests_deeply_is_no_harm(unit: str) -> None:
    assert isinstance(normalised(unit * 5_000), str)
