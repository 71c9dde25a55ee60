"""Which rows of a batch of spans are to be joined, and on which GPUs each ran: columns in, arrays for `join` out.

Python is spent on distinct resources and on distinct ids that spans name, not on spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import ArrayValue

from otel_pipeline.gpu.ingest import hosts_of
from otel_pipeline.gpu.join import Spans
from otel_pipeline.gpu.resolve import IDS, SPAN_KEYS, Found, resolve
from otel_pipeline.wire.values import python_value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline.gpu.ingest import Hosts
    from otel_pipeline.gpu.timeline import Timelines
    from otel_pipeline.wire.batch import Batch, Codes, Ints, Mask

JOB: Final = ("otel_pipeline.job.outcome", "otel_pipeline.stage.name")
COMFYUI: Final = ("comfyui.prompt.id", "comfyui.node.type")
MODEL: Final = ("gen_ai.request.model", "gen_ai.operation.name")
DEFAULT_KEYS: Final = (*JOB, *COMFYUI, *MODEL)
CLIENT: Final = 3
PRODUCER: Final = 4
KEYS_COUNTED_MAX: Final = 16_384
"""Up to so many possible keys counting them is faster than sorting those there are."""
TIME_NS_MAX: Final = np.uint64(2**62)
"""The year 2116: differences of later times could overflow."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where spans ran: their host, and the GPUs that they used there."""

    hosts: Hosts
    found: Found
    numbers: tuple[int, ...]
    """Of the GPUs in the timelines; -1 for one that is not known."""
    names: str
    """The models of the GPUs, the distinct ones."""


@dataclass(frozen=True, slots=True)
class Used:
    """Spans of hosts with GPUs."""

    rows: Ints
    places: list[Place]
    place: Ints
    """For each of `rows` the number of its place."""

    def spans(self, batch: Batch, mask: Mask) -> Spans:
        """Intervals and GPUs of the rows in `mask`, which has an entry for each of `rows`."""
        rows, chosen = self.rows[mask], self.place[mask]
        starts, ends = (np.minimum(times[rows], TIME_NS_MAX).view(np.int64) for times in (batch.time, batch.end_time))
        sizes = np.array([len(place.numbers) for place in self.places], np.int64)
        flat = np.array([number for place in self.places for number in place.numbers], np.int64)
        firsts = np.cumsum(sizes) - sizes
        lengths = sizes[chosen]
        if (lengths == 1).all():
            return Spans.on_one_gpu(starts, ends, flat[firsts[chosen]])
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Spans(starts, ends, offsets, flat[np.repeat(firsts[chosen], lengths) + within])


def default_selection(batch: Batch) -> Mask:
    """Jobs, stages, prompts and nodes of ComfyUI, and spans of a model that are no call of somebody else's."""
    chosen = np.zeros(len(batch), np.bool_)
    for key in (*JOB, *COMFYUI):
        chosen |= batch.present(key)
    own = (batch.kind != CLIENT) & (batch.kind != PRODUCER)
    for key in MODEL:
        chosen |= batch.present(key) & own
    return chosen


def used(
    batch: Batch, select: Callable[[Batch], Mask], timelines: Timelines, otherwise: Hosts | None = None
) -> Used | None:
    """The selected rows of hosts that have GPUs; None if there are none, mostly before `select` is asked.

    `otherwise`: the host of rows whose own is not known.
    """
    codes, resources = batch.resources()
    hosts = [hosts_of(resource) for resource in resources]
    if otherwise is not None:
        hosts = [names if timelines.devices(names) else otherwise for names in hosts]
    devices = [timelines.devices(names) for names in hosts]
    with_gpus = np.array([bool(found) for found in devices], np.bool_)
    if not with_gpus.any():
        return None
    rows = np.flatnonzero(select(batch) & with_gpus[codes])
    if not len(rows):
        return None
    named, ids = _named(batch, rows)
    keys, place = distinct(codes[rows].astype(np.int64) * len(ids) + named, len(resources) * len(ids))
    places = []
    for code, index in (divmod(key, len(ids)) for key in keys):
        found = resolve(ids[index], resources[code], devices[code])
        names = dict.fromkeys(one.name for one in devices[code] if one.name and one.uuid in found.gpus)
        numbers = tuple(timelines.gpu(hosts[code], gpu) for gpu in found.gpus)
        places.append(Place(hosts[code], found, numbers, ", ".join(names)))
    return Used(rows, places, place)


def distinct(keys: Ints, bound: int) -> tuple[list[int], Ints]:
    """Sorted distinct keys, all below the bound, and for each key its place among them."""
    if bound > KEYS_COUNTED_MAX:
        found, place = np.unique(keys, return_inverse=True)
        return found.tolist(), place
    counts = np.bincount(keys, minlength=bound) > 0
    return np.flatnonzero(counts).tolist(), (np.cumsum(counts) - 1)[keys]


def _named(batch: Batch, rows: Ints) -> tuple[Ints, list[dict[str, object]]]:
    """For each row the number of what it says of its GPUs; number 0 is nothing."""
    ids: list[dict[str, object]] = [{}]
    named = np.zeros(len(rows), np.int64)
    for key in SPAN_KEYS:
        saying = batch.present(key)[rows] & (named == 0)
        if not saying.any():
            continue
        texts = batch.strings(key)
        columns: list[tuple[Codes, Sequence[object]]] = [(texts.codes, texts.values)]
        if (saying & (texts.codes[rows] < 0)).any():
            arrays, encoded = batch.arrays(key)
            columns.append((arrays, [*map(_array, encoded)]))
        for codes, values in columns:
            mine = codes[rows]
            chosen = saying & (mine >= 0)
            named[chosen] = mine[chosen] + len(ids)
            ids += [{key: value} for value in values]
    return named, ids


def _array(encoded: bytes) -> list[object]:
    try:
        return [python_value(value) for value in ArrayValue.FromString(encoded).values]
    except DecodeError:
        return []


__all__ = ["DEFAULT_KEYS", "IDS", "Place", "Used", "default_selection", "distinct", "used"]
