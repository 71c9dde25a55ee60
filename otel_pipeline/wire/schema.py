"""What the kernel must know of the OTLP messages: for each field of each message, how it is encoded.

The table is flat: `KINDS[message * 32 + field]` is one of the codes below. Field numbers are those of
opentelemetry-proto 1.10; a field that is not in the table is unknown: it is skipped and copied, as protobuf demands.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

UNKNOWN: Final = 0
VARINT: Final = 1
FIXED64: Final = 2
FIXED32: Final = 3
BYTES: Final = 4
STRING: Final = 5
TRACE_ID: Final = 6
SPAN_ID: Final = 7
PACKED_FIXED64: Final = 8
PACKED_VARINT: Final = 9
REPEATED: Final = 16
"""16 + message: a repeated submessage."""
SINGULAR: Final = 80
"""80 + message: a submessage that stands at most once (twice is legal, means "merge", and is normalised first)."""

FIELDS_MAX: Final = 32


class Message(IntEnum):
    """The OTLP messages that the kernel walks. The first two have code of their own, the rest goes by the table."""

    ANY_VALUE = 0
    KEY_VALUE = 1
    ARRAY = 2
    KVLIST = 3
    SCOPE = 4
    RESOURCE = 5
    ENTITY_REF = 6
    STATUS = 7
    EVENT = 8
    LINK = 9
    SPAN = 10
    LOG_RECORD = 11
    METRIC = 12
    GAUGE = 13
    SUM = 14
    HISTOGRAM = 15
    EXP_HISTOGRAM = 16
    SUMMARY = 17
    EXEMPLAR = 18
    BUCKETS = 19
    QUANTILE = 20
    # Data points come last: the kernel counts what is walked from here on.
    NUMBER_POINT = 21
    HISTOGRAM_POINT = 22
    EXP_HISTOGRAM_POINT = 23
    SUMMARY_POINT = 24


POINTS_FROM: Final = int(Message.NUMBER_POINT)

_M = Message


def _many(message: Message) -> int:
    return REPEATED + message


def _one(message: Message) -> int:
    return SINGULAR + message


_FIELDS: Final[dict[Message, dict[int, int]]] = {
    _M.ANY_VALUE: {
        1: STRING, 2: VARINT, 3: VARINT, 4: FIXED64, 5: _one(_M.ARRAY), 6: _one(_M.KVLIST), 7: BYTES, 8: VARINT,
    },
    _M.KEY_VALUE: {1: STRING, 2: _one(_M.ANY_VALUE), 3: VARINT},
    _M.ARRAY: {1: _many(_M.ANY_VALUE)},
    _M.KVLIST: {1: _many(_M.KEY_VALUE)},
    _M.SCOPE: {1: STRING, 2: STRING, 3: _many(_M.KEY_VALUE), 4: VARINT},
    _M.RESOURCE: {1: _many(_M.KEY_VALUE), 2: VARINT, 3: _many(_M.ENTITY_REF)},
    _M.ENTITY_REF: {1: STRING, 2: STRING, 3: STRING, 4: STRING},
    _M.STATUS: {2: STRING, 3: VARINT},
    _M.EVENT: {1: FIXED64, 2: STRING, 3: _many(_M.KEY_VALUE), 4: VARINT},
    _M.LINK: {1: TRACE_ID, 2: SPAN_ID, 3: STRING, 4: _many(_M.KEY_VALUE), 5: VARINT, 6: FIXED32},
    _M.SPAN: {
        1: TRACE_ID, 2: SPAN_ID, 3: STRING, 4: SPAN_ID, 5: STRING, 6: VARINT, 7: FIXED64, 8: FIXED64,
        9: _many(_M.KEY_VALUE), 10: VARINT, 11: _many(_M.EVENT), 12: VARINT, 13: _many(_M.LINK), 14: VARINT,
        15: _one(_M.STATUS), 16: FIXED32,
    },
    _M.LOG_RECORD: {
        1: FIXED64, 2: VARINT, 3: STRING, 5: _one(_M.ANY_VALUE), 6: _many(_M.KEY_VALUE), 7: VARINT, 8: FIXED32,
        9: TRACE_ID, 10: SPAN_ID, 11: FIXED64, 12: STRING,
    },
    _M.METRIC: {
        1: STRING, 2: STRING, 3: STRING, 5: _one(_M.GAUGE), 7: _one(_M.SUM), 9: _one(_M.HISTOGRAM),
        10: _one(_M.EXP_HISTOGRAM), 11: _one(_M.SUMMARY), 12: _many(_M.KEY_VALUE),
    },
    _M.GAUGE: {1: _many(_M.NUMBER_POINT)},
    _M.SUM: {1: _many(_M.NUMBER_POINT), 2: VARINT, 3: VARINT},
    _M.HISTOGRAM: {1: _many(_M.HISTOGRAM_POINT), 2: VARINT},
    _M.EXP_HISTOGRAM: {1: _many(_M.EXP_HISTOGRAM_POINT), 2: VARINT},
    _M.SUMMARY: {1: _many(_M.SUMMARY_POINT)},
    _M.EXEMPLAR: {2: FIXED64, 3: FIXED64, 4: SPAN_ID, 5: TRACE_ID, 6: FIXED64, 7: _many(_M.KEY_VALUE)},
    _M.BUCKETS: {1: VARINT, 2: PACKED_VARINT},
    _M.QUANTILE: {1: FIXED64, 2: FIXED64},
    _M.NUMBER_POINT: {
        2: FIXED64, 3: FIXED64, 4: FIXED64, 5: _many(_M.EXEMPLAR), 6: FIXED64, 7: _many(_M.KEY_VALUE), 8: VARINT,
    },
    _M.HISTOGRAM_POINT: {
        2: FIXED64, 3: FIXED64, 4: FIXED64, 5: FIXED64, 6: PACKED_FIXED64, 7: PACKED_FIXED64, 8: _many(_M.EXEMPLAR),
        9: _many(_M.KEY_VALUE), 10: VARINT, 11: FIXED64, 12: FIXED64,
    },
    _M.EXP_HISTOGRAM_POINT: {
        1: _many(_M.KEY_VALUE), 2: FIXED64, 3: FIXED64, 4: FIXED64, 5: FIXED64, 6: VARINT, 7: FIXED64,
        8: _one(_M.BUCKETS), 9: _one(_M.BUCKETS), 10: VARINT, 11: _many(_M.EXEMPLAR), 12: FIXED64, 13: FIXED64,
        14: FIXED64,
    },
    _M.SUMMARY_POINT: {
        2: FIXED64, 3: FIXED64, 4: FIXED64, 5: FIXED64, 6: _many(_M.QUANTILE), 7: _many(_M.KEY_VALUE), 8: VARINT,
    },
}  # fmt: skip


def _table() -> bytes:
    table = bytearray(len(Message) * FIELDS_MAX)
    for message, fields in _FIELDS.items():
        for field, kind in fields.items():
            table[message * FIELDS_MAX + field] = kind
    return bytes(table)


KINDS: Final = _table()
