"""GPU samples out of metrics that arrive over OTLP, whoever sent them: see the table in `emitters.py`.

A batch is asked for its distinct metric names first; one without GPU metrics costs no more. What is read is checked
here, so that a timeline need not doubt it: values are finite, not negative, in base units, and no sender's way to say
"none". Points that are left out are counted by reason:

    sentinel     a number that means "no value" (DCGM, NVML), or a zero of a sender whose zeros do
    no_value     the point says itself that it has none
    invalid      no time, not finite, negative, or above what a GPU can do (`PLAUSIBLE_MAX`)
    unit         the metric has a unit that its quantity cannot have
    temporality  a delta: its sum is known to the sender alone
    no_id        neither an id nor an index of the GPU
    copy         the same device's value once more: for another pod or MIG instance
    malformed    no gauge and no sum, or not readable
    limit        so many metrics, or points of other shapes than samplers send, that they would hold up the gateway

Times stay as they came, in their order. What a sample's time is worth stands beside it: the moment of a scrape may be
later than the measurement by `age_max_ns`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from otel_pipeline.errors import WireError
from otel_pipeline.gpu.emitters import BLANK_32_MAX, BLANK_32_MIN, BLANK_MIN, PLAUSIBLE_MAX, READINGS, scale_of
from otel_pipeline.gpu.points import Budget, Series, read_points
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.limits import GPU_ID_CHARS_MAX, GPU_METRICS_MAX
from otel_pipeline.nvml.conventions import SENT_TIME
from otel_pipeline.wire import cells
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_pipeline.gpu.emitters import Reading
    from otel_pipeline.wire.batch import Batch, Floats, Ints
    from otel_pipeline.wire.values import Value

AGE_MAX: Final = "otel_pipeline.sample_age_max_nano"
"""Resource attribute, int: how much older than their times the samples may be. Absent: as the emitter's are."""
HOST_KEYS: Final = ("host.id", "k8s.node.name", "host.name", "container.id")
"""Resource attributes that tell the host, the best first: in Kubernetes `host.name` is the pod."""
SCRAPED_KEY: Final = "server.address"
"""The same in what a Collector has scraped: the host of the address that it asked."""
INDEX_DIGITS_MAX: Final = 4
TASK: Final = "hw.gpu.task"
GENERAL: Final = "general"
TIME_NS_MAX: Final = np.uint64(2**63 - 1)
BARE_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
GPU_PREFIXES: Final = ("GPU-", "MIG-")

Attributes: TypeAlias = "Mapping[str, str | int]"
Hosts: TypeAlias = tuple[str, ...]
Key: TypeAlias = "tuple[Hosts, str, Quantity, str, int, bool]"
"""The fields of a block besides its samples."""


@dataclass(frozen=True, slots=True)
class Block:
    """Samples of one quantity of one GPU by one sender."""

    hosts: Hosts
    """Names of the host, the best first; empty if the sender told none."""
    gpu: str
    """UUID; of a MIG instance its own, or its board's with `/` and the instance's id; else `index:0` and so on."""
    quantity: Quantity
    times_ns: Ints
    values: Floats
    """In the base unit; finite and >= 0."""
    source: str
    """The emitter and its instrumentation scope. Two of them have counters that do not continue each other."""
    age_max_ns: int = 0
    """The measurement may be so much older than its time."""
    is_scraped: bool = False
    """The times are by the clock of whoever asked, ours if it was our receiver, and not by the host's."""


@dataclass(slots=True)
class Device:
    """What a sender tells about a GPU. Another batch may tell more."""

    hosts: Hosts
    gpu: str
    index: int | None = None
    """NVML's: the order of the PCI bus, which is CUDA's with CUDA_DEVICE_ORDER=PCI_BUS_ID. A MIG instance has none."""
    name: str = ""
    parent: str = ""
    """The board's UUID, if this is a MIG instance."""
    memory_bytes: dict[str, float] = field(default_factory=dict)
    """The latest limit, used, free and reserved, as far as they were sent."""

    @property
    def memory_limit_bytes(self) -> float | None:
        """All of its memory: as sent, else the sum of the parts."""
        parts = self.memory_bytes
        if "limit" in parts:
            return parts["limit"]
        return parts["used"] + parts["free"] + parts.get("reserved", 0.0) if {"used", "free"} <= parts.keys() else None


@dataclass(slots=True)
class Samples:
    """What a batch says about GPUs."""

    blocks: list[Block] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    sent_ns: list[tuple[Hosts, int]] = field(default_factory=list)
    """Hosts and what their clocks said when they sent."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Points by reason."""


