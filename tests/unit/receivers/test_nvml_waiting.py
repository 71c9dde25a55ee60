"""Readings that wait to be handed in: bounded, in order, each handed in once."""

from __future__ import annotations

import asyncio

from otel_pipeline.receivers.nvml import Waiting


def test_requests_are_handed_in_in_the_order_of_their_time() -> None:
    async def run() -> list[bytes]:
        waiting = Waiting(100)
        waiting.attach()
        assert [waiting.put(each) for each in (b"a", b"b")] == [0, 0]
        found = []
        while waiting:
            found.append(await waiting.first())
            waiting.done(found[-1])
        return found

    assert asyncio.run(run()) == [b"a", b"b"]


def test_one_that_is_not_done_comes_again() -> None:
    async def run() -> list[bytes]:
        waiting = Waiting(100)
        waiting.attach()
        waiting.put(b"a")
        return [await waiting.first(), await waiting.first()]

    assert asyncio.run(run()) == [b"a", b"a"]


def test_of_too_much_the_oldest_goes() -> None:
    async def run() -> bytes:
        waiting = Waiting(10)
        waiting.attach()
        assert [waiting.put(each) for each in (b"aaaa", b"bbbb", b"cccc", b"dddddddd")] == [0, 0, 1, 2]
        return await waiting.first()

    assert asyncio.run(run()) == b"dddddddd"


def test_a_request_larger_than_all_waits_alone() -> None:
    waiting = Waiting(3)
    assert [waiting.put(b"aaaaaa"), waiting.put(b"bbbbbb")] == [0, 1]
    assert waiting.clear() == 1
    assert not waiting


def test_one_that_had_to_go_meanwhile_takes_no_other_with_it() -> None:
    async def run() -> bytes:
        waiting = Waiting(4)
        waiting.attach()
        waiting.put(b"aaaa")
        under_way = await waiting.first()
        waiting.put(b"bbbb")
        waiting.done(under_way)
        return await waiting.first()

    assert asyncio.run(run()) == b"bbbb"


def test_who_waits_is_woken_from_another_thread() -> None:
    async def run() -> bytes:
        waiting = Waiting(100)
        waiting.attach()
        first = asyncio.create_task(waiting.first())
        await asyncio.sleep(0)
        await asyncio.to_thread(waiting.put, b"a")
        return await first

    assert asyncio.run(run()) == b"a"
