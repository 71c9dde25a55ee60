"""What the GPUs of all hosts did, by time: samples go in as arrays in any order, `join` asks about many spans at once.

    timelines = Timelines()
    timelines.saw(hosts, sent_ns, received_ns)                       # once per message of a host
    timelines.add(hosts, uuid, Quantity.POWER, times_ns, watts)      # float64, base units; hosts: names, the best first
    timelines.describe(hosts, uuid, index=0, name="NVIDIA L40S")
    gpus = [timelines.gpu(hosts, uuid) for uuid in uuids]            # -1: never heard of
    spans = Spans(starts_ns, ends_ns, offsets, np.array(gpus))       # of span i: gpus[offsets[i] : offsets[i + 1]]
    waiting = ready(timelines, spans)                                # .ready: mask; .until_ns: look again then
    joined = join(timelines, spans)                                  # .energy_j, .coverage, .status ... arrays

Spans and samples of one host are taken to share its clock; nothing is shifted for its skew, which is only estimated
(`offset_ns`) to know how long to wait. Samples that were stamped elsewhere, such as those of an exporter that the
gateway scrapes, are shifted by the argument `offset_ns` of `add`.

Owns: the memory of all samples, and its bounds. What is oldest goes first. Knows no clock, no wire format, no span.
Pure and unlocked: one thread at a time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from otel_pipeline.gpu.clocks import Offset
from otel_pipeline.gpu.emitters import PLAUSIBLE_MAX
from otel_pipeline.gpu.hosts import Hosts
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.gpu.series import COUNTER_STEP_NS, SECOND_NS, Series, Sizes
from otel_pipeline.limits import (
    GPU_AHEAD_S_MAX,
    GPU_BYTES_MAX,
    GPU_HOST_GPUS_MAX,
    GPU_HOSTS_MAX,
    GPU_ID_CHARS_MAX,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ints: TypeAlias = "NDArray[np.int64]"
Floats: TypeAlias = "NDArray[np.float64]"
Names: TypeAlias = "str | tuple[str, ...]"

NO_GPU: Final = -1
INDEX_PREFIX: Final = "index:"
"""How the id begins of a GPU whose sender tells only its index."""
TIME_NS_MAX: Final = 2**62
"""The year 2116: beyond it sums of times could overflow."""
SILENT_INTERVALS: Final = 10
SILENT_NS_MIN: Final = 10 * SECOND_NS
"""A quantity that lags so far behind another of its GPU has ended: nobody waits for it, another source may go on."""
_ROWS_WORTH_KEEPING: Final = 512
_GPU_BYTES: Final = 4_096
"""What a GPU takes without samples: objects and names, that of its host included."""


@dataclass(frozen=True, slots=True)
class Device:
    """What is known about a GPU besides its samples."""

    uuid: str
    index: int | None
    """As the driver numbers them, by PCI bus."""
    name: str


@dataclass(slots=True)
class Gpu:
    """The series of one GPU, by quantity."""

    number: int
    device: Device
    host: Host
    series: list[Series | None] = field(default_factory=lambda: [None] * len(Quantity))
    sources: list[str] = field(default_factory=lambda: [""] * len(Quantity))
    sizes: list[int] = field(default_factory=lambda: [0] * len(Quantity))

    def settled(self, quantity: Quantity) -> Series | None:
        """The series, ready to be read; None if it has not two samples: a single one tells about no time."""
        series = self.series[quantity]
        if series is None or series.count < 2:
            return None
        series.settle()
        return series

    def live(self) -> list[Series]:
        """The series that still get samples."""
        found = [series for series in map(self.settled, Quantity) if series is not None]
        newest = max((series.last_ns for series in found), default=0)
        return [series for series in found if series.last_ns >= newest - _silence_ns(series)]

    @property
    def watermark_ns(self) -> int:
        """Up to when all its live series have samples; 0 if there are none."""
        return min((series.last_ns for series in self.live()), default=0)

    @property
    def lag_ns(self) -> int:
        """How long after a moment the samples are in that tell all about it, as their clocks go."""
        return max((max(series.interval_ns, series.stale_ns) for series in self.live()), default=SECOND_NS)

    @property
    def oldest_ns(self) -> int:
        """Time of the oldest row; the end of time if there is none."""
        return min((each.first_ns for each in self.series if each is not None and each.count), default=TIME_NS_MAX)


@dataclass(slots=True, eq=False)
class Host:
    """A host's GPUs, the one touched last at the end, and its clock."""

    gpus: dict[str, Gpu] = field(default_factory=dict)
    offset: Offset = field(default_factory=Offset)


