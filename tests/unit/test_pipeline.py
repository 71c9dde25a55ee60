"""The data path: requests are joined, scanned, processed and committed before their callers get a verdict."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_pipeline.contracts import Accepted, Rejected, RetryLater
from otel_pipeline.limits import COALESCE_REQUESTS_MAX, PENDING_BYTES_MAX
from otel_pipeline.outbox import Outbox
from otel_pipeline.pipeline import DataPath, Lane, Pipeline
from otel_pipeline.stats import Stats
from otel_pipeline.wire.signal import Signal
from tests.support.otlp import logs, metrics, span_names, traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from otel_pipeline.contracts import Processor
    from otel_pipeline.wire.batch import Batch

MIB = 1024 * 1024


class Doing:
    """A processor that does what the test says."""

    def __init__(self, action: Callable[[Batch], None], *keys: str) -> None:
        self._action = action
        self._keys = frozenset(keys)

    def attributes(self, _: Signal) -> frozenset[str]:
        return self._keys

    def process(self, batch: Batch) -> None:
        self._action(batch)


class Bench:
    """A data path with one traces pipeline over a real outbox."""

    def __init__(self, directory: Path, *processors: tuple[str, Processor]) -> None:
        self.stats = Stats()
        self.outbox = Outbox(directory, {"traces": ("traces", ["sink"])}, bytes_max=16 * MIB, sync="off")
        self.memory_short = False
        self.path = DataPath(self.outbox, self.stats, lambda: self.memory_short)
        pipeline = Pipeline("traces", Signal.TRACES, processors, self.stats)
        self.lane: Lane = self.path.lane("otlp", "grpc", Signal.TRACES, [pipeline])

    def stored(self) -> list[str]:
        chunk = self.outbox.read("traces", 0, 16 * MIB)
        return span_names(chunk.request) if chunk else []

    def metric(self, name: str, **labels: str) -> float | None:
        return self.stats.registry.get_sample_value(name, labels)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def build(*processors: tuple[str, Processor]) -> Bench:
        benches.append(Bench(tmp_path / str(len(benches)), *processors))
        return benches[-1]

    yield build
    for bench in benches:
        bench.path.stop()
        bench.outbox.close()


def test_an_accepted_request_is_in_the_outbox(make: Callable[..., Bench]) -> None:
    bench = make()
    assert bench.lane.accept(traces(["a", "b"])) == Accepted()
    assert bench.stored() == ["a", "b"]


def test_an_untouched_request_is_stored_byte_for_byte(make: Callable[..., Bench]) -> None:
    bench = make()
    body = traces(["a", "b"])
    bench.lane.accept(body)
    chunk = bench.outbox.read("traces", 0, MIB)
    assert chunk is not None
    assert chunk.request == body


def test_a_malformed_request_is_rejected_with_its_offset_and_stores_nothing(make: Callable[..., Bench]) -> None:
    bench = make()
    verdict = bench.lane.accept(b"\x0a\xff")
    assert verdict == Rejected("varint cut short at byte 1")
    assert bench.stored() == []
    assert bench.lane.accept(traces(["next"])) == Accepted()


def test_items_with_impossible_ids_are_rejected_alone(make: Callable[..., Bench]) -> None:
    bench = make()
    request = ExportTraceServiceRequest.FromString(traces(["good", "bad"]))
    request.resource_spans[0].scope_spans[0].spans[1].trace_id = b"short"
    verdict = bench.lane.accept(request.SerializeToString())
    assert isinstance(verdict, Accepted)
    assert verdict.rejected == 1
    assert "wrong length" in verdict.message
    assert bench.stored() == ["good"]
    state = bench.outbox.states()[0]
    assert (state.received, state.appended, state.dropped) == (2, 1, {"invalid_id": 1})


def test_processors_run_in_order_and_see_each_others_edits(make: Callable[..., Bench]) -> None:
    seen: list[str | None] = []
    first = Doing(lambda batch: batch.set("tier", "gold"), "tier")
    second = Doing(lambda batch: seen.append(batch.strings("tier").at(0)), "tier")
    bench = make(("first", first), ("second", second))
    bench.lane.accept(traces(["a"]))
    assert seen == ["gold"]


def test_dropped_rows_are_counted_as_filtered_under_the_processors_name(make: Callable[..., Bench]) -> None:
    dropping = Doing(lambda batch: batch.drop(batch.name().where(lambda name: name == "noise")) and None)
    bench = make(("filter/noise", dropping))
    bench.lane.accept(traces(["noise", "job", "noise"]))
    assert bench.stored() == ["job"]
    assert bench.outbox.states()[0].filtered == {"filter/noise": 2}
    labels = {"processor": "filter/noise", "otel_signal": "traces"}
    assert bench.metric("otelcol_processor_incoming_items_total", **labels) == 3
    assert bench.metric("otelcol_processor_outgoing_items_total", **labels) == 1


def test_a_request_whose_rows_are_all_dropped_is_accepted_and_leaves_only_counts(make: Callable[..., Bench]) -> None:
    bench = make(("filter", Doing(lambda batch: batch.drop(batch.keep.copy()) and None)))
    assert bench.lane.accept(traces(["a", "b"])) == Accepted()
    assert bench.stored() == []
    assert bench.outbox.states()[0].filtered == {"filter": 2}


def test_a_processor_that_raises_costs_no_data_and_is_counted(make: Callable[..., Bench]) -> None:
    def fail(_: Batch) -> None:
        raise RuntimeError("broken")

    bench = make(("broken", Doing(fail)))
    assert bench.lane.accept(traces(["a"])) == Accepted()
    assert bench.stored() == ["a"]
    assert bench.metric("otel_pipeline_processor_failures_total", processor="broken") == 1


def test_a_full_outbox_says_later_and_names_the_reason(make: Callable[..., Bench]) -> None:
    bench = make()
    big = traces(["x" * 900_000])
    verdicts = [bench.lane.accept(big) for _ in range(20)]
    later = [verdict for verdict in verdicts if isinstance(verdict, RetryLater)]
    assert later
    assert later[0].delay_s <= 3.0
    assert "outbox" in later[0].reason
    assert len(bench.stored()) == 20 - len(later)


def test_short_memory_closes_the_door(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.memory_short = True
    assert isinstance(bench.lane.accept(traces()), RetryLater)
    bench.memory_short = False
    assert bench.lane.accept(traces()) == Accepted()


def test_a_stopped_path_takes_nothing(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.path.stop()
    bench.path.stop()
    assert isinstance(bench.lane.accept(traces()), RetryLater)


class Gate:
    """Holds the first batch inside a processor until the test lets it go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        self.batches: list[int] = []

    def __call__(self, batch: Batch) -> None:
        self.batches.append(len(batch))
        self.entered.set()
        assert self.open.wait(10)


