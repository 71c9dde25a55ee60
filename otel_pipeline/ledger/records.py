"""The record that a processed batch leaves for the ledger: its spans with what was charged for them, and GPUs that were
seen. Bytes only.

A record is a line of JSON, which lists distinct facts, verdicts and texts, and behind it columns of little-endian
numbers, one column after another. So thousands of spans that are alike cost no Python time for each. What differs from
job to job (the job's id, its user) is a column of its own: facts are few, and the same from batch to batch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from otel_pipeline.limits import (
    LEDGER_DIMENSIONS_MAX,
    LEDGER_FIELDS_MAX,
    LEDGER_HEADER_BYTES_MAX,
    LEDGER_PRESENCE_MAX,
    LEDGER_SPAN_GPUS_MAX,
    LEDGER_TEXT_CHARS_MAX,
    ROWS_MAX,
)
from otel_pipeline.wire.batch import ABSENT, Codes, Ints, Strings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

VERSION: Final = 2
KINDS: Final = ("job", "stage", "prompt", "node", "call", "other")
"""What a span is: a job (one attempt of it), one of its stages, a ComfyUI prompt or node, a call of a model, or
anything else, which is there because it may stand between two that matter."""
NUMBERS: Final = ("trace_hi", "trace_lo", "span", "parent", "start_ns", "end_ns", "nano", "reported_nano", "energy_mj")
TEXTS: Final = ("job", "user", "reported_currency")
VERDICT: Final = ("currency", "basis", "price_id", "status", "reason", "asked")
"""What stands on a span about its cost, and by what the price of a call was looked up besides its fact, a JSON object
(see `Offers`); empty where nothing is said."""
INT64: Final = np.dtype("<i8")
INT32: Final = np.dtype("<i4")
ROW_BYTES: Final = INT64.itemsize * len(NUMBERS) + INT32.itemsize * (2 + len(TEXTS))
"""Without quantities."""
UNKNOWN: Final = -1
"""In `reported_nano`, `energy_mj` and `share`."""
SHARE_END: Final = 2**20
MINUTES_END: Final = 2**40
MS_END: Final = 2**42
"""The year 2109: as ns it still has 64 bits."""
MJ_END: Final = 2**62


@dataclass(frozen=True, slots=True)
class Fact:
    """What many spans have in common. Texts are empty where nothing is known.

    gpus:       ids of the GPUs that the span ran on; none if it used none, or if it is not known which
    outcome:    of the job; empty on spans that are no job
    failed:     the span's status is an error
    share:      how much of its GPUs it had, see ledger/shares.py; -1 if nobody told
    claims:     whether it uses its GPUs
    dimensions: pairs of key and value, as configured, in the configured order
    """

    service: str = ""
    host: str = ""
    gpus: tuple[str, ...] = ()
    gpu_name: str = ""
    region: str = ""
    provider: str = ""
    model: str = ""
    backend: str = ""
    workflow: str = ""
    tier: str = ""
    job_type: str = ""
    attempt: int = 1
    outcome: str = ""
    failed: bool = False
    share: int = UNKNOWN
    kind: str = "other"
    claims: bool = False
    dimensions: tuple[tuple[str, str], ...] = ()


FACT_FIELDS: Final = tuple(one.name for one in fields(Fact))
_PLAIN_TEXTS: Final = tuple(
    index
    for index, name in enumerate(FACT_FIELDS)
    if name not in ("gpus", "attempt", "failed", "share", "claims", "dimensions")
)
_GPUS, _ATTEMPT, _KIND, _DIMENSIONS = map(FACT_FIELDS.index, ("gpus", "attempt", "kind", "dimensions"))
_SHARE: Final = FACT_FIELDS.index("share")
_BOOLS: Final = (FACT_FIELDS.index("failed"), FACT_FIELDS.index("claims"))


@dataclass(frozen=True, slots=True)
class Spans:
    """Columns of equal length, a row a span.

    Ids are 64 bits each and may look negative; a parent of 0 is none. Times are ns since 1970, start <= end. `nano` is
    the direct charge in n$ where `status` is final, free or provisional, else 0; a provisional one is an estimate of
    the span's time on a GPU, which the allocation replaces. `reported_nano` is what the sender said the span cost.
    Text columns have ABSENT where there is no text, `verdict` where nothing is said. `used` has a line for each of
    `fields`, names of quantities, with what was priced, UNKNOWN where nothing was: int64 (fields, spans).
    """

    facts: list[Fact]
    fact: Codes
    verdicts: list[tuple[str, ...]]
    """As in VERDICT."""
    verdict: Codes
    trace_hi: Ints
    trace_lo: Ints
    span: Ints
    parent: Ints
    start_ns: Ints
    end_ns: Ints
    nano: Ints
    reported_nano: Ints
    energy_mj: Ints
    job: Strings
    user: Strings
    reported_currency: Strings
    fields: tuple[str, ...]
    used: Ints

    def __len__(self) -> int:
        return len(self.fact)

    def quantities(self) -> Strings:
        """What each span used as a JSON object; what is unknown is left out."""
        codes = np.full(len(self), ABSENT, np.int32)
        known = (1 << np.arange(len(self.fields))) @ (self.used >= 0)
        texts: dict[str, int] = {}
        for pattern in np.unique(known[known > 0]).tolist():
            rows = np.flatnonzero(known == pattern)
            places = [place for place in range(len(self.fields)) if pattern >> place & 1]
            template = "{" + ",".join(f'"{self.fields[place]}":%d' for place in places) + "}"
            told = [template % row for row in zip(*(self.used[place, rows].tolist() for place in places), strict=True)]
            codes[rows] = [texts.setdefault(text, len(texts)) for text in told]
        return Strings(codes, list(texts))


@dataclass(frozen=True, slots=True)
class Presence:
    """A GPU that sent samples in these minutes (unix time / 60, ascending), and what its price is looked up by: the
    fields of a price book's subject. `hosts` are all names of its machine, the first is the one that facts use.
    `energy` are readings of its counters: who counts, ms since 1970, and mJ since some start.
    """

    hosts: tuple[str, ...]
    gpu: str
    name: str = ""
    minutes: tuple[int, ...] = ()
    provider: str = ""
    region: str = ""
    pod: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    energy: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was read."""

    spans: Spans | None = None
    presence: list[Presence] = field(default_factory=list)


