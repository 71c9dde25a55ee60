"""A worker that is told to end, and one that is killed, in mid job: what was done is there, and how the job ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from otel_pipeline.demo.redis_server import redis_server
from otel_pipeline.worker import names
from tests.e2e.support import Launcher, until
from tests.support.worker_platform import Platform
from tests.support.worker_styles import STYLES, Sample
from tests.support.worker_traces import Span, Trace

STYLE = STYLES["list_json"]
LOST_S_MAX = 20.0


@dataclass(frozen=True)
class Cut:
    """A job that was cut short."""

    sample: Sample
    trace: Trace
    exit_code: int

    @property
    def span(self) -> Span:
        [found] = [span for span in self.trace.spans if names.JOB_OUTCOME in span.attributes]
        return found


@pytest.fixture(scope="module")
def cuts(module_launcher: Launcher) -> Iterator[dict[str, Cut]]:
    """The first job is cut short by SIGTERM, the second by SIGKILL; their prompts would run for a minute."""
    with redis_server() as redis_url:
        platform = Platform(module_launcher, redis_url, lost_after="2s", prompt_s_min=60.0)
        platform.enqueue(STYLE, platform.produce(STYLE, with_us=True))
        yield {
            "SIGTERM": cut(platform, STYLE.samples[0], kill=False),
            "SIGKILL": cut(platform, STYLE.samples[1], kill=True),
        }


def cut(platform: Platform, sample: Sample, *, kill: bool) -> Cut:
    worker = platform.start_worker(STYLE, OTEL_PIPELINE_HEARTBEAT_S="0.5")
    worker.wait_until(lambda: f"processing {sample.id}" in worker.text() and platform.prompts_running(), "at work")
    until(
        lambda: any(each.get(names.JOB_ID) == sample.id and each.name == "SET" for each in platform.spans()), "a span"
    )
    until(lambda: platform.open_jobs() == 1, "the report that the job has started")
    if kill:
        worker.kill()
    else:
        worker.terminate()
    code = worker.wait()
    trace = until(lambda: ended(platform, sample), f"the end of {sample.id}", LOST_S_MAX)
    return Cut(sample, trace, code)


def ended(platform: Platform, sample: Sample) -> Trace | None:
    """The trace of the job, once it has an outcome."""
    for trace in platform.traces_of(STYLE.service):
        if any(span.get(names.JOB_ID) == sample.id and names.JOB_OUTCOME in span.attributes for span in trace.spans):
            return trace
    return None


def told(span: Span) -> tuple[object, ...]:
    return (
        span.name,
        span.kind,
        span.get(names.JOB_OUTCOME),
        span.get(names.JOB_OUTCOME_SOURCE),
        span.get(names.ERROR_TYPE),
        span.error,
    )


def test_sigterm_cancels_the_job_and_ends_the_worker_as_without_us(cuts: dict[str, Cut]) -> None:
    assert cuts["SIGTERM"].exit_code == -15
    assert told(cuts["SIGTERM"].span) == ("process image:jobs", "consumer", "cancelled", "signal", "SIGTERM", False)


def test_after_sigterm_the_open_prompt_is_in_the_trace_too(cuts: dict[str, Cut]) -> None:
    trace = cuts["SIGTERM"].trace
    [prompt] = trace.named("comfyui.prompt")
    assert trace.parent(prompt) == cuts["SIGTERM"].span, trace.outline()


def test_a_job_whose_worker_was_killed_is_lost(cuts: dict[str, Cut]) -> None:
    assert cuts["SIGKILL"].exit_code == -9
    assert told(cuts["SIGKILL"].span) == ("process image:jobs", "consumer", "lost", "silence", "lost", True)


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGKILL"])
def test_the_trace_is_whole(signal: str, cuts: dict[str, Cut]) -> None:
    """From the request on; what was finished before the end is below the job."""
    found = cuts[signal]
    [root] = found.trace.roots
    assert root.kind == "server", found.trace.outline()
    finished = [span for span in found.trace.children(found.span) if span.name == "SET"]
    assert len(finished) == 1, found.trace.outline()


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGKILL"])
def test_identity_and_correlation_id_are_kept(signal: str, cuts: dict[str, Cut]) -> None:
    sample, span = cuts[signal].sample, cuts[signal].span
    wanted = (sample.id, sample.correlation_id, sample.tier, sample.workflow)
    keys = (names.JOB_ID, names.CORRELATION_ID, names.JOB_TIER, names.WORKFLOW)
    assert tuple(span.get(key) for key in keys) == wanted
    assert span.get(names.USER_ID)


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGKILL"])
def test_reports_of_the_worker_are_no_spans(signal: str, cuts: dict[str, Cut]) -> None:
    assert not [span.name for span in cuts[signal].trace.spans if span.name.startswith("job ")]
