"""Evidence from logs and printed tracebacks; records on their way out, with the job on them."""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
from collections.abc import Callable, Iterator

import pytest
from opentelemetry import baggage, context
from opentelemetry._logs import SeverityNumber
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_pipeline.worker import logs, names
from otel_pipeline.worker.evidence import Outcome, Source
from otel_pipeline.worker.jobs import Job, Origin, job_start
from tests.support.worker_logs import Records, attributes, recorded_logs
from tests.support.worker_spans import Spans


@pytest.fixture(autouse=True)
def _patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `patch` replaces is put back."""
    monkeypatch.setattr(logging.Logger, "callHandlers", logging.Logger.callHandlers)
    monkeypatch.setattr(traceback, "print_exception", traceback.print_exception)
    monkeypatch.setattr(traceback, "format_exc", traceback.format_exc)
    monkeypatch.setattr(logs._Bridge, "loguru_feeds_stdlib", False)
    logs.patch()


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[Records]:
    with recorded_logs(monkeypatch) as found:
        yield found


@pytest.fixture
def job(spans: Spans) -> Job:  # noqa: ARG001  a clean slate
    return job_start(Origin("redis", "q"), b'{"job_id": "j-1"}')


def failing(then: Callable[[], object]) -> None:
    """Handles an exception as workers do."""
    try:
        raise_one()
    except ValueError:
        with contextlib.redirect_stderr(io.StringIO()):
            then()


def raise_one() -> None:
    raise ValueError("no such model")


LOG = logging.getLogger("program")


@pytest.mark.parametrize(
    "say",
    [
        lambda: LOG.exception("failed"),
        lambda: LOG.error("failed", exc_info=True),
        lambda: LOG.critical("failed"),
        lambda: LOG.error("failed, and the exception is not given"),
        lambda: traceback.print_exc(),  # noqa: PLW0108  looked up when it is called
        lambda: print(traceback.format_exc()),
    ],
    ids=["exception", "exc_info", "critical", "implicit", "print_exc", "format_exc"],
)
def test_a_swallowed_exception_that_is_told_of_is_evidence(job: Job, say: Callable[[], object]) -> None:
    failing(say)
    assert {(each.source, each.outcome, each.error_type, each.message) for each in job.evidence} == {
        (Source.LOG, Outcome.FAILED, "ValueError", "no such model")
    }


@pytest.mark.parametrize(
    "say",
    [
        lambda: LOG.warning("again", exc_info=True),
        lambda: LOG.info("again"),
        lambda: logging.getLogger("opentelemetry.exporter").error("no gateway", exc_info=True),
    ],
    ids=["warning", "info", "exporter"],
)
def test_less_than_an_error_is_no_evidence(job: Job, say: Callable[[], object]) -> None:
    failing(say)
    assert job.evidence == []


def test_an_error_without_an_exception_is_no_evidence(job: Job) -> None:
    LOG.error("queue is empty")
    assert job.evidence == []


def test_a_logger_that_does_not_propagate_is_seen(job: Job) -> None:
    lonely = logging.getLogger("lonely")
    lonely.propagate = False
    failing(lambda: lonely.exception("failed"))
    assert len(job.evidence) == 1


def test_outside_of_a_job_nothing_is_observed(spans: Spans) -> None:
    failing(lambda: LOG.exception("failed"))
    assert spans.all() == []


def test_records_go_out_with_trace_job_and_correlation_id(job: Job, records: Records) -> None:
    LOG.warning("hot: %d", 90, extra={"gpu": 1})
    record = records.one("hot: 90")
    own = job.span.get_span_context()
    assert (record.trace_id, record.span_id) == (own.trace_id, own.span_id)
    assert (record.severity_number, record.severity_text) == (SeverityNumber.WARN, "WARN")
    assert attributes(record) == {"gpu": 1, names.JOB_ID: "j-1", names.CORRELATION_ID: "j-1"}


def test_without_a_job_the_correlation_id_is_that_of_the_request(spans: Spans, records: Records) -> None:
    token = context.attach(baggage.set_baggage(names.CORRELATION_ID, "c-9"))
    LOG.warning("hello")
    context.detach(token)
    assert attributes(records.one("hello")) == {names.CORRELATION_ID: "c-9"}
    assert spans.all() == []


def test_an_exception_goes_out_with_the_record(records: Records) -> None:
    failing(lambda: LOG.exception("failed"))
    found = attributes(records.one("failed"))
    assert (found["exception.type"], found["exception.message"]) == ("ValueError", "no such model")
    assert "raise ValueError" in str(found["exception.stacktrace"])


def test_what_the_root_logger_does_not_get_stays(records: Records) -> None:
    lonely = logging.getLogger("lonely")
    lonely.propagate = False
    lonely.warning("alone")
    LOG.debug("below the level")
    logging.getLogger("opentelemetry.sdk").warning("own")
    with suppress_instrumentation():
        logging.getLogger("urllib3").warning("of the exporter")
    assert records.all() == []


def test_an_official_handler_on_the_root_keeps_us_from_sending(records: Records) -> None:
    official = type("LoggingHandler", (logging.NullHandler,), {"__module__": "opentelemetry.sdk._logs"})()
    logging.getLogger().addHandler(official)
    try:
        LOG.warning("once")
    finally:
        logging.getLogger().removeHandler(official)
    assert records.all() == []


def test_basic_config_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    stream = io.StringIO()
    logging.basicConfig(stream=stream, format="%(funcName)s %(message)s")
    LOG.warning("hello")
    assert stream.getvalue() == "test_basic_config_still_works hello\n"
