"""Adds up the occurrences of many records, by group and by service, before the store is asked anything. Pure.

Each occurrence has a key: 64 bits mixed from the fingerprint, the trace and the span, or the time where there is no
span. Equal keys are the same occurrence, told twice: by a sender's retry, or by a span and by the log record of the
same exception. Each trace of a group has a key likewise. Among a million keys that are remembered, a new one is taken
for an old one once in 10^13 times.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from otel_pipeline.failures.occurrences import (
    COLUMNS,
    GROUP,
    SERVICE,
    Group,
    Occurrences,
)
from otel_pipeline.store.error_group_tables import OVERFLOW

if TYPE_CHECKING:
    from collections.abc import Iterable

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

SPAN_SEED: Final = np.uint64(0x9E3779B97F4A7C15)
TRACE_SEED: Final = np.uint64(0xC2B2AE3D27D4EB4F)
NS_PER_MS: Final = 1_000_000


@dataclass(slots=True)
class Gathered:
    """Occurrences of many records with common numbers for fingerprints and services."""

    fingerprints: list[str]
    """In the order in which they came."""
    variants: list[Group]
    """How a group looked in one record."""
    services: list[str]
    group: Ints
    """For each occurrence a place in `fingerprints`."""
    variant: Ints
    service: Ints
    """-1: none."""
    time_ns: Ints
    trace_hi: Ints
    trace_lo: Ints
    span_id: Ints
    key: Ints
    trace_key: Ints

    def __len__(self) -> int:
        return len(self.key)

    def only(self, kept: Mask | Ints) -> Gathered:
        """Some of the occurrences."""
        columns = ("group", "variant", "service", "time_ns", "trace_hi", "trace_lo", "span_id", "key", "trace_key")
        return Gathered(
            self.fingerprints, self.variants, self.services, *(getattr(self, name)[kept] for name in columns)
        )

    def ids(self, row: int) -> tuple[str, str]:
        """Trace and span, hexadecimal; empty if there is none."""
        return _hex(int(self.trace_hi[row]), int(self.trace_lo[row])), _hex(int(self.span_id[row]))

    def place_of(self, fingerprint: str) -> int:
        """Its place in `fingerprints`, a new one if need be."""
        if fingerprint not in self.fingerprints:
            self.fingerprints.append(fingerprint)
        return self.fingerprints.index(fingerprint)


@dataclass(frozen=True, slots=True)
class Sum:
    """What a call adds to one group, or to one service of a group. Rows are places in Gathered."""

    count: int
    first_row: int
    last_row: int
    first_ms: int
    last_ms: int


@dataclass(slots=True)
class _Numbers:
    """Numbers for texts, in the order in which they come."""

    places: dict[str, int] = field(default_factory=dict)

    def of(self, text: str) -> int:
        return self.places.setdefault(text, len(self.places))


def gather(records: Iterable[Occurrences], now_ns: int) -> Gathered:
    """All occurrences, each once. A time that is unknown or in the future is now, but for what tells it from others."""
    fingerprints, services, variants = _Numbers(), _Numbers(), list[Group]()
    tables = [np.empty((0, len(COLUMNS) + 1), np.int64)]
    for record in records:
        groups = np.array([fingerprints.of(group.fingerprint or OVERFLOW) for group in record.groups], np.int64)
        named = np.array([*(services.of(service) for service in record.services), -1], np.int64)
        table = np.empty((len(record.table), len(COLUMNS) + 1), np.int64)
        table[:, :-1] = record.table
        table[:, -1] = record.table[:, GROUP] + len(variants)
        table[:, GROUP] = groups[record.table[:, GROUP]] if len(groups) else 0
        table[:, SERVICE] = named[record.table[:, SERVICE]]
        variants += record.groups
        tables.append(table)
    return _keyed(np.concatenate(tables), list(fingerprints.places), variants, list(services.places), now_ns)


def _keyed(table: Ints, fingerprints: list[str], variants: list[Group], services: list[str], now_ns: int) -> Gathered:
    group, service, told_ns, trace_hi, trace_lo, span_id, variant = table.T
    digests = np.array([_digest(fingerprint) for fingerprint in fingerprints] or [0], np.uint64)[group]
    lone = np.where(span_id == 0, told_ns, 0)
    key = _mixed(digests ^ SPAN_SEED, trace_hi, trace_lo, span_id, lone)
    # Where there is no trace each record stands for itself.
    traceless = np.where((trace_hi == 0) & (trace_lo == 0), key, 0)
    trace_key = _mixed(digests ^ TRACE_SEED, trace_hi, trace_lo, traceless)
    time_ns = np.where((told_ns <= 0) | (told_ns > now_ns), now_ns, told_ns)
    columns = (group, variant, service, time_ns, trace_hi, trace_lo, span_id, key, trace_key)
    gathered = Gathered(fingerprints, variants, services, *columns)
    _, first = np.unique(key, return_index=True)
    return gathered if len(first) == len(key) else gathered.only(np.sort(first))


def in_order(places: Ints) -> list[int]:
    """The distinct values in the order in which they came."""
    values, first = np.unique(places, return_index=True)
    listed: list[int] = values[np.argsort(first)].tolist()
    return listed


def sums(gathered: Gathered, *columns: Ints) -> dict[tuple[int, ...], Sum]:
    """Count, first and last occurrence for each combination of the columns' values, in the order in which those came.
    Equal times count in order of coming, too.
    """
    if not len(gathered):
        return {}
    order = np.lexsort((gathered.time_ns // NS_PER_MS, *reversed(columns)))
    differs = np.zeros(len(order), np.bool_)
    differs[0] = True
    for column in columns:
        differs[1:] |= np.diff(column[order]) != 0
    starts = np.flatnonzero(differs)
    ends = np.append(starts[1:], len(order))
    came = np.argsort(np.minimum.reduceat(order, starts))
    starts, ends = starts[came], ends[came]
    first, last = order[starts], order[ends - 1]
    found = zip(
        (ends - starts).tolist(),
        first.tolist(),
        last.tolist(),
        (gathered.time_ns[first] // NS_PER_MS).tolist(),
        (gathered.time_ns[last] // NS_PER_MS).tolist(),
        strict=True,
    )
    names = zip(*(column[first].tolist() for column in columns), strict=True)
    return {name: Sum(*numbers) for name, numbers in zip(names, found, strict=True)}


def _digest(fingerprint: str) -> int:
    return int.from_bytes(blake2b(fingerprint.encode(), digest_size=8).digest(), "little")


def _mixed(digest: Words, *columns: Ints) -> Ints:
    """The finalizer of splitmix64 after each word: every bit of the input changes half of the bits."""
    for column in columns:
        digest = digest + SPAN_SEED ^ column.astype(np.int64).view(np.uint64)
        digest = (digest ^ (digest >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        digest = (digest ^ (digest >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        digest ^= digest >> np.uint64(31)
    return digest.view(np.int64)


def _hex(*words: int) -> str:
    return "".join(f"{word & 0xFFFFFFFFFFFFFFFF:016x}" for word in words) if any(words) else ""
