"""The GPU samples of the last minutes in a file: after a restart spans are joined with what came before it, and
`otel-pipeline gpu` reads them beside a running gateway.

    samples     time of arrival in ms, number -> one serialized Samples
    explained   the same key -> spans without all GPU data, and why: a serialized Incomplete; GPU_EXPLAINED_MAX spans

Trouble with the file costs the memory over a restart, nothing else.
"""

from __future__ import annotations

import json
import logging
import struct
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import lmdb
import numpy as np

from otel_pipeline.gpu.ingest import Block, Device, Samples
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.limits import GPU_EXPLAINED_MAX, GPU_JOURNAL_BYTES_MAX, GPU_JOURNAL_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from otel_pipeline.wire.batch import Ints

log = logging.getLogger(__name__)

KEY: Final = struct.Struct(">QI")
ARRAYS: Final = frozenset({"times_ns", "values"})
DIRECTORY: Final = "gpu"
FILE_ERRORS: Final = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError)
PRUNED_MAX: Final = 1_000
"""Entries that one write deletes: a burst must not make the next write long."""
ID_BYTES: Final = 24
"""A trace id and a span id."""


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Spans of one batch without all GPU data, and why."""

    ids: Ints
    """A row each: the halves of the trace id, and the span id."""
    codes: Ints
    """For each row the number of what is told."""
    told: Sequence[dict[str, Any]]
    """JSON objects."""

    def __len__(self) -> int:
        return len(self.codes)


class _Kept:
    """The keys of one database and what each weighs, the oldest first."""

    def __init__(self, weight_max: int) -> None:
        self._weight_max = weight_max
        self._weight = 0
        self._entries: deque[tuple[bytes, int]] = deque()

    def load(self, entries: Iterable[tuple[bytes, int]]) -> None:
        for key, weight in entries:
            self.add(key, weight)

    def add(self, key: bytes, weight: int) -> None:
        self._entries.append((key, weight))
        self._weight += weight

    def spare(self, oldest: bytes) -> list[bytes]:
        """Those that are older, or too much."""
        weight = self._weight
        found = []
        for key, own in islice(self._entries, PRUNED_MAX):
            if key >= oldest and weight <= self._weight_max:
                break
            weight -= own
            found.append(key)
        return found

    def drop(self, count: int) -> None:
        """Keep the first ones no more."""
        for _ in range(count):
            self._weight -= self._entries.popleft()[1]


class Journal:
    """The open file. For one thread at a time; a lock keeps a write that goes on beside a cancelled task apart."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._file: lmdb.Environment | None = None
        self._databases: dict[str, Any] = {}
        self._number = 0
        self._samples = _Kept(GPU_JOURNAL_BYTES_MAX // 2)  # in bytes; pages that are written anew take room, too
        self._explained = _Kept(GPU_EXPLAINED_MAX)  # in spans

    def load(self, now_s: float) -> list[tuple[int, Samples]]:
        """Open the file; the samples in it that are young enough, with the times in ns at which they came."""
        with self._lock:
            self._file = self._open()
            if self._file is None:
                return []
            self._databases = {name: self._file.open_db(name.encode()) for name in ("samples", "explained")}
            oldest = _oldest(now_s)
            with self._file.begin(db=self._databases["samples"]) as txn, txn.cursor() as cursor:
                found = [(bytes(key), bytes(value)) for key, value in cursor]
            with self._file.begin(db=self._databases["explained"]) as txn, txn.cursor() as cursor:
                explained = [(bytes(key), _count(bytes(value))) for key, value in cursor]
            self._samples.load((key, len(value)) for key, value in found)
            self._explained.load(explained)
            found = [(key, value) for key, value in found if key >= oldest]
            return [(KEY.unpack(key)[0] * 1_000_000, samples) for key, value in found for samples in _decoded(value)]

    def _open(self) -> lmdb.Environment | None:
        for _ in range(2):
            try:
                self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                return lmdb.open(
                    str(self._directory),
                    map_size=GPU_JOURNAL_BYTES_MAX,
                    max_dbs=2,
                    sync=False,
                    metasync=False,
                    mode=0o600,
                )
            except FILE_ERRORS:
                log.warning("the GPU samples in %s cannot be read: starting with an empty file", self._directory)
                for name in ("data.mdb", "lock.mdb"):
                    (self._directory / name).unlink(missing_ok=True)
            except (lmdb.Error, OSError) as error:
                log.warning("GPU samples are not kept over a restart: %s", error)
                break
        return None

    def write(self, now_s: float, samples: Sequence[Samples], incomplete: Sequence[Incomplete]) -> None:
        """Add what came, forget what is old. Raises lmdb.Error."""
        with self._lock:
            if self._file is None:
                return
            now_ms = int(now_s * 1000)
            new = [("samples", encode(one), 0) for one in samples]
            new += [("explained", encode_incomplete(one, now_ms), len(one)) for one in incomplete]
            spare = {"samples": self._samples.spare(_oldest(now_s)), "explained": self._explained.spare(b"")}
            added = []
            with self._file.begin(write=True) as txn:
                for name, keys in spare.items():
                    for key in keys:
                        txn.delete(key, db=self._databases[name])
                for name, record, spans in new:
                    self._number = (self._number + 1) % 2**32
                    key = KEY.pack(now_ms, self._number)
                    txn.put(key, record, db=self._databases[name])
                    added.append((self._explained if spans else self._samples, key, spans or len(record)))
            self._samples.drop(len(spare["samples"]))
            self._explained.drop(len(spare["explained"]))
            for kept, key, weight in added:
                kept.add(key, weight)

    def close(self) -> None:
        """Give up the file; may be called twice."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def merged(records: Sequence[Samples]) -> Samples:
    """All of them with one block for each series, which is taken in much faster; without what their clocks said."""
    series: dict[tuple[object, ...], list[Block]] = {}
    devices: dict[tuple[object, ...], Device] = {}
    for record in records:
        for block in record.blocks:
            series.setdefault(tuple(_scalars(block).values()), []).append(block)
        devices.update(((device.hosts, device.gpu), device) for device in record.devices)
    blocks = [
        replace(
            parts[0],
            times_ns=np.concatenate([one.times_ns for one in parts]),
            values=np.concatenate([one.values for one in parts]),
        )
        for parts in series.values()
    ]
    return Samples(blocks, list(devices.values()))


# -- beside a running gateway ------------------------------------------------------------------------------------------


def files(directory: Path) -> list[Path]:
    """The journals below a gateway's data directory."""
    return [file.parent for file in sorted(directory.glob(f"components/pipelines/*/*/{DIRECTORY}/data.mdb"))]


def latest(directory: Path, window_s: float) -> list[tuple[int, Samples]]:
    """The samples of a journal that came in the last seconds before its newest one, with the times in ns at which they
    came, the oldest first. Raises lmdb.Error.
    """
    found: list[tuple[int, Samples]] = []
    with _beside(directory, b"samples") as cursor:
        if cursor is None or not cursor.last():
            return []
        first_ms = KEY.unpack(cursor.key())[0] - int(window_s * 1000)
        if cursor.set_range(KEY.pack(max(0, first_ms), 0)):
            found += [(KEY.unpack(key)[0] * 1_000_000, one) for key, value in cursor for one in _decoded(bytes(value))]
    return found


def explained(directory: Path, trace_id: bytes) -> list[dict[str, Any]]:
    """What a journal tells of the spans of one trace, the oldest first. Raises lmdb.Error."""
    with _beside(directory, b"explained") as cursor:
        return [] if cursor is None else [told for _, value in cursor for told in _of_trace(bytes(value), trace_id)]


@contextmanager
def _beside(directory: Path, name: bytes) -> Iterator[lmdb.Cursor | None]:
    """A cursor in a journal that another process has open; None if it has no such part yet."""
    with lmdb.open(str(directory), readonly=True, max_dbs=2) as env, env.begin() as txn:
        try:
            database = env.open_db(name, txn=txn, create=False)
        except lmdb.NotFoundError:
            yield None
            return
        with txn.cursor(database) as cursor:
            yield cursor


# -- records -----------------------------------------------------------------------------------------------------------


def _oldest(now_s: float) -> bytes:
    """The first key that is young enough."""
    return KEY.pack(max(0, int((now_s - GPU_JOURNAL_S) * 1000)), 0)


def encode_incomplete(incomplete: Incomplete, at_ms: int) -> bytes:
    """A line of JSON, then ids and codes."""
    head = {"at_ms": at_ms, "count": len(incomplete), "told": incomplete.told}
    ids, codes = _bytes(incomplete.ids, ">i8"), _bytes(incomplete.codes, "<i4")
    return b"".join((json.dumps(head, separators=(",", ":")).encode(), b"\n", ids, codes))


def _of_trace(record: bytes, trace_id: bytes) -> Iterable[dict[str, Any]]:
    if trace_id not in record:
        return []
    line, _, arrays = bytes(record).partition(b"\n")
    try:
        head = json.loads(line)
        count = int(head["count"])
        codes = np.frombuffer(arrays, "<i4", count, ID_BYTES * count).tolist()
        spans = [arrays[row * ID_BYTES : (row + 1) * ID_BYTES] for row in range(count)]
        return [
            {"span_id": span[16:].hex(), **head["told"][code], "at_ms": head["at_ms"]}
            for span, code in zip(spans, codes, strict=True)
            if span.startswith(trace_id)
        ]
    except (ValueError, TypeError, KeyError, IndexError):
        return []


def _count(record: bytes) -> int:
    """Of how many spans a record tells; a damaged one counts as one."""
    try:
        return max(1, int(json.loads(bytes(record).partition(b"\n")[0])["count"]))
    except (ValueError, TypeError, KeyError):
        return 1


def encode(samples: Samples) -> bytes:
    """A line of JSON, then the arrays."""
    head = {
        "blocks": [{**_scalars(one), "count": len(one.values)} for one in samples.blocks],
        "devices": [_scalars(one) for one in samples.devices],
        "sent": [[list(hosts), sent_ns] for hosts, sent_ns in samples.sent_ns],
    }
    arrays = [part for one in samples.blocks for part in (_bytes(one.times_ns, "<i8"), _bytes(one.values, "<f8"))]
    return b"".join((json.dumps(head, separators=(",", ":")).encode(), b"\n", *arrays))


def _scalars(one: Block | Device) -> dict[str, Any]:
    return {each.name: getattr(one, each.name) for each in fields(one) if each.name not in ARRAYS}


def _bytes(array: np.ndarray[Any, Any], kind: str) -> bytes:
    return np.ascontiguousarray(array, kind).tobytes()


def _decoded(record: bytes) -> list[Samples]:
    """A record's samples; none if it is damaged: the power may have failed while it was written."""
    try:
        return [decode(record)]
    except (ValueError, TypeError, KeyError):
        return []


def decode(record: bytes) -> Samples:
    """Raises ValueError, TypeError or KeyError if the record is damaged."""
    line, _, arrays = bytes(record).partition(b"\n")
    head = json.loads(line)
    blocks = []
    offset = 0
    for told in head["blocks"]:
        count = told.pop("count")
        times_ns = np.frombuffer(arrays, "<i8", count, offset)
        values = np.frombuffer(arrays, "<f8", count, offset + 8 * count)
        offset += 16 * count
        known = {**told, "hosts": tuple(told["hosts"]), "quantity": Quantity(told["quantity"])}
        blocks.append(Block(**known, times_ns=times_ns, values=values))
    devices = [Device(**{**told, "hosts": tuple(told["hosts"])}) for told in head["devices"]]
    return Samples(blocks, devices, [(tuple(hosts), sent_ns) for hosts, sent_ns in head["sent"]])
