"""Lineage: what goes up from spans to those above them, against sums over the whole tree."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_pipeline.wire.kernel import Kernel
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from tests.wire.messages import randoms

SLOTS: Final = 256
DEPTH: Final = 32
NOTHING, MIXED = -1, -2
TRACE: Final = b"t" * 16


@dataclass
class Node:
    """A span: its parent by number (0: none), times in ns, GPU set (-1: none), and what it costs in which currency."""

    span: int
    parent: int
    start: int
    end: int
    gpus: int = -1
    nano: int = 0
    currency: int = NOTHING
    model: int = 0
    below: list[Node] = field(default_factory=list)

    def descendants(self) -> list[Node]:
        return [found for child in self.below for found in (child, *child.descendants())]


def forest(random: Random, size: int, *, nested: bool) -> list[Node]:
    """A random forest; if `nested` children lie within their parents, and siblings apart."""
    nodes: list[Node] = []
    cursor: dict[int, int] = {}
    for number in range(1, size + 1):
        above = random.choice(nodes) if nodes and random.random() < 0.8 else None
        low = above.start if above and nested else 1000
        high = above.end if above and nested else 2000
        if above and nested:
            low = cursor.get(above.span, low)
        start = random.randint(low, high)
        end = random.randint(start, high)
        node = Node(number, above.span if above else 0, start, end)
        node.gpus = random.choice([-1, 0, 0])
        if random.random() < 0.5:
            node.nano, node.currency = random.randint(0, 50), random.choice([0, 0, 0, 1, MIXED])
        if above:
            above.below.append(node)
            cursor[above.span] = end
        nodes.append(node)
    return nodes


def table(nodes: list[Node], kernel: Kernel) -> Any:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for node in nodes:
        scope.spans.add(
            trace_id=TRACE,
            span_id=node.span.to_bytes(8, "big"),
            parent_span_id=node.parent.to_bytes(8, "big") if node.parent else b"",
            start_time_unix_nano=node.start,
            end_time_unix_nano=node.end,
        )
    return BatchReader(Signal.TRACES, (), kernel).read([request.SerializeToString()])[0].rows


def ints(values: list[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(values, np.int64)


def bits(values: list[bool]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.array(values, np.uint8)


def through(lineage: Any, nodes: list[Node], kernel: Kernel) -> list[tuple[int, int, int]]:
    """Own time, sum and currency of each, as one batch."""
    starts, _, _ = lineage.read(table(nodes, kernel))
    gpus = ints([node.gpus for node in nodes])
    order = np.flatnonzero(gpus >= 0)
    order = order[np.argsort(starts[order], kind="stable")]
    _, own = lineage.own(order, gpus, ints([int(node.gpus >= 0) for node in nodes]))
    sums, currencies = lineage.totals(ints([node.nano for node in nodes]), ints([node.currency for node in nodes]))
    return list(zip(own.tolist(), sums.tolist(), currencies.tolist(), strict=True))


def expected(node: Node) -> tuple[int, int, int]:
    own = 0
    below = node.descendants()
    if node.gpus >= 0:
        covered = {at for one in below if one.gpus >= 0 for at in range(one.start, one.end)}
        own = len(set(range(node.start, node.end)) - covered)
    told = [one for one in (node, *below) if one.currency != NOTHING]
    currencies = {one.currency for one in told}
    currency = NOTHING if not told else currencies.pop() if len(currencies) == 1 else MIXED
    return own, sum(one.nano for one in told) if currency >= 0 else 0, currency


def comparable(found: tuple[int, int, int]) -> tuple[int, int, int]:
    own, total, currency = found
    return own, total if currency >= 0 else 0, currency


@given(random=randoms, size=st.integers(1, 14), nested=st.booleans())
def test_one_batch_in_any_order_gives_what_the_tree_says(
    kernel: Kernel, random: Random, size: int, *, nested: bool
) -> None:
    nodes = forest(random, size, nested=nested)
    random.shuffle(nodes)
    found = through(kernel.lineage(SLOTS, DEPTH), nodes, kernel)
    assert [comparable(one) for one in found] == [expected(node) for node in nodes]


@given(random=randoms, size=st.integers(1, 14))
def test_batches_in_the_order_of_ends_give_sums_and_no_less_own_time(kernel: Kernel, random: Random, size: int) -> None:
    nodes = forest(random, size, nested=True)
    nodes.sort(key=lambda node: (node.end, -node.start, -node.span))
    lineage = kernel.lineage(SLOTS, DEPTH)
    found: list[tuple[int, int, int]] = []
    rest = nodes
    while rest:
        cut = random.randint(1, len(rest))
        found += through(lineage, rest[:cut], kernel)
        rest = rest[cut:]
    for node, (own, total, currency) in zip(nodes, map(comparable, found), strict=True):
        least, *told = expected(node)
        assert [total, currency] == told
        assert least <= own <= (node.end - node.start if node.gpus >= 0 else 0)


def test_time_on_other_gpus_below_is_counted_by_their_number(kernel: Kernel) -> None:
    above, below = Node(1, 0, 0, 100, 0), Node(2, 1, 10, 60, 1)
    lineage = kernel.lineage(SLOTS, DEPTH)
    lineage.read(table([above, below], kernel))
    whole, own = lineage.own(ints([0, 1]), ints([0, 1]), ints([2, 1]))
    assert (whole.tolist(), own.tolist()) == ([200, 50], [150, 50])


def test_too_long_a_time_has_no_own_part(kernel: Kernel) -> None:
    lineage = kernel.lineage(SLOTS, DEPTH)
    lineage.read(table([Node(1, 0, 0, 2**62, 0), Node(2, 1, 5, 9, 0)], kernel))
    whole, own = lineage.own(ints([0, 1]), ints([0, 0]), ints([8, 8]))
    assert (whole.tolist(), own.tolist()) == ([-1, 32], [-1, 32])


def test_an_outer_call_of_the_same_model_is_found_in_any_order_of_rows(kernel: Kernel) -> None:
    nodes = [Node(3, 2, 0, 1), Node(2, 1, 0, 1), Node(1, 0, 0, 1)]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        rows = [nodes[place] for place in order]
        lineage = kernel.lineage(SLOTS, DEPTH)
        lineage.read(table(rows, kernel))
        called = bits([node.span != 2 for node in rows])
        outer = lineage.outer(called, called, ints([7] * 3))
        assert [node.span for node, found in zip(rows, outer.tolist(), strict=True) if found] == [1]
        other = lineage.outer(called, called, ints([node.span for node in rows]))
        assert not other.any()


def test_what_matters_takes_those_above_along(kernel: Kernel) -> None:
    lineage = kernel.lineage(SLOTS, DEPTH)
    lineage.read(table([Node(1, 0, 0, 1), Node(2, 1, 0, 1), Node(3, 2, 0, 1), Node(4, 0, 0, 1)], kernel))
    flags = ints([0, 0, 4, 1])
    assert lineage.mattering(flags, 6, bits([True] * 4)).tolist() == [1, 1, 1, 0]
    assert lineage.mattering(flags, 6, bits([True, False, True, True])).tolist() == [1, 0, 1, 0]
    assert lineage.mattering(flags, 6, bits([True, True, False, True])).tolist() == [1, 1, 0, 0]  # parked, say


@pytest.mark.parametrize("parent", [1, 2])
def test_spans_above_themselves_end(kernel: Kernel, parent: int) -> None:
    nodes = [Node(1, parent, 0, 10, 0, 5, 0), Node(2, 1, 0, 10, 0, 5, 0)]
    found = through(kernel.lineage(SLOTS, DEPTH), nodes, kernel)
    assert len(found) == 2
    assert all(own >= 0 for own, _, _ in found)


@given(random=randoms)
def test_what_is_kept_for_later_is_bounded(kernel: Kernel, random: Random) -> None:
    lineage = kernel.lineage(16, DEPTH)
    for _ in range(20):
        orphans = [Node(random.getrandbits(60) + 1, random.getrandbits(60) + 1, 0, 9, 0, 1, 0) for _ in range(20)]
        assert through(lineage, orphans, kernel) == [(9, 1, 0)] * 20


def test_ids_that_were_chosen_to_collide_take_no_longer(kernel: Kernel) -> None:
    """All ids end up at one place of the index: some parents are not found, and nothing else happens."""
    factor, size = 0x9E3779B97F4A7C15, 400
    inverse = pow(factor, -1, 2**64)
    trace = int.from_bytes(TRACE[8:], "big")
    spans = [((number * inverse) % 2**64) ^ trace for number in range(1, size)]
    nodes = [Node(span, above, 0, 9, 0, 1, 0) for span, above in zip(spans[1:], spans, strict=False)]
    found = through(kernel.lineage(SLOTS, DEPTH), nodes, kernel)
    assert len(found) == size - 2
    assert all(total >= 1 for _, total, _ in found)
