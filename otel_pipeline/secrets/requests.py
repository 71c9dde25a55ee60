"""Removes secrets from serialized OTLP requests, and opens only what may hold one.

Theory: the sieve walks the bytes and hands out the texts that were not seen before, in one buffer, and the keys that
were not. One search over that buffer tells which attributes, values and texts are suspects. The rewriter follows the
descriptors from the request downwards, skips from length to length, and goes into those fields alone that have a
suspect in them. Only suspects are decoded. What changed is encoded again and the lengths around it are fixed; all
other bytes are copied, fields of a later OTLP too. Without any change the request itself is returned. What was not
suspected, or proved to be harmless, is told to the sieve.
"""

from __future__ import annotations

from bisect import bisect_left
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from google.protobuf.message import DecodeError, EncodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_pipeline.errors import WireError
from otel_pipeline.secrets import layouts
from otel_pipeline.secrets.layouts import TEXT
from otel_pipeline.secrets.messages import UNDECIDED
from otel_pipeline.wire.values import varint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_pipeline.secrets.layouts import Layout
    from otel_pipeline.secrets.messages import Cleaner
    from otel_pipeline.secrets.texts import Finder
    from otel_pipeline.wire.signal import Signal

_Bytes: TypeAlias = "bytes | memoryview"
_LENGTH: Final = 2
_MARK: Final = AnyValue(string_value=f"[redacted:{UNDECIDED}]")


class RequestCleaner:
    """Cleans the requests of all signals. `count` hears of each removal, by kind."""

    def __init__(self, finder: Finder, cleaner: Cleaner, sieve: Any, count: Callable[[str, int], None]) -> None:
        self._finder = finder
        self._cleaner = cleaner
        self._sieve = sieve
        self._count = count
        self._roots = layouts.table()[1]
        self._lock = Lock()

    def rewrite(self, signal: Signal, request: bytes) -> bytes:
        """The request without its secrets; the same object if there are none. Raises WireError for what is no OTLP."""
        with self._lock:
            try:
                suspects = self._suspects(signal, request)
                pieces = self._inside(request, (0, len(request)), layouts.of(signal), suspects) if suspects else []
            except _Unusual:
                return self._whole(signal, request)
            self._sieve.remember()
            return b"".join(pieces) if pieces else request

    def _suspects(self, signal: Signal, request: bytes) -> list[int]:
        """Where those texts, attributes and values start that are to be looked at, in rising order."""
        sieve = self._sieve
        if not sieve.sift(request, self._roots[signal]):
            raise _Unusual
        if sieve.new_count:
            for unit, start, end in sieve.new_keys():
                if self._cleaner.is_plain(request[start:end].decode("utf-8", "replace")):
                    sieve.learn(start, end)
                else:
                    sieve.flag(unit)
        texts = sieve.new_texts()
        if texts:
            in_texts, in_runs = self._finder.places(texts), self._finder.run_places(sieve.new_runs())
            if in_texts is None or in_runs is None:
                raise _Unusual
            for place in in_texts:
                sieve.flag_text(place)
            for place in in_runs:
                sieve.flag_run(place)
        starts: list[int] = sieve.flagged()
        return starts

    def _whole(self, signal: Signal, request: bytes) -> bytes:
        """The same by decoding all of it: for a flood of suspects, and for what the sieve does not read."""
        self._sieve.sift(b"", 0)  # lets go of the request, and remembers nothing of it
        try:
            message = signal.value.request.FromString(request)
        except DecodeError:
            raise WireError("no protobuf message", 0) from None
        return bytes(message.SerializeToString()) if self._cleaner.message(message) else request

    def _inside(self, data: bytes, span: tuple[int, int], parts: Layout, suspects: list[int]) -> list[_Bytes]:
        """The pieces of a message whose parts are known, cleaned; none if nothing changed."""
        pieces: list[_Bytes] = []
        kept, end = span
        view = memoryview(data)
        for tag, start, body, stop in self._touched(span, suspects):
            part = parts.get(tag >> 3) if tag & 7 == _LENGTH else None
            if part is None:
                continue
            if isinstance(part, dict):
                new = self._inside(data, (body, stop), part, suspects)
            else:
                new = self._leaf(data[body:stop], part)
                if not new:
                    self._sieve.acquit(body)
            if new:
                pieces += [view[kept:start], varint(tag), varint(sum(map(len, new))), *new]
                kept = stop
        return [*pieces, view[kept:end]] if pieces else []

    def _touched(self, span: tuple[int, int], suspects: list[int]) -> Iterator[tuple[int, int, int, int]]:
        """Of the fields of a message those with a suspect in them: tag, start, start of the value, end."""
        at, end = span
        index = bisect_left(suspects, at)
        while index < len(suspects) and suspects[index] < end:
            field = self._sieve.around(at, end, suspects[index])
            if field is None:
                raise _Unusual
            yield field
            at = field[3]
            index = bisect_left(suspects, at, index)

    def _leaf(self, raw: bytes, part: Any) -> list[_Bytes]:
        """A text, an attribute or a value, cleaned; empty if nothing changed. One that cannot be decoded goes."""
        if part is TEXT:
            return self._text(raw)
        try:
            message = part.FromString(raw)
            return [message.SerializeToString()] if self._cleaner.message(message) else []
        except (DecodeError, EncodeError, RecursionError, ValueError, TypeError):
            self._count(UNDECIDED, 1)
            mark = _MARK if part is AnyValue else KeyValue(key=UNDECIDED, value=_MARK)
            return [mark.SerializeToString()]

    def _text(self, raw: bytes) -> list[_Bytes]:
        try:
            text, encoding = raw.decode(), "utf-8"
        except UnicodeDecodeError:
            text, encoding = raw.decode("latin-1"), "latin-1"  # comes back as it was, outside of what is found
        clean = self._cleaner.text(text)
        return [] if clean is text else [clean.encode(encoding)]


class _Unusual(Exception):
    """Bytes that the sieve does not read: left to protobuf's own decoder."""
