"""The ledger's records: what is written can be read, and what is damaged is told."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_pipeline.ledger.plans import FIELDS
from otel_pipeline.ledger.records import (
    KINDS,
    NUMBERS,
    TEXTS,
    VERDICT,
    VERSION,
    Fact,
    Presence,
    Spans,
    decode,
    encode,
    kept,
)
from otel_pipeline.wire.batch import Strings

TEXT = st.text(st.characters(), max_size=12)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
NUMBER = st.integers(-(2**63), 2**63 - 1)
FACTS = st.builds(
    Fact,
    service=TEXT,
    host=TEXT,
    gpus=st.lists(TEXT, max_size=3).map(tuple),
    model=TEXT,
    attempt=st.integers(0, 9),
    failed=st.booleans(),
    share=st.integers(-1, 2**20 - 1),
    kind=st.sampled_from(KINDS),
    claims=st.booleans(),
    dimensions=PAIRS,
)
PRESENCE = st.builds(
    Presence,
    hosts=st.lists(TEXT, max_size=3).map(tuple),
    gpu=TEXT,
    name=TEXT,
    minutes=st.lists(st.integers(0, 2**33), max_size=4).map(tuple),
    provider=TEXT,
    region=TEXT,
    pod=TEXT,
    attributes=PAIRS,
)


def one_span(facts: list[Fact] | None = None, rows: int = 1, **texts: str) -> Spans:
    numbers = {name: np.arange(1, rows + 1, dtype=np.int64) for name in NUMBERS}
    columns = {
        name: Strings(np.full(rows, 0 if name in texts else -1, np.int32), [texts[name]] if name in texts else [])
        for name in TEXTS
    }
    told = {
        "verdicts": [("USD", "image", "p", "final", "", "")],
        "verdict": np.zeros(rows, np.int32),
        "fields": ("images",),
        "used": np.full((1, rows), 3, np.int64),
    }
    return Spans(facts=facts or [Fact()], fact=np.zeros(rows, np.int32), **told, **numbers, **columns)  # type: ignore[arg-type]


@st.composite
def spans(draw: st.DrawFn) -> Spans:
    rows = draw(st.integers(0, 4))
    facts = draw(st.lists(FACTS, min_size=1, max_size=3))
    numbers = {
        name: np.array(draw(st.lists(NUMBER, min_size=rows, max_size=rows)), np.int64).reshape(rows) for name in NUMBERS
    }
    numbers["end_ns"] = np.maximum(numbers["start_ns"], numbers["end_ns"])
    columns = {}
    for name in TEXTS:
        values = draw(st.lists(TEXT, max_size=3))
        codes = draw(st.lists(st.integers(-1, len(values) - 1), min_size=rows, max_size=rows))
        columns[name] = Strings(np.array(codes, np.int32).reshape(rows), values)
    fact = draw(st.lists(st.integers(0, len(facts) - 1), min_size=rows, max_size=rows))
    verdicts = draw(st.lists(st.tuples(*(TEXT for _ in VERDICT)), max_size=3))
    verdict = draw(st.lists(st.integers(-1, len(verdicts) - 1), min_size=rows, max_size=rows))
    named = draw(st.lists(st.sampled_from(FIELDS), max_size=3, unique=True))
    used = draw(st.lists(st.integers(-1, 2**53), min_size=rows * len(named), max_size=rows * len(named)))
    told = {
        "verdicts": verdicts,
        "verdict": np.array(verdict, np.int32).reshape(rows),
        "fields": tuple(named),
        "used": np.array(used, np.int64).reshape(len(named), rows),
    }
    return Spans(facts=facts, fact=np.array(fact, np.int32).reshape(rows), **told, **numbers, **columns)  # type: ignore[arg-type]


def mended(fact: Fact) -> Fact:
    texts = {one.name: getattr(fact, one.name) for one in fields(Fact)}
    plain = {name: kept(text) for name, text in texts.items() if isinstance(text, str)}
    pairs = tuple((kept(key), kept(value)) for key, value in fact.dimensions)
    return replace(fact, **plain, gpus=tuple(map(kept, fact.gpus)), dimensions=pairs)  # type: ignore[arg-type]


@settings(deadline=None)
@given(spans(), st.lists(PRESENCE, max_size=2))
def test_what_is_written_can_be_read(written: Spans, presence: list[Presence]) -> None:
    read = decode(encode(written, presence))
    assert read.spans is not None
    assert read.spans.facts == [mended(fact) for fact in written.facts]
    assert read.spans.fact.tolist() == written.fact.tolist()
    for name in NUMBERS:
        assert getattr(read.spans, name).tolist() == getattr(written, name).tolist(), name
    for name in TEXTS:
        column, original = getattr(read.spans, name), getattr(written, name)
        assert column.codes.tolist() == original.codes.tolist(), name
        assert column.values == [kept(text) for text in original.values], name
    assert read.spans.verdicts == [tuple(map(kept, verdict)) for verdict in written.verdicts]
    assert read.spans.verdict.tolist() == written.verdict.tolist()
    assert read.spans.fields == written.fields
    assert read.spans.used.tolist() == written.used.tolist()
    quantities = read.spans.quantities()
    for row in range(len(written)):
        known = {
            name: int(line[row]) for name, line in zip(written.fields, written.used, strict=True) if line[row] >= 0
        }
        assert json.loads(quantities.at(row) or "{}") == known
    assert [(len(one.hosts), one.minutes, len(one.attributes)) for one in read.presence] == [
        (len(one.hosts), one.minutes, len(one.attributes)) for one in presence
    ]


def test_a_record_may_hold_gpus_alone() -> None:
    place = ("runpod", "eu", "pod", (("cloud.platform", "x"),))
    seen = Presence(("h", "h.local"), "GPU-1", "NVIDIA L4", (7, 8), *place, energy=(("hw", 60_000, 5),))
    read = decode(encode(None, [seen]))
    assert read.spans is None
    assert read.presence == [seen]


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_texts_that_a_store_refuses_are_mended(text: str) -> None:
    read = decode(encode(one_span([Fact(service=text)], job=text), [Presence((text,), text)]))
    assert read.spans is not None
    for told in (
        read.spans.facts[0].service,
        read.spans.job.values[0],
        read.presence[0].gpu,
        read.presence[0].hosts[0],
    ):
        assert "\0" not in told
        assert told.encode()
        assert len(told) == 3


def test_a_long_text_is_cut() -> None:
    read = decode(encode(one_span([Fact(model="m" * 10_000)], user="u" * 10_000)))
    assert read.spans is not None
    assert (len(read.spans.facts[0].model), len(read.spans.user.values[0])) == (512, 512)


WHOLE: Final = encode(one_span([Fact(gpus=("g",), dimensions=(("k", "v"),))], 2, job="j"), [Presence(("h",), "g")])


def test_a_record_that_is_cut_anywhere_is_refused() -> None:
    for end in range(len(WHOLE)):
        with pytest.raises(ValueError, match="record"):
            decode(WHOLE[:end])
    with pytest.raises(ValueError, match="record"):
        decode(WHOLE + b"\0")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="record"):
        decode(data)


@settings(deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(place: int, value: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[place] = value
    try:
        read = decode(bytes(damaged))
    except ValueError:
        return
    assert read.spans is not None
    assert len(read.spans) == 2


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats(allow_nan=False),
        lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=30,
    ),
    st.sampled_from(["facts", "texts", "verdicts", "fields", "presence", "rows", "version"]),
)
def test_any_other_value_in_the_first_line_is_read_or_refused(value: object, key: str) -> None:
    line, _, columns = WHOLE.partition(b"\n")
    try:
        read = decode(json.dumps(json.loads(line) | {key: value}).encode() + b"\n" + columns)
    except ValueError:
        return
    assert read.spans is not None
    assert key in ("presence", "version", "rows", "texts", "facts", "verdicts", "fields")


FACT: Final = json.loads(WHOLE.partition(b"\n")[0])["facts"][0]
SEEN: Final = json.loads(WHOLE.partition(b"\n")[0])["presence"][0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": VERSION + 1}, "version"),
        ({"facts": None}, "facts are no list"),
        ({"facts": [["f"]]}, "not 18 values"),
        ({"facts": [[1, *FACT[1:]]]}, "wrong types"),
        ({"facts": [[*FACT[:-3], "strange", *FACT[-2:]]]}, "wrong types"),
        ({"facts": [[*FACT[:-1], [["k"]]]]}, "not two texts"),
        ({"facts": [[*FACT[:-1], ["k"]]]}, "no list"),
        ({"facts": []}, "not listed"),
        ({"texts": [[]]}, "1 columns of texts"),
        ({"texts": [[1]] * len(TEXTS)}, "a text that is none"),
        ({"texts": [[]] * len(TEXTS)}, "not listed"),
        ({"verdicts": []}, "not listed"),
        ({"verdicts": [["USD"]]}, "not 6 texts"),
        ({"fields": [1]}, "a text that is none"),
        ({"fields": []}, "columns of the record"),
        ({"fields": ["f"] * 65}, "at most 64"),
        ({"presence": [[]]}, "not 9 values"),
        ({"presence": [[*SEEN[:-2], [-1], []]]}, "no number of a minute"),
        ({"presence": [[*SEEN[:-2], [2**70], []]]}, "no number of a minute"),
        ({"presence": [[*SEEN[:-1], [["hw", 1]]]]}, "not 3 values"),
        ({"presence": [[*SEEN[:-1], [["hw", 1, -1]]]]}, "a number that is none"),
        ({"presence": [[*SEEN[:-1], [["hw", 2**42, 1]]]]}, "a number that is none"),
        ({"rows": -1}, "-1 rows"),
        ({"rows": "1"}, "1 rows"),
        ({"rows": 2**40}, "rows"),
    ],
)
def test_a_wrong_first_line_is_told(change: dict[str, object], told: str) -> None:
    line, _, columns = WHOLE.partition(b"\n")
    with pytest.raises(ValueError, match=told):
        decode(json.dumps(json.loads(line) | change).encode() + b"\n" + columns)


def test_a_span_that_ends_before_it_starts_is_refused() -> None:
    written = replace(one_span(), start_ns=np.array([2]), end_ns=np.array([1]))
    with pytest.raises(ValueError, match="ends before it starts"):
        decode(encode(written))


@pytest.mark.parametrize("line", [b"[]", b"{", b"[" * 100_000, b"\xff"])
def test_a_first_line_of_another_kind_is_told(line: bytes) -> None:
    with pytest.raises(ValueError, match="first line"):
        decode(line + b"\n")
