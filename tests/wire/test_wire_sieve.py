"""The sieve hands out every string that it was not told to be clean, and nothing else; both variants alike."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, Final

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_pipeline.limits import NESTING_MAX, SIEVE_NEW_KEYS_MAX
from otel_pipeline.secrets import layouts
from otel_pipeline.wire.kernel import Kernel, variants
from otel_pipeline.wire.signal import Signal
from tests.wire.messages import Writer, delimited, randoms

RUN_BYTES: Final = 4
IN_RUN: Final = bytes(chr(byte) in "0123456789-" for byte in range(256))
SLOT_BYTES: Final = 32


def sieve(kernel: Kernel, slots: int = 64, value_bytes_max: int = 10_000, run_bytes_min: int = RUN_BYTES) -> Any:
    random = Random(7)
    weights = [random.getrandbits(15) for _ in range(SLOT_BYTES + 16)]
    known = [kernel.known(slots, SLOT_BYTES, random.getrandbits(64) | 1, weights) for _ in range(2)]
    return kernel.sieve(layouts.table()[0], layouts.WIDTH, value_bytes_max, IN_RUN, run_bytes_min, *known)


def sifted(one: Any, request: bytes, signal: Signal = Signal.TRACES) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Texts, runs and keys that are new; all keys are learnt, and all that is not flagged is remembered."""
    assert one.sift(request, layouts.table()[1][signal])
    keys = one.new_keys()
    for _, start, end in keys:
        one.learn(start, end)
    new = split(one.new_texts()), split(one.new_runs()), [request[start:end] for _, start, end in keys]
    one.remember()
    return new


def split(buffer: bytes) -> list[bytes]:
    return buffer.split(b"\0")[:-1]


def attribute(key: bytes, value: bytes) -> bytes:
    """A request with one attribute of a resource; `value` is a serialized AnyValue."""
    return delimited(1, delimited(1, delimited(1, delimited(1, key) + delimited(2, value))))


def text(value: bytes) -> bytes:
    return delimited(1, value)


def strings(message: Message) -> tuple[list[bytes], list[bytes]]:
    """All texts of a message, in any order, and all keys of attributes."""
    found: list[bytes] = []
    keys: list[bytes] = []
    if isinstance(message, KeyValue):
        keys.append(message.key.encode())
    for field, value in message.ListFields():
        for one in value if field.is_repeated else [value]:
            if isinstance(one, Message):
                inner, inner_keys = strings(one)
                found += inner
                keys += inner_keys
            elif isinstance(one, str) and not (isinstance(message, KeyValue) and field.name == "key"):
                found.append(one.encode())
            elif isinstance(one, bytes) and isinstance(message, AnyValue):
                found.append(one)
    return [one for one in found if one], [key for key in keys if key]


@pytest.mark.parametrize("signal", Signal)
@given(random=randoms)
def test_every_string_is_handed_out(kernel: Kernel, signal: Signal, random: Random) -> None:
    request = Writer(random).request(signal)
    one = sieve(kernel)
    assert one.sift(request, layouts.table()[1][signal])
    texts, keys = strings(signal.value.request.FromString(request))
    buffer = b"\0" + one.new_texts()
    assert all(b"\0" + each + b"\0" in buffer for each in texts)
    assert {request[start:end] for _, start, end in one.new_keys()} - {b""} == set(keys)


@pytest.mark.parametrize("signal", Signal)
@pytest.mark.parametrize("form", ["plain", "odd"])
@given(random=randoms)
def test_both_variants_agree(signal: Signal, form: str, random: Random) -> None:
    requests = [Writer(random, odd=form == "odd").request(signal) for _ in range(3)]
    requests += [requests[0], requests[0], random.randbytes(40)]
    answers = [list(answers_of(sieve(kernel, slots=8), requests, signal)) for kernel in variants()]
    assert all(answer == answers[0] for answer in answers)


