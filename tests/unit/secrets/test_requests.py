"""Requests come out without secrets, valid, and otherwise as they were."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_pipeline.errors import WireError
from otel_pipeline.secrets import layouts
from otel_pipeline.secrets.build import request_cleaner
from otel_pipeline.secrets.keys import USER_KEYS, denial
from otel_pipeline.secrets.requests import RequestCleaner
from otel_pipeline.secrets.rules import KINDS
from otel_pipeline.secrets.texts import Finder
from otel_pipeline.wire.kernel import variants
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import field as message_field
from tests.support import otlp
from tests.support.secret_samples import look_alikes, secrets

SECRET = "gh" + "p_" + "a1B2c3D4e5" * 4
COUNTS: Counter[str] = Counter()


def cleaner(**settings: Any) -> RequestCleaner:
    """One with the default settings, or others."""
    chosen: dict[str, Any] = {
        "kinds": KINDS,
        "denied_keys": (),
        "user_keys": USER_KEYS,
        "hash_key": b"",
        "pseudonym_key": b"k",
        "value_bytes_max": 4096,
        "count": lambda kind, times: COUNTS.update({kind: times}),
    }
    return request_cleaner(**{**chosen, **settings})


CLEANER = cleaner()
every_signal = pytest.mark.parametrize("signal", Signal, ids=lambda signal: signal.word)


def fill(message: Any, text: str, depth: int = 0) -> None:
    """Put the text into every string of a message, and something into every other field."""
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof and field.containing_oneof.fields[0].name != field.name:
            continue
        if field.type == FieldDescriptor.TYPE_STRING:
            if field.is_repeated:
                getattr(message, field.name).extend([text, f"see {text}"])
            else:
                setattr(message, field.name, f"see {text}")
        elif field.message_type is not None and depth < 12:
            child = getattr(message, field.name)
            fill(child.add() if field.is_repeated else child, text, depth + 1)
            if not field.is_repeated:
                child.SetInParent()


def filled(signal: Signal, text: str) -> list[bytes]:
    """Requests that together have every field of a signal, each arm of a oneof in one of its own."""
    message = signal.value.request()
    fill(message, text)
    found = [message.SerializeToString()]
    if signal is Signal.METRICS:
        for arm in message.resource_metrics[0].scope_metrics[0].metrics[0].DESCRIPTOR.oneofs[0].fields:
            other = type(message).FromString(found[0])
            metric = other.resource_metrics[0].scope_metrics[0].metrics[0]
            part = getattr(metric, arm.name)
            part.SetInParent()
            fill(part, text)
            found.append(other.SerializeToString())
    return found


def nested(text: str) -> AnyValue:
    """The text as a text, as bytes, in a list, in a map, and as a key."""
    value = AnyValue()
    values = value.kvlist_value.values.add(key="outer").value.array_value.values
    values.add(string_value=text)
    values.add(bytes_value=text.encode())
    values.add().kvlist_value.values.add(key=text).value.kvlist_value.values.add(key="x").value.string_value = text
    return value


def with_nested(message: Any, text: str) -> None:
    """Put `nested` into every AnyValue of a message."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for one in value if field.is_repeated else [value]:
            if isinstance(one, AnyValue):
                one.CopyFrom(nested(text))
            else:
                with_nested(one, text)


@every_signal
def test_no_string_of_a_fully_populated_request_survives(signal: Signal) -> None:
    for request in filled(signal, SECRET):
        assert request.count(SECRET.encode()) > 12
        clean = CLEANER.rewrite(signal, request)
        assert SECRET.encode() not in clean
        assert signal.value.request.FromString(clean).ByteSize() > 0


@every_signal
def test_no_nested_value_survives(signal: Signal) -> None:
    for request in filled(signal, SECRET):
        message = signal.value.request.FromString(request)
        with_nested(message, SECRET)
        clean = CLEANER.rewrite(signal, message.SerializeToString())
        assert SECRET.encode() not in clean
        assert b"outer" in clean


