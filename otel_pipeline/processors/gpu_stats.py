"""Processor `gpu_stats`: says on each span that used a GPU what the GPU did during exactly that span.

In a metrics pipeline it reads the GPU samples that pass (gpu/ingest.py) into the timelines; in a traces pipeline it
joins spans with them (gpu/join.py). Both halves share the timelines. A span whose samples are not in yet is parked:
it is acknowledged and durable, and goes on when they are, or after `max_wait` with what is known by then.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, TypeAlias

import lmdb
import numpy as np
from pydantic import Field

from otel_pipeline.conditions.parser import parse
from otel_pipeline.conditions.settings import SpanCondition
from otel_pipeline.contracts import Context, Settings
from otel_pipeline.gpu.ingest import Samples
from otel_pipeline.gpu.ingest import read as read_samples
from otel_pipeline.gpu.join import Reason, join
from otel_pipeline.gpu.journal import DIRECTORY, Incomplete, Journal, merged
from otel_pipeline.gpu.marks import STATUS, STATUSES, WRITTEN, is_complete, statuses, write
from otel_pipeline.gpu.resolve import SPAN_KEYS
from otel_pipeline.gpu.timeline import Timelines
from otel_pipeline.gpu.used import DEFAULT_KEYS, Used, default_selection, distinct, used
from otel_pipeline.limits import GPU_EXPLAINED_HELD_MAX, GPU_PARKED_HOSTS_MAX
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

Place: TypeAlias = tuple[tuple[str, ...], str]
"""Names of a host, and a GPU there."""
Waited: TypeAlias = tuple[Place, int]
"""Until when, in ns, samples of it are waited for."""

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
        same_host: bool = False
        """All spans come from the one host whose GPUs are sampled, also those that name another or none: workers in
        containers do not know their host. For agents."""
        max_wait: Annotated[Duration, Field(ge=0)] = 10.0
        """How long a span waits for its samples, from its arrival or the gateway's start."""
        max_parked_mib: Annotated[int, Field(ge=1)] = 256
        """Spans that wait, in MiB; beyond it the oldest go on with what is known."""

    def __init__(self, config: Config, context: Context) -> None:
        self._config = config
        self._context = context
        self._timelines = context.shared.get(f"{context.component_id} timelines", Timelines)
        self._hosts = context.shared.get(f"{context.component_id} hosts", dict[tuple[str, ...], None])
        """That samples came from since the start, or last before it; none are added to two."""
        self._hosts_are_old = True
        self._known_until = context.shared.get(f"{context.component_id} known until", dict[int, int])
        """By GPU, as long as no samples come."""
        self._conditions = [parse(text, Signal.TRACES) for text in config.spans]
        self._started_s = context.clock()
        self._journal = Journal(context.directory / DIRECTORY) if context.directory else None
        self._unexplained: list[Incomplete] = []
        self._waited: dict[int, list[Waited]] = {}
        """Of the parked entries that were looked at last, by number: what they wait for."""
        self._quiet = Quiet(log)
        self._spans = {
            status: context.stats.gpu_spans.labels(context.component_id, status) for status in (*STATUSES, "parked")
        }
        self._samples = context.stats.gpu_samples
        if self._journal:
            self._remember(self._journal.load(self._started_s))  # before any span comes

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
                self._note_hosts(samples)
                self._take(samples, int(self._context.clock() * 1e9))
                self._write([samples], [])
            self._count(samples.dropped)
        elif batch.signal is Signal.TRACES and len(self._timelines):
            otherwise = next(iter(self._hosts)) if self._config.same_host and len(self._hosts) == 1 else None
            found = used(batch, self._chosen, self._timelines, otherwise)
            if found is not None:
                self._join(batch, found)

    # -- samples -------------------------------------------------------------------------------------------------------

    def _remember(self, records: Sequence[tuple[int, Samples]]) -> None:
        """Samples from before a restart, and when they came."""
        for received_ns, samples in records:
            for hosts, sent_ns in samples.sent_ns:
                self._timelines.saw(hosts, sent_ns, received_ns)
        if records:
            self._take(merged([samples for _, samples in records]), records[-1][0])
            self._hosts.update(dict.fromkeys(block.hosts for block in records[-1][1].blocks if block.hosts))

    def _note_hosts(self, samples: Samples) -> None:
        if self._hosts_are_old and samples.blocks:  # the name may be another than before a restart
            self._hosts_are_old = False
            self._hosts.clear()
        if len(self._hosts) < 2:
            self._hosts.update(dict.fromkeys(block.hosts for block in samples.blocks if block.hosts))

    def _take(self, samples: Samples, now_ns: int) -> None:
        timelines = self._timelines
        self._known_until.clear()
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
                offset_ns=timelines.offset_ns(block.hosts) if block.is_scraped else 0,
                received_ns=now_ns,
            )
        self._count({"kept": kept, **timelines.counts})
        timelines.counts.clear()

    def _count(self, outcomes: Mapping[str, int]) -> None:
        for outcome, count in outcomes.items():
            self._samples.labels(self._context.component_id, outcome).inc(count)

    # -- spans ---------------------------------------------------------------------------------------------------------

    def _chosen(self, batch: Batch) -> Mask:
        """Rows to be joined, without those that were joined before, nearer to the samples."""
        chosen = batch.keep & ~batch.present(STATUS)
        if not self._conditions:
            return chosen & default_selection(batch)
        wanted = np.zeros(len(batch), np.bool_)
        for condition in self._conditions:
            wanted |= condition.mask(batch)
        return chosen & wanted

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
        until_ns = [min(map(self._known_until_ns, place.numbers), default=0) for place in found.places]
        waits: Mask = joinable & (batch.end_time[found.rows] > np.array(until_ns, np.uint64)[found.place])
        if not waits.any():
            return waits
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

    def _known_until_ns(self, gpu: int) -> int:
        """Spans that end by then need not wait for this GPU; 0: nothing is known of it."""
        known = self._known_until.get(gpu)
        if known is None:
            found = self._timelines.numbered(gpu)
            known = max(0, found.watermark_ns - found.lag_ns) if found else 0
            self._known_until[gpu] = known
        return known

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
        rows = np.flatnonzero(~is_complete(status))
        rows = rows[: max(0, GPU_EXPLAINED_HELD_MAX - sum(map(len, self._unexplained)))]
        if not len(rows):
            return
        reasons = np.zeros(len(found.rows), np.int64)
        reasons[joinable] = joined.reason
        names = batch.name()
        columns = (found.place, status, reasons, names.codes[found.rows])
        counts = len(found.places), len(STATUSES), len(Reason), max(1, len(names.values))
        keys, codes = distinct(
            np.ravel_multi_index([one[rows] for one in columns], counts, mode="clip"), math.prod(counts)
        )
        told = [
            {
                "name": names.values[name],
                "status": STATUSES[status],
                "reason": Reason(reason).name.lower() if reason else found.places[place].found.how.value,
                "hosts": found.places[place].hosts,
                "gpus": found.places[place].found.gpus,
            }
            for place, status, reason, name in np.transpose(np.unravel_index(keys, counts)).tolist()
        ]
        self._unexplained.append(Incomplete(batch.ids(found.rows[rows]), codes, told))

    # -- on its own ----------------------------------------------------------------------------------------------------

    async def originate(self, entrance: Entrance) -> None:  # noqa: ARG002  it hands in nothing
        """Write down why spans are not complete: nobody waits for that, as for the samples."""
        try:
            while True:
                await asyncio.sleep(SAVE_S)
                incomplete, self._unexplained = self._unexplained, []
                if incomplete:
                    await asyncio.to_thread(self._write, [], incomplete)
        finally:
            self._write([], self._unexplained)
            if self._journal:
                self._journal.close()

    def _write(self, samples: Sequence[Samples], incomplete: Sequence[Incomplete]) -> None:
        if self._journal is None:
            return
        try:
            self._journal.write(self._context.clock(), samples, incomplete)
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
        late = self._late(entries)
        numbers = []
        for entry in entries:
            since_s = max(entry.created_ms / 1000, self._started_s)
            if excess > 0 or now_s - since_s >= self._config.max_wait or entry.number not in late:
                excess -= entry.size_bytes
                numbers.append(entry.number)
        return numbers

    def _late(self, entries: Sequence[ParkedEntry]) -> set[int]:
        """The numbers of those whose samples are not in yet."""
        known = self._waited
        self._waited = {entry.number: known.get(entry.number) or _waited(entry.note) for entry in entries}
        until_ns: dict[Place, int] = {}
        for place in {place for waited in self._waited.values() for place, _ in waited}:
            until_ns[place] = self._known_until_ns(self._timelines.gpu(*place))
        return {
            number
            for number, waited in self._waited.items()
            if any(end_ns > until_ns[place] for place, end_ns in waited)
        }


def _waited(note: bytes) -> list[Waited]:
    return [((tuple(hosts), gpu), end_ns) for hosts, gpu, end_ns in json.loads(note)]
