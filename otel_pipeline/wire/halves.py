"""A request cut in two, for a backend that takes less at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline.wire.scan import BatchReader

if TYPE_CHECKING:
    from otel_pipeline.wire.signal import Signal


def halves(signal: Signal, request: bytes) -> list[tuple[bytes, int]]:
    """A request in two halves by rows, each with its item count; fewer than two if it has but one row."""
    parts = []
    reader = BatchReader(signal)
    count = len(reader.read([request])[0])
    for first, last in ((0, count // 2), (count // 2, count)):
        batch, _ = reader.read([request])
        outside = batch.keep.copy()
        outside[first:last] = False
        batch.drop(outside)
        if last > first:
            parts.append((bytes(batch.encode()), batch.items()))
    return parts