def answers_of(one: Any, requests: list[bytes], signal: Signal) -> Iterator[tuple[Any, ...]]:
    """All that it says of requests one after the other; half of the new keys are taken for unclean."""
    for request in requests:
        readable = one.sift(request, layouts.table()[1][signal])
        keys = one.new_keys()
        for unit, start, end in keys:
            if start % 2:
                one.learn(start, end)
            else:
                one.flag(unit)
        yield readable, one.new_texts(), one.new_runs(), keys, one.flagged()
        if readable:
            one.remember()


def test_what_came_twice_is_not_handed_out_again(kernel: Kernel) -> None:
    one = sieve(kernel)
    request = attribute(b"host", text(b"gpu-17"))
    assert sifted(one, request) == ([b"gpu-17"], [], [b"host"])
    assert sifted(one, request) == ([b"gpu-17"], [], [])
    assert sifted(one, request) == ([], [], [])
    assert sifted(one, attribute(b"host", text(b"gpu-18"))) == ([b"gpu-18"], [], [])
    assert sifted(one, attribute(b"most", text(b"gpu-17"))) == ([b"gpu-17"], [], [b"most"])


def test_what_is_flagged_is_handed_out_each_time(kernel: Kernel) -> None:
    one = sieve(kernel)
    request = attribute(b"host", text(b"gpu-17"))
    for _ in range(4):
        assert one.sift(request, layouts.table()[1][Signal.TRACES])
        one.flag_text(one.new_texts().index(b"17"))
        [start] = one.flagged()
        assert request[start - 1 :] == request[start - 1 : start] + delimited(1, b"host") + delimited(
            2, text(b"gpu-17")
        )
        one.remember()


def test_what_is_acquitted_is_remembered(kernel: Kernel) -> None:
    one = sieve(kernel)
    request = attribute(b"host", text(b"gpu-17"))
    for _ in range(2):
        assert one.sift(request, layouts.table()[1][Signal.TRACES])
        for _, first, last in one.new_keys():
            one.learn(first, last)
        one.flag_text(0)
        one.acquit(one.flagged()[0])
        one.remember()
    assert sifted(one, request)[0] == []


def test_a_repetition_within_a_request_shares_the_fate_of_the_first(kernel: Kernel) -> None:
    one = sieve(kernel)
    pair = delimited(9, delimited(1, b"url") + delimited(2, text(b"x/1")))
    request = delimited(1, delimited(2, delimited(2, pair) * 3))
    assert one.sift(request, layouts.table()[1][Signal.TRACES])
    assert split(one.new_texts()) == [b"x/1"]
    one.flag_text(0)
    starts = one.flagged()
    assert [request[start : start + 5] for start in starts] == [b"\x0a\x03url"] * 3
    assert starts == sorted(set(starts))


def test_equal_hashes_are_not_taken_for_equal_bytes(kernel: Kernel) -> None:
    known = [kernel.known(8, SLOT_BYTES, 1, [0] * (SLOT_BYTES + 16)) for _ in range(2)]  # all of a size collide
    one = kernel.sieve(layouts.table()[0], layouts.WIDTH, 10_000, IN_RUN, 0, *known)
    for _ in range(3):
        sifted(one, attribute(b"host", text(b"gpu-17")))
    for size in (1, 5, 15):
        for index in range(100):
            value = b"%0*d" % (size, index % 10**size)
            assert sifted(one, attribute(b"host", text(value + b"x")))[0] == [value + b"x"]
    assert sifted(one, attribute(b"most", text(b"gpu-17")))[2] == [b"most"]


@given(values=st.lists(st.binary(min_size=1, max_size=SLOT_BYTES), max_size=60), random=randoms)
def test_only_what_was_remembered_is_known(kernel: Kernel, values: list[bytes], random: Random) -> None:
    one = sieve(kernel, slots=8)
    remembered: set[bytes] = set()
    for value in random.choices(values, k=3 * len(values)) if values else []:
        texts = sifted(one, attribute(b"k", delimited(7, value)))[0]
        assert b"\0".join(texts) == value or (not texts and value in remembered)
        remembered.add(value)