@pytest.mark.parametrize("sample", secrets(), ids=lambda sample: sample.id)
def test_each_secret_goes_from_raw_bytes(sample: Any) -> None:
    message = ExportTraceServiceRequest()
    span = message.resource_spans.add().scope_spans.add().spans.add(name=sample.text)
    span.attributes.add(key="x").value.string_value = sample.text
    clean = ExportTraceServiceRequest.FromString(CLEANER.rewrite(Signal.TRACES, message.SerializeToString()))
    out = clean.resource_spans[0].scope_spans[0].spans[0]
    lines = [line for line in sample.secret.split("\n") if len(line) > 2]
    assert not [line for line in lines if line in out.name or line in out.attributes[0].value.string_value]


@every_signal
def test_without_a_secret_the_very_object_comes_back(signal: Signal) -> None:
    request = {Signal.TRACES: otlp.traces, Signal.METRICS: otlp.metrics, Signal.LOGS: otlp.logs}[signal]()
    assert CLEANER.rewrite(signal, request) is request


def test_look_alikes_come_out_byte_for_byte() -> None:
    message = ExportTraceServiceRequest()
    span = message.resource_spans.add().scope_spans.add().spans.add()
    for sample in look_alikes():
        span.attributes.add(key="x").value.string_value = sample.text
    request = message.SerializeToString()
    assert CLEANER.rewrite(Signal.TRACES, request) is request


texts = st.sampled_from([sample.text for sample in (*secrets(), *look_alikes())]) | st.text(max_size=20)
keys = st.sampled_from(["password", "http.request.header.authorization", "user.id", "model", "apiKey"]) | texts
values: st.SearchStrategy[Any] = st.recursive(
    texts | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


def put(value: Any, into: AnyValue) -> None:
    """A Python value as an AnyValue."""
    if isinstance(value, dict):
        into.kvlist_value.SetInParent()
        for key, one in value.items():
            put(one, into.kvlist_value.values.add(key=key).value)
    elif isinstance(value, list):
        into.array_value.SetInParent()
        for one in value:
            put(one, into.array_value.values.add())
    else:
        kinds = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value", bytes: "bytes_value"}
        setattr(into, kinds[type(value)], value)


@st.composite
def trace_requests(draw: st.DrawFn) -> bytes:
    message = ExportTraceServiceRequest()
    for _ in range(draw(st.integers(0, 2))):
        group = message.resource_spans.add(schema_url=draw(texts))
        for key, value in draw(st.dictionaries(keys, values, max_size=2)).items():
            put(value, group.resource.attributes.add(key=key).value)
        scope = group.scope_spans.add()
        scope.scope.name = draw(texts)
        for _ in range(draw(st.integers(0, 3))):
            span = scope.spans.add(name=draw(texts), span_id=draw(st.binary(max_size=8)), start_time_unix_nano=7)
            span.status.message = draw(texts)
            for key, value in draw(st.dictionaries(keys, values, max_size=3)).items():
                put(value, span.attributes.add(key=key).value)
                put(value, span.events.add(name=draw(texts)).attributes.add(key=key).value)
    return message.SerializeToString()


@given(trace_requests())
def test_rewriting_is_what_decoding_all_and_cleaning_it_is(request: bytes) -> None:
    by_walk = CLEANER.rewrite(Signal.TRACES, request)
    decoded = ExportTraceServiceRequest.FromString(request)
    changed = CLEANER._cleaner.message(decoded)
    assert ExportTraceServiceRequest.FromString(by_walk) == decoded
    assert changed or by_walk is request


def test_what_was_marked_stays_as_it_is() -> None:
    message = ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.add(name=f"Authorization: Bearer {SECRET}, password={SECRET}")
    once = CLEANER.rewrite(Signal.TRACES, message.SerializeToString())
    assert CLEANER.rewrite(Signal.TRACES, once) is once


def test_input_cut_at_every_byte_is_cleaned_or_is_no_otlp() -> None:
    message = ExportTraceServiceRequest.FromString(otlp.traces())
    message.resource_spans[0].scope_spans[0].spans[0].name = f"see {SECRET} there"
    request = message.SerializeToString()
    for end in range(len(request)):
        try:
            clean = CLEANER.rewrite(Signal.TRACES, request[:end])
        except WireError:
            continue
        assert SECRET.encode() not in clean


@given(st.binary(max_size=200), st.sampled_from(list(Signal)))
def test_random_bytes_are_returned_or_are_no_otlp(noise: bytes, signal: Signal) -> None:
    for request in (noise, noise + SECRET.encode(), b"\x0a" + noise + SECRET.encode()):
        clean = b""
        with suppress(WireError):
            clean = CLEANER.rewrite(signal, request)
        assert isinstance(clean, bytes)


def test_an_attribute_that_cannot_be_decoded_goes() -> None:
    pair = KeyValue(key="x", value=AnyValue(string_value=f"@ {SECRET}")).SerializeToString()
    bad = pair.replace(b"@", b"\xff")
    message = b"\x0a" + bytes([len(bad)]) + bad  # a resource with one attribute
    request = b"\x0a" + bytes([len(message) + 2]) + b"\x0a" + bytes([len(message)]) + message
    with pytest.raises(DecodeError):
        ExportTraceServiceRequest.FromString(request)
    clean = ExportTraceServiceRequest.FromString(CLEANER.rewrite(Signal.TRACES, request))
    assert clean.resource_spans[0].resource.attributes[0].value.string_value == "[redacted:undecided]"


def test_a_value_nested_too_deep_goes() -> None:
    value = AnyValue(string_value=SECRET).SerializeToString()
    for _ in range(120):
        value = message_field(5, message_field(1, value))
    pair = message_field(1, b"x") + message_field(2, value)
    request = message_field(1, message_field(1, message_field(1, pair)))
    clean = ExportTraceServiceRequest.FromString(CLEANER.rewrite(Signal.TRACES, request))
    assert clean.resource_spans[0].resource.attributes[0].value.string_value == "[redacted:undecided]"


def test_a_rule_that_breaks_costs_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Finder, __: str) -> Any:
        raise RuntimeError("broken")

    one = cleaner()
    monkeypatch.setattr(Finder, "find", broken)
    message = ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.add(name=f"see {SECRET}")
    clean = ExportTraceServiceRequest.FromString(one.rewrite(Signal.TRACES, message.SerializeToString()))
    assert clean.resource_spans[0].scope_spans[0].spans[0].name == "[redacted:undecided]"