class Timelines:
    """See the module's text.

    `counts` tells by reason what was not kept: samples that were `invalid` (not finite, negative, above what a GPU can
    do, no time), `ahead` (of their host's clock), `late` (older than what is kept in detail), `duplicate` (another one
    with the same time is there), `other_source` (somebody else already tells this quantity of the GPU); and what went
    for want of room: `hosts`, `gpus`, `rows`.
    """

    def __init__(
        self,
        *,
        sizes: Sizes | None = None,
        bytes_max: int = GPU_BYTES_MAX,
        hosts_max: int = GPU_HOSTS_MAX,
        gpus_max: int = GPU_HOST_GPUS_MAX,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._sizes = sizes or Sizes()
        self._bytes_max = bytes_max
        self._hosts_max = hosts_max
        self._gpus_max = gpus_max
        self._hosts: Hosts[Host] = Hosts()
        self._gpus: dict[int, Gpu] = {}
        self._made = 0
        self._bytes = 0

    # -- in ------------------------------------------------------------------------------------------------------------

    def add(
        self,
        hosts: Names,
        gpu: str,
        quantity: Quantity,
        times_ns: Ints,
        values: Floats,
        *,
        source: str = "",
        age_max_ns: int = 0,
        offset_ns: int = 0,
        received_ns: int | None = None,
    ) -> int:
        """Take samples in any order, arrays of one length; returns how many were new.

        `source`: who measured; counters of two sources do not continue each other. `age_max_ns`: the values may be so
        much older than their times. `offset_ns`: the clock of the times minus the host's. `received_ns`: our clock, the
        measure of what is ahead unless the host told its own.
        """
        names = _names(hosts)
        if not names or not 0 < len(gpu) <= GPU_ID_CHARS_MAX:
            self.counts["invalid"] += len(times_ns)
            return 0
        times = times_ns - offset_ns if offset_ns else times_ns
        good = (times > 0) & (times < TIME_NS_MAX) & (values >= 0) & (values <= PLAUSIBLE_MAX[quantity])
        times, values = self._only(good, times, values, "invalid")
        if not len(times):
            return 0
        host = self._host(names)
        latest = host.offset.sent_ns or received_ns
        limit = TIME_NS_MAX if latest is None else latest + GPU_AHEAD_S_MAX * SECOND_NS
        times, values = self._only(times <= limit, times, values, "ahead")
        if not len(times):
            return 0
        owner = self._gpu(host, gpu)
        series = self._series(owner, quantity, limit)
        if not self._is_taken(owner, series, source, age_max_ns, times):
            self.counts["other_source"] += len(times)
            return 0
        added = series.add(times, values)
        for reason, rows in (("duplicate", added.duplicate), ("late", added.late)):
            if rows:
                self.counts[reason] += rows
        self._weigh(owner, quantity, series)
        return added.kept

    def describe(self, hosts: Names, gpu: str, *, index: int | None = None, name: str = "") -> None:
        """Note what a GPU is, with or without samples; what is not said stays as it was."""
        names = _names(hosts)
        if names and 0 < len(gpu) <= GPU_ID_CHARS_MAX:
            owner = self._gpu(self._host(names), gpu)
            known = owner.device
            owner.device = Device(gpu, known.index if index is None else index, name[:GPU_ID_CHARS_MAX] or known.name)

    def saw(self, hosts: Names, sent_ns: int, received_ns: int) -> None:
        """A message of this host: what its clock said when it sent, and ours when it came."""
        names = _names(hosts)
        if names and 0 < sent_ns < TIME_NS_MAX and 0 < received_ns < TIME_NS_MAX:
            self._host(names).offset.saw(sent_ns, received_ns)

    # -- out -----------------------------------------------------------------------------------------------------------

    def gpu(self, hosts: Names, gpu: str) -> int:
        """The number of a GPU, for `Spans`; NO_GPU if it is unknown. Numbers are never used again."""
        host = self._hosts.find(_names(hosts))
        found = None if host is None else host.gpus.get(gpu)
        return NO_GPU if found is None else found.number

    def devices(self, hosts: Names) -> tuple[Device, ...]:
        """The GPUs of a host, by index as far as they have one; without those that only an index is known of, if
        another one has that index.
        """
        host = self._hosts.find(_names(hosts))
        found = [] if host is None else [gpu.device for gpu in host.gpus.values()]
        named = {each.index for each in found if not each.uuid.startswith(INDEX_PREFIX)}
        found = [each for each in found if not each.uuid.startswith(INDEX_PREFIX) or each.index not in named]
        return tuple(sorted(found, key=lambda one: (one.index is None, one.index or 0, one.uuid)))

    def numbered(self, number: int) -> Gpu | None:
        """The GPU of this number; None if there is none any more."""
        return self._gpus.get(number)

    def offset_ns(self, hosts: Names) -> int:
        """Our clock minus the host's, estimated from above; 0 as long as nothing is known."""
        host = self._hosts.find(_names(hosts))
        return 0 if host is None else host.offset.estimate_ns or 0

    @property
    def size_bytes(self) -> int:
        """Memory of all columns, and about that of the objects around them."""
        found = [series for gpu in self._gpus.values() for series in gpu.series if series is not None]
        return sum(series.size_bytes for series in found) + len(self._gpus) * _GPU_BYTES

    def __len__(self) -> int:
        """How many GPUs are known."""
        return len(self._gpus)

    # -- hosts and GPUs ------------------------------------------------------------------------------------------------

    def _host(self, names: tuple[str, ...]) -> Host:
        host = self._hosts.touch(names)
        if host is None:
            if len(self._hosts) >= self._hosts_max:
                for gpu in list(self._hosts.forget_oldest().gpus.values()):
                    self._drop(gpu)
                self.counts["hosts"] += 1
            host = Host()
            self._hosts.put(names, host)
        return host

    def _gpu(self, host: Host, uuid: str) -> Gpu:
        gpu = host.gpus.pop(uuid, None)
        if gpu is None:
            if len(host.gpus) >= self._gpus_max:
                self._drop(next(iter(host.gpus.values())))
                self.counts["gpus"] += 1
            gpu = Gpu(self._made, Device(uuid, None, ""), host)
            self._made += 1
            self._gpus[gpu.number] = host.gpus[uuid] = gpu
            self._bytes += _GPU_BYTES
            self._trim(gpu)
        host.gpus[uuid] = gpu
        return gpu

    def _series(self, gpu: Gpu, quantity: Quantity, limit_ns: int) -> Series:
        series = gpu.series[quantity]
        if series is None or (series.count and series.last_ns > limit_ns):  # its clock was ahead, and was put right
            series = gpu.series[quantity] = Series(quantity, self._sizes)
            gpu.sources[quantity] = ""
        return series

    def _is_taken(self, gpu: Gpu, series: Series, source: str, age_max_ns: int, times: Ints) -> bool:
        """Whether the series takes samples of this source: its own, a fresher one, or any after a silence."""
        quantity = series.quantity
        stale_ns = max(age_max_ns, COUNTER_STEP_NS) if series.is_counter else age_max_ns
        if series.count and source != gpu.sources[quantity]:
            silent = int(times.min()) > series.last_ns + _silence_ns(series)
            if int(times.max()) <= series.last_ns or (stale_ns >= series.stale_ns and not silent):
                return False
            series.close(series.last_ns)
            series.stale_ns = stale_ns
        gpu.sources[quantity] = source
        series.stale_ns = max(series.stale_ns, stale_ns)
        return True

    # -- room ----------------------------------------------------------------------------------------------------------

    def _weigh(self, gpu: Gpu, quantity: Quantity, series: Series) -> None:
        size = series.size_bytes
        self._bytes += size - gpu.sizes[quantity]
        gpu.sizes[quantity] = size
        self._trim(gpu)

    def _trim(self, kept: Gpu) -> None:
        """Give up what is oldest until the rest fits; a GPU that is being written to stays, though with less."""
        while self._bytes > self._bytes_max:
            self._bytes = self.size_bytes
            oldest = min(self._gpus.values(), key=lambda one: one.oldest_ns)
            if self._bytes <= self._bytes_max or not self._shed(oldest, kept):
                return
            self._bytes = self.size_bytes

    def _shed(self, gpu: Gpu, kept: Gpu) -> bool:
        """Give up the older half of a GPU's rows, or the GPU, if that frees too little. False if there is no more."""
        found = [series for series in gpu.series if series is not None]
        if all(series.count < _ROWS_WORTH_KEEPING for series in found):
            if gpu is kept:
                others = [each for each in self._gpus.values() if each is not kept]
                if not others:
                    return False
                gpu = min(others, key=lambda one: one.oldest_ns)
            self._drop(gpu)
            self.counts["gpus"] += 1
            if not gpu.host.gpus:
                self._hosts.forget(gpu.host)
            return True
        for series in found:
            before = series.count
            if before:
                series.forget_until(int(series.times[before // 2]))
            self.counts["rows"] += before - series.count
        return True

    def _drop(self, gpu: Gpu) -> None:
        del self._gpus[gpu.number]
        del gpu.host.gpus[gpu.device.uuid]
        self._bytes -= sum(gpu.sizes) + _GPU_BYTES

    def _only(self, good: NDArray[np.bool_], times: Ints, values: Floats, reason: str) -> tuple[Ints, Floats]:
        if good.all():
            return times, values
        self.counts[reason] += len(good) - int(np.count_nonzero(good))
        return times[good], values[good]


def _names(hosts: Names) -> tuple[str, ...]:
    names = (hosts,) if isinstance(hosts, str) else hosts
    return tuple(name for name in names if 0 < len(name) <= GPU_ID_CHARS_MAX)


def _silence_ns(series: Series) -> int:
    return max(SILENT_INTERVALS * series.interval_ns, SILENT_NS_MIN)
