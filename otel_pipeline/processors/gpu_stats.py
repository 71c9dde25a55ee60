"""Processor `gpu_stats`: says on each span that used a GPU what the GPU did during exactly that span.

In a metrics pipeline it reads the GPU samples that pass (gpu/ingest.py) into the timelines; in a traces pipeline it
joins spans with them (gpu/join.py). Both halves share the timelines. A span whose samples are not in yet is parked:
it is acknowledged and durable, and goes on when they are, or after `max_wait` with what is known by then.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import lmdb
import numpy as np
from pydantic import Field

from otel_pipeline.conditions.parser import parse
from otel_pipeline.conditions.settings import SpanCondition
from otel_pipeline.contracts import Context, Settings
from otel_pipeline.gpu.ingest import Samples
from otel_pipeline.gpu.ingest import read as read_samples
from otel_pipeline.gpu.join import Spans, join, ready
from otel_pipeline.gpu.journal import DIRECTORY, Journal
from otel_pipeline.gpu.marks import REASONS, STATUSES, WRITTEN, is_complete, statuses, write
from otel_pipeline.gpu.resolve import SPAN_KEYS
from otel_pipeline.gpu.timeline import Timelines
from otel_pipeline.gpu.used import DEFAULT_KEYS, Used, default_selection, used
from otel_pipeline.limits import GPU_EXPLAINED_MAX, GPU_PARKED_HOSTS_MAX, GPU_SAMPLES_HELD_MAX
from otel_pipeline.quiet import Quiet
from otel_pipeline.settings import Duration
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_pipeline.contracts import Entrance, Parking
    from otel_pipeline.gpu.join import Joined
    from otel_pipeline.outbox_state import ParkedEntry
    from otel_pipeline.wire.batch import Batch, Ints, Mask

log = logging.getLogger(__name__)

LOOK_S: Final = 0.25
"""How often parked spans are looked at."""
SAVE_S: Final = 1.0
MIB: Final = 1024 * 1024


class GpuStatsProcessor:
    """Sets `otel_pipeline.gpu.*`; see docs/gpu.md."""

    signals: ClassVar = frozenset({Signal.TRACES, Signal.METRICS})
    """The pipelines it stands in: one of each, by the same name."""

    class Config(Settings):
        """Settings of `gpu_stats`."""

        spans: tuple[SpanCondition, ...] = ()
        """Which spans are joined, those that match one of these conditions. By default jobs, stages, ComfyUI's prompts
        and nodes, and spans with a model that are no calls of others. Only spans of hosts that send GPU samples."""
        max_wait: Annotated[Duration, Field(ge=0)] = 10.0
        """How long a span waits for its samples, from its arrival or the gateway's start."""
        max_parked_mib: Annotated[int, Field(ge=1)] = 256
        """Spans that wait, in MiB; beyond it the oldest go on with what is known."""

    def __init__(self, config: Config, context: Context) -> None:
        self._config = config
        self._context = context
        self._timelines = context.shared.get(f"{context.component_id} timelines", Timelines)
        self._conditions = [parse(text, Signal.TRACES) for text in config.spans]
        self._started_s = context.clock()
        self._journal = Journal(context.directory / DIRECTORY) if context.directory else None
        self._unsaved: list[Samples] = []
        self._unexplained: dict[bytes, dict[str, Any]] = {}
        self._quiet = Quiet(log)
        self._spans = {
            status: context.stats.gpu_spans.labels(context.component_id, status) for status in (*STATUSES, "parked")
        }
        self._samples = context.stats.gpu_samples

    def attributes(self, signal: Signal) -> frozenset[str]:
        """What tells that a span used a GPU, and which; what it sets."""
        if signal is not Signal.TRACES:
            return frozenset()
        asked = frozenset(DEFAULT_KEYS).union(*(condition.attributes for condition in self._conditions))
        return asked | {*SPAN_KEYS, *WRITTEN}

    def process(self, batch: Batch) -> None:
        """Take samples out of metrics, join spans."""
        if batch.signal is Signal.METRICS:
            samples = read_samples(batch)
            if samples.blocks or samples.devices or samples.sent_ns:
                self._take(samples, int(self._context.clock() * 1e9))
                if self._journal and len(self._unsaved) < GPU_SAMPLES_HELD_MAX:
                    self._unsaved.append(samples)
            self._count(samples.dropped)
        elif batch.signal is Signal.TRACES and len(self._timelines):
            found = used(batch, self._chosen(batch) & batch.keep, self._timelines)
            if found is not None:
                self._join(batch, found)

    # -- samples -------------------------------------------------------------------------------------------------------

    def _take(self, samples: Samples, now_ns: int) -> None:
        timelines = self._timelines
        for hosts, sent_ns in samples.sent_ns:
            timelines.saw(hosts, sent_ns, now_ns)
        for device in samples.devices:
            timelines.describe(device.hosts, device.gpu, index=device.index, name=device.name)
        kept = 0
        for block in samples.blocks:
            kept += timelines.add(
                block.hosts,
                block.gpu,
                block.quantity,
                block.times_ns,
                block.values,
                source=block.source,
                age_max_ns=block.age_max_ns,
                offset_ns=-timelines.offset_ns(block.hosts) if block.is_scraped else 0,
                received_ns=now_ns,
            )
        self._count({"kept": kept, **timelines.counts})
        timelines.counts.clear()

    def _count(self, outcomes: Mapping[str, int]) -> None:
        for outcome, count in outcomes.items():
            self._samples.labels(self._context.component_id, outcome).inc(count)

    # -- spans ---------------------------------------------------------------------------------------------------------

    def _chosen(self, batch: Batch) -> Mask:
        if not self._conditions:
            return default_selection(batch)
        chosen = np.zeros(len(batch), np.bool_)
        for condition in self._conditions:
            chosen |= condition.mask(batch)
        return chosen

    def _join(self, batch: Batch, found: Used) -> None:
        joinable = np.array([bool(place.numbers) for place in found.places], np.bool_)[found.place]
        if not batch.released and self._config.max_wait:
            waits = self._parked(batch, found, joinable)
            if waits.any():
                found = Used(found.rows[~waits], found.places, found.place[~waits])
                joinable = joinable[~waits]
        if not len(found.rows):
            return
        joined = join(self._timelines, found.spans(batch, joinable))
        status = statuses(found, joined, joinable)
        write(batch, found, joined, joinable, status)
        for name, count in zip(STATUSES, np.bincount(status, minlength=len(STATUSES)).tolist(), strict=True):
            self._spans[name].inc(count)
        self._explain(batch, found, joined, joinable, status)

    def _parked(self, batch: Batch, found: Used, joinable: Mask) -> Mask:
        """Parks the rows whose samples are not in yet, by host; tells which of `found` they are."""
        waits = np.zeros(len(found.rows), np.bool_)
        spans = found.spans(batch, joinable)
        late = ~ready(self._timelines, spans).ready
        if not late.any():
            return waits
        waits[joinable] = late
        hosts: dict[tuple[str, ...], int] = {}
        host = np.array(
            [min(hosts.setdefault(place.hosts, len(hosts)), GPU_PARKED_HOSTS_MAX) for place in found.places], np.int64
        )[found.place]
        for number in np.unique(host[waits]).tolist():
            mine = waits & (host == number)
            mask = np.zeros(len(batch), np.bool_)
            mask[found.rows[mine]] = True
            self._spans["parked"].inc(batch.park(mask, self._note(batch, found, mine)))
        return waits

    def _note(self, batch: Batch, found: Used, mine: Mask) -> bytes:
        """For each GPU that these rows wait for, until when."""
        ends = batch.end_time[found.rows[mine]].view(np.int64)
        until: dict[tuple[tuple[str, ...], str], int] = {}
        for number in np.unique(found.place[mine]).tolist():
            place = found.places[number]
            last = int(ends[found.place[mine] == number].max())
            for gpu in place.found.gpus:
                key = place.hosts, gpu
                until[key] = max(last, until.get(key, 0))
        return json.dumps([[list(hosts), gpu, end_ns] for (hosts, gpu), end_ns in until.items()]).encode()

    def _explain(self, batch: Batch, found: Used, joined: Joined, joinable: Mask, status: Ints) -> None:
        """Keep why spans are not complete, for `otel-pipeline gpu --explain`."""
        if self._journal is None:
            return
        reasons = np.zeros(len(found.rows), np.int64)
        reasons[joinable] = joined.reason
        names = batch.name()
        for index in np.flatnonzero(~is_complete(status))[: GPU_EXPLAINED_MAX - len(self._unexplained)].tolist():
            row, place = int(found.rows[index]), found.places[int(found.place[index])]
            self._unexplained[bytes.fromhex(batch.trace_id(row) + batch.span_id(row))] = {
                "span_id": batch.span_id(row),
                "name": names.at(row),
                "status": STATUSES[int(status[index])],
                "reason": REASONS[int(reasons[index])] or place.found.how.value,  # type: ignore[index]
                "hosts": place.hosts,
                "gpus": place.found.gpus,
                "at_ms": int(self._context.clock() * 1000),
            }

    # -- on its own ----------------------------------------------------------------------------------------------------

    async def originate(self, entrance: Entrance) -> None:  # noqa: ARG002  it hands in nothing
        """Keep the journal: what it holds from before goes into the timelines first."""
        if self._journal is None:
            return
        try:
            for received_ns, samples in await asyncio.to_thread(self._journal.load, self._context.clock()):
                self._take(samples, received_ns)
            while True:
                await asyncio.sleep(SAVE_S)
                await asyncio.to_thread(self._save)
        finally:
            self._save()
            self._journal.close()

    def _save(self) -> None:
        samples, self._unsaved = self._unsaved, []
        explained, self._unexplained = self._unexplained, {}
        if self._journal is None or not (samples or explained):
            return
        try:
            self._journal.write(self._context.clock(), samples, explained)
        except lmdb.Error as error:
            self._quiet.warning("GPU samples are not kept over a restart: %s", error)

    async def attend(self, parking: Parking) -> None:
        """Release what waits as soon as its samples are in, or when it has waited long enough."""
        while True:
            await asyncio.sleep(LOOK_S)
            entries = parking.entries()
            if entries:
                await parking.release(self._due(entries))

    def _due(self, entries: Sequence[ParkedEntry]) -> list[int]:
        now_s = self._context.clock()
        excess = sum(entry.size_bytes for entry in entries) - self._config.max_parked_mib * MIB
        numbers = []
        for entry in entries:
            since_s = max(entry.created_ms / 1000, self._started_s)
            if excess > 0 or now_s - since_s >= self._config.max_wait or self._is_ready(entry.note):
                excess -= entry.size_bytes
                numbers.append(entry.number)
        return numbers

    def _is_ready(self, note: bytes) -> bool:
        waited = [(tuple(hosts), gpu, end_ns) for hosts, gpu, end_ns in json.loads(note)]
        gpus = np.array([self._timelines.gpu(hosts, gpu) for hosts, gpu, _ in waited], np.int64)
        ends = np.array([end_ns for _, _, end_ns in waited], np.int64)
        return bool(ready(self._timelines, Spans.on_one_gpu(ends, ends, gpus)).ready.all())