def test_requests_that_come_while_one_is_carried_share_the_next_batch(make: Callable[..., Bench]) -> None:
    gate = Gate()
    bench = make(("gate", Doing(gate)))
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(bench.lane.accept, traces(["first"]))
        assert gate.entered.wait(10)
        rest = [pool.submit(bench.lane.accept, traces([f"r{n}"])) for n in range(5)]
        while len(bench.lane.waiting) < 5:
            pass
        gate.open.set()
        assert [future.result(10) for future in (first, *rest)] == [Accepted()] * 6
    assert gate.batches == [1, 5]
    assert sorted(bench.stored()) == ["first", "r0", "r1", "r2", "r3", "r4"]


def test_a_malformed_request_in_a_shared_batch_costs_the_others_nothing(make: Callable[..., Bench]) -> None:
    gate = Gate()
    bench = make(("gate", Doing(gate)))
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(bench.lane.accept, traces(["first"]))
        assert gate.entered.wait(10)
        good = traces(["good"])
        cut = traces(["cut"])[:-3]
        bodies = [good, cut, good]
        rest = [pool.submit(bench.lane.accept, body) for body in bodies]
        while len(bench.lane.waiting) < len(bodies):
            pass
        gate.open.set()
        verdicts = [future.result(10) for future in rest]
        assert first.result(10) == Accepted()
    assert [type(verdict) for verdict in verdicts] == [Accepted, Rejected, Accepted]
    assert bench.stored() == ["first", "good", "good"]


def test_what_waits_is_bounded_by_bytes(make: Callable[..., Bench]) -> None:
    gate = Gate()
    bench = make(("gate", Doing(gate)))
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(bench.lane.accept, traces(["first"]))
        assert gate.entered.wait(10)
        verdict = bench.lane.accept(b"x" * PENDING_BYTES_MAX)
        gate.open.set()
        assert first.result(10) == Accepted()
    assert isinstance(verdict, RetryLater)
    assert "wait to be processed" in verdict.reason


def test_many_threads_lose_and_double_nothing(make: Callable[..., Bench]) -> None:
    bench = make()
    names = [f"span-{number}" for number in range(4 * COALESCE_REQUESTS_MAX)]
    with ThreadPoolExecutor(32) as pool:
        verdicts = list(pool.map(lambda name: bench.lane.accept(traces([name])), names))
    assert set(verdicts) == {Accepted()}
    stored: list[str] = []
    position = 0
    while chunk := bench.outbox.read("traces", position, 16 * MIB):
        stored.extend(span_names(chunk.request))
        position = chunk.entries[-1].sequence + 1
    assert sorted(stored) == sorted(names)


def test_one_receiver_can_feed_several_pipelines_all_or_none(tmp_path: Path) -> None:
    stats = Stats()
    streams = {"traces": ("traces", ["sink"]), "traces/raw": ("traces", ["sink"])}
    outbox = Outbox(tmp_path, streams, bytes_max=16 * MIB, sync="off")
    path = DataPath(outbox, stats, lambda: False)
    dropping = Doing(lambda batch: batch.drop(batch.keep.copy()) and None)
    pipelines = [
        Pipeline("traces", Signal.TRACES, [("filter", dropping)], stats),
        Pipeline("traces/raw", Signal.TRACES, [], stats),
    ]
    lane = path.lane("otlp", "grpc", Signal.TRACES, pipelines)
    assert lane.accept(traces(["a"])) == Accepted()
    assert outbox.read("traces", 0, MIB) is None
    raw = outbox.read("traces/raw", 0, MIB)
    assert raw is not None
    assert span_names(raw.request) == ["a"]
    outbox.close()


@pytest.mark.parametrize(
    ("signal", "body", "items"), [(Signal.LOGS, logs(["a", "b"]), 2), (Signal.METRICS, metrics(), 1)]
)
def test_logs_and_metrics_take_the_same_way(tmp_path: Path, signal: Signal, body: bytes, items: int) -> None:
    stats = Stats()
    outbox = Outbox(tmp_path, {"one": (signal.word, ["sink"])}, bytes_max=16 * MIB, sync="off")
    path = DataPath(outbox, stats, lambda: False)
    lane = path.lane("otlp", "http", signal, [Pipeline("one", signal, [], stats)])
    assert lane.accept(body) == Accepted()
    chunk = outbox.read("one", 0, MIB)
    assert chunk is not None
    assert (chunk.request, chunk.entries[0].items) == (body, items)
    accepted = f"otelcol_receiver_accepted_{signal.value.items}_total"
    assert stats.registry.get_sample_value(accepted, {"receiver": "otlp", "transport": "http"}) == items
    outbox.close()
