"""Whose word counts when the observers of a job disagree."""

from __future__ import annotations

import pytest

from otel_pipeline.worker.evidence import Evidence, Outcome, Source, Verdict, verdict

DEFAULT = Verdict(Outcome.COMPLETED, Source.END)


def seen(*pairs: tuple[Source, Outcome]) -> Verdict:
    return verdict([Evidence(source, outcome) for source, outcome in pairs], DEFAULT)


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [(high, low) for index, high in enumerate(Source) for low in list(Source)[index + 1 :]],
    ids=lambda source: source.name,
)
def test_the_stronger_source_decides_in_whatever_order(stronger: Source, weaker: Source) -> None:
    first = seen((stronger, Outcome.COMPLETED), (weaker, Outcome.FAILED))
    second = seen((weaker, Outcome.FAILED), (stronger, Outcome.COMPLETED))
    assert first == second == Verdict(Outcome.COMPLETED, stronger)


def test_the_last_word_of_a_source_counts() -> None:
    decided = seen((Source.STATUS, Outcome.FAILED), (Source.STATUS, Outcome.COMPLETED))
    assert decided.outcome is Outcome.COMPLETED


def test_nothing_seen_leaves_the_default() -> None:
    assert verdict([], DEFAULT) is DEFAULT


def test_a_detail_that_the_strongest_lacks_comes_from_a_weaker_one_that_agrees() -> None:
    decided = verdict(
        [
            Evidence(Source.COMFYUI, Outcome.FAILED, "torch.OutOfMemoryError", "out of memory"),
            Evidence(Source.STATUS, Outcome.FAILED),
        ],
        DEFAULT,
    )
    assert decided == Verdict(Outcome.FAILED, Source.STATUS, "torch.OutOfMemoryError", "out of memory")


def test_a_detail_is_not_taken_from_one_that_disagrees() -> None:
    decided = verdict(
        [Evidence(Source.LOG, Outcome.FAILED, "ValueError"), Evidence(Source.STATUS, Outcome.COMPLETED)], DEFAULT
    )
    assert decided.error_type is None


@pytest.mark.parametrize(
    ("partly", "expected"),
    [
        (True, Verdict(Outcome.PARTIAL, Source.COMFYUI, "ValueError")),
        (False, Verdict(Outcome.COMPLETED, Source.STATUS)),
    ],
    ids=["some prompts succeeded", "none did: a failover"],
)
def test_a_worker_that_says_completed_after_failed_prompts(partly: bool, expected: Verdict) -> None:  # noqa: FBT001
    failed = Evidence(Source.COMFYUI, Outcome.FAILED, "ValueError", partly=partly)
    assert verdict([failed, Evidence(Source.STATUS, Outcome.COMPLETED)], DEFAULT) == expected


def test_a_partial_result_of_comfyui_makes_the_default_partial_too() -> None:
    said = Evidence(Source.COMFYUI, Outcome.PARTIAL)
    assert verdict([said, Evidence(Source.ACK, Outcome.COMPLETED)], DEFAULT).outcome is Outcome.PARTIAL


def test_what_the_program_says_itself_is_not_doubted() -> None:
    said = [Evidence(Source.COMFYUI, Outcome.PARTIAL), Evidence(Source.API, Outcome.COMPLETED)]
    assert verdict(said, DEFAULT).outcome is Outcome.COMPLETED


def test_why_goes_before_that() -> None:
    said = [
        Evidence(Source.MESSAGE, Outcome.FAILED, "dead_letter", "sent to the dead letters"),
        Evidence(Source.LOG, Outcome.FAILED, "TimeoutError", "timed out"),
    ]
    assert verdict(said, DEFAULT).error_type == "TimeoutError"
    assert verdict(said[:1], DEFAULT).error_type == "dead_letter"
