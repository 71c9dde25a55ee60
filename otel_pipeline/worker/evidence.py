"""How a job came out, from what was seen of it: most workers swallow their exceptions.

Each observer (an adapter, a status write in Redis, a ComfyUI prompt, a log record) adds `Evidence`; `verdict` decides.
Sources rank in the order of `Source`: what the platform says goes before what a log record hints at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final


class Outcome(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    PARTIAL = "partial"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    LOST = "lost"
    UNKNOWN = "unknown"


class Source(IntEnum):
    """Who says so, the strongest first. The name in lower case is `otel_pipeline.job.outcome_source`."""

    API = 0
    """The program itself, through this package."""
    RULE = 1
    """A rule of the operator."""
    EXCEPTION = 2
    """It left the unit of work."""
    FRAMEWORK = 3
    """State of the queue framework or platform: Celery's FAILURE, RunPod's error."""
    RETURN = 4
    """What the job function returned."""
    STATUS = 5
    """A status that names the job, written to Redis."""
    MESSAGE = 6
    """A status message that went out: HTTP, a result list, a dead-letter push."""
    COMFYUI = 7
    LOG = 8
    """An error in the job's log, or a printed traceback."""
    SIGNAL = 9
    """The process was told to end in mid job."""
    ACK = 10
    """The message was acknowledged."""
    END = 11
    """The worker went on to the next job without a sign of trouble."""


ONLY_THAT: Final = frozenset({"dead_letter", "retry", "returned_false", "not_acknowledged", "message_not_deleted"})
"""Types that say that a job failed, not why: a weaker source that knows why goes before them."""


@dataclass(frozen=True, slots=True)
class Evidence:
    source: Source
    outcome: Outcome
    error_type: str | None = None
    """For `error.type`: a class of exceptions or another low-cardinality name."""
    message: str | None = None
    """Short, for the span's status."""
    partly: bool = False
    """It failed, but part of the job's work had succeeded."""


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    source: Source
    error_type: str | None = None
    message: str | None = None


def verdict(seen: Iterable[Evidence], default: Verdict) -> Verdict:
    """The strongest source decides, its last word counts; details that it lacks come from weaker ones that agree.

    With one exception: a worker that says completed although only a part of its ComfyUI prompts succeeded has a partial
    result. If none did and it says completed all the same, it found another way (a failover), and is believed.
    """
    seen = list(seen)
    ranked = sorted(enumerate(seen), key=lambda pair: (pair[1].source, -pair[0]))
    if not ranked:
        return default
    best = ranked[0][1]
    if best.outcome is Outcome.COMPLETED and best.source > Source.RULE:
        best = next((each for _, each in ranked if _is_in_part(each)), best)
        if best.outcome is not Outcome.COMPLETED:
            return Verdict(Outcome.PARTIAL, best.source, best.error_type, best.message)
    agreeing = [evidence for _, evidence in ranked if evidence.outcome == best.outcome]
    types = [each.error_type for each in agreeing if each.error_type]
    error_type = next((each for each in types if each not in ONLY_THAT), types[0] if types else None)
    message = next((each.message for each in agreeing if each.message), None)
    return Verdict(best.outcome, best.source, error_type, message)


def _is_in_part(evidence: Evidence) -> bool:
    return evidence.source is Source.COMFYUI and (evidence.outcome is Outcome.PARTIAL or evidence.partly)
