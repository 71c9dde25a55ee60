"""Shared setting types: what they take, what they refuse, and that what is printed reads back."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from otel_pipeline.settings import (
    Duration,
    Endpoint,
    Headers,
    Retry,
    SendingQueue,
    TlsClient,
    TlsServer,
    Url,
    format_duration,
    parse_duration,
    split_endpoint,
)

DURATION: TypeAdapter[float] = TypeAdapter(Duration)
ENDPOINT: TypeAdapter[str] = TypeAdapter(Endpoint)
URL: TypeAdapter[str] = TypeAdapter(Url)
HEADERS: TypeAdapter[Headers] = TypeAdapter(Headers)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("200ms", 0.2),
        ("5s", 5.0),
        ("1m30s", 90.0),
        ("1h", 3600.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("7ns", 7e-9),
        ("0", 0.0),
        (0, 0.0),
        ("0s", 0.0),
        (0.25, 0.25),
        (" 5s ", 5.0),
    ],
)
def test_duration_reads_what_go_reads(written: object, seconds: float) -> None:
    assert DURATION.validate_python(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (5, "5 has no unit; write 5s"),
        (True, "has no unit"),
        ("5", "is not a duration"),
        ("", "is not a duration"),
        ("5 s", "is not a duration"),
        ("5d", "is not a duration"),
        ("-5s", "is not a duration"),
        ("s", "is not a duration"),
        ("5s!", "is not a duration"),
        (".", "is not a duration"),
        (-0.5, "out of range"),
        (float("nan"), "out of range"),
        (float("inf"), "out of range"),
        ("3000000h", "out of range"),
        ([1], "must be a duration"),
        (None, "must be a duration"),
    ],
)
def test_duration_refuses_the_rest_and_says_what_is_allowed(written: object, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        DURATION.validate_python(written)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.2, "200ms"), (90, "1m30s"), (3600, "1h"), (3661.5, "1h1m1.5s"), (0, "0s"), (1e-9, "1ns"), (15e-6, "15us")],
)
def test_duration_is_printed_as_go_prints_it_and_reads_back(seconds: float, written: str) -> None:
    assert format_duration(seconds) == written
    assert parse_duration(written) == pytest.approx(seconds)


def test_duration_is_dumped_as_text() -> None:
    assert Retry().model_dump()["initial_interval"] == "5s"


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [
        ("127.0.0.1:4317", "127.0.0.1", 4317),
        ("localhost:0", "localhost", 0),
        (":4317", "", 4317),
        ("[::1]:65535", "::1", 65535),
        ("[::]:80", "::", 80),
        ("my-host.example.com:80", "my-host.example.com", 80),
    ],
)
def test_endpoint_takes_host_and_port(written: str, host: str, port: int) -> None:
    assert ENDPOINT.validate_python(written) == written
    assert split_endpoint(written) == (host, port)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("unix:/run/otel.sock", "unix sockets are not supported"),
        ("http://localhost:4317", "has a scheme"),
        ("localhost", "is not host:port"),
        ("", "is not host:port"),
        ("localhost:", "has no valid port"),
        ("localhost:65536", "has no valid port"),
        ("localhost:-1", "has no valid port"),
        ("localhost:4³", "has no valid port"),
        ("::1:4317", "in brackets"),
        ("a b:1", "is not host:port"),
        ("user@host:1", "is not host:port"),
        ("[::1:4317", "in brackets"),
    ],
)
def test_endpoint_refuses_the_rest_and_says_what_is_allowed(written: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ENDPOINT.validate_python(written)


@pytest.mark.parametrize("written", ["http://127.0.0.1:4318", "https://example.com/otlp", "http://[::1]:4318"])
def test_url_takes_http_and_https(written: str) -> None:
    assert URL.validate_python(written) == written


@pytest.mark.parametrize("written", ["", "localhost:4318", "ftp://x", "http://", "http://x:99999", "http://[::1"])
def test_url_refuses_the_rest(written: str) -> None:
    with pytest.raises(ValidationError):
        URL.validate_python(written)


def test_a_server_needs_certificate_and_key() -> None:
    with pytest.raises(ValidationError, match="key_file"):
        TlsServer.model_validate({"cert_file": "a"})
    assert TlsServer.model_validate({"cert_file": "a", "key_file": "b"}).client_ca_file is None


def test_a_client_certificate_needs_its_key() -> None:
    with pytest.raises(ValidationError, match="go together"):
        TlsClient.model_validate({"cert_file": "a"})
    assert TlsClient.model_validate({"cert_file": "a", "key_file": "b", "insecure": False}).key_file == "b"


def test_retry_has_the_defaults_of_the_collector() -> None:
    retry = Retry()
    assert retry.enabled
    assert (retry.initial_interval, retry.max_interval) == (5.0, 30.0)
    assert (retry.randomization_factor, retry.multiplier) == (0.5, 1.5)
    assert "max_elapsed_time" in Retry.without_effect


@pytest.mark.parametrize(
    "written",
    [{"initial_interval": "0s"}, {"initial_interval": "1m"}, {"multiplier": 0.5}, {"randomization_factor": 2}],
)
def test_retry_refuses_waits_that_do_not_grow(written: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Retry.model_validate(written)


def test_sending_queue_has_no_setting_of_its_own() -> None:
    assert not SendingQueue.model_fields
    assert {"enabled", "num_consumers", "queue_size", "storage"} <= set(SendingQueue.without_effect)


def test_headers_take_both_forms_of_the_collector_and_hide_their_values() -> None:
    as_map = HEADERS.validate_python({"api-key": "secret"})
    as_list = HEADERS.validate_python([{"name": "api-key", "value": "secret"}])
    assert as_map == as_list
    assert "secret" not in repr(as_map)


@pytest.mark.parametrize(
    "written",
    [{"a b": "x"}, {"": "x"}, {"a": "x\r\ny"}, {"a": "x\0"}, [{"name": "a"}], ["a"], {"a": 5}, "a: b", {"ä": "x"}],
)
def test_headers_refuse_what_cannot_be_sent_without_showing_a_value(written: object) -> None:
    with pytest.raises(ValidationError):
        HEADERS.validate_python(written)
