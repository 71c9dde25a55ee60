"""What is worked out from a pattern holds for all that it matches."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.secrets.rules import Rule
from otel_pipeline.secrets.shapes import hastened, shape, signs
from otel_pipeline.secrets.texts import RULES, Finder
from tests.support.secret_samples import look_alikes, secrets

TEXTS = [sample.text for sample in (*secrets(), *look_alikes())]
FINDER = Finder()
TRIGGERS = sorted({rule.trigger for rule in RULES})


@pytest.mark.parametrize(
    ("trigger", "members", "least"),
    [
        ("ab", b"ABab", 2),
        ("[0-2]{3,}x?", b"012Xx", 3),
        (r"(?:\+|00)[ -]?[1-9]", b"+0 -123456789", 2),
        (r"(?i)k\xc2[\xa0]", b"kK\xc2\xa0", 3),
    ],
)
def test_the_bytes_and_the_length_of_matches(trigger: str, members: bytes, least: int) -> None:
    found, shortest = shape(trigger)
    assert found == frozenset(members)
    assert shortest == least


@pytest.mark.parametrize("trigger", ["[^a]", ".", r"\w", "a|[^b]"])
def test_what_is_not_understood_may_be_anything(trigger: str) -> None:
    assert shape(trigger)[0] == frozenset(range(256))


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger[:40])
def test_matches_have_the_shape_and_the_signs_of_their_trigger(trigger: str) -> None:
    members, least = shape(trigger)
    some = signs(trigger)
    for text in TEXTS:
        for match in re.finditer(trigger.encode("latin-1"), text.encode(), re.DOTALL):
            assert members >= set(match[0])
            assert len(match[0]) >= least
            assert not some or any(sign in match[0] for sign in some)


@pytest.mark.parametrize("trigger", ["(?i)(?:a|bc)", "x(?:a|b*)", "abc", "(?:a|(?i:bc))"])
def test_signs_are_literals_or_not_known(trigger: str) -> None:
    assert signs(trigger) == ()


def test_signs_stand_around_rare_places() -> None:
    assert set(signs("[a-z](?:@|%40)[a-z]")) == {b"@", b"%40"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.kind}-{rule.trigger[:30]}")
def test_a_hastened_pattern_finds_the_same(rule: Rule) -> None:
    fast = hastened(rule.pattern)
    for text in TEXTS[::4]:
        for form in (text, text.upper(), text.replace("s", "\u017f").replace("k", "\u212a").replace("i", "\u0130")):
            assert [match.regs for match in fast.finditer(form)] == [
                match.regs for match in rule.pattern.finditer(form)
            ]


@pytest.mark.parametrize(
    "pattern",
    ["(?i)(?:key|word)=x", "(?<![a-z])[0-9]{2}", "a?b", "(?:^|;)a", "[^a]b", r"\w+", "", "(?m)^a", "x*", "(?i)[k-s]"],
)
@given(text=st.text(alphabet="abkKsS\u017f\u212a\u0130i=;9x \nkeyword", max_size=12))
def test_any_pattern_finds_the_same(pattern: str, text: str) -> None:
    slow = re.compile(pattern)
    assert [one.span() for one in hastened(slow).finditer(text)] == [one.span() for one in slow.finditer(text)]


def test_digits_are_searched_in_runs_only() -> None:
    assert FINDER.run_bytes_min >= 7
    assert not FINDER.in_run[ord("a")]
    assert FINDER.in_run[ord("7")]
    assert FINDER.run_places(b" +49 170 1234567\0")


@pytest.mark.parametrize("around", ["a{}", "{}f", "F{}c"])
def test_a_number_within_a_word_is_no_card(around: str) -> None:
    text = around.format("4111111111111111")
    assert FINDER.run_places(text.encode() + b"\0") == []
    assert FINDER.find(text) == []


def test_a_card_number_is_found_in_runs() -> None:
    assert FINDER.run_places(b" 4111111111111111 \0a4111111111111111\0")
    assert FINDER.run_places(b" 4111111111111112 \0") == []