def encode(spans: Spans | None, presence: Sequence[Presence] = (), facts: Sequence[str] | None = None) -> bytes:
    """The record of one batch. Texts are cut to what a store takes. `facts` are the facts by `fact_text`, if known."""
    head: dict[str, Any] = {"version": VERSION, "rows": 0 if spans is None else len(spans)}
    if presence:
        head["presence"] = [_presence_values(one) for one in presence]
    if spans is None:
        return _line(head) + b"\n"
    head["texts"] = [all_kept(getattr(spans, name).values) for name in TEXTS]
    head["verdicts"] = _all_kept_together(spans.verdicts)
    head["fields"] = spans.fields
    told = ",".join(map(fact_text, spans.facts) if facts is None else facts)
    first = b"".join((_line(head)[:-1], b',"facts":[', told.encode("ascii"), b"]}\n"))
    numbers = [np.asarray(getattr(spans, name), INT64).tobytes() for name in NUMBERS]
    codes = [spans.fact, spans.verdict, *(getattr(spans, name).codes for name in TEXTS)]
    columns = (np.asarray(each, INT32).tobytes() for each in codes)
    return b"".join((first, *numbers, np.asarray(spans.used, INT64).tobytes(), *columns))


def fact_text(fact: Fact) -> str:
    """A fact as it stands in the record's first line."""
    values = [getattr(fact, name) for name in FACT_FIELDS]
    for index in _PLAIN_TEXTS:
        values[index] = kept(values[index])
    values[_GPUS] = all_kept(fact.gpus[:LEDGER_SPAN_GPUS_MAX])
    values[_DIMENSIONS] = _pairs(fact.dimensions)
    return _line(values).decode()


