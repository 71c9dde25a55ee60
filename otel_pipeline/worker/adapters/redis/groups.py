"""Messages of a stream's consumer group that were not acknowledged, by a worker that acknowledges what it did."""

from __future__ import annotations

from typing import Final

from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.jobs import Job

GROUPS_MAX: Final = 256
"""Groups whose habits are kept; programs have a few."""
NOT_ACKNOWLEDGED: Final = Evidence(
    Source.ACK, Outcome.FAILED, "not_acknowledged", "the message was not acknowledged, others of its group were"
)

_in_time: Final[dict[tuple[str, str], bool]] = {}
"""Of streams and groups: whether this process acknowledges each message before it goes on to the next."""


def acknowledged(stream: str, group: str, *, in_time: bool) -> None:
    """A message was acknowledged, `in_time` if its job was still open.

    A worker that acknowledges what it went on from already, if only once, says nothing by not doing so before.
    """
    if (stream, group) in _in_time or len(_in_time) < GROUPS_MAX:
        _in_time[stream, group] = in_time and _in_time.get((stream, group), True)


def watch(job: Job) -> None:
    """Looks at the job's end whether it was acknowledged."""
    if job.origin.group:
        job.cleanup.append(_at_the_end)


def _at_the_end(job: Job) -> None:
    if not job.settled_ns and _in_time.get((job.origin.destination, job.origin.group or "")):
        job.observe(NOT_ACKNOWLEDGED)
