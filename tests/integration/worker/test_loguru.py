"""loguru in a worker: evidence, and records over OTLP with the ids of their job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.worker_program import run
from tests.support.worker_sink import WorkerSink, worker_sink

SET_UP = """
from loguru import logger
logger.remove()
number = logger.add(sys.stdout, format="{level} {function} {line} {message}", level="INFO")
assert number == 1, "the program's own sinks have the numbers that they always had"
"""


@pytest.fixture
def sink() -> Iterator[WorkerSink]:
    with worker_sink() as found:
        yield found


def bodies(sink: WorkerSink) -> list[object]:
    return [record.value for record in sink.logs if not record.name]


def test_an_exception_that_loguru_logs_fails_the_job(tmp_path: Path, sink: WorkerSink) -> None:
    body = """
    job = begin()
    try:
        raise ValueError("no such model")
    except ValueError:
        logger.exception("failed")
    job_end(job)
    """
    ended = run(tmp_path, SET_UP + "\n".join(line[4:] for line in body.splitlines()), sink.url)
    assert ended.returncode == 0, ended.errors
    span = sink.one("process q")
    assert (span.get("otel_pipeline.job.outcome"), span.get("error.type")) == ("failed", "ValueError")
    [record] = [record for record in sink.logs if record.value == "failed"]
    assert (record.trace_id, record.span_id) == (span.trace_id, span.span_id)
    assert record.get("exception.type") == "ValueError"
    assert record.get("otel_pipeline.correlation_id") == "j-1"


def test_what_the_program_prints_is_as_without_us(tmp_path: Path, sink: WorkerSink) -> None:
    program = SET_UP + "def f():\n    logger.info('hello')\n    logger.debug('not this')\nf()\n"
    ended = run(tmp_path, program, sink.url)
    assert ended.output.startswith("INFO f "), ended.output + ended.errors
    assert ended.output.endswith(" hello\n")
    assert bodies(sink) == ["hello"]


def test_two_sinks_are_one_record(tmp_path: Path, sink: WorkerSink) -> None:
    run(tmp_path, SET_UP + "logger.add(sys.stderr)\nlogger.bind(gpu=1).warning('hot')", sink.url)
    assert bodies(sink) == ["hot"]
    assert sink.logs[-1].get("gpu") == 1


def test_the_standard_library_intercepted_by_loguru_is_one_record(tmp_path: Path, sink: WorkerSink) -> None:
    program = """
class Intercept(logging.Handler):
    def emit(self, record):
        logger.opt(depth=6, exception=record.exc_info).log(record.levelname, record.getMessage())
logging.basicConfig(handlers=[Intercept()], level=0, force=True)
logging.getLogger("lib").warning("from a library")
logger.info("direct")
"""
    run(tmp_path, SET_UP + program, sink.url)
    assert sorted(map(str, bodies(sink))) == ["direct", "from a library"]


def test_loguru_that_feeds_the_standard_library_ends_up_as_one_record(tmp_path: Path, sink: WorkerSink) -> None:
    program = """
logger.remove()
class Propagate(logging.Handler):
    def emit(self, record):
        logging.getLogger(record.name).handle(record)
logger.add(Propagate(), format="{message}")
for number in range(3):
    logger.warning(f"n{number}")
"""
    run(tmp_path, SET_UP + program, sink.url)
    found = bodies(sink)
    assert {found.count("n1"), found.count("n2")} == {1}
    assert found.count("n0") in (1, 2), "only the first shows how the two are connected"
