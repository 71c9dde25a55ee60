"""The `debug` exporter: says on the log what passes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from otel_pipeline.contracts import Settings
from otel_pipeline.errors import Refused, WireError
from otel_pipeline.limits import EXPORT_BYTES_MAX
from otel_pipeline.wire import otlp_json
from otel_pipeline.wire.scan import BatchReader

if TYPE_CHECKING:
    from otel_pipeline.contracts import Context
    from otel_pipeline.wire.signal import Signal

log = logging.getLogger(__name__)

LINES_MAX: Final = 20
"""Rows named in one log record with verbosity normal."""


class DebugExporter:
    """Writes one log record a request."""

    class Config(Settings):
        """Says on the log what passes."""

        verbosity: Literal["basic", "normal", "detailed"] = "basic"
        """basic: how many; normal: with their names; detailed: everything, as OTLP JSON."""

        without_effect: ClassVar[dict[str, str]] = {
            "sampling_initial": "one record a request is written",
            "sampling_thereafter": "one record a request is written",
            "use_internal_logger": "always the gateway's log",
            "sending_queue": "the outbox is the queue",
        }

    def __init__(self, config: Config, context: Context) -> None:
        self.request_bytes_max: Final = EXPORT_BYTES_MAX
        self._id = context.component_id
        self._verbosity = config.verbosity

    def deliver(self, signal: Signal, request: bytes) -> int:
        """Log it."""
        batch, _ = BatchReader(signal).read([request])
        text = ""
        if self._verbosity == "detailed":
            text = " " + _json(signal, request)
        elif self._verbosity == "normal":
            names = batch.name()
            text = "".join(f"\n  {names.at(row)}" for row in range(min(len(batch), LINES_MAX)))
        log.info("%s: %d %s, %d bytes%s", self._id, batch.items(), signal.value.items, len(request), text)
        return 0

    def close(self) -> None:
        """Nothing to give up."""


def _json(signal: Signal, request: bytes) -> str:
    try:
        return otlp_json.encode(signal, request)
    except WireError as error:
        raise Refused(f"cannot be written as JSON: {error}") from error
