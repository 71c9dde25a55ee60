"""The text of an NVIDIA DCGM exporter: what it says of each GPU, and the same by OpenTelemetry's hardware conventions.

Bytes in, bytes out; who asks the exporter, and when, is `receivers/dcgm.py`. The exporter gives MiB, mJ and percent,
numbers that mean "no value", and for a MIG instance the UUID of its board. Where pods share a GPU it shows the device's
values once more for each of them, or what the pod's processes use: such lines have more labels than the device's own,
and the line with the fewest labels is the one that counts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from otel_pipeline.gpu.emitters import BLANK_32_MAX, BLANK_32_MIN, BLANK_MIN, DCGM, MIB
from otel_pipeline.gpu.ingest import AGE_MAX
from otel_pipeline.limits import DCGM_GPUS_MAX, DCGM_LABELS_KEPT, DCGM_LINE_CHARS_MAX, GPU_ID_CHARS_MAX
from otel_pipeline.wire.values import any_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.proto.metrics.v1 import metrics_pb2

    from otel_pipeline.wire.values import Scalar

Kind: TypeAlias = Literal["gauge", "sum", "counter"]
CUMULATIVE: Final = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


@dataclass(frozen=True, slots=True)
class Field:
    """What becomes of one field of DCGM."""

    metric: str
    unit: str
    kind: Kind
    scale: float = 1.0
    attributes: tuple[tuple[str, str], ...] = ()
    of_board: bool = False
    """Of the whole board, also in the lines of a MIG instance."""


GPU: Final = ("hw.type", "gpu")
SCOPE: Final = "otel_pipeline.receivers.dcgm"
XID: Final = "otel_pipeline.gpu.xid.last"
UTIL: Final = "DCGM_FI_DEV_GPU_UTIL"
ENGINE: Final = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
USED: Final = "DCGM_FI_DEV_FB_USED"
FREE: Final = "DCGM_FI_DEV_FB_FREE"
RESERVED: Final = "DCGM_FI_DEV_FB_RESERVED"
TOTAL: Final = "DCGM_FI_DEV_FB_TOTAL"


def _load(task: str, scale: float = 0.01, *, of_board: bool = True) -> Field:
    return Field("hw.gpu.utilization", "1", "gauge", scale, (("hw.gpu.task", task),), of_board=of_board)


def _temperature(place: str) -> Field:
    return Field("hw.temperature", "Cel", "gauge", attributes=(GPU, ("hw.sensor_location", place)), of_board=True)


def _clock(domain: str) -> Field:
    return Field("hw.gpu.clock.frequency", "Hz", "gauge", 1e6, (("hw.gpu.clock.domain", domain),), of_board=True)


def _errors(kind: str) -> Field:
    return Field("hw.errors", "{error}", "counter", attributes=(GPU, ("error.type", kind)), of_board=True)


FIELDS: Final[Mapping[str, Field]] = {
    UTIL: _load("general"),
    ENGINE: _load("general", 1.0, of_board=False),
    "DCGM_FI_DEV_ENC_UTIL": _load("encoder"),
    "DCGM_FI_DEV_DEC_UTIL": _load("decoder"),
    USED: Field("hw.gpu.memory.usage", "By", "sum", MIB),
    TOTAL: Field("hw.gpu.memory.limit", "By", "sum", MIB),
    "DCGM_FI_DEV_POWER_USAGE": Field("hw.power", "W", "gauge", attributes=(GPU,), of_board=True),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": Field("hw.energy", "J", "counter", 1e-3, (GPU,), of_board=True),
    "DCGM_FI_DEV_GPU_TEMP": _temperature("gpu"),
    "DCGM_FI_DEV_MEMORY_TEMP": _temperature("memory"),
    "DCGM_FI_DEV_MEM_COPY_UTIL": Field("hw.gpu.memory_controller.utilization", "1", "gauge", 0.01, of_board=True),
    "DCGM_FI_DEV_SM_CLOCK": _clock("sm"),
    "DCGM_FI_DEV_MEM_CLOCK": _clock("memory"),
    "DCGM_FI_DEV_XID_ERRORS": Field(XID, "", "gauge", of_board=True),
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": _errors("pcie_replay"),
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": _errors("corrected"),
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": _errors("uncorrected"),
}
"""By DCGM's names. The last XID is a number that names an error, no count, so it is no `hw.errors`."""
PARTS: Final = frozenset({FREE, RESERVED})
"""Read to work out how much memory there is, where the exporter does not say."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a line is about."""

    gpu: str
    """The UUID; of a MIG instance its board's with `/` and the instance's id. Empty: nobody known."""
    board: str
    index: int | None
    name: str
    profile: str
    """Of the MIG instance."""
    host: str
    labels: int
    """How many there are."""


@dataclass(slots=True)
class Gpu:
    """What a page says about one GPU or MIG instance: raw values by DCGM's names."""

    identity: Identity
    values: dict[str, float] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    """How many labels the line of each value has."""


@dataclass(slots=True)
class Page:
    """What one scrape says."""

    gpus: dict[str, Gpu] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    """Lines with a value that were left out: sentinel, invalid, no_id, copy, limit."""


def read_page(text: str) -> Page:
    """The values of all GPUs in a text in Prometheus' format. Lines that are something else are passed over."""
    page = Page()
    for line in text.split("\n"):
        name, brace, rest = line.partition("{")
        what = FIELDS.get(name)
        if brace and (what or name in PARTS):
            if len(line) > DCGM_LINE_CHARS_MAX:
                page.dropped["invalid"] += 1
            else:
                _take(page, name, what, rest)
    return page


