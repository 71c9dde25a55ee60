"""Setting types that several components share: durations, endpoints, TLS, retry, queue, headers.

They read what a Collector configuration writes for the same key and refuse the rest with the reason. They know no
component.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, SecretStr, model_validator

from otel_pipeline.contracts import Settings
from otel_pipeline.endpoints import split_endpoint

_UNITS_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_TERM: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(h|ms|m|s|us|µs|μs|ns)")
DURATION_S_MAX: Final = 2.0**63 / 1e9
"""What a Go duration can hold: 292 years."""

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, section 5.6.2: token."""


REDACTED: Final = "[REDACTED]"
"""What stands for a secret where settings are shown."""
_URL_USER: Final = re.compile(r"(?<=://)[^/@\s]+@")


# -- durations ---------------------------------------------------------------------------------------------------------


def parse_duration(value: object) -> object:
    """Seconds of a Go duration such as 200ms. A whole number is refused: to the Collector it would be nanoseconds."""
    if isinstance(value, float) or (value == 0 and not isinstance(value, bool)):
        return _checked_duration(float(value), value)
    if isinstance(value, int):
        raise ValueError(f"{value} has no unit; write {value}s, {value}ms ...")  # noqa: TRY004  pydantic catches ValueError
    if not isinstance(value, str):
        raise ValueError("must be a duration such as 200ms, 5s or 1m30s")  # noqa: TRY004
    text = value.strip()
    terms = _TERM.findall(text)
    if text == "0":
        return 0.0
    if not terms or "".join(number + unit for number, unit in terms) != text:
        raise ValueError(
            f"{value!r} is not a duration; allowed: numbers with h, m, s, ms, us or ns, such as 200ms or 1m30s"
        )
    return _checked_duration(sum(float(number) * _UNITS_S[unit] for number, unit in terms), value)


def format_duration(seconds: float) -> str:
    """The shortest Go duration that reads back as `seconds`: 0.2 is 200ms, 90 is 1m30s."""
    for unit, factor in (("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3)):
        if 0 < seconds < factor * 1000:
            return f"{seconds / factor:.12g}{unit}"
    hours, rest_s = divmod(seconds, 3600.0)
    minutes, rest_s = divmod(rest_s, 60.0)
    terms = [
        f"{hours:.0f}h" if hours else "",
        f"{minutes:.0f}m" if minutes else "",
        f"{rest_s:.12g}s" if rest_s else "",
    ]
    return "".join(terms) or "0s"


def _checked_duration(seconds: float, written: object) -> float:
    if 0 <= seconds <= DURATION_S_MAX:
        return seconds
    raise ValueError(f"{written} is out of range; allowed: 0s to 292 years")


Duration: TypeAlias = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str),
]
"""Seconds; the operator writes a Go duration such as 200ms. Code may give a float."""


# -- endpoints ---------------------------------------------------------------------------------------------------------


def without_password(text: str) -> str:
    """The text with user and password of each URL replaced."""
    return _URL_USER.sub(f"{REDACTED}@", text)


def _checked_endpoint(endpoint: str) -> str:
    split_endpoint(endpoint)
    return endpoint


def _checked_url(url: str) -> str:
    parts = urlsplit(url)  # raises ValueError for broken IPv6 brackets
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("is not a URL such as http://127.0.0.1:4318; allowed schemes: http, https")
    _ = parts.port  # raises ValueError when out of range
    return url


Endpoint: TypeAlias = Annotated[str, AfterValidator(_checked_endpoint)]
"""host:port with a port of 0 to 65535 and brackets around an IPv6 host; an empty host is every interface."""

Url: TypeAlias = Annotated[str, AfterValidator(_checked_url)]
"""An http or https URL."""


# -- TLS ---------------------------------------------------------------------------------------------------------------

_TLS_LIBRARY: Final = "the TLS library decides; it offers TLS 1.2 and newer"
_TLS_WITHOUT_EFFECT: Final = {
    "min_version": _TLS_LIBRARY,
    "max_version": _TLS_LIBRARY,
    "cipher_suites": _TLS_LIBRARY,
    "curve_preferences": _TLS_LIBRARY,
    "reload_interval": "certificates are read once, at start",
}