def test_a_flood_of_places_is_decoded_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_pipeline.secrets.prefilter.REDACTION_HITS_MAX", 2)
    request = filled(Signal.LOGS, SECRET)[0]
    assert SECRET.encode() not in cleaner().rewrite(Signal.LOGS, request)


def attribute(value: AnyValue, one: RequestCleaner, key: str = "x") -> AnyValue:
    """What becomes of an attribute's value."""
    message = ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.add().attributes.add(key=key).value.CopyFrom(value)
    clean = ExportTraceServiceRequest.FromString(one.rewrite(Signal.TRACES, message.SerializeToString()))
    return clean.resource_spans[0].scope_spans[0].spans[0].attributes[0].value


@pytest.mark.parametrize("size", [4097, 5000, 20_000, 300_000])
@pytest.mark.parametrize("field", ["string_value", "bytes_value"])
def test_a_long_value_is_cut_and_its_length_and_hash_are_kept(size: int, field: str) -> None:
    value = AnyValue()
    setattr(value, field, "A" * size if field == "string_value" else b"\x00" * size)
    assert f"[cut:bytes={size} sha256=" in attribute(value, CLEANER).string_value


@pytest.mark.parametrize("size", [100, 4096])
def test_a_value_within_the_cap_stays(size: int) -> None:
    assert attribute(AnyValue(string_value="A" * size), CLEANER).string_value == "A" * size