def _take(page: Page, name: str, what: Field | None, rest: str) -> None:
    labels, _, tail = rest.rpartition("}")
    identity = identity_of(labels, of_board=what is not None and what.of_board)
    value = _number(tail)
    reason = _reason(value) or ("" if identity.gpu else "no_id")
    if not reason and identity.gpu not in page.gpus and len(page.gpus) >= DCGM_GPUS_MAX:
        reason = "limit"
    if reason:
        page.dropped[reason] += 1
        return
    gpu = page.gpus.setdefault(identity.gpu, Gpu(identity))
    if name in gpu.values:
        page.dropped["copy"] += 1
        if gpu.labels[name] <= identity.labels:
            return
    gpu.values[name] = value
    gpu.labels[name] = identity.labels


def _number(tail: str) -> float:
    """The value behind the labels, NaN if there is none. A time after it is not read: the exporter sends none."""
    words = tail.split(maxsplit=1)
    try:
        return float(words[0]) if words else math.nan
    except ValueError:
        return math.nan


def _reason(value: float) -> str:
    """Why a raw value cannot be used."""
    if BLANK_MIN <= value < math.inf or BLANK_32_MIN <= value <= BLANK_32_MAX:
        return "sentinel"
    return "" if 0 <= value < math.inf else "invalid"


# -- labels ------------------------------------------------------------------------------------------------------------

_LABEL: Final = re.compile(r'\b(\w+)="([^"\\]*(?:\\.[^"\\]*)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")


@lru_cache(DCGM_LABELS_KEPT)
def identity_of(text: str, *, of_board: bool) -> Identity:
    """Whom the labels between the braces name. The same texts come with each scrape, one for each GPU."""
    pairs = _LABEL.findall(text)
    labels = {key: _ESCAPED.sub(_unescaped, value)[:GPU_ID_CHARS_MAX] for key, value in pairs}
    board = _first(labels, DCGM.id_keys)
    instance = "" if of_board or not board else labels.get(DCGM.instance_key, "")
    index = _first(labels, DCGM.index_keys)
    return Identity(
        f"{board}/{instance}" if instance else board,
        board,
        int(index) if index.isascii() and index.isdigit() and len(index) < 5 else None,
        _first(labels, DCGM.name_keys),
        labels.get("GPU_I_PROFILE", "") if instance else "",
        _first(labels, DCGM.host_keys),
        len(pairs),
    )


def _first(labels: Mapping[str, str], keys: Iterable[str]) -> str:
    return next((labels[key] for key in keys if labels.get(key)), "")


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


# -- by the conventions ------------------------------------------------------------------------------------------------


def to_request(gpus: Iterable[Gpu], time_ns: int, *, age_max_ns: int, host: str, own_host: str, version: str) -> bytes:
    """A metrics request with a resource for each host. `host` beats what the labels say; without a label it is
    `own_host`.
    """
    request = ExportMetricsServiceRequest()
    by_host: dict[str, list[Gpu]] = {}
    for gpu in gpus:
        by_host.setdefault(host or gpu.identity.host or own_host, []).append(gpu)
    for name, its in by_host.items():
        group = request.resource_metrics.add()
        for key, value in (("host.name", name), (AGE_MAX, age_max_ns)):
            group.resource.attributes.add(key=key).value.CopyFrom(any_value(value))
        scope = group.scope_metrics.add()
        scope.scope.name, scope.scope.version = SCOPE, version
        _write(scope, its, time_ns)
    return request.SerializeToString()


def _write(scope: metrics_pb2.ScopeMetrics, gpus: Iterable[Gpu], time_ns: int) -> None:
    metrics: dict[str, metrics_pb2.Metric] = {}
    for gpu in gpus:
        about = _about(gpu.identity)
        for name, value in _chosen(gpu.values).items():
            what = FIELDS[name]
            metric = metrics.get(what.metric)
            if metric is None:
                metric = metrics[what.metric] = scope.metrics.add(name=what.metric, unit=what.unit)
            data = metric.gauge if what.kind == "gauge" else metric.sum
            if what.kind != "gauge":
                metric.sum.aggregation_temporality = CUMULATIVE
                metric.sum.is_monotonic = what.kind == "counter"
            point = data.data_points.add(time_unix_nano=time_ns, as_double=value * what.scale)
            for key, text in (*about, *what.attributes):
                point.attributes.add(key=key).value.CopyFrom(any_value(text))


def _chosen(raw: Mapping[str, float]) -> dict[str, float]:
    """Which fields are written: one for each thing. The engine's activity is for MIG, which has no utilization."""
    values = {name: value for name, value in raw.items() if name in FIELDS}
    if UTIL in values:
        values.pop(ENGINE, None)
    if TOTAL not in values and USED in raw and FREE in raw:
        values[TOTAL] = raw[USED] + raw[FREE] + raw.get(RESERVED, 0.0)
    return values


def _about(identity: Identity) -> list[tuple[str, Scalar]]:
    """The attributes that each point of a GPU has."""
    about: list[tuple[str, Scalar]] = [("hw.id", identity.gpu), ("hw.vendor", "NVIDIA")]
    if identity.name:
        about.append(("hw.name", identity.name))
    if identity.gpu == identity.board:
        about += [("gpu.index", identity.index)] if identity.index is not None else []
    else:
        instance = identity.gpu.removeprefix(f"{identity.board}/")
        about += [("hw.parent", identity.board), ("gpu.mig.id", instance), ("gpu.mig.profile", identity.profile)]
    return about
