"""The answers of an OTLP server that are more than empty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from otel_pipeline.wire.signal import Signal

REASON_CHARS_MAX: Final = 1024
"""So that an answer stays far below the 4 MiB that OTLP allows (G6, H6)."""


def partial_success(signal: Signal, rejected: int, reason: str) -> Message:
    """An Export response that says how many items were not taken and why."""
    response = signal.value.response()
    setattr(response.partial_success, signal.value.rejected_field, rejected)  # type: ignore[attr-defined]
    response.partial_success.error_message = reason[:REASON_CHARS_MAX]  # type: ignore[attr-defined]
    return response


def rejected_items(signal: Signal, response: bytes) -> tuple[int, str]:
    """How many items a backend says it rejected, and why; nothing for a response that cannot be read."""
    try:
        message = signal.value.response.FromString(response)
    except DecodeError:
        return 0, ""
    partial = message.partial_success  # type: ignore[attr-defined]
    return int(getattr(partial, signal.value.rejected_field)), str(partial.error_message)