def read(batch: Batch) -> Samples:
    """The GPU samples in a batch of metrics; empty for other signals."""
    if batch.signal is not Signal.METRICS:
        return Samples()
    names = batch.name()
    if not any(name in READINGS for name in names.values):
        return Samples()
    rows = np.flatnonzero(batch.keep & names.where(READINGS.__contains__)).tolist()
    codes, resources = batch.resources()
    scopes = batch.scope_names()
    reader = _Reader()
    for row in rows[:GPU_METRICS_MAX]:
        reading = READINGS[names.values[names.codes[row]]]
        start, end, count = batch.rows[row, (cells.START, cells.END, cells.POINTS)].tolist()
        sender = reader.sender(reading, scopes.at(row) or "", int(codes[row]), resources)
        reader.take(reading, sender, batch.data[start:end], count)
    samples = reader.samples()
    samples.dropped += Counter(limit=int(batch.rows[rows[GPU_METRICS_MAX:], cells.POINTS].sum()))
    return samples


def hosts_of(resource: Mapping[str, Value]) -> Hosts:
    """The names of the host in a resource's attributes, the best first."""
    found = [resource.get(key) for key in HOST_KEYS]
    return tuple(dict.fromkeys(name for name in found if isinstance(name, str) and 0 < len(name) <= GPU_ID_CHARS_MAX))


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a metric."""

    resource: Mapping[str, Value]
    source: str
    age_max_ns: int
    is_scraped: bool


class _Reader:
    """Collects the samples of one batch."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._samples = Samples()
        self._budget = Budget()
        self._parts: dict[Key, dict[int, list[Series]]] = {}
        self._devices: dict[tuple[Hosts, str], Device] = {}

    def sender(self, reading: Reading, scope: str, code: int, resources: list[dict[str, Value]]) -> Sender:
        """Who sent a metric. When a resource is seen first, what its clock said is noted."""
        resource = resources[code]
        if code not in self._seen:
            self._seen.add(code)
            sent_ns = _whole(resource.get(SENT_TIME))
            if sent_ns:
                self._samples.sent_ns.append((hosts_of(resource), sent_ns))
        source = f"{reading.emitter.name} {scope}".rstrip()[:GPU_ID_CHARS_MAX]
        emitter = reading.emitter
        age_max_ns = _whole(resource.get(AGE_MAX)) or emitter.age_max_ns
        return Sender(resource, source, age_max_ns, emitter.is_scraped or AGE_MAX in resource)

    def take(self, reading: Reading, sender: Sender, metric: bytes, count: int) -> None:
        """Read one metric, of so many points."""
        try:
            points = read_points(metric, count, self._budget)
        except WireError:
            points = None
        if points is None:
            self._samples.dropped += Counter(malformed=count)
            return
        scale = scale_of(reading, points.unit)
        if scale is None or points.is_delta or points.series is None:
            reason = "temporality" if points.is_delta else "unit" if scale is None else "limit"
            self._samples.dropped[reason] += count
            return
        chosen = self._by_gpu(reading, points.series, sender.resource)
        checked = self._checked(reading, [series for series, _ in chosen.values()], scale)
        for ((hosts, gpu), (_, parent)), series in zip(chosen.items(), checked, strict=True):
            self._describe(reading, hosts, gpu, parent, series)
            if reading.quantity is not None and len(series.values):
                key = hosts, gpu, reading.quantity, sender.source, sender.age_max_ns, sender.is_scraped
                self._parts.setdefault(key, {}).setdefault(reading.rank, []).append(series)

    def samples(self) -> Samples:
        """All of it, as blocks."""
        for (hosts, gpu, quantity, source, age_max_ns, is_scraped), by_rank in self._parts.items():
            best = by_rank[min(by_rank)]
            times_ns = np.concatenate([series.times_ns for series in best]).astype(np.int64)
            values = np.concatenate([series.values for series in best])
            self._samples.blocks.append(
                Block(hosts, gpu, quantity, times_ns, values, source, age_max_ns, is_scraped=is_scraped)
            )
        self._samples.devices = list(self._devices.values())
        return self._samples

    def _by_gpu(
        self, reading: Reading, all_series: Iterable[Series], resource: Mapping[str, Value]
    ) -> dict[tuple[Hosts, str], tuple[Series, str]]:
        """For each GPU the one series that is about it, and its board. A copy has more attributes: for whom it is."""
        chosen: dict[tuple[Hosts, str], tuple[Series, str]] = {}
        for series in sorted(all_series, key=lambda one: len(one.attributes)):
            if not _is_of_gpu(reading, series.attributes):
                continue
            gpu, parent = _identity(reading, series.attributes)
            key = _hosts(reading, series.attributes, resource), gpu
            if not gpu or key in chosen:
                if reading.quantity is not None:
                    self._samples.dropped["copy" if gpu else "no_id"] += len(series.values)
            else:
                chosen[key] = series, parent
        return chosen

    def _checked(self, reading: Reading, all_series: list[Series], scale: float) -> list[Series]:
        """Of each series the points that are worth something, in base units."""
        if not all_series:
            return []
        raw = np.concatenate([series.values for series in all_series])
        times_ns = np.concatenate([series.times_ns for series in all_series])
        with np.errstate(over="ignore"):
            values = raw * scale
        sentinel = ((raw >= BLANK_MIN) & (raw < np.inf)) | ((raw >= BLANK_32_MIN) & (raw <= BLANK_32_MAX))
        if reading.emitter.zero_is_missing and reading.quantity != Quantity.UTILIZATION:
            sentinel |= raw == 0
        largest = PLAUSIBLE_MAX[Quantity.MEMORY_USED if reading.quantity is None else reading.quantity]
        timed = (times_ns > 0) & (times_ns <= TIME_NS_MAX)
        good = ~sentinel & timed & (values >= 0) & (values <= largest)
        bad = len(good) - int(np.count_nonzero(good))
        if bad:
            missing, blank = int(np.isnan(raw).sum()), int(sentinel.sum())
            self._samples.dropped += Counter(no_value=missing, sentinel=blank, invalid=bad - missing - blank)
        checked = []
        start = 0
        for series in all_series:
            part = slice(start, start + len(series.values))
            start = part.stop
            kept = good[part] if bad else slice(None)
            checked.append(Series(series.attributes, times_ns[part][kept], values[part][kept]))
        return checked

    def _describe(self, reading: Reading, hosts: Hosts, gpu: str, parent: str, series: Series) -> None:
        """Note what a series tells about its GPU."""
        device = self._devices.setdefault((hosts, gpu), Device(hosts, gpu, parent=parent))
        emitter = reading.emitter
        if device.index is None and not parent:
            device.index = _index(_first(series.attributes, emitter.index_keys))
        device.name = device.name or str(_first(series.attributes, emitter.name_keys) or "")[:GPU_ID_CHARS_MAX]
        if reading.memory and len(series.values):
            device.memory_bytes[reading.memory] = float(series.values[-1])


