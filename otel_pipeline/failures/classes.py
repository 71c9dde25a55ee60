"""The classes of failures, with what follows from each unless a rule says otherwise."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Fault = Literal["user", "platform", "provider"]


class Consequence(NamedTuple):
    """Whether trying again helps, and whose fault it is."""

    retryable: bool
    fault: Fault


UNKNOWN: Final = "UNKNOWN_ERROR"

CLASSES: Final[dict[str, Consequence]] = {
    "GPU_OOM_ERROR": Consequence(retryable=True, fault="platform"),
    "CANCELLED": Consequence(retryable=False, fault="user"),
    "HOST_RESOURCE_ERROR": Consequence(retryable=True, fault="platform"),
    "CREDIT_ERROR": Consequence(retryable=False, fault="platform"),
    "CONTENT_POLICY_ERROR": Consequence(retryable=False, fault="user"),
    "RATE_LIMIT_ERROR": Consequence(retryable=True, fault="platform"),
    "AUTH_ERROR": Consequence(retryable=False, fault="platform"),
    "VALIDATION_ERROR": Consequence(retryable=False, fault="user"),
    "DATABASE_ERROR": Consequence(retryable=True, fault="platform"),
    "QUEUE_ERROR": Consequence(retryable=True, fault="platform"),
    "STORAGE_ERROR": Consequence(retryable=True, fault="platform"),
    "FLUX_API_ERROR": Consequence(retryable=True, fault="provider"),
    "TIMEOUT_ERROR": Consequence(retryable=True, fault="platform"),
    "NETWORK_ERROR": Consequence(retryable=True, fault="platform"),
    "CONTROLNET_ERROR": Consequence(retryable=False, fault="platform"),
    "MODEL_INFERENCE_ERROR": Consequence(retryable=False, fault="platform"),
    "MEDIA_ERROR": Consequence(retryable=False, fault="platform"),
    UNKNOWN: Consequence(retryable=False, fault="platform"),
}
"""In the order of precedence: of several classes with evidence the first counts."""

PROVIDER_MAY_BE_AT_FAULT: Final = frozenset({"RATE_LIMIT_ERROR", "TIMEOUT_ERROR"})
"""Where the fault is the provider's if it was the provider that was asked."""
