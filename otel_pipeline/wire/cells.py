"""The kernel's tables, as both sides of the fence see them: which int64 cell of a row holds what.

A row is a Span, a LogRecord or a Metric; a scope is a ScopeSpans (ScopeLogs, ScopeMetrics); a group is a ResourceSpans
(ResourceLogs, ResourceMetrics). `*_AT` is the offset of a field's tag, the bare name the offset where its payload
starts, and `*_END` the offset behind it, all in the batch's bytes. `*_AT` is 0 for a field that is absent: no field of
a row, a scope or a group can stand at offset 0, since the tag of its group stands there.
"""

from __future__ import annotations

from typing import Final

# Every row.
AT: Final = 0
START: Final = 1
END: Final = 2
SCOPE: Final = 3
GROUP: Final = 4
INVALID: Final = 5
"""How many ids in the row have a length that is not allowed."""
POINTS: Final = 6
"""Data points of a metric."""
TRACE_HI: Final = 7
TRACE_LO: Final = 8
SPAN_ID: Final = 9
PARENT_ID: Final = 10
NAME_AT: Final = 11
"""Span and metric: name. Log record: event name. Three cells: at, start, end."""
KIND: Final = 14
"""Span kind; severity number of a log record."""
TIME: Final = 15
"""Start of a span, time of a log record, ns since 1970."""
END_TIME: Final = 16
"""End of a span, observed time of a log record."""
STATUS_AT: Final = 17
"""Three cells: at, start, end."""
STATUS_CODE: Final = 20
STATUS_MESSAGE: Final = 21
STATUS_MESSAGE_END: Final = 22
FLAGS: Final = 23
EVENT_AT: Final = 24
"""The first exception event: at, end; then type, message and stack trace with two cells each."""
EVENT_END: Final = 25
EXCEPTION: Final = 26
# Log records use the cells of a span's status and event for what only they have.
BODY_AT: Final = 17
BODY_TYPE: Final = 20
BODY_A: Final = 21
BODY_B: Final = 22
SEVERITY_TEXT_AT: Final = 24

WIDTH: Final = 32
"""Cells before the requested attributes. Of these the first is always empty."""

# A requested attribute: field number of its AnyValue member (0: empty or absent), where the KeyValue stands, and its
# value: A and B are the offsets of a string, bytes, array or kvlist; A holds a number, a double by its bits.
ATTRIBUTE: Final = 5
A_TYPE: Final = 0
A_AT: Final = 1
A_END: Final = 2
A_A: Final = 3
A_B: Final = 4

# Scopes.
SCOPE_WIDTH: Final = 9
S_AT: Final = 0
S_START: Final = 1
S_END: Final = 2
S_GROUP: Final = 3
S_ROWS: Final = 4
S_ROWS_END: Final = 5
S_INNER_AT: Final = 6
"""The InstrumentationScope (in a group: the Resource): at, start, end."""

# Groups.
GROUP_WIDTH: Final = 9
G_SCOPES: Final = 4
G_SCOPES_END: Final = 5
G_INNER_AT: Final = 6

# Types of an attribute's value: the field numbers of AnyValue.
T_STRING: Final = 1
T_BOOL: Final = 2
T_INT: Final = 3
T_DOUBLE: Final = 4
T_ARRAY: Final = 5
T_KVLIST: Final = 6
T_BYTES: Final = 7
