"""The worker side: runs inside somebody else's process and imports no gateway room.

Nothing here has to be called: `opentelemetry-instrument` finds it (entry.py); activation.py is the table of what is
hooked. What a program may say besides is api.py:

    from otel_pipeline.worker import job, stage, measure, record_event, record_failover

How a job is followed: an adapter (adapters/, comfyui/) sees it begin and calls `job_start` (jobs.py) with the context
that came with the message (messages.py) and with what identifies it (identity/). tasks.py and flow.py keep it current
in the right threads and tasks. What is seen of it on the way is evidence (evidence.py, outcomes/). `job_end` writes the
verdict. All of it runs behind guard.py. process/ is about the process around it: its providers, its children, its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from otel_pipeline.worker.api import job, measure, record_event, record_failover, stage

__all__ = ["job", "measure", "record_event", "record_failover", "stage"]
_API: Final = frozenset(__all__)


def __getattr__(name: str) -> Any:
    """The API is loaded when it is asked for: the adapters live without it."""
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from otel_pipeline.worker import api  # noqa: PLC0415  see above

    return getattr(api, name)