@pytest.mark.parametrize("key", ["enduser.id", "user.id", "USER_ID", "userId", "user.email"])
def test_user_ids_become_pseudonyms(key: str) -> None:
    first = attribute(AnyValue(string_value="joe"), CLEANER, key).string_value
    assert first.startswith("user-")
    assert first == attribute(AnyValue(string_value="joe"), CLEANER, key).string_value
    assert first != attribute(AnyValue(string_value="jim"), CLEANER, key).string_value
    assert attribute(AnyValue(string_value="joe"), cleaner(user_keys=()), key).string_value == "joe"


@pytest.mark.parametrize("key", ["my.field", "MY_FIELD", "myField"])
def test_denied_keys_of_ones_own(key: str) -> None:
    assert (
        attribute(AnyValue(int_value=7), cleaner(denied_keys=("my-field",)), key).string_value == "[redacted:password]"
    )


@pytest.mark.parametrize(
    "key",
    [
        *(
            "password",
            "db.password",
            "DB_PASSWORD",
            "api_key",
            "apiKey",
            "x-api-key",
            "OPENAI_API_KEY",
            "client_secret",
        ),
        *("http.request.header.authorization", "http.request.header.cookie", "Set-Cookie", "access_token", "token"),
        *("aws.secret_access_key", "privateKey", "credentials", "db.connection_string", "otp", "card_number", "cvv"),
    ],
)
def test_values_of_denied_keys_go_whatever_they_are(key: str) -> None:
    for value in (AnyValue(string_value="x"), AnyValue(int_value=5), nested("y")):
        assert attribute(value, CLEANER, key).string_value.startswith("[redacted:")


@pytest.mark.parametrize(
    "key",
    [
        *("gen_ai.usage.input_tokens", "max_tokens", "token_type", "tokenizer", "cache.key", "eos_token", "session.id"),
        *(
            "otel_pipeline.job.id",
            "enduser.pseudo.id",
            "http.response.status_code",
            "key",
            "author",
            "passed",
            "pinned",
        ),
    ],
)
def test_harmless_keys_keep_their_values(key: str) -> None:
    assert denial((), frozenset(KINDS))(key) is None
    assert attribute(AnyValue(string_value="x"), CLEANER, key).string_value == "x"


def test_a_denied_key_counts_behind_its_value_too() -> None:
    pair = message_field(2, message_field(1, b"hunter22")) + message_field(1, b"password")
    request = message_field(1, message_field(1, message_field(1, pair)))
    clean = ExportTraceServiceRequest.FromString(CLEANER.rewrite(Signal.TRACES, request))
    assert clean.resource_spans[0].resource.attributes[0].value.string_value == "[redacted:password]"


def test_what_is_remembered_changes_nothing() -> None:
    one = cleaner()
    requests = [filled(Signal.TRACES, text)[0] for text in (SECRET, "gpu-17", "joe@example.com", "flux-1-dev")]
    for signal_requests in (requests, requests[::-1]) * 3:
        for request in signal_requests:
            assert one.rewrite(Signal.TRACES, request) == cleaner().rewrite(Signal.TRACES, request)


def test_a_repeated_secret_goes_each_time() -> None:
    one = cleaner()
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for _ in range(5):
        spans.add(name="job").attributes.add(key="x").value.string_value = f"see {SECRET}"
    for _ in range(4):
        clean = one.rewrite(Signal.TRACES, message.SerializeToString())
        assert SECRET.encode() not in clean
        assert clean.count(b"[redacted:api_key]") == 5


def test_without_the_extension_the_outcome_is_the_same() -> None:
    plain = cleaner(kernel=variants()[0])
    for request in (*filled(Signal.LOGS, SECRET), *filled(Signal.METRICS, SECRET)):
        signal = Signal.LOGS if request in filled(Signal.LOGS, SECRET) else Signal.METRICS
        for _ in range(3):
            assert plain.rewrite(signal, request) == CLEANER.rewrite(signal, request)


def test_the_layout_has_the_ends_of_all_ways() -> None:
    for signal in Signal:
        parts = layouts.layout(signal.value.request.DESCRIPTOR)
        assert parts[1][1][1] is KeyValue
        assert parts[1][2][3] is layouts.TEXT
