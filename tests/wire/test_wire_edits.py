"""Edits have the effect of the same edits on protobuf objects; later reads see them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from otel_pipeline.wire.batch import Batch, Constants, How
from otel_pipeline.wire.kernel import Kernel
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import Scalar, any_value
from tests.wire.messages import KEYS, TEXTS, Writer, delimited, parsed, randoms, request_of
from tests.wire.oracle import EXCEPTION_KEYS, check_columns, expected, numbered, rows_of

SCALARS: Final[tuple[Scalar, ...]] = (
    "", "text", "日本" * 40, True, False, 0, 1, -5, 2**63 - 1, 2**63, 0.5, 1.0, float("nan"),
)  # fmt: skip
HOWS: Final[tuple[How, ...]] = ("upsert", "insert", "update")


class Twin:
    """A batch and the same request as protobuf objects; each edit is made to both."""

    def __init__(self, batch: Batch, random: Random) -> None:
        self.batch = batch
        self.message = parsed(batch.signal, batch.data)
        self._random = random
        self._rows = list(rows_of(self.message))
        self._number = batch.signal.value.attributes_field
        self._edits: list[Callable[[], None]] = [
            self._set_scalar, self._set_constants, self._set_doubles, self._delete, self._set_name, self._set_resource,
            self._delete_resource,
        ]  # fmt: skip
        if batch.signal is Signal.TRACES:
            self._edits += [self._set_status, self._set_exception]
        if batch.signal is Signal.LOGS:
            self._edits.append(self._set_body)

    def edit(self) -> None:
        """One random edit."""
        self._random.choice(self._edits)()

    def drop(self) -> None:
        """Drop random rows, all, or none; with the last row of a scope or a group these go too."""
        share = self._random.choice((0.0, 0.3, 0.7, 1.0))
        mask = np.array([self._random.random() < share for _ in self._rows], np.bool_)
        items = [row.items for row in expected(self.batch.signal, self.message)]
        assert self.batch.drop(mask) == sum(count for count, gone in zip(items, mask, strict=True) if gone)
        assert self.batch.drop(mask) == 0
        assert self.batch.items() == sum(count for count, gone in zip(items, mask, strict=True) if not gone)
        left = iter((~mask).tolist())
        for group in numbered(self.message, 1):
            for scope in numbered(group, 2):
                _keep(numbered(scope, 2), [next(left) for _ in numbered(scope, 2)])

    def drop_empty(self, before: Any) -> None:
        """Remove the scopes and groups that had rows in the message `before` and have none now."""
        kept_groups = []
        for group, old in zip(numbered(self.message, 1), numbered(before, 1), strict=True):
            counts = [len(numbered(scope, 2)) for scope in numbered(group, 2)]
            old_counts = [len(numbered(scope, 2)) for scope in numbered(old, 2)]
            _keep(numbered(group, 2), [now > 0 or not was for now, was in zip(counts, old_counts, strict=True)])
            kept_groups.append(any(counts) or not any(old_counts))
        _keep(numbered(self.message, 1), kept_groups)

    # -- single edits --------------------------------------------------------------------------------------------------

    def _mask(self) -> Any:
        share = self._random.choice((0.2, 0.8, 1.0))
        return np.array([self._random.random() < share for _ in self._rows], np.bool_)

    def _codes(self, values: Sequence[Any]) -> Any:
        return np.array([self._random.randint(-1, len(values) - 1) for _ in self._rows], np.int32)

    def _write(self, key: str, values: Sequence[Scalar | None], how: How) -> None:
        for (_, _, row), value in zip(self._rows, values, strict=True):
            pairs = numbered(row, self._number)
            found = [pair for pair in pairs if pair.key == key]
            if value is None or (how == "insert" and found) or (how == "update" and not found):
                continue
            pair = found[0] if found else pairs.add()
            pair.Clear()
            pair.key = key
            pair.value.CopyFrom(any_value(value))

    def _set_scalar(self) -> None:
        key, value, how = self._random.choice(KEYS), self._random.choice(SCALARS), self._random.choice(HOWS)
        mask = self._mask()
        self.batch.set(key, value, None if mask.all() and self._random.random() < 0.5 else mask, how)
        self._write(key, [value if chosen else None for chosen in mask], how)

    def _set_constants(self) -> None:
        key, how = self._random.choice(KEYS), self._random.choice(HOWS)
        values = self._random.sample(SCALARS, 3)
        codes, mask = self._codes(values), self._mask()
        self.batch.set(key, Constants(codes, values), mask, how)
        self._write(
            key, [values[code] if code >= 0 and on else None for code, on in zip(codes, mask, strict=True)], how
        )

    def _set_doubles(self) -> None:
        key, how = self._random.choice(KEYS), self._random.choice(HOWS)
        values, mask = np.array([self._random.gauss(0, 1e9) for _ in self._rows]), self._mask()
        self.batch.set(key, values, mask, how)
        self._write(key, [float(one) if on else None for one, on in zip(values, mask, strict=True)], how)

    def _delete(self) -> None:
        key, mask = self._random.choice(KEYS), self._mask()
        self.batch.delete(key, None if mask.all() else mask)
        for (_, _, row), chosen in zip(self._rows, mask, strict=True):
            if chosen:
                _keep(numbered(row, self._number), [pair.key != key for pair in numbered(row, self._number)])

    def _set_name(self) -> None:
        values = self._random.sample(TEXTS, 3)
        codes = self._codes(values)
        self.batch.set_name(Constants(codes, values))
        for (_, _, row), code in zip(self._rows, codes, strict=True):
            if code >= 0:
                setattr(row, "event_name" if self.batch.signal is Signal.LOGS else "name", values[code])

    def _set_status(self) -> None:
        values = [(0, ""), (1, "fine"), (2, "müde")]
        codes = self._codes(values)
        self.batch.set_status(codes, values)
        for (_, _, row), code in zip(self._rows, codes, strict=True):
            if code >= 0:
                row.status.CopyFrom(Status(code=values[code][0], message=values[code][1]))

    def _set_body(self) -> None:
        values = self._random.sample(SCALARS, 3)
        codes = self._codes(values)
        self.batch.set_body(Constants(codes, values))
        for (_, _, row), code in zip(self._rows, codes, strict=True):
            if code >= 0:
                row.body.CopyFrom(any_value(values[code]))

    def _set_exception(self) -> None:
        values = [(self._random.choice(TEXTS), self._random.choice(TEXTS), "") for _ in range(2)] + [("", "", "s")]
        codes = self._codes(values)
        self.batch.set_exception(codes, values)
        for (_, _, row), code in zip(self._rows, codes, strict=True):
            event = next((event for event in row.events if event.name == "exception"), None)
            if code < 0 or event is None:
                continue
            for key, new in zip(EXCEPTION_KEYS, values[code], strict=True):
                pairs = [pair for pair in event.attributes if pair.key == key]
                now = [pair.value.string_value for pair in pairs if pair.value.HasField("string_value")]
                text = new or next(iter(now), "")
                for pair in (pairs or [event.attributes.add(key=key)]) if text else ():
                    pair.value.string_value = text

    def _set_resource(self) -> None:
        key, value, how = self._random.choice(KEYS), self._random.choice(SCALARS), self._random.choice(HOWS)
        self.batch.set_resource(key, value, how)
        for group in numbered(self.message, 1):
            found = [pair for pair in group.resource.attributes if pair.key == key]
            if (how == "insert" and found) or (how == "update" and not found):
                continue
            for pair in found[1:]:
                group.resource.attributes.remove(pair)
            pair = found[0] if found else group.resource.attributes.add()
            pair.CopyFrom(KeyValue(key=key))
            pair.value.CopyFrom(any_value(value))

    def _delete_resource(self) -> None:
        key = self._random.choice(KEYS)
        self.batch.delete_resource(key)
        for group in numbered(self.message, 1):
            if any(pair.key == key for pair in group.resource.attributes):
                _keep(group.resource.attributes, [pair.key != key for pair in group.resource.attributes])


def _keep(repeated: Any, wanted: Sequence[bool]) -> None:
    """Leave only some elements of a repeated message field."""
    for place in reversed(range(len(wanted))):
        if not wanted[place]:
            del repeated[place]


def canonical(signal: Signal, message: Any) -> bytes:
    """A message with the attributes of rows, events and resources in order of their keys."""
    copy = signal.value.request.FromString(message.SerializeToString())
    for group in numbered(copy, 1):
        if group.HasField("resource"):
            for pair in group.resource.attributes:
                pair.key_strindex = 0  # a pair that is removed and set again loses it with us later than with the twin
            group.resource.attributes.sort(key=lambda pair: pair.key)
    for _, _, row in rows_of(copy):
        numbered(row, signal.value.attributes_field).sort(key=lambda pair: pair.key)
        for event in row.events if signal is Signal.TRACES else ():
            event.attributes.sort(key=lambda pair: pair.key)
    serialized: bytes = copy.SerializeToString(deterministic=True)
    return serialized


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("signal", Signal)
@given(random=randoms)
def test_edits_are_those_of_protobuf_objects(kernel: Kernel, signal: Signal, odd: bool, random: Random) -> None:  # noqa: FBT001
    writer = Writer(random, odd=odd)
    batch, _ = BatchReader(signal, KEYS, kernel).read([writer.request(signal) for _ in range(random.randint(1, 2))])
    twin = Twin(batch, random)
    for _ in range(random.randint(1, 5)):
        twin.edit()
        check_columns(batch, expected(signal, twin.message), KEYS)
    before = parsed(signal, twin.message.SerializeToString())
    if random.random() < 0.5:
        twin.drop()
    twin.drop_empty(before)
    assert canonical(signal, parsed(signal, bytes(batch.encode()))) == canonical(signal, twin.message)


def test_a_column_of_numbers_has_no_text_to_test(kernel: Kernel) -> None:
    """A test of texts never meets the values of another type that were set."""
    batch, _ = BatchReader(Signal.TRACES, KEYS, kernel).read([request_of(b"", b"")])
    batch.set("a", 5, np.array([True, False]))
    assert batch.strings("a").where(lambda text: len(text) > 3).tolist() == [False, False]
    assert batch.numbers("a")[0] == 5.0


def test_equal_numbers_of_other_types_stay_apart(kernel: Kernel) -> None:
    batch, _ = BatchReader(Signal.TRACES, KEYS, kernel).read([request_of(b"", b"", b"")])
    batch.set("a", Constants(np.array([0, 1, 2], np.int32), (1, 1.0, True)))
    batch.set_resource("b", 1)
    batch.set_resource("b", value=True)
    message = parsed(Signal.TRACES, bytes(batch.encode()))
    members = [span.attributes[0].value.WhichOneof("value") for _, _, span in rows_of(message)]
    assert members == ["int_value", "double_value", "bool_value"]
    assert message.resource_spans[0].resource.attributes[0].value.WhichOneof("value") == "bool_value"


def test_a_second_edit_of_an_exception_keeps_the_first(kernel: Kernel) -> None:
    event = delimited(2, b"exception") + delimited(
        3, delimited(1, b"exception.type") + delimited(2, delimited(1, b"E"))
    )
    batch, _ = BatchReader(Signal.TRACES, (), kernel).read([request_of(delimited(11, event), b"")])
    batch.set_exception(np.array([0, 0], np.int32), [("", "secret", "")])
    batch.set_exception(np.array([0, -1], np.int32), [("F", "", "stack")])
    assert [part.at(0) for part in batch.exception()] == ["F", "secret", "stack"]
    again, _ = BatchReader(Signal.TRACES, (), kernel).read([bytes(batch.encode())])
    assert [part.at(0) for part in again.exception()] == ["F", "secret", "stack"]
    assert [part.at(1) for part in again.exception()] == ["", "", ""]


@pytest.mark.parametrize("signal", [Signal.LOGS, Signal.METRICS])
def test_what_a_signal_does_not_have_cannot_be_set(kernel: Kernel, signal: Signal) -> None:
    batch, _ = BatchReader(signal, (), kernel).read([request_of(b"")])
    codes = np.zeros(1, np.int32)
    with pytest.raises(ValueError, match="have no status"):
        batch.set_status(codes, [(2, "")])
    with pytest.raises(ValueError, match="have no exception"):
        batch.set_exception(codes, [("a", "b", "c")])


def test_an_attribute_that_was_not_asked_for_is_a_mistake(kernel: Kernel) -> None:
    batch, _ = BatchReader(Signal.TRACES, ["a"], kernel).read([request_of(b"")])
    with pytest.raises(KeyError, match="was not asked for"):
        batch.strings("b")
    with pytest.raises(KeyError, match="was not asked for"):
        batch.set("b", 1)
