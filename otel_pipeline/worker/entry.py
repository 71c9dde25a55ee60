"""What `opentelemetry-instrument` calls in each new process. Small, and it imports no SDK: see docs/worker.md.

An exception here would stop every instrumentation that comes after, so none gets out.
"""

from __future__ import annotations

import logging
import os

_log = logging.getLogger("otel_pipeline.worker")


def _wanted() -> bool:
    """Whether there is telemetry at all: the switch of the specification leaves the worker as it was."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"


def pre_instrument() -> None:
    """Providers exist, no instrumentation does: the span processor, the resource, the log records' job."""
    if not _wanted():
        return
    try:
        from otel_pipeline.worker.process import providers  # noqa: PLC0415  a process that is not instrumented pays nothing

        providers.prepare()
    except Exception:  # noqa: BLE001  see above
        _log.warning("the worker side is not prepared", exc_info=True)


def post_instrument() -> None:
    """All official instrumentations are in: ours go around them."""
    if not _wanted():
        return
    try:
        from otel_pipeline.worker import activation  # noqa: PLC0415
        from otel_pipeline.worker.process import lifecycle  # noqa: PLC0415

        activation.activate()
        lifecycle.install()
    except Exception:  # noqa: BLE001  see above
        _log.warning("the worker side is not active", exc_info=True)
