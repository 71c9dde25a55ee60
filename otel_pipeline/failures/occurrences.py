"""The record that a processed batch leaves of its failures: which groups they belong to, and when and where each
happened. Bytes only.

A record is a line of JSON, which names the groups and services, and behind it a table of little-endian 64-bit numbers,
one row an occurrence. So a batch of thousands of equal failures costs no Python time for each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from otel_pipeline.limits import (
    FAILURE_NAME_CHARS_MAX,
    OCCURRENCE_HEADER_BYTES_MAX,
    OCCURRENCE_MESSAGE_CHARS_MAX,
    ROWS_MAX,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Table = npt.NDArray[np.int64]

VERSION: Final = 1
COLUMNS: Final = ("group", "service", "time_ns", "trace_hi", "trace_lo", "span_id")
"""Of the table: places in the two lists (service: -1 for none), and numbers whose 64 bits are meant, so that ids may
look negative."""
GROUP, SERVICE, TIME_NS, TRACE_HI, TRACE_LO, SPAN_ID = range(len(COLUMNS))
ROW_BYTES: Final = 8 * len(COLUMNS)
NUMBER: Final = np.dtype("<i8")


@dataclass(frozen=True, slots=True)
class Group:
    """What failures of one fingerprint have in common, and how one of them looked."""

    fingerprint: str
    """Empty for a failure that was not looked at in full."""
    name: str
    """The class."""
    rule: str
    retryable: bool
    fault: str
    exception_type: str
    message: str
    span_name: str


FIELDS: Final = tuple(field.name for field in fields(Group))
KINDS: Final = [bool if name == "retryable" else str for name in FIELDS]


@dataclass(frozen=True, slots=True)
class Occurrences:
    """A record that was read."""

    groups: list[Group]
    services: list[str]
    table: Table
    """One row an occurrence; its columns stand in COLUMNS."""


def encode(groups: Sequence[Group], services: Sequence[str], table: Table) -> bytes:
    """The record of one batch. Texts are cut to what a store takes."""
    head = {
        "version": VERSION,
        "rows": len(table),
        "groups": [[getattr(group, name) for name in FIELDS] for group in map(shortened, groups)],
        "services": [_text(service, FAILURE_NAME_CHARS_MAX) for service in services],
    }
    line = json.dumps(head, separators=(",", ":"))
    return line.encode("ascii") + b"\n" + np.ascontiguousarray(table, NUMBER).tobytes()


def decode(record: bytes) -> Occurrences:
    """Raises ValueError if the record is damaged or of another version."""
    end = record.find(b"\n", 0, OCCURRENCE_HEADER_BYTES_MAX)
    if end < 0:
        raise ValueError("the record has no first line")
    head = _head(record[:end])
    groups, services, rows = _groups(head.get("groups")), _services(head.get("services")), head.get("rows")
    if not isinstance(rows, int) or not 0 <= rows <= ROWS_MAX or len(record) != end + 1 + rows * ROW_BYTES:
        raise ValueError(f"the table has {len(record) - end - 1} bytes; its first line says {rows} rows")
    table = np.frombuffer(record, NUMBER, offset=end + 1).reshape(rows, len(COLUMNS))
    _check(table[:, GROUP], 0, len(groups), "group")
    _check(table[:, SERVICE], -1, len(services), "service")
    return Occurrences(groups, services, table)


def shortened(group: Group) -> Group:
    """The same with texts that any store takes: of bounded length, without NUL and halves of characters."""
    name, message = FAILURE_NAME_CHARS_MAX, OCCURRENCE_MESSAGE_CHARS_MAX
    texts = (
        group.fingerprint,
        group.name,
        group.rule,
        group.fault,
        group.exception_type,
        group.message,
        group.span_name,
    )
    together = "".join(texts)
    if len(together) <= message and together.isprintable():
        return group
    return Group(
        _text(group.fingerprint, name),
        _text(group.name, name),
        _text(group.rule, name),
        group.retryable,
        _text(group.fault, name),
        _text(group.exception_type, name),
        _text(group.message, message),
        _text(group.span_name, name),
    )


def _text(text: str, chars_max: int) -> str:
    text = text[:chars_max]
    if text.isprintable():
        return text
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _head(line: bytes) -> dict[str, Any]:
    try:
        head = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("the record's first line is no JSON") from error
    if not isinstance(head, dict):
        raise ValueError("the record's first line is no object")  # noqa: TRY004  one error for all damage
    if head.get("version") != VERSION:
        raise ValueError(f"the record has version {head.get('version')!r}; known: {VERSION}")
    return head


def _groups(listed: object) -> list[Group]:
    if not isinstance(listed, list) or len(listed) > ROWS_MAX:
        raise ValueError("the record's groups are no list")
    return [_group(values) for values in listed]


def _group(values: object) -> Group:
    if not isinstance(values, list) or len(values) != len(FIELDS):
        raise ValueError(f"a group of the record has not {len(FIELDS)} values")
    if [type(value) for value in values] != KINDS:
        raise ValueError("a group of the record has values of wrong types")
    return shortened(Group(*values))


def _services(listed: object) -> list[str]:
    if not isinstance(listed, list) or not all(isinstance(service, str) for service in listed):
        raise ValueError("the record's services are no list of texts")
    return [_text(service, FAILURE_NAME_CHARS_MAX) for service in listed]


def _check(places: Table, low: int, end: int, what: str) -> None:
    if len(places) and (places.min() < low or places.max() >= end):
        raise ValueError(f"a row of the record names a {what} that is not listed")
