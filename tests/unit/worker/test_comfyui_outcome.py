"""What prompts say about their job."""

from __future__ import annotations

import pytest

from otel_pipeline.worker.comfyui.outcome import Result, evidence_of
from otel_pipeline.worker.evidence import Outcome, Source

S = Result("success", wish=1, kind=1)
S2 = Result("success", wish=2, kind=1)
VIDEO = Result("success", wish=9, kind=9)
F = Result("failed", wish=1, kind=1, error_type="OOM", message="m")
R = Result("refused", wish=1, kind=1, error_type="no_prompt")
STOPPED = Result("interrupted", wish=1, kind=1, error_type="interrupted")
HALF = Result("partial", wish=1, kind=1, error_type="required_input_missing")
LOST = Result("unknown", wish=1, kind=1, waited=True)


@pytest.mark.parametrize(
    ("results", "outcome"),
    [
        ([], None),
        ([S, S2, VIDEO], None),
        ([F], Outcome.FAILED),
        ([R], Outcome.FAILED),
        ([F, F, S], None),
        ([F, R, S], None),
        ([S, F], Outcome.PARTIAL),
        ([VIDEO, F], Outcome.FAILED),
        ([F, VIDEO], Outcome.PARTIAL),
        ([F, S2], Outcome.PARTIAL),
        ([STOPPED], Outcome.CANCELLED),
        ([STOPPED, S], None),
        ([STOPPED, F], Outcome.FAILED),
        ([S2, STOPPED], Outcome.PARTIAL),
        ([HALF], Outcome.PARTIAL),
        ([HALF, S], None),
        ([LOST], Outcome.UNKNOWN),
        ([S, LOST], None),
        ([LOST, S], None),
        ([Result("unknown")], None),
        ([F, LOST], Outcome.FAILED),
    ],
)
def test_prompts_tell_how_their_job_went(results: list[Result], outcome: Outcome | None) -> None:
    evidence = evidence_of(results)
    assert (evidence.outcome if evidence is not None else None) == outcome
    assert evidence is None or evidence.source is Source.COMFYUI


def test_the_last_failure_gives_the_details() -> None:
    evidence = evidence_of([R, F])
    assert evidence is not None
    assert (evidence.error_type, evidence.message) == ("OOM", "m")
