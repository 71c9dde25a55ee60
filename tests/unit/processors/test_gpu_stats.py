"""The processor `gpu_stats`: samples out of metrics, onto spans, those that are early wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_pipeline.contracts import Context, Shared
from otel_pipeline.exposition.families import Exposition
from otel_pipeline.gpu import journal
from otel_pipeline.gpu.ingest import Block, Samples
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.outbox_state import ParkedEntry
from otel_pipeline.processors.gpu_stats import GpuStatsProcessor
from otel_pipeline.stats import Stats
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import any_value, python_value
from tests.support.fakes import RememberingEntrance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from otel_pipeline.wire.batch import Batch
    from otel_pipeline.wire.values import Value

S = 1_000_000_000
START = 1_800_000_000 * S
GPU, OTHER = "GPU-11111111-2222-3333-4444-555555555555", "GPU-99999999-2222-3333-4444-555555555555"
PREFIX = "otel_pipeline.gpu."


def samples(upto_s: int, gpus: Sequence[str] = (GPU,), host: str = "node-1", watts: float = 300.0) -> bytes:
    """A sample each 100 ms from the start on: busy at 80 %, 8 GiB, some watts, and the counter that belongs to them."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.attributes.add(key="host.name").value.string_value = host
    metrics = group.scope_metrics.add().metrics
    named: dict[str, Any] = {
        "hw.gpu.utilization": metrics.add(name="hw.gpu.utilization", unit="1").gauge,
        "hw.gpu.memory.usage": metrics.add(name="hw.gpu.memory.usage", unit="By").gauge,
        "hw.power": metrics.add(name="hw.power", unit="W").gauge,
        "hw.energy": metrics.add(name="hw.energy", unit="J").sum,
    }
    named["hw.energy"].aggregation_temporality = 2
    named["hw.energy"].is_monotonic = True
    for index, gpu in enumerate(gpus):
        for step in range(upto_s * 10 + 1):
            values = (0.8, 8 * 2**30, watts, 1000.0 + watts * step / 10)
            for holder, value in zip(named.values(), values, strict=True):
                point = holder.data_points.add(time_unix_nano=START + step * S // 10, as_double=value)
                told: dict[str, Value] = {"hw.id": gpu, "hw.type": "gpu", "hw.name": "NVIDIA L40S", "gpu.index": index}
                for key, text in told.items():
                    point.attributes.add(key=key).value.CopyFrom(any_value(text))
    return request.SerializeToString()


def spans(
    *intervals: tuple[float, float],
    attributes: Mapping[str, Value] | None = None,
    resource: Mapping[str, Value] | None = None,
    host: str = "node-1",
) -> bytes:
    """Stages in seconds from the start of the samples on."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key, value in {"host.name": host, **(resource or {})}.items():
        group.resource.attributes.add(key=key).value.CopyFrom(any_value(value))
    scope = group.scope_spans.add()
    for number, (start_s, end_s) in enumerate(intervals, 1):
        span = scope.spans.add(
            trace_id=number.to_bytes(16, "big"),
            span_id=number.to_bytes(8, "big"),
            name="stage render",
            start_time_unix_nano=START + int(start_s * S),
            end_time_unix_nano=START + int(end_s * S),
        )
        for key, value in {"otel_pipeline.stage.name": "render", **(attributes or {})}.items():
            span.attributes.add(key=key).value.CopyFrom(any_value(value))
    return request.SerializeToString()


class Bench:
    """Both halves of the processor."""

    def __init__(self, directory: Path | None = None, now_s: float = 1_800_000_000.0, **settings: Any) -> None:
        self.now_s = now_s
        self.stats = Stats()
        loop: Any = None
        shared = Shared()
        config = GpuStatsProcessor.Config.model_validate(settings)
        self.halves = {}
        for signal in (Signal.METRICS, Signal.TRACES):
            place = directory / "components" / "pipelines" / signal.word / "gpu_stats" if directory else None
            context = Context(
                "gpu_stats", self.stats, Exposition(), loop, lambda: self.now_s, place, signal, shared=shared
            )
            self.halves[signal] = GpuStatsProcessor(config, context)

    def take(self, request: bytes) -> None:
        self.batch(Signal.METRICS, request)

    def batch(self, signal: Signal, request: bytes, *, released: bool = False) -> Batch:
        half = self.halves[signal]
        batch = BatchReader(signal, half.attributes(signal)).read([request])[0]
        batch.released = released
        half.process(batch)
        return batch

    def join(self, request: bytes, *, released: bool = False) -> list[dict[str, Any]]:
        """What is told of the GPUs on each span that goes on."""
        batch = self.batch(Signal.TRACES, request, released=released)
        parsed = ExportTraceServiceRequest.FromString(bytes(batch.encode()) if batch.items() else b"")
        return [
            {pair.key.removeprefix(PREFIX): python_value(pair.value) for pair in span.attributes if PREFIX in pair.key}
            for group in parsed.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]

    def count(self, status: str) -> float | None:
        labels = {"processor": "gpu_stats", "status": status}
        return self.stats.registry.get_sample_value("otel_pipeline_gpu_spans_total", labels)


def test_a_span_gets_what_its_gpu_did_in_its_time() -> None:
    bench = Bench()
    bench.take(samples(20))
    (found,) = bench.join(spans((2.0, 7.0)))
    assert found.pop("energy") == pytest.approx(1500.0)
    assert found.pop("energy.error") < 100.0
    assert found.pop("utilization.mean") == pytest.approx(0.8)
    assert found.pop("power.mean") == pytest.approx(300.0)
    assert found == {
        "ids": [GPU],
        "name": "NVIDIA L40S",
        "utilization.max": 0.8,
        "memory.max": 8 * 2**30,
        "coverage": 1.0,
        "status": "ok",
    }
    assert bench.count("ok") == 1


def test_spans_of_other_hosts_and_other_kinds_are_left_alone() -> None:
    bench = Bench()
    bench.take(samples(20))
    assert bench.join(spans((2.0, 7.0), host="elsewhere")) == [{}]
    plain = ExportTraceServiceRequest.FromString(spans((2.0, 7.0)))
    del plain.resource_spans[0].scope_spans[0].spans[0].attributes[:]
    assert bench.join(plain.SerializeToString()) == [{}]


def test_an_agent_joins_spans_of_containers_that_do_not_know_their_host() -> None:
    bench = Bench(same_host=True)
    bench.take(samples(20))
    (found,) = bench.join(spans((2.0, 7.0), host="0123456789ab"))
    assert (found["status"], found["ids"]) == ("ok", [GPU])
    bench.take(samples(20, (OTHER,), host="node-2"))
    assert bench.join(spans((2.0, 7.0), host="0123456789ab")) == [{}]
    assert bench.join(spans((2.0, 7.0), host="node-2"))[0]["ids"] == [OTHER]


def test_which_spans_are_joined_can_be_chosen() -> None:
    bench = Bench(spans=('name == "stage other"',))
    bench.take(samples(20))
    assert bench.join(spans((2.0, 7.0))) == [{}]


def test_on_a_host_with_several_gpus_a_span_that_names_none_is_ambiguous() -> None:
    bench = Bench()
    bench.take(samples(20, (GPU, OTHER)))
    assert bench.join(spans((2.0, 7.0))) == [{"status": "ambiguous"}]
    (own,) = bench.join(spans((2.0, 7.0), attributes={"hw.id": OTHER}))
    assert (own["status"], own["ids"]) == ("ok", [OTHER])
    (both,) = bench.join(spans((2.0, 7.0), attributes={"otel_pipeline.gpu.ids": [GPU, OTHER]}))
    assert (both["ids"], both["energy"]) == ([GPU, OTHER], pytest.approx(3000.0))
    (given,) = bench.join(spans((2.0, 7.0), resource={"otel_pipeline.gpu.ids": [GPU]}))
    assert given["ids"] == [GPU]
    assert bench.join(spans((2.0, 7.0), resource={"CUDA_VISIBLE_DEVICES": ""})) == [{"status": "none"}]


def test_a_span_whose_samples_are_not_in_waits_and_the_others_go_on() -> None:
    bench = Bench()
    bench.take(samples(5))
    batch = bench.batch(Signal.TRACES, spans((1.0, 2.0), (3.0, 9.0)))
    assert batch.items() == 1
    (request, items, note) = batch.parked[0]
    assert items == 1
    processor = bench.halves[Signal.TRACES]
    assert processor._late([entry(7, 0.0, note)]) == {7}
    bench.take(samples(12))
    assert processor._late([entry(7, 0.0, note)]) == set()
    (found,) = bench.join(request, released=True)
    assert (found["status"], found["energy"]) == ("ok", pytest.approx(1800.0))
    assert bench.count("parked") == 1


def test_a_released_span_goes_on_with_what_is_known() -> None:
    bench = Bench()
    bench.take(samples(5))
    (found,) = bench.join(spans((3.0, 13.0)), released=True)
    assert found["status"] == "partial"
    assert found["coverage"] == pytest.approx(0.2, abs=0.03)
    assert found["energy"] == pytest.approx(600.0, rel=0.05)


def test_what_an_agent_has_joined_is_left_as_it_is() -> None:
    bench = Bench()
    bench.take(samples(5))
    (found,) = bench.join(spans((3.0, 13.0), attributes={"otel_pipeline.gpu.status": "ok"}))
    assert found == {"status": "ok"}


def test_without_a_wait_nothing_is_parked() -> None:
    bench = Bench(max_wait=0)
    bench.take(samples(5))
    (found,) = bench.join(spans((3.0, 13.0)))
    assert found["status"] == "partial"


def test_hosts_wait_on_their_own() -> None:
    bench = Bench()
    bench.take(samples(5, host="node-1"))
    bench.take(samples(5, (OTHER,), host="node-2"))
    two = ExportTraceServiceRequest.FromString(spans((1.0, 9.0)))
    two.MergeFromString(spans((1.0, 9.0), host="node-2"))
    batch = bench.batch(Signal.TRACES, two.SerializeToString())
    assert [items for _, items, _ in batch.parked] == [1, 1]
    assert batch.items() == 0


class Parking:
    """Entries that a test made, and what was released of them."""

    def __init__(self, *entries: ParkedEntry) -> None:
        self.waiting = list(entries)
        self.released: list[int] = []
        self.looks = 0

    def entries(self) -> Sequence[ParkedEntry]:
        self.looks += 1
        return self.waiting

    async def release(self, numbers: Sequence[int]) -> bool:
        self.released += numbers
        self.waiting = [entry for entry in self.waiting if entry.number not in numbers]
        return True


def entry(number: int, created_s: float, note: bytes, size_bytes: int = 4096) -> ParkedEntry:
    return ParkedEntry(number, int(created_s * 1000), 1, size_bytes, "gpu_stats", note)


def attended(bench: Bench, parking: Parking) -> None:
    """Looked at twice, without the time between."""

    async def live() -> None:
        until = parking.looks + 2
        task = asyncio.create_task(bench.halves[Signal.TRACES].attend(parking))
        while parking.looks < until and not task.done():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("otel_pipeline.processors.gpu_stats.LOOK_S", 0)
        asyncio.run(live())


def test_what_waits_is_released_when_ready_or_after_the_wait_and_at_the_bound_the_oldest_first() -> None:
    bench = Bench(max_parked_mib=1)
    began_s = bench.now_s
    bench.take(samples(5))
    later = f'[[["node-1"], "{GPU}", {START + 60 * S}]]'.encode()
    sooner = f'[[["node-1"], "{GPU}", {START + 2 * S}]]'.encode()
    parking = Parking(entry(1, began_s, later), entry(2, began_s, sooner), entry(3, began_s + 5, later))
    attended(bench, parking)
    assert parking.released == [2]
    bench.now_s = began_s + 10.5
    attended(bench, parking)
    assert parking.released == [2, 1]
    full = Parking(*(entry(number, began_s + 10, later, 400 * 1024) for number in range(4)))
    attended(bench, full)
    assert full.released == [0, 1]


def test_what_was_parked_before_a_restart_waits_for_samples_anew() -> None:
    bench = Bench(now_s=5000.0)
    later = f'[[["node-1"], "{GPU}", {START}]]'.encode()
    parking = Parking(entry(1, 1000.0, later))
    attended(bench, parking)
    assert parking.released == []


def test_samples_survive_a_restart_and_why_a_span_is_incomplete_can_be_read(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.take(samples(5))
    bench.join(spans((3.0, 13.0)), released=True)
    run_once(bench)
    again = Bench(tmp_path, now_s=1_800_000_060.0)
    run_once(again)
    (found,) = again.join(spans((1.0, 3.0)))
    assert (found["status"], found["energy"], found["name"]) == ("ok", pytest.approx(600.0), "NVIDIA L40S")
    of_metrics, of_traces = journal.files(tmp_path)
    assert len(journal.latest(of_metrics, 60.0)) == 1
    told = journal.explained(of_traces, (1).to_bytes(16, "big"))
    assert [(one["span_id"], one["status"], one["reason"], one["gpus"]) for one in told] == [
        (f"{1:016x}", "partial", "late", [GPU])
    ]
    late = Bench(tmp_path, now_s=1_800_010_000.0)
    run_once(late)
    assert late.join(spans((1.0, 3.0))) == [{}]


def test_an_agent_knows_its_host_from_before_a_restart_also_under_a_new_name(tmp_path: Path) -> None:
    first = Bench(tmp_path, same_host=True)
    first.take(samples(20))
    run_once(first)
    again = Bench(tmp_path, now_s=1_800_000_060.0, same_host=True)
    (found,) = again.join(spans((2.0, 7.0), host="0123456789ab"))
    assert found["ids"] == [GPU]
    again.take(samples(20, (OTHER,), host="renamed"))
    (found,) = again.join(spans((2.0, 7.0), host="0123456789ab"))
    assert found["ids"] == [OTHER]
    run_once(again)


def run_once(bench: Bench) -> None:
    """Start and stop what the halves do on their own; the journal is read and written."""

    async def live() -> None:
        tasks = [asyncio.create_task(half.originate(RememberingEntrance())) for half in bench.halves.values()]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(live())


def test_times_of_our_own_clock_are_moved_to_the_hosts() -> None:
    bench = Bench(now_s=1_800_000_100.0)
    skewed = ExportMetricsServiceRequest.FromString(samples(20))
    told = skewed.resource_metrics[0].resource.attributes.add(key="otel_pipeline.sent_time_unix_nano")
    told.value.int_value = START
    bench.take(skewed.SerializeToString())
    timelines = bench.halves[Signal.METRICS]._timelines
    assert timelines.offset_ns("node-1") == 100 * S
    times = START + np.array([120, 130]) * S
    block = Block(("node-1",), OTHER, Quantity.POWER, times, np.array([1.0, 2.0]), "scraped", is_scraped=True)
    bench.halves[Signal.METRICS]._take(Samples([block]), START + 130 * S)
    power = timelines.numbered(timelines.gpu("node-1", OTHER)).settled(Quantity.POWER)
    assert power.last_ns == START + 30 * S
