"""Groups and occurrences of failures for the tests of the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from otel_pipeline.failures.occurrences import Group, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW_S: Final = 1_800_000_000.0
NOW_MS: Final = int(NOW_S * 1000)


@dataclass(frozen=True)
class Seen:
    """One occurrence."""

    fingerprint: str = "aaaa000011112222"
    service: str | None = "worker"
    ago_ms: int = 1000
    trace: int = 1
    span: int = 1
    message: str = "it broke"


def group(fingerprint: str, message: str = "it broke") -> Group:
    return Group(
        fingerprint,
        "TIMEOUT_ERROR",
        "http-timeout",
        retryable=True,
        fault="provider",
        exception_type="httpx.ReadTimeout",
        message=message,
        span_name="POST",
    )


def record(seen: Sequence[Seen]) -> bytes:
    """One record of a batch."""
    looks = list(dict.fromkeys((one.fingerprint, one.message) for one in seen))
    services = list(dict.fromkeys(one.service for one in seen if one.service is not None))
    rows = [
        [
            looks.index((one.fingerprint, one.message)),
            -1 if one.service is None else services.index(one.service),
            (NOW_MS - one.ago_ms) * 1_000_000,
            one.trace >> 64,
            one.trace & (2**63 - 1),
            one.span,
        ]
        for one in seen
    ]
    return encode([group(*each) for each in looks], services, np.array(rows, np.int64).reshape(-1, 6))
