"""Compressed bodies in pieces, within a bound."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.errors import WireError
from otel_pipeline.wire.inflate import Inflater


def inflated(encoding: str, pieces: list[bytes], bytes_max: int) -> bytes:
    inflater = Inflater(encoding)
    out = b""
    for piece in pieces:
        out += inflater.feed(piece, bytes_max - len(out))
    if len(out) < bytes_max:
        inflater.finish()
    return out


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(position % (len(data) + 1) for position in at)})
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(st.binary(max_size=50), max_size=4), st.lists(st.integers(0, 500), max_size=6), st.integers(0, 3))
def test_a_gzip_body_of_any_members_in_any_pieces_is_inflated(members: list[bytes], at: list[int], zeros: int) -> None:
    packed = bytes(zeros).join(gzip.compress(member, mtime=0) for member in members) + bytes(zeros if members else 0)
    assert inflated("gzip", cut(packed, at), 1000) == b"".join(members)


@given(st.binary(max_size=100), st.lists(st.integers(0, 500), max_size=6))
def test_a_deflate_body_in_any_pieces_is_inflated(data: bytes, at: list[int]) -> None:
    assert inflated("deflate", cut(zlib.compress(data), at), 1000) == data


@given(st.integers(1, 100), st.integers(0, 100))
def test_no_more_than_the_bound_is_inflated(bytes_max: int, more: int) -> None:
    packed = gzip.compress(bytes(bytes_max + more), mtime=0)
    assert inflated("gzip", [packed], bytes_max) == bytes(bytes_max)


@given(st.sampled_from(["gzip", "deflate"]), st.lists(st.binary(min_size=1, max_size=20), max_size=5))
def test_any_bytes_are_a_body_or_a_wire_error(encoding: str, pieces: list[bytes]) -> None:
    offset = 0
    try:
        assert len(inflated(encoding, pieces, 100)) <= 100
    except WireError as error:
        offset = error.offset
    assert 0 <= offset <= sum(map(len, pieces))


def test_nothing_is_an_empty_body() -> None:
    assert inflated("gzip", [], 10) == b""


def test_the_offset_counts_from_the_first_byte_that_arrived() -> None:
    packed = zlib.compress(b"data")
    with pytest.raises(WireError, match="behind its end") as caught:
        inflated("deflate", [packed, b"x"], 100)
    assert caught.value.offset == len(packed)
