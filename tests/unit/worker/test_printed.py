"""Exceptions that are told to the console alone."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator

import pytest
from opentelemetry import trace

from otel_pipeline.worker import names, printed
from otel_pipeline.worker.jobs import Origin, job_end, job_start
from tests.support.worker_spans import Spans, attributes


@pytest.fixture(autouse=True)
def patched() -> Iterator[None]:
    original = builtins.print
    printed.patch()
    yield
    builtins.print = original


def outcome_of(spans: Spans, handler: Callable[[Exception], object], error: Exception) -> tuple[object, object]:
    job = job_start(Origin("redis", "q"), job_id="a")
    try:
        raise error  # noqa: TRY301  as a worker's work does
    except Exception as caught:  # noqa: BLE001  as workers do
        handler(caught)
    job_end(job)
    found = attributes(spans.one("process q"))
    return found[names.JOB_OUTCOME], found.get(names.ERROR_TYPE)


@pytest.mark.parametrize(
    "handler",
    [
        lambda error: print(error),  # noqa: PLW0108  the built-in is replaced after this
        lambda error: print(f"[!] job failed: {error}"),
        lambda error: print("job failed:", str(error)),
        lambda error: print("job failed", error, flush=True),
    ],
)
@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory"), KeyError("seed"), ConnectionRefusedError(111, "x")]
)
def test_the_last_thing_of_a_job_that_prints_its_exception_is_its_failure(
    spans: Spans, handler: Callable[[Exception], object], error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome_of(spans, handler, error) == ("failed", type(error).__name__)
    assert str(error) in capsys.readouterr().out


@pytest.mark.parametrize(
    "handler",
    [
        lambda error: print(f"attempt 1 failed: {error}, retrying"),
        lambda _error: print("going on"),
        lambda error: (print(error), trace.get_tracer("t").start_span("upload").end()),
    ],
    ids=["another try", "without the exception", "work that follows"],
)
def test_a_printed_exception_that_the_job_recovered_from_is_none(
    spans: Spans, handler: Callable[[Exception], object]
) -> None:
    assert outcome_of(spans, handler, RuntimeError("CUDA out of memory")) == ("completed", None)


def test_printing_is_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    print("a", 1, sep="-", end="!\n")
    assert capsys.readouterr().out == "a-1!\n"
