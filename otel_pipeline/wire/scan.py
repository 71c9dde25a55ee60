"""From requests to a `Batch`: joins the requests of several callers, scans them, and tells whose bytes were no OTLP.

This is where the variant of the kernel is chosen. `COMPILED` says which one runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError

from otel_pipeline.errors import NewKey, Uncanonical, WireError
from otel_pipeline.wire import cells
from otel_pipeline.wire.batch import Batch
from otel_pipeline.wire.edits import EXCEPTION_KEYS
from otel_pipeline.wire.kernel import COMPILED, Kernel, kernel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_pipeline.wire.signal import Signal

__all__ = ["COMPILED", "BatchReader", "Part"]

KEY_BYTES_MAX: Final = 255
"""The longest attribute key that the scanner looks for."""


class Part:
    """What became of one request of a batch: its rows, or the reason why it has none."""

    __slots__ = ("crowded_out", "error", "invalid", "items")

    def __init__(self) -> None:
        self.error: WireError | None = None
        self.crowded_out = False
        """Whether the reason is that the requests before it left too little room (`ROWS_MAX`): alone it may pass."""
        self.items = 0
        """Spans, log records or data points in it, the invalid ones too."""
        self.invalid = 0
        """Those of them that no backend would take (an id of a wrong length); their rows are dropped."""


class BatchReader:
    """Scans requests of one signal. Its tables are used again: a batch is valid until the next `read`.

    `attributes` are the keys whose columns the processors will ask for.
    """

    def __init__(self, signal: Signal, attributes: Iterable[str] = (), variant: Kernel | None = None) -> None:
        self._signal = signal
        self._variant = variant or kernel()
        self._normalised: list[bool] = []
        wanted = [key for key in dict.fromkeys(attributes) if key not in EXCEPTION_KEYS]
        self._keys = (*EXCEPTION_KEYS, *wanted)
        spec = signal.value
        names = tuple(key.encode() for key in self._keys)
        self._columns = dict.fromkeys(self._keys, cells.WIDTH)
        """Key -> cell of its column; the first is an empty one for all that have not occurred."""
        if max(map(len, names)) > KEY_BYTES_MAX:
            raise ValueError(f"an attribute key of more than {KEY_BYTES_MAX} bytes")
        self._scanner = self._variant.scanner(int(spec.row_message), spec.slots, names)

    def read(self, requests: Sequence[bytes]) -> tuple[Batch, list[Part]]:
        """One batch of all requests that are OTLP, and for each request, in order, what became of it."""
        parts = [Part() for _ in requests]
        bodies = list(requests)
        self._normalised = [False] * len(bodies)
        while not self._scan(bodies, parts):
            bodies = [b"" if part.error else body for body, part in zip(bodies, parts, strict=True)]
        rows, scopes, groups = self._scanner.tables()
        told = (self._columns, self._variant)
        return Batch(self._signal, self._scanner.data, (rows, scopes, groups), *told), parts

    def _scan(self, bodies: list[bytes], parts: list[Part]) -> bool:
        """Scan all bodies. False if one was refused or had to be normalised, so that all must be joined anew."""
        clean = True
        scanner = self._scanner
        scanner.reset(bodies[0] if len(bodies) == 1 else b"".join(bodies))
        start = 0
        first = 0
        for index, body in enumerate(bodies):
            end = start + len(body)
            try:
                scanner.add(start, end)
            except WireError as error:
                parts[index].error = error
                parts[index].crowded_out = bool(scanner.full and scanner.group_count)
                clean = False
            except NewKey:
                self._widen()
                return False
            except Uncanonical:
                self._normalise(index, bodies, parts)
                clean = False
            else:
                first = self._count(parts[index], first)
            start = end
        return clean

    def _widen(self) -> None:
        """Columns for attributes that had not occurred so far."""
        places = self._scanner.widen().tolist()
        columns = (cells.WIDTH + cells.ATTRIBUTE * place for place in places)
        self._columns = dict(zip(self._keys, columns, strict=True))

    def _count(self, part: Part, first: int) -> int:
        last = int(self._scanner.row_count)
        part.items, part.invalid = self._scanner.count(first, last)
        return last

    def _normalise(self, index: int, bodies: list[bytes], parts: list[Part]) -> None:
        """Let protobuf merge what stands twice; of equal attribute keys the first stays, as in the Collector."""
        if self._normalised[index]:
            parts[index].error = WireError("fields that stand twice", 0)
            return
        self._normalised[index] = True
        spec = self._signal.value
        try:
            request = spec.request.FromString(bodies[index])
        except DecodeError:
            parts[index].error = WireError("no protobuf message", 0)
            return
        for group in _field(request, 1):
            for scope in _field(group, 2):
                for row in _field(scope, 2):
                    _keep_first(_field(row, spec.attributes_field))
        bodies[index] = request.SerializeToString()


def _field(message: Any, number: int) -> Any:  # whatever message it is
    return getattr(message, message.DESCRIPTOR.fields_by_number[number].name)


def _keep_first(pairs: Any) -> None:
    seen: set[str] = set()
    kept = []
    for pair in pairs:
        if pair.key not in seen:
            seen.add(pair.key)
            kept.append(pair)
    if len(kept) < len(pairs):
        copies = [type(pair).FromString(pair.SerializeToString()) for pair in kept]
        del pairs[:]
        pairs.extend(copies)