def _is_of_gpu(reading: Reading, attributes: Attributes) -> bool:
    """Whether points with these attributes are about a whole GPU, or a MIG instance."""
    if attributes.get(TASK, GENERAL) != GENERAL:
        return False
    if not reading.needs_type:
        return True
    kind = attributes.get("hw.type")
    identity = str(_first(attributes, reading.emitter.id_keys) or "")
    return kind == "gpu" or (kind is None and identity.startswith(GPU_PREFIXES))


def _identity(reading: Reading, attributes: Attributes) -> tuple[str, str]:
    """The id of the GPU that a sample is of, and its board's if that is another; empty if there is none."""
    emitter = reading.emitter
    identity = str(_first(attributes, emitter.id_keys) or "")
    if not identity:
        index = _index(_first(attributes, emitter.index_keys))
        return ("" if index is None else f"index:{index}"), ""
    if len(identity) > GPU_ID_CHARS_MAX:
        return "", ""
    if BARE_UUID.fullmatch(identity):
        identity = f"GPU-{identity}"
    instance = attributes.get(emitter.instance_key)
    if instance in {None, ""} or reading.of_board:
        parent = str(_first(attributes, emitter.parent_keys) or "")[:GPU_ID_CHARS_MAX]
        return identity, parent if parent.startswith("GPU-") else ""  # others tell the chassis there
    return f"{identity}/{instance}"[:GPU_ID_CHARS_MAX], identity


def _hosts(reading: Reading, attributes: Attributes, resource: Mapping[str, Value]) -> Hosts:
    """The names of the host that a sample is of."""
    own = _first(attributes, reading.emitter.host_keys)
    if isinstance(own, str) and len(own) <= GPU_ID_CHARS_MAX:
        return (own,)
    hosts = hosts_of(resource)
    scraped = resource.get(SCRAPED_KEY)
    if hosts or not isinstance(scraped, str) or not 0 < len(scraped) <= GPU_ID_CHARS_MAX or _is_loopback(scraped):
        return hosts
    return (scraped,)


def _is_loopback(name: str) -> bool:
    return name in {"localhost", "::1"} or name.startswith("127.")


def _first(attributes: Attributes, keys: Iterable[str]) -> str | int | None:
    """The first of these attributes that says something."""
    return next((attributes[key] for key in keys if attributes.get(key) not in {None, ""}), None)


def _index(value: str | int | None) -> int | None:
    """A device index, which some send as text."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) <= INDEX_DIGITS_MAX else None
    return value if value is not None and 0 <= value < 10**INDEX_DIGITS_MAX else None


def _whole(value: Value) -> int:
    """A number of nanoseconds; 0 for what is none."""
    return value if isinstance(value, int) and 0 < value < 2**63 else 0