@pytest.mark.parametrize(
    ("value", "runs"),
    [
        (b"123", []),
        (b"1234", [b"1234"]),
        (b"a1234b", [b"a1234b"]),
        (b"abc12-34 5678", [b"c12-34 ", b" 5678"]),
        (b"1234" * 5 + b"x", [b"1234" * 5 + b"x"]),
        (b"a1b2c3d4e5f6", []),
    ],
)
def test_runs_come_with_the_byte_on_either_side(kernel: Kernel, value: bytes, runs: list[bytes]) -> None:
    assert sifted(sieve(kernel), attribute(b"k", text(value)))[1] == runs


@given(value=st.text(alphabet="12-ax ", min_size=1, max_size=40))
def test_no_run_is_overlooked(kernel: Kernel, value: str) -> None:
    raw = value.encode()
    runs = sifted(sieve(kernel), attribute(b"k", text(raw)))[1]
    words = "".join(character if character in "12-" else " " for character in value).split()
    assert [run.strip(b"ax ") for run in runs] == [word.encode() for word in words if len(word) >= RUN_BYTES]


def test_without_a_length_there_are_no_runs(kernel: Kernel) -> None:
    assert sifted(sieve(kernel, run_bytes_min=0), attribute(b"k", text(b"1234567")))[1] == []


@pytest.mark.parametrize(("size", "flagged"), [(100, 0), (101, 1)])
@pytest.mark.parametrize("member", [1, 7])
def test_a_long_value_is_flagged(kernel: Kernel, size: int, flagged: int, member: int) -> None:
    one = sieve(kernel, value_bytes_max=100)
    assert one.sift(attribute(b"k", delimited(member, b"a" * size)), layouts.table()[1][Signal.TRACES])
    assert len(one.flagged()) == flagged


def test_a_value_nested_too_deep_is_flagged(kernel: Kernel) -> None:
    value = text(b"x")
    for _ in range(NESTING_MAX):
        value = delimited(5, delimited(1, value))
    one = sieve(kernel)
    assert one.sift(attribute(b"k", value), layouts.table()[1][Signal.TRACES])
    assert len(one.flagged()) == 1


def test_input_cut_at_every_byte_is_read_or_refused(kernel: Kernel) -> None:
    request = Writer(Random(3)).request(Signal.TRACES) + attribute(b"key", text(b"value"))
    one = sieve(kernel)
    for end in range(len(request)):
        readable = one.sift(request[:end], layouts.table()[1][Signal.TRACES])
        try:
            Signal.TRACES.value.request.FromString(request[:end])
        except DecodeError:
            continue
        assert readable


@given(noise=st.binary(max_size=120), signal=st.sampled_from(list(Signal)))
def test_random_bytes_do_no_harm(kernel: Kernel, noise: bytes, signal: Signal) -> None:
    one = sieve(kernel)
    if one.sift(noise, layouts.table()[1][signal]):
        assert sum(map(len, split(one.new_texts()))) <= len(noise)
        one.remember()


def test_the_tables_are_bounded(kernel: Kernel) -> None:
    one = sieve(kernel, slots=4)
    for index in range(200):
        request = attribute(b"k%d" % index, text(b"v%d" % index))
        for _ in range(3):
            sifted(one, request)
    again = sum(not sifted(one, attribute(b"k%d" % index, text(b"v%d" % index)))[0] for index in range(200))
    assert again <= 4


def test_too_many_new_keys_are_left_to_protobuf(kernel: Kernel) -> None:
    pair = delimited(1, delimited(1, b"k"))
    for count, readable in ((SIEVE_NEW_KEYS_MAX, True), (SIEVE_NEW_KEYS_MAX + 1, False)):
        request = attribute(b"", delimited(6, pair * (count - 1)))
        assert sieve(kernel).sift(request, layouts.table()[1][Signal.TRACES]) == readable


def test_fields_are_found_around_a_place(kernel: Kernel) -> None:
    request = attribute(b"k", text(b"v")) + attribute(b"k", text(b"w"))
    one = sieve(kernel)
    assert one.sift(request, layouts.table()[1][Signal.TRACES])
    half = len(request) // 2
    assert one.around(0, len(request), 3) == (10, 0, 2, half)
    assert one.around(0, len(request), half) == (10, half, half + 2, 2 * half)
    assert one.around(0, len(request), len(request)) is None
    assert one.around(1, len(request) + 1, 3) is None
