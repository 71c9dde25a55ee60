"""What is hidden and what stays, on sets that are synthesised after documented formats."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from otel_pipeline.secrets.prefilter import Automaton, OneByOne
from otel_pipeline.secrets.rules import KINDS
from otel_pipeline.secrets.texts import RULES, Finder, Replacer, apply, merged
from tests.support.secret_samples import Sample, look_alikes, secrets

PAGE = Path(__file__).parents[3] / "docs/redaction.md"
SEEDS = (4, 5, 6)


@pytest.fixture(scope="module")
def finder() -> Finder:
    return Finder()


def is_hidden(finder: Finder, sample: Sample) -> bool:
    clean = Replacer().without(sample.text, finder.find(sample.text))
    return not any(line in clean for line in sample.secret.split("\n") if len(line) > 2)


def test_the_sets_are_large_enough() -> None:
    assert len(secrets()) >= 150
    assert len(look_alikes()) >= 100
    assert {sample.kind for sample in secrets()} == set(KINDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_secrets_are_hidden(finder: Finder, seed: int) -> None:
    samples = secrets(seed)
    left = [sample.id for sample in samples if not is_hidden(finder, sample)]
    assert len(left) <= len(samples) // 100, left


@pytest.mark.parametrize("seed", SEEDS)
def test_look_alikes_stay(finder: Finder, seed: int) -> None:
    samples = look_alikes(seed)
    touched = [sample.id for sample in samples if finder.find(sample.text)]
    assert len(touched) <= len(samples) // 50, touched


def confusion(finder: Finder) -> dict[str, tuple[int, int, int]]:
    """For each kind of sample: how many, hidden or touched, called by that very kind."""
    table: dict[str, Counter[str]] = {}
    for sample in [*secrets(), *look_alikes()]:
        row = table.setdefault(sample.kind, Counter())
        row["all"] += 1
        row["hidden"] += is_hidden(finder, sample) if sample.secret else bool(finder.find(sample.text))
        row["named"] += sample.kind in {one.kind for one in finder.find(sample.text)}
    return {kind: (row["all"], row["hidden"], row["named"]) for kind, row in table.items()}


def test_the_table_of_the_page_is_up_to_date(finder: Finder) -> None:
    rows = re.findall(r"^\| `?([a-z_]+)`? \| (\d+) \| (\d+) \| (\d+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert {kind: tuple(map(int, counts)) for kind, *counts in rows} == confusion(finder)


@pytest.mark.parametrize("sample", [*secrets(), *look_alikes()], ids=lambda sample: sample.id)
def test_a_trigger_is_found_wherever_its_pattern_is(finder: Finder, sample: Sample) -> None:
    without_triggers = merged([one for rule in RULES for one in apply(rule, sample.text)])
    assert finder.find(sample.text) == without_triggers


@pytest.mark.parametrize("sweep", ["words", "at", "digits"])
def test_both_engines_find_the_same(sweep: str) -> None:
    triggers = list(dict.fromkeys(rule.trigger for rule in RULES if rule.sweep == sweep))
    fast, plain = Automaton(triggers), OneByOne(triggers)
    for sample in [*secrets(), *look_alikes()]:
        raw = sample.text.encode()
        assert fast.which(raw) == plain.which(raw), sample.id
        assert bool(fast.places(raw)) == bool(plain.places(raw)), sample.id


def test_a_kind_can_be_switched_off() -> None:
    finder = Finder([kind for kind in KINDS if kind != "email"])
    assert finder.find("joe@example.com") == []
    assert Finder([]).find("password=hunter22") == []
    assert Finder([]).places(b"password=hunter22") == []


def test_overlapping_finds_become_one_of_the_kind_that_ranks_first(finder: Finder) -> None:
    text = "Authorization: Bearer " + "gh" + "p_" + "a1B2c3D4e5" * 4
    found = finder.find(text)
    assert [one.kind for one in found] == ["api_key"]
    assert text[: found[0].start] == "Authorization: Bearer "


def test_with_a_hash_key_equal_secrets_have_equal_marks() -> None:
    replacer = Replacer(b"key")
    assert replacer.mark("email", "joe@example.com") == replacer.mark("email", "joe@example.com")
    assert replacer.mark("email", "joe@example.com") != replacer.mark("email", "jim@example.com")
    assert re.fullmatch(r"\[redacted:email:[0-9a-f]{16}\]", replacer.mark("email", "joe@example.com"))
    assert replacer.mark("email", "x") != Replacer(b"other").mark("email", "x")
