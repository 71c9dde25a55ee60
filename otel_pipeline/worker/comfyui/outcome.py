"""What the prompts of a job say about the job. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from otel_pipeline.worker.comfyui.answers import FAILED, INTERRUPTED, PARTIAL, REFUSED, SUCCESS, UNKNOWN
from otel_pipeline.worker.evidence import Evidence, Outcome, Source

_BAD: Final = frozenset({FAILED, REFUSED})
_GOOD: Final = frozenset({SUCCESS, PARTIAL})


@dataclass(frozen=True, slots=True)
class Result:
    """How one prompt ended, in the order of posting."""

    outcome: str
    wish: int = 0
    kind: int = 0
    error_type: str | None = None
    message: str | None = None
    waited: bool = False
    """The worker asked for it after posting it, or listened."""


def evidence_of(results: Sequence[Result]) -> Evidence | None:
    """None if all went well, in the end: a failure that a later prompt for the same thing made good counts as none.

    What is left of failures fails the job, of interruptions cancels it, unless the worker went on without: another
    prompt succeeded after it, or others of its kind did (two images of three). Then the job is partial.
    """
    left = [index for index in range(len(results)) if not _made_good(results, index)]
    for kinds, outcome in ((_BAD, Outcome.FAILED), ({INTERRUPTED}, Outcome.CANCELLED), ({PARTIAL}, Outcome.PARTIAL)):
        found = [index for index in left if results[index].outcome in kinds]
        if found:
            last = results[found[-1]]
            went_on = any(each.outcome in _GOOD for each in results[found[-1] + 1 :])
            series = any(each.outcome in _GOOD and each.kind == last.kind for each in results)
            told = Outcome.PARTIAL if went_on or series else outcome
            partly = any(each.outcome in _GOOD for each in results)
            return Evidence(Source.COMFYUI, told, last.error_type, last.message, partly=partly)
    if left and results[left[-1]].outcome == UNKNOWN and results[left[-1]].waited:
        return Evidence(Source.COMFYUI, Outcome.UNKNOWN, None, "no end of a ComfyUI prompt was seen")
    return None


def _made_good(results: Sequence[Result], index: int) -> bool:
    """A full success, or something that a later success of the same wish replaces."""
    here = results[index]
    if here.outcome == SUCCESS:
        return True
    others = results if here.outcome == UNKNOWN else results[index + 1 :]
    return any(each.outcome == SUCCESS and each.wish == here.wish for each in others)