class TlsServer(Settings):
    """TLS of a listener."""

    without_effect: ClassVar[dict[str, str]] = {
        **_TLS_WITHOUT_EFFECT,
        "ca_file": "a server checks its clients against client_ca_file",
        "client_ca_file_reload": "certificates are read once, at start",
    }

    cert_file: str = Field(examples=["/etc/otel-pipeline/tls/server.crt"])
    """The server's certificate chain, PEM."""
    key_file: str = Field(examples=["/etc/otel-pipeline/tls/server.key"])
    """The private key of the certificate, PEM."""
    client_ca_file: str | None = Field(default=None, examples=["/etc/otel-pipeline/tls/clients-ca.crt"])
    """Certificates of the authorities that clients are checked against, PEM; with it, a client needs a certificate."""


class TlsClient(Settings):
    """TLS towards a backend."""

    without_effect: ClassVar[dict[str, str]] = {
        **_TLS_WITHOUT_EFFECT,
        "include_system_ca_certs_pool": "with ca_file only its authorities count, without it the system's",
    }

    insecure: bool = False
    """No TLS at all: plain text."""
    insecure_skip_verify: bool = False
    """TLS without a check of the backend's certificate. For tests."""
    ca_file: str | None = Field(default=None, examples=["/etc/otel-pipeline/tls/ca.crt"])
    """Certificates of the authorities that the backend is checked against, PEM; without it, the system's."""
    cert_file: str | None = Field(default=None, examples=["/etc/otel-pipeline/tls/client.crt"])
    """The client certificate, PEM; needs key_file."""
    key_file: str | None = Field(default=None, examples=["/etc/otel-pipeline/tls/client.key"])
    """The private key of cert_file, PEM."""
    server_name_override: str | None = Field(default=None, examples=["backend.example.com"])
    """The name to expect in the backend's certificate, instead of the endpoint's host."""

    @model_validator(mode="after")
    def _has_both_halves(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: give both or none")
        return self

    def ssl_context(self) -> ssl.SSLContext | bool:
        """For a client that takes True as the system's own. Raises OSError for a file."""
        if not (self.ca_file or self.cert_file or self.insecure_skip_verify):
            return True
        context = ssl.create_default_context(cafile=self.ca_file or None)
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file or None)
        if self.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


# -- retry and queue ---------------------------------------------------------------------------------------------------


class Retry(Settings):
    """How an exporter comes again when a backend is not available: after intervals that grow, with jitter."""

    without_effect: ClassVar[dict[str, str]] = {
        "max_elapsed_time": "nothing is dropped by time: a batch stays in the outbox until the backend answers",
    }

    enabled: bool = True
    """Come again. Without, a batch whose first attempt fails is dropped and counted."""
    initial_interval: Duration = 5.0
    """The first wait."""
    randomization_factor: float = Field(default=0.5, ge=0, le=1)
    """Each wait is varied by up to this part of it, so that many gateways do not come at once."""
    multiplier: float = Field(default=1.5, ge=1, le=100)
    """What a wait is multiplied with to get the next one."""
    max_interval: Duration = 30.0
    """The longest wait."""

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.enabled and not 0 < self.initial_interval <= self.max_interval:
            raise ValueError("initial_interval must be above 0s and not above max_interval")
        return self


_THE_OUTBOX: Final = "the outbox on disk is the queue; its size is outbox.max_size_mib"


class SendingQueue(Settings):
    """The Collector's queue in front of an exporter; here the outbox has that place, so all of it is without effect."""

    without_effect: ClassVar[dict[str, str]] = {
        "enabled": _THE_OUTBOX,
        "num_consumers": _THE_OUTBOX,
        "wait_for_result": _THE_OUTBOX,
        "block_on_overflow": _THE_OUTBOX,
        "sizer": _THE_OUTBOX,
        "queue_size": _THE_OUTBOX,
        "storage": _THE_OUTBOX,
        "batch": _THE_OUTBOX,
        "metadata": _THE_OUTBOX,
    }


# -- headers -----------------------------------------------------------------------------------------------------------


def _as_map(value: object) -> object:
    """The Collector's second form, a list of {name, value}, as a map."""
    if not isinstance(value, list):
        return value
    if not all(isinstance(entry, Mapping) and set(entry) == {"name", "value"} for entry in value):
        raise ValueError("must be a map, or a list of {name, value}")
    return {entry["name"]: entry["value"] for entry in value}


def _checked_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name; allowed: letters, digits and !#$%&'*+-.^_`|~")
        if any(c in "\r\n\0" for c in value.get_secret_value()):
            raise ValueError(f"the value of {name!r} has a line break or a NUL")
    return headers


Headers: TypeAlias = Annotated[dict[str, SecretStr], BeforeValidator(_as_map), AfterValidator(_checked_headers)]
"""Request headers; the values are secrets."""
