"""The record of failures: what is written can be read, and what is damaged is told."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.failures.occurrences import VERSION, Group, decode, encode, shortened
from tests.support.error_occurrences import Seen, group, record

TEXT = st.text(st.characters(), max_size=20)
GROUPS = st.builds(Group, TEXT, TEXT, TEXT, st.booleans(), TEXT, TEXT, TEXT, TEXT)
NUMBERS = st.integers(-(2**63), 2**63 - 1)


@given(
    st.lists(GROUPS, min_size=1, max_size=4),
    st.lists(TEXT, max_size=3),
    st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=5),
    st.randoms(),
)
def test_what_is_written_can_be_read(groups, services, numbers, random) -> None:  # type: ignore[no-untyped-def]
    rows = [[random.randrange(len(groups)), random.randrange(-1, len(services)), *more] for more in numbers]
    table = np.array(rows, np.int64).reshape(-1, 6)
    got = decode(encode(groups, services, table))
    assert got.groups == [shortened(each) for each in groups]
    assert [len(service) for service in got.services] == [len(service) for service in services]
    assert (got.table == table).all()


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_texts_that_a_store_refuses_are_mended(text: str) -> None:
    got = decode(encode([group("f", text)], [text], np.array([[0, 0, 1, 1, 1, 1]], np.int64)))
    for mended in (got.groups[0].message, got.services[0]):
        assert "\0" not in mended
        assert mended.encode()
        assert len(mended) == 3


def test_a_long_message_is_cut() -> None:
    got = decode(encode([group("f", "x" * 10_000)], [], np.array([[0, -1, 1, 1, 1, 1]], np.int64)))
    assert len(got.groups[0].message) == 512


def test_a_record_that_is_cut_anywhere_is_refused() -> None:
    whole = record([Seen(), Seen(span=2, service=None)])
    for end in range(len(whole)):
        with pytest.raises(ValueError, match="record|table"):
            decode(whole[:end])
    with pytest.raises(ValueError, match="table"):
        decode(whole + b"\0")


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="record|table"):
        decode(data)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(place: int, value: int) -> None:
    damaged = bytearray(record([Seen(), Seen(fingerprint="b", span=2)]))
    damaged[place % len(damaged)] = value
    try:
        got = decode(bytes(damaged))
    except ValueError:
        return
    assert len(got.table) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": VERSION + 1}, "version"),
        ({"groups": None}, "groups are no list"),
        ({"groups": [["f"]]}, "not 8 values"),
        ({"groups": [["f", "n", "r", 1, "u", "t", "m", "s"]]}, "wrong types"),
        ({"groups": []}, "a group that is not listed"),
        ({"services": []}, "a service that is not listed"),
        ({"services": [1]}, "no list of texts"),
        ({"rows": -1}, "-1 rows"),
        ({"rows": "1"}, "1 rows"),
        ({"rows": 2**40}, "rows"),
    ],
)
def test_a_wrong_first_line_is_told(change: dict[str, object], told: str) -> None:
    line, _, table = record([Seen()]).partition(b"\n")
    with pytest.raises(ValueError, match=told):
        decode(json.dumps(json.loads(line) | change).encode() + b"\n" + table)


@pytest.mark.parametrize("line", [b"[]", b"{", b"[" * 100_000, b"\xff"])
def test_a_first_line_of_another_kind_is_told(line: bytes) -> None:
    with pytest.raises(ValueError, match="first line"):
        decode(line + b"\n")
