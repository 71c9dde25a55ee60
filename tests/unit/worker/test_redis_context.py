"""Context beside a queue and, if chosen, in its payloads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_pipeline.worker.adapters.redis import context as redis_context
from otel_pipeline.worker.adapters.redis.context import (
    Carried,
    decode,
    encode,
    exchange,
    exchange_async,
    found,
    put_in,
    reads,
    take_out,
    taken_out,
    writes,
)


class Pipeline:
    def __init__(self, client: Client) -> None:
        self.client = client

    def execute_command(self, *command: Any) -> None:
        self.client.sent.append(command)

    def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        assert not is_instrumentation_enabled()
        self.client.trips += 1
        if isinstance(self.client.answer, Exception):
            raise self.client.answer
        return self.client.answer


class AsyncPipeline(Pipeline):
    async def execute(self, *, raise_on_error: bool) -> list[Any]:  # type: ignore[override]  # as in redis-py
        return super().execute(raise_on_error=raise_on_error)


class Client:
    kind: type[Pipeline] = Pipeline

    def __init__(self, answer: Any) -> None:
        self.answer, self.sent, self.trips = answer, list[Any](), 0
        self.connection_pool = object()

    def pipeline(self, *, transaction: bool) -> Pipeline:
        assert not transaction
        return self.kind(self)


class AsyncClient(Client):
    kind = AsyncPipeline


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    redis_context._refused.clear()
    yield
    redis_context._refused.clear()


def test_what_is_written_is_what_is_read() -> None:
    value = encode({"traceparent": "00-1"}, 2)
    carried = decode(value)
    assert carried is not None
    assert (carried.headers, carried.attempt, carried.again) == ({"traceparent": "00-1"}, 2, False)
    assert decode(value.encode()) == carried


@pytest.mark.parametrize("value", ["", "[]", "null", '{"h": 1}', "x", b"\xff", '{"h": {}, "t": null, "a": 1}'])
def test_what_is_not_ours_is_ignored(value: Any) -> None:
    assert decode(value) is None


def test_the_keys_of_an_element_lie_in_one_slot_of_a_cluster_and_expire() -> None:
    sent = [*writes(b"x", "value"), *reads(b"x")]
    keys = {key for command in sent for key in command[1:] if isinstance(key, str) and key.startswith("otelp:")}
    assert len({key[key.index("{") : key.index("}")] for key in keys}) == 1
    assert {command[1] for command in sent if command[0] == "EXPIRE"} == {
        key for key in keys if not key.startswith("otelp:try")
    }
    assert not {key for command in writes(b"y", "") for key in command[1:2]} & keys


def test_a_context_that_was_taken_before_says_so() -> None:
    value = encode({}, 1)
    assert [found(answers) for answers in ([None, None], [None, None, True, True])] == [None, None]
    first, again = found([value, value]), found([None, value])
    assert first is not None
    assert again is not None
    assert (first.again, again.again) == (False, True)


@pytest.mark.parametrize("answer", [ConnectionError("away"), [ValueError("no permission"), None]])
def test_a_server_that_refused_is_left_alone(answer: Any) -> None:
    client = Client(answer)
    assert [exchange(client, reads(b"x")) for _ in range(3)] == [None] * 3
    assert client.trips == 1
    other = AsyncClient(answer)
    assert [asyncio.run(exchange_async(other, reads(b"x"))) for _ in range(3)] == [None] * 3
    assert other.trips == 1


def test_one_silent_round_trip() -> None:
    client = Client([1, 2])
    assert exchange(client, [("GET", "a"), ("GET", "b")]) == [1, 2]
    assert (client.sent, client.trips) == ([("GET", "a"), ("GET", "b")], 1)
    assert is_instrumentation_enabled()
    assert exchange(client, None) is None
    assert client.trips == 1


@pytest.mark.parametrize("text", [b'{"a": 1}', b'{ "a" : [1, {}] } \n', '{"ü": "x"}'.encode()])
def test_a_payload_that_carried_context_comes_out_byte_by_byte(text: bytes) -> None:
    carrying = put_in(text, encode({"traceparent": "00-1"}, 1))
    assert carrying is not None
    assert carrying != text
    taken = take_out(carrying)
    assert taken is not None
    assert taken[0] == text
    assert taken[1].headers == {"traceparent": "00-1"}


@pytest.mark.parametrize("text", [b"plain", b"[1]", b"{}", b'{"a": }', b""])
def test_what_is_no_json_object_is_left_alone(text: bytes) -> None:
    assert put_in(text, encode({}, 1)) is None
    assert take_out(text) is None


def test_every_element_of_an_answer_is_cleaned() -> None:
    one, seen = put_in(b'{"a":1}', encode({"b": "c"}, 1)), dict[bytes, Carried]()
    assert one is not None
    answer = taken_out(("q", [one, one.decode(), b"x", 5]), seen)
    assert answer == ("q", [b'{"a":1}', '{"a":1}', b"x", 5])
    assert list(seen) == [b'{"a":1}']


def test_a_push_forgets_what_went_with_the_deliveries_before_it() -> None:
    taken = {command[2] for command in reads(b"x") if command[0] == "RPOPLPUSH"}
    assert taken == {key for command in writes(b"x", "") if command[0] == "DEL" for key in command[1:2]}
