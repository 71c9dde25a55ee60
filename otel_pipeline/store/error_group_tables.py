"""Error groups in the store: tables, states, and what is told of a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import sqlalchemy as sa

from otel_pipeline.store.database import METADATA

State = Literal["open", "resolved", "ignored", "regressed"]
OPEN: Final = "open"
RESOLVED: Final = "resolved"
IGNORED: Final = "ignored"
REGRESSED: Final = "regressed"
"""Was resolved, and happened again after that."""
STATES: Final = (OPEN, RESOLVED, IGNORED, REGRESSED)

OVERFLOW: Final = "overflow"
"""Fingerprint of the group for failures that have no group of their own."""
OVERFLOW_SERVICE: Final = "__overflow__"

ERROR_GROUP: Final = sa.Table(
    "error_group",
    METADATA,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False, unique=True),
    sa.Column("class", sa.Text, key="class_", nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("retryable", sa.Boolean, nullable=False),
    sa.Column("fault", sa.Text, nullable=False),
    sa.Column("exception_type", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("span_name", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("state_changed_ms", sa.BigInteger, nullable=False),
    sa.Column("resolved_ms", sa.BigInteger),
    sa.Column("first_seen_ms", sa.BigInteger, nullable=False),
    sa.Column("first_trace_id", sa.Text, nullable=False),
    sa.Column("first_span_id", sa.Text, nullable=False),
    sa.Column("last_seen_ms", sa.BigInteger, nullable=False),
    sa.Column("last_trace_id", sa.Text, nullable=False),
    sa.Column("last_span_id", sa.Text, nullable=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("traces", sa.BigInteger, nullable=False),
    sa.Column("services", sa.BigInteger, nullable=False),
)
"""Times are UTC in milliseconds since 1970; ids are hexadecimal, empty for none. `count` is of distinct spans, `traces`
of distinct traces: an exception that passes through three nested spans counts three and one."""

ERROR_GROUP_SERVICE: Final = sa.Table(
    "error_group_service",
    METADATA,
    sa.Column("group_id", sa.BigInteger, sa.ForeignKey("error_group.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("first_seen_ms", sa.BigInteger, nullable=False),
    sa.Column("last_seen_ms", sa.BigInteger, nullable=False),
)

OCCURRENCE: Final = sa.Table(
    "occurrence",
    METADATA,
    sa.Column("key", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("noted_ms", sa.BigInteger, nullable=False),
)
"""The memory of what was counted: 64-bit digests of (fingerprint, trace, span) and of (fingerprint, trace), see
error_sums.py."""


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """One group as the store has it."""

    id: int
    fingerprint: str
    class_: str
    rule: str
    retryable: bool
    fault: str
    exception_type: str
    message: str
    span_name: str
    state: State
    state_changed_ms: int
    resolved_ms: int | None
    first_seen_ms: int
    first_trace_id: str
    first_span_id: str
    last_seen_ms: int
    last_trace_id: str
    last_span_id: str
    count: int
    traces: int
    services: int


@dataclass(frozen=True, slots=True)
class GroupService:
    """How often a group was seen in one service."""

    service: str
    count: int
    first_seen_ms: int
    last_seen_ms: int
