"""The data path: requests are joined, scanned, processed and committed before their callers get a verdict."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_pipeline.contracts import Accepted, Rejected, RetryLater
from otel_pipeline.limits import COALESCE_BYTES_MAX, COALESCE_REQUESTS_MAX
from otel_pipeline.outbox import Outbox
from otel_pipeline.pipeline import DataPath, Lane, Pipeline
from otel_pipeline.stats import Stats
from otel_pipeline.wire.signal import Signal
from tests.support.otlp import logs, metrics, span_names, traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from otel_pipeline.contracts import Processor, Verdict
    from otel_pipeline.outbox_state import Addition
    from otel_pipeline.wire.batch import Batch
    from otel_pipeline.wire.scan import Part

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

    def accept(self, *bodies: bytes) -> list[Verdict]:
        """Hand in requests at the same time."""

        async def together() -> list[Verdict]:
            return await asyncio.gather(*map(self.lane.accept, bodies))

        return asyncio.run(together())

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
        asyncio.run(bench.path.stop())
        bench.outbox.close()


def test_an_accepted_request_is_in_the_outbox(make: Callable[..., Bench]) -> None:
    bench = make()
    assert bench.accept(traces(["a", "b"])) == [Accepted()]
    assert bench.stored() == ["a", "b"]


def test_an_untouched_request_is_stored_byte_for_byte(make: Callable[..., Bench]) -> None:
    bench = make()
    body = traces(["a", "b"])
    bench.accept(body)
    chunk = bench.outbox.read("traces", 0, MIB)
    assert chunk is not None
    assert chunk.request == body


def test_a_malformed_request_is_rejected_with_its_offset_and_stores_nothing(make: Callable[..., Bench]) -> None:
    bench = make()
    (verdict,) = bench.accept(b"\x0a\xff")
    assert verdict == Rejected("varint cut short at byte 1")
    assert bench.stored() == []
    assert bench.accept(traces(["next"])) == [Accepted()]


def test_items_with_impossible_ids_are_rejected_alone(make: Callable[..., Bench]) -> None:
    bench = make()
    request = ExportTraceServiceRequest.FromString(traces(["good", "bad"]))
    request.resource_spans[0].scope_spans[0].spans[1].trace_id = b"short"
    (verdict,) = bench.accept(request.SerializeToString())
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
    bench.accept(traces(["a"]))
    assert seen == ["gold"]


def test_dropped_rows_are_counted_as_filtered_under_the_processors_name(make: Callable[..., Bench]) -> None:
    dropping = Doing(lambda batch: batch.drop(batch.name().where(lambda name: name == "noise")) and None)
    bench = make(("filter/noise", dropping))
    bench.accept(traces(["noise", "job", "noise"]))
    assert bench.stored() == ["job"]
    assert bench.outbox.states()[0].filtered == {"filter/noise": 2}
    labels = {"processor": "filter/noise", "otel_signal": "traces"}
    assert bench.metric("otelcol_processor_incoming_items_total", **labels) == 3
    assert bench.metric("otelcol_processor_outgoing_items_total", **labels) == 1


def test_a_request_whose_rows_are_all_dropped_is_accepted_and_leaves_only_counts(make: Callable[..., Bench]) -> None:
    bench = make(("filter", Doing(lambda batch: batch.drop(batch.keep.copy()) and None)))
    assert bench.accept(traces(["a", "b"])) == [Accepted()]
    assert bench.stored() == []
    assert bench.outbox.states()[0].filtered == {"filter": 2}


def test_a_processor_that_raises_costs_no_data_and_is_counted(make: Callable[..., Bench]) -> None:
    def fail(_: Batch) -> None:
        raise RuntimeError("broken")

    bench = make(("broken", Doing(fail)))
    assert bench.accept(traces(["a"])) == [Accepted()]
    assert bench.stored() == ["a"]
    assert bench.metric("otel_pipeline_processor_failures_total", processor="broken") == 1


def test_a_full_outbox_says_later_and_names_the_reason(make: Callable[..., Bench]) -> None:
    bench = make()
    big = traces(["x" * 900_000])
    verdicts = [bench.accept(big)[0] for _ in range(20)]
    later = [verdict for verdict in verdicts if isinstance(verdict, RetryLater)]
    assert later
    assert later[0].delay_s <= 3.0
    assert "outbox" in later[0].reason
    assert len(bench.stored()) == 20 - len(later)


def test_short_memory_closes_the_door(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.memory_short = True
    assert isinstance(bench.accept(traces())[0], RetryLater)
    bench.memory_short = False
    assert bench.accept(traces()) == [Accepted()]


def test_a_stopped_path_takes_nothing(make: Callable[..., Bench]) -> None:
    bench = make()
    asyncio.run(bench.path.stop())
    asyncio.run(bench.path.stop())
    assert isinstance(bench.accept(traces())[0], RetryLater)


def test_requests_that_come_together_share_a_batch(make: Callable[..., Bench]) -> None:
    sizes: list[int] = []
    bench = make(("look", Doing(lambda batch: sizes.append(len(batch)))))
    names = [f"span-{number}" for number in range(6)]
    assert bench.accept(*(traces([name]) for name in names)) == [Accepted()] * 6
    assert sizes == [6]
    assert bench.stored() == names


def test_a_batch_has_a_bound_and_the_rest_is_the_next_one(make: Callable[..., Bench]) -> None:
    sizes: list[int] = []
    bench = make(("look", Doing(lambda batch: sizes.append(len(batch)))))
    bodies = [traces([f"span-{number}"], first=number + 1) for number in range(2 * COALESCE_REQUESTS_MAX + 1)]
    assert set(bench.accept(*bodies)) == {Accepted()}
    assert sizes == [COALESCE_REQUESTS_MAX, COALESCE_REQUESTS_MAX, 1]
    assert len(bench.stored()) == len(bodies)


def test_a_request_soon_after_a_batch_waits_for_others(make: Callable[..., Bench]) -> None:
    sizes: list[int] = []
    bench = make(("look", Doing(lambda batch: sizes.append(len(batch)))))

    async def one_then_two() -> list[Verdict]:
        first = await bench.lane.accept(traces(["first"]))
        early = asyncio.ensure_future(bench.lane.accept(traces(["early"])))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return [first, *await asyncio.gather(early, bench.lane.accept(traces(["late"])))]

    assert asyncio.run(one_then_two()) == [Accepted()] * 3
    assert sizes == [1, 2]


def test_enough_bytes_end_the_wait_for_others(make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_pipeline.pipeline.GATHER_S", 3600.0)
    bench = make()

    async def flood() -> list[Verdict]:
        first = await bench.lane.accept(traces(["first"]))
        rest = [bench.lane.accept(traces(["x" * (COALESCE_BYTES_MAX // 2)])) for _ in range(2)]
        return [first, *await asyncio.wait_for(asyncio.gather(*rest), 60)]

    assert asyncio.run(flood()) == [Accepted()] * 3


def test_a_malformed_request_in_a_shared_batch_costs_the_others_nothing(make: Callable[..., Bench]) -> None:
    bench = make()
    good = traces(["good"])
    verdicts = bench.accept(good, traces(["cut"])[:-3], good)
    assert [type(verdict) for verdict in verdicts] == [Accepted, Rejected, Accepted]
    assert bench.stored() == ["good", "good"]


def test_a_caller_that_went_away_harms_nobody(make: Callable[..., Bench]) -> None:
    bench = make()

    async def impatient() -> Verdict:
        gone = asyncio.ensure_future(bench.lane.accept(traces(["gone"])))
        await asyncio.sleep(0)
        gone.cancel()
        return await bench.lane.accept(traces(["stays"]))

    assert asyncio.run(impatient()) == Accepted()
    assert bench.stored() == ["gone", "stays"]


def test_what_waits_is_bounded_by_bytes(make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_pipeline.pipeline.PENDING_BYTES_MAX", 500)
    bench = make()
    first, second = bench.accept(traces(["x" * 400]), traces(["y" * 400]))
    assert first == Accepted()
    assert isinstance(second, RetryLater)
    assert "wait to be processed" in second.reason


def test_a_request_larger_than_the_outbox_is_never_told_to_come_again(make: Callable[..., Bench]) -> None:
    bench = make()
    (verdict,) = bench.accept(b"x" * (17 * MIB))
    assert isinstance(verdict, Rejected)


def test_a_full_outbox_refuses_before_the_processors_count_anything(make: Callable[..., Bench]) -> None:
    sizes: list[int] = []
    bench = make(("look", Doing(lambda batch: sizes.append(len(batch)))))
    big = traces(["x" * 900_000])
    accepted = sum(isinstance(bench.accept(big)[0], Accepted) for _ in range(25))
    assert len(sizes) == accepted < 25


def test_a_request_crowded_out_by_its_neighbours_may_come_again(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crowded(part: Part) -> bool:
        return part.items == 1

    bench = make()
    real = Pipeline.process

    def process(self: Pipeline, bodies: Sequence[bytes]) -> tuple[Addition, list[Part]]:
        addition, parts = real(self, bodies)
        for part in parts:
            part.crowded_out = crowded(part)
        return addition, parts

    monkeypatch.setattr(Pipeline, "process", process)
    first, second = bench.accept(traces(["a", "b"]), traces(["c"]))
    assert first == Accepted()
    assert isinstance(second, RetryLater)


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
    assert asyncio.run(lane.accept(traces(["a"]))) == Accepted()
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
    assert asyncio.run(lane.accept(body)) == Accepted()
    chunk = outbox.read("one", 0, MIB)
    assert chunk is not None
    assert (chunk.request, chunk.entries[0].items) == (body, items)
    accepted = f"otelcol_receiver_accepted_{signal.value.items}_total"
    assert stats.registry.get_sample_value(accepted, {"receiver": "otlp", "transport": "http"}) == items
    outbox.close()
