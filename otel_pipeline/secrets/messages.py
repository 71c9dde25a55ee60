"""Removes secrets from decoded protobuf messages, whatever their type: every string that the descriptors know."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_pipeline.limits import REDACTION_HEAD_CHARS
from otel_pipeline.secrets.texts import Finder, Replacer

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline.secrets.rules import Kind

UNDECIDED: Final = "undecided"
"""The kind of what was removed because a rule broke."""
CUT: Final = "cut"
USER: Final = "user"


class Cleaner:
    """Cleans messages in place. `count` hears of each removal, by kind."""

    def __init__(
        self,
        finder: Finder,
        replacer: Replacer,
        denial: Callable[[str], Kind | None],
        is_user: Callable[[str], bool],
        *,
        value_bytes_max: int,
        count: Callable[[str, int], None],
    ) -> None:
        self._finder = finder
        self._replacer = replacer
        self._denial = denial
        self._is_user = is_user
        self._value_bytes_max = value_bytes_max
        self._count = count

    def is_plain(self, key: str) -> bool:
        """Whether an attribute with this key is no more than its value."""
        try:
            return self._denial(key) is None and not self._is_user(key) and not self._finder.find(key)
        except Exception:  # noqa: BLE001  fails closed: the attribute is looked at in full
            return False

    def text(self, text: str) -> str:
        """A text without its secrets; the same object if there are none."""
        try:
            found = self._finder.find(text)
        except Exception:  # noqa: BLE001  fails closed: what a rule cannot judge goes
            self._count(UNDECIDED, 1)
            return self._replacer.mark(UNDECIDED, text)
        if not found:
            return text
        for one in found:
            self._count(one.kind, 1)
        return self._replacer.without(text, found)

    def message(self, message: Any) -> bool:
        """Clean a message and all in it; whether anything changed."""
        if isinstance(message, KeyValue):
            return self._pair(message)
        if isinstance(message, AnyValue):
            return self._value(message)
        changed = False
        for field, value in message.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                changed |= _each(self.message, value) if field.is_repeated else self.message(value)
            elif field.type == FieldDescriptor.TYPE_STRING:
                changed |= self._strings(value) if field.is_repeated else self._string(message, field.name, value)
        return changed

    def _string(self, message: Any, name: str, text: str) -> bool:
        clean = self.text(text)
        if clean is not text:
            setattr(message, name, clean)
        return clean is not text

    def _strings(self, texts: Any) -> bool:
        clean = [self.text(text) for text in texts]
        changed = any(new is not old for new, old in zip(clean, texts, strict=True)) and clean != list(texts)
        if changed:
            texts[:] = clean
        return changed

    def _pair(self, pair: KeyValue) -> bool:
        key = pair.key
        kind = self._denial(key)
        clean = self.text(key)
        if clean is not key:
            pair.key = clean
        if kind and self._is_filled(pair.value):
            pair.value.CopyFrom(AnyValue(string_value=self._replacer.mark(kind, _as_text(pair.value))))
            self._count(kind, 1)
            return True
        if self._is_user(key) and self._is_filled(pair.value):
            pair.value.CopyFrom(AnyValue(string_value=self._replacer.pseudonym(_as_text(pair.value))))
            self._count(USER, 1)
            return True
        return self._value(pair.value) or clean is not key

    def _is_filled(self, value: AnyValue) -> bool:
        """Whether there is anything to hide: not in an empty value, a bool, or what was replaced before."""
        which = value.WhichOneof("value")
        if which == "string_value":
            return bool(value.string_value) and not value.string_value.startswith(("[redacted:", "user-"))
        return which not in {None, "bool_value"}

    def _value(self, value: AnyValue) -> bool:
        which = value.WhichOneof("value")
        if which == "string_value":
            text = value.string_value
            clean = self._cut(self.text(text), text)
            if clean is not text:
                value.string_value = clean
            return clean is not text
        if which == "bytes_value":
            return self._bytes(value)
        if which == "array_value":
            return _each(self._value, value.array_value.values)
        if which == "kvlist_value":
            return _each(self._pair, value.kvlist_value.values)
        return False

    def _bytes(self, value: AnyValue) -> bool:
        raw = value.bytes_value
        text = raw.decode("latin-1")
        clean = self.text(text)
        if clean is not text:
            value.bytes_value = raw = clean.encode("latin-1")
        if len(raw) > self._value_bytes_max:
            value.string_value = self._cut_mark(raw)
            return True
        return clean is not text

    def _cut(self, clean: str, original: str) -> str:
        """A value that is too large as its head, its length and its SHA-256."""
        if len(clean) * 4 <= self._value_bytes_max:
            return clean
        raw = original.encode()
        if len(raw) <= self._value_bytes_max:
            return clean
        return f"{clean[:REDACTION_HEAD_CHARS]}{self._cut_mark(raw)}"

    def _cut_mark(self, raw: bytes) -> str:
        self._count(CUT, 1)
        return f"[cut:bytes={len(raw)} sha256={hashlib.sha256(raw).hexdigest()}]"


def _each(clean: Callable[[Any], bool], items: Any) -> bool:
    """Clean all of them; whether any changed."""
    return sum(map(clean, items)) > 0


def _as_text(value: AnyValue) -> str:
    if value.WhichOneof("value") == "string_value":
        return value.string_value
    return value.SerializeToString(deterministic=True).decode("latin-1")
