"""Settings of `batch`. There is no such processor here: requests are merged before the scan and again by the sender."""

from __future__ import annotations

from typing import ClassVar, Final, Self

from pydantic import Field, model_validator

from otel_pipeline.contracts import Settings
from otel_pipeline.settings import Duration

_NO_METADATA: Final = "batches are not kept apart by the metadata of their requests"


class BatchSettings:
    """How large the requests to the backends become."""

    class Config(Settings):
        """Batches are merged at the sender, behind the outbox: an acknowledgement never waits for `timeout`."""

        without_effect: ClassVar[dict[str, str]] = {
            "metadata_keys": _NO_METADATA,
            "metadata_cardinality_limit": _NO_METADATA,
        }

        timeout: Duration = 0.2
        """How long the sender waits for more before it sends less than send_batch_size; 0s: it never waits."""
        send_batch_size: int = Field(default=8192, ge=0)
        """How many spans, metric points or log records make a request that is sent at once."""
        send_batch_max_size: int = Field(default=0, ge=0)
        """How many of them a request may have; 0: no bound but the backend's size."""

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if 0 < self.send_batch_max_size < self.send_batch_size:
                raise ValueError("send_batch_max_size must be 0 or at least send_batch_size")
            return self
