"""The GPU samples of the last minutes in a file: after a restart spans are joined with what came before it, and
`otel-pipeline gpu` reads them beside a running gateway.

    samples     time of arrival in ms, number -> one serialized Samples
    explained   trace id, span id -> why a span has no or not all GPU data, as JSON; the newest EXPLAINED_MAX

Trouble with the file costs the memory over a restart, nothing else.
"""

from __future__ import annotations

import json
import logging
import struct
import threading
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import lmdb
import numpy as np

from otel_pipeline.gpu.ingest import Block, Device, Samples
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.limits import GPU_EXPLAINED_MAX, GPU_JOURNAL_BYTES_MAX, GPU_JOURNAL_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

KEY: Final = struct.Struct(">QI")
ARRAYS: Final = frozenset({"times_ns", "values"})
DIRECTORY: Final = "gpu"
FILE_ERRORS: Final = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError)
PRUNED_MAX: Final = 1_000
"""Entries that one write deletes: a burst must not make the next write long."""


class Journal:
    """The open file. For one thread at a time; a lock keeps a write that goes on beside a cancelled task apart."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._file: lmdb.Environment | None = None
        self._databases: dict[str, Any] = {}
        self._number = 0

    def load(self, now_s: float) -> list[tuple[int, Samples]]:
        """Open the file; the samples in it that are young enough, with the times in ns at which they came."""
        with self._lock:
            self._file = self._open()
            if self._file is None:
                return []
            self._databases = {name: self._file.open_db(name.encode()) for name in ("samples", "explained")}
            oldest = KEY.pack(max(0, int((now_s - GPU_JOURNAL_S) * 1000)), 0)
            with self._file.begin(db=self._databases["samples"]) as txn, txn.cursor() as cursor:
                found = list(cursor) if cursor.set_range(oldest) else []
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

    def write(self, now_s: float, samples: Sequence[Samples], explained: Mapping[bytes, Mapping[str, Any]]) -> None:
        """Add what came, forget what is old. Raises lmdb.Error."""
        with self._lock:
            if self._file is None:
                return
            with self._file.begin(write=True) as txn:
                for one in samples:
                    self._number = (self._number + 1) % 2**32
                    key = KEY.pack(int(now_s * 1000), self._number)
                    txn.put(key, encode(one), db=self._databases["samples"])
                for key, told in explained.items():
                    txn.put(key, json.dumps(told).encode(), db=self._databases["explained"])
                self._prune(txn, KEY.pack(max(0, int((now_s - GPU_JOURNAL_S) * 1000)), 0))

    def _prune(self, txn: lmdb.Transaction, oldest: bytes) -> None:
        with txn.cursor(self._databases["samples"]) as cursor:
            for _ in range(PRUNED_MAX):
                if not cursor.first() or bytes(cursor.key()) >= oldest:
                    break
                cursor.delete()
        database = self._databases["explained"]
        spare = txn.stat(database)["entries"] - GPU_EXPLAINED_MAX
        if spare > 0:
            with txn.cursor(database) as cursor:
                aged = sorted((json.loads(bytes(value)).get("at_ms", 0), bytes(key)) for key, value in cursor)
            for _, key in aged[: spare + GPU_EXPLAINED_MAX // 10]:
                txn.delete(key, db=database)

    def close(self) -> None:
        """Give up the file; may be called twice."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def read_beside(directory: Path, trace_id: str = "") -> tuple[list[Samples], list[dict[str, Any]]]:
    """What the journals below a gateway's data directory hold: the samples, and what is told of one trace."""
    samples: list[Samples] = []
    told: list[dict[str, Any]] = []
    for file in sorted(directory.glob(f"components/*/*/{DIRECTORY}/data.mdb")):
        with lmdb.open(str(file.parent), readonly=True, max_dbs=2, lock=True) as env, env.begin() as txn:
            names = {bytes(key) for key, _ in txn.cursor()}
            for name in names & {b"samples", b"explained"}:
                database = env.open_db(name, txn=txn, create=False)
                with txn.cursor(database) as cursor:
                    if name == b"samples":
                        samples += [one for _, value in cursor for one in _decoded(value)]
                    elif trace_id and cursor.set_range(bytes.fromhex(trace_id)):
                        told += _of_trace(cursor, bytes.fromhex(trace_id))
    return samples, told


def _of_trace(cursor: lmdb.Cursor, trace_id: bytes) -> Iterator[dict[str, Any]]:
    for key, value in cursor:
        if not bytes(key).startswith(trace_id):
            break
        yield json.loads(bytes(value))


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
