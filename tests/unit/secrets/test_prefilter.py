"""Automata are compiled once, and searched by many at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from otel_pipeline.failures.pack import shipped
from otel_pipeline.secrets import prefilter
from otel_pipeline.secrets.prefilter import Automaton, OneByOne

TRIGGERS = ("password=", "ghp_[a-z]{4}")
TEXT = b"see password=x and ghp_abcd " * 50

needs_hyperscan = pytest.mark.skipif(not prefilter.FAST, reason="this machine has no hyperscan")


@needs_hyperscan
def test_an_automaton_of_the_same_triggers_is_not_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Automaton(TRIGGERS)
    monkeypatch.setattr("hyperscan.Database", None)
    assert Automaton(TRIGGERS).places(TEXT) == first.places(TEXT) != []


@needs_hyperscan
def test_two_automata_of_the_same_triggers_search_at_the_same_time() -> None:
    alone = Automaton(TRIGGERS).places(TEXT)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: [Automaton(TRIGGERS).places(TEXT) for _ in range(20)], range(4)))
    assert found == [[alone] * 20] * 4


@needs_hyperscan
def test_a_loaded_automaton_finds_the_triggers_that_the_other_engine_finds() -> None:
    assert Automaton(TRIGGERS).which(TEXT) == OneByOne(TRIGGERS).which(TEXT) == {0, 1}


def test_the_shipped_rules_of_failures_are_read_once() -> None:
    assert shipped() is shipped()