def decode(record: bytes) -> Record:
    """Raises ValueError if the record is damaged or of another version."""
    end = record.find(b"\n", 0, LEDGER_HEADER_BYTES_MAX)
    if end < 0:
        raise ValueError("the record has no first line")
    head = _head(record[:end])
    rows = head.get("rows")
    fields = _texts(_listed(head.get("fields", []), LEDGER_FIELDS_MAX, "names of quantities"))
    row_bytes = ROW_BYTES + INT64.itemsize * len(fields)
    if not isinstance(rows, int) or not 0 <= rows <= ROWS_MAX or len(record) != end + 1 + rows * row_bytes:
        raise ValueError(f"the columns of the record have {len(record) - end - 1} bytes; it says {rows} rows")
    presence = [_presence(values) for values in _listed(head.get("presence", []), LEDGER_PRESENCE_MAX, "presence")]
    if "facts" not in head and not rows:
        return Record(None, presence)
    return Record(_spans(head, record, end + 1, rows, tuple(fields)), presence)


def kept(text: str) -> str:
    """The text as any store takes it: of bounded length, without NUL and halves of characters."""
    text = text[:LEDGER_TEXT_CHARS_MAX]
    if text.isprintable():
        return text
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def all_kept(texts: Sequence[str]) -> list[str]:
    """The same for several."""
    if "".join(texts).isprintable() and max(map(len, texts), default=0) <= LEDGER_TEXT_CHARS_MAX:
        return list(texts)
    return [kept(text) for text in texts]


