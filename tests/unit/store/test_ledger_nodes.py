"""Who is below whom."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.ledger.claims import NO_PARENT
from otel_pipeline.store import ledger_nodes
from otel_pipeline.store.ledger_nodes import places_of

WORDS = st.sampled_from([-(2**63), -1, 0, 1, 2, 2**63 - 1])
KEYS = st.lists(st.tuples(WORDS, WORDS, WORDS), max_size=20)


def found(keys: list[tuple[int, int, int]], wanted: list[tuple[int, int, int]]) -> list[int]:
    arrays = (np.array(each, dtype=np.int64).reshape(-1, 3) for each in (keys, wanted))
    return places_of(*arrays).tolist()


@given(KEYS.map(lambda keys: list(dict.fromkeys(keys))), KEYS)
def test_the_place_of_each_key_is_found(keys: list[tuple[int, int, int]], wanted: list[tuple[int, int, int]]) -> None:
    assert found(keys, wanted) == [keys.index(key) if key in keys else NO_PARENT for key in wanted]


def test_keys_that_are_mixed_to_one_number_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_nodes, "MIXERS", np.zeros(3, np.uint64))
    assert found([(1, 2, 3), (1, 2, 4)], [(1, 2, 4), (1, 2, 5), (1, 2, 3)]) == [1, NO_PARENT, 0]
