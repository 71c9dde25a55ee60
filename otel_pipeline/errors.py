"""Every error of the gateway. Each answers two questions: whose fault is it, and does trying again help?

OtelPipelineError
|-- Uncanonical          legal protobuf that repeats what should stand once; normalise and scan again
|-- WireError            the sender's bytes are no OTLP; never again          -> INVALID_ARGUMENT / 400
|-- ConfigError          the operator's file is wrong; the gateway won't start (lists every mistake)
|-- OutboxError          our own store cannot be used
|   `-- OutboxFull       the store reached its cap; again later               -> UNAVAILABLE / 503 + delay
|-- StoreError           a book's store cannot be used now; the same records come again
`-- DeliveryError        a backend did not take a batch
    |-- Refused          its answer is final; the batch is counted as dropped
    |-- TooLarge         it takes less at a time; split and send the halves
    `-- Unavailable      again later, after the delay it asked for, if any
"""

from __future__ import annotations


class OtelPipelineError(Exception):
    """Base of all errors that this project raises on purpose."""


class WireError(OtelPipelineError):
    """The bytes are not the OTLP message they claim to be; `offset` is where it shows, in bytes from the request's
    start.
    """

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(f"{reason} at byte {offset}")
        self.reason = reason
        self.offset = offset


class NewKey(OtelPipelineError):
    """A row has a requested attribute that no row had before: the kernel wants to be widened, and to scan again."""


class Uncanonical(OtelPipelineError):
    """The request is legal protobuf, but repeats a field that should stand once."""


class ConfigError(OtelPipelineError):
    """The configuration cannot be used; `mistakes` holds every one, each with its path and what is allowed."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class OutboxError(OtelPipelineError):
    """The durable store cannot be opened or used."""


class OutboxFull(OutboxError):
    """The durable store has reached its cap; nothing was written."""


class StoreError(OtelPipelineError):
    """The store of a book cannot be opened, read or written."""


class DeliveryError(OtelPipelineError):
    """A backend did not take a batch."""


class Refused(DeliveryError):
    """The backend's answer is final: sending the same batch again cannot help."""


class TooLarge(Refused):
    """The backend refuses the batch for its size only: smaller parts may pass."""


class Unavailable(DeliveryError):
    """The backend may take the batch later; `delay_s` is the wait it asked for."""

    def __init__(self, reason: str, delay_s: float | None = None) -> None:
        super().__init__(reason)
        self.delay_s = delay_s