def _all_kept_together(texts: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """The same for several at the cost of one look."""
    flat = [text for one in texts for text in one]
    if "".join(flat).isprintable() and max(map(len, flat), default=0) <= LEDGER_TEXT_CHARS_MAX:
        return texts
    return [all_kept(one) for one in texts]


# -- writing -----------------------------------------------------------------------------------------------------------


def _line(values: object) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode("ascii")


def _presence_values(one: Presence) -> list[Any]:
    texts = [kept(text) for text in (one.gpu, one.name, one.provider, one.region, one.pod)]
    hosts = [kept(host) for host in one.hosts[:LEDGER_DIMENSIONS_MAX]]
    energy = [[kept(source), at_ms, mj] for source, at_ms, mj in one.energy]
    return [hosts, *texts, _pairs(one.attributes), list(one.minutes), energy]


def _pairs(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    return [[kept(key), kept(value)] for key, value in pairs][:LEDGER_DIMENSIONS_MAX]


# -- reading -----------------------------------------------------------------------------------------------------------


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


def _spans(head: dict[str, Any], record: bytes, at: int, rows: int, fields: tuple[str, ...]) -> Spans:
    facts = [_fact(values) for values in _listed(head.get("facts"), ROWS_MAX, "facts")]
    verdicts = [tuple(_texts(values)) for values in _listed(head.get("verdicts"), ROWS_MAX, "verdicts")]
    if any(len(verdict) != len(VERDICT) for verdict in verdicts):
        raise ValueError(f"a verdict of the record has not {len(VERDICT)} texts")
    texts = [_texts(values) for values in _listed(head.get("texts"), len(TEXTS), "texts")]
    if len(texts) != len(TEXTS):
        raise ValueError(f"the record has {len(texts)} columns of texts, not {len(TEXTS)}")
    numbers: dict[str, Ints] = {}
    for name in NUMBERS:
        numbers[name] = np.frombuffer(record, INT64, rows, at)
        at += rows * INT64.itemsize
    used = np.frombuffer(record, INT64, rows * len(fields), at).reshape(len(fields), rows)
    at += used.nbytes
    codes: list[Codes] = []
    for size, low in ((len(facts), 0), (len(verdicts), ABSENT), *((len(values), ABSENT) for values in texts)):
        column = np.frombuffer(record, INT32, rows, at)
        at += rows * INT32.itemsize
        if rows and (column.min() < low or column.max() >= size):
            raise ValueError("a row of the record names a fact, a verdict or a text that is not listed")
        codes.append(column)
    if (numbers["start_ns"] > numbers["end_ns"]).any():
        raise ValueError("a span of the record ends before it starts")
    columns: dict[str, Any] = dict(numbers)
    for name, column, values in zip(TEXTS, codes[2:], texts, strict=True):
        columns[name] = Strings(column, values)
    return Spans(facts, codes[0], verdicts, codes[1], fields=fields, used=used, **columns)


def _fact(values: object) -> Fact:
    if not isinstance(values, list) or len(values) != len(FACT_FIELDS):
        raise ValueError(f"a fact of the record has not {len(FACT_FIELDS)} values")
    whole = all(isinstance(values[index], str) for index in _PLAIN_TEXTS) and values[_KIND] in KINDS
    whole = whole and all(isinstance(values[index], bool) for index in _BOOLS) and _is_count(values[_ATTEMPT])
    whole = whole and (values[_SHARE] == UNKNOWN or _is_below(values[_SHARE], SHARE_END))
    if not whole:
        raise ValueError("a fact of the record has values of wrong types")
    values = list(values)
    for index in _PLAIN_TEXTS:
        values[index] = kept(values[index])
    values[_GPUS] = tuple(_texts(_listed(values[_GPUS], LEDGER_SPAN_GPUS_MAX, "GPUs")))
    values[_DIMENSIONS] = _read_pairs(values[_DIMENSIONS])
    return Fact(*values)


def _presence(values: object) -> Presence:
    if not isinstance(values, list) or len(values) != 9:
        raise ValueError("a GPU of the record has not 9 values")
    hosts, *texts, attributes, minutes, energy = values
    gpu, name, provider, region, pod = _texts(texts)
    told = _listed(minutes, LEDGER_PRESENCE_MAX, "minutes")
    if not all(_is_count(minute) for minute in told):
        raise ValueError("a minute of the record is no number of a minute")
    named = tuple(_texts(_listed(hosts, LEDGER_DIMENSIONS_MAX, "hosts")))
    readings = tuple(_reading(one) for one in _listed(energy, LEDGER_PRESENCE_MAX, "readings"))
    return Presence(named, gpu, name, tuple(told), provider, region, pod, _read_pairs(attributes), readings)


def _reading(values: object) -> tuple[str, int, int]:
    if not isinstance(values, list) or len(values) != 3:
        raise ValueError("a reading of the record has not 3 values")
    (source,), (at_ms, mj) = _texts(values[:1]), values[1:]
    if not (_is_below(at_ms, MS_END) and _is_below(mj, MJ_END)):
        raise ValueError("a reading of the record has a number that is none")
    return source, at_ms, mj


def _read_pairs(listed: object) -> tuple[tuple[str, str], ...]:
    pairs = [_texts(pair) for pair in _listed(listed, LEDGER_DIMENSIONS_MAX, "pairs")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("a pair of the record has not two texts")
    return tuple((key, value) for key, value in pairs)


def _texts(listed: object) -> list[str]:
    texts = _listed(listed, ROWS_MAX, "texts")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("the record has a text that is none")
    return all_kept(texts)


def _listed(values: object, size_max: int, what: str) -> list[Any]:
    if not isinstance(values, list) or len(values) > size_max:
        raise ValueError(f"the record's {what} are no list of at most {size_max}")
    return values


def _is_count(value: object) -> bool:
    return _is_below(value, MINUTES_END)


def _is_below(value: object, end: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < end
