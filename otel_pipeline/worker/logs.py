"""What a job logs: evidence of its failure, and log records on their way out over OTLP.

Most workers swallow their exceptions and log them. So an ERROR with an exception, or a printed traceback, in the
context of a job is evidence. It is taken where a logger hands a record to its handlers (`Logger.callHandlers`), because
many programs configure loggers that do not propagate.

Records go out over OTLP by the official handler on the root logger (of opentelemetry-instrumentation-logging, or of the
SDK). Where neither is, they go out from here; never by a handler of ours, since `logging.basicConfig` does nothing when
the root logger has one. loguru's records pass no stdlib logger and are always sent from here. Nothing changes levels,
handlers or formats.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from types import FrameType, ModuleType
from typing import Any, Final

from opentelemetry import context
from opentelemetry._logs import LogRecord, SeverityNumber, get_logger, get_logger_provider
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_pipeline.worker import outcomes, printed
from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.flow import error_name
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import current_job
from otel_pipeline.worker.redaction import error_text
from otel_pipeline.worker.settings import settings
from otel_pipeline.worker.tasks import is_own, is_own_file

OWN_LOGGERS: Final = ("opentelemetry", "otel_pipeline")
"""Loggers of what exports the records: they would go round in circles."""
PARENTS_MAX: Final = 64
"""Loggers above one another that are looked at."""
EXTRA_MAX: Final = 32
"""Fields that a program adds to a record and that go out with it."""
CHARS_MAX: Final = 8192
"""Of one field; a traceback has some thousand."""
NATURAL: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every stdlib record has."""


class _Local(threading.local):
    busy = False
    """This thread is in here already."""
    stdlib = 0
    """Handlers of the standard library are being called."""
    loguru = 0
    """Sinks of loguru are being called."""
    last: Any = None
    """The loguru record that went out last: each sink is handed the same one."""


_local: Final = _Local()


class _Bridge:
    """How loguru and the standard library are connected in this program."""

    loguru_feeds_stdlib = False


# -- the standard library ----------------------------------------------------------------------------------------------


def patch() -> None:
    """Wraps where records go to handlers and where tracebacks are printed."""
    _wrap_call_handlers()
    _wrap_print_exception()
    _wrap_format_exc()
    printed.patch()


def _wrap_call_handlers() -> None:
    wrapped = logging.Logger.callHandlers

    @functools.wraps(wrapped)
    def call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
        _logged(self, record)
        _local.stdlib += 1
        try:
            wrapped(self, record)
        finally:
            _local.stdlib -= 1

    logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign]


@hook("logs.logged")
def _logged(logger: logging.Logger, record: logging.LogRecord) -> None:
    if _local.loguru:
        _Bridge.loguru_feeds_stdlib = True
    if _local.busy or record.name.startswith(OWN_LOGGERS):
        return
    _local.busy = True
    try:
        if record.levelno >= logging.ERROR and current_job() is not None:
            _observe(_error_of(record))
        if not _local.loguru and _goes_unsent(logger):
            _send(record.name, _of_stdlib(record))
        _ask_rules(record.getMessage)
    finally:
        _local.busy = False


def _error_of(record: logging.LogRecord) -> BaseException | None:
    """The exception that a record tells of: its own, or the one that the program is handling while it logs."""
    if record.exc_info and record.exc_info[1] is not None:
        return record.exc_info[1]
    handled = sys.exc_info()[1]
    # Libraries log errors that they go on to recover from.
    return handled if handled is not None and is_own_file(record.pathname) else None


def _observe(error: BaseException | None) -> None:
    job = current_job()
    if job is not None and isinstance(error, Exception):
        job.observe(Evidence(Source.LOG, Outcome.FAILED, error_name(error), error_text(error)))


def _ask_rules(text: Callable[[], str]) -> None:
    """What the operator's rules say of the line; without rules no text is made of it."""
    job = current_job() if settings().job_rules else None
    if job is not None:
        job.observe(outcomes.logged(job, text()))


def _goes_unsent(logger: logging.Logger) -> bool:
    """Whether a record of this logger reaches the root, and finds no official handler anywhere."""
    if not _has_provider() or not is_instrumentation_enabled():
        return False
    each: logging.Logger | None = logger
    for _ in range(PARENTS_MAX):
        if each is None:
            return True
        if any(_is_official(handler) for handler in each.handlers):
            return False
        if not each.propagate and each.parent is not None:
            return False
        each = each.parent
    return False


def _is_official(handler: logging.Handler) -> bool:
    return type(handler).__module__.startswith("opentelemetry.")


def _has_provider() -> bool:
    return callable(getattr(get_logger_provider(), "force_flush", None))


def _of_stdlib(record: logging.LogRecord) -> LogRecord:
    extra = {key: value for key, value in vars(record).items() if key not in NATURAL}
    kind, error, trace = record.exc_info if record.exc_info else (None, None, None)
    return LogRecord(
        timestamp=int(record.created * 1e9),
        context=context.get_current(),
        severity_number=severity(record.levelno),
        severity_text={"WARNING": "WARN", "CRITICAL": "FATAL"}.get(record.levelname, record.levelname),
        body=record.getMessage(),
        attributes={**_scalars(extra), **_exception(kind, error, trace)},
    )


def severity(level: int) -> SeverityNumber:
    """OpenTelemetry's number of a level of Python's or loguru's."""
    for least, number in _SEVERITIES:
        if level >= least:
            return number
    return SeverityNumber.TRACE


_SEVERITIES: Final = (
    (50, SeverityNumber.FATAL),
    (40, SeverityNumber.ERROR),
    (30, SeverityNumber.WARN),
    (20, SeverityNumber.INFO),
    (10, SeverityNumber.DEBUG),
)


def _scalars(extra: Mapping[str, Any]) -> dict[str, Any]:
    kept = [(key, value) for key, value in extra.items() if isinstance(value, str | bool | int | float)]
    return {str(key): value[:CHARS_MAX] if isinstance(value, str) else value for key, value in kept[:EXTRA_MAX]}


def _exception(kind: Any, error: Any, trace: Any) -> dict[str, Any]:
    if kind is None:
        return {}
    stack = "".join(_format_exception(kind, error, trace))
    return {
        "exception.type": error_name(error) if isinstance(error, BaseException) else str(kind),
        "exception.message": str(error)[:CHARS_MAX],
        "exception.stacktrace": stack[-CHARS_MAX:],
    }


_format_exception: Final = traceback.format_exception


def _send(name: str, record: LogRecord) -> None:
    get_logger(name).emit(record)


# -- printed tracebacks ------------------------------------------------------------------------------------------------


def _wrap_print_exception() -> None:
    """`print_exc` and multiprocessing's children come through here, too."""
    wrapped = traceback.print_exception

    @functools.wraps(wrapped)
    def print_exception(*args: Any, **kwargs: Any) -> None:
        _printed(sys._getframe(1), args)
        wrapped(*args, **kwargs)

    traceback.print_exception = print_exception


def _wrap_format_exc() -> None:
    wrapped = traceback.format_exc

    @functools.wraps(wrapped)
    def format_exc(*args: Any, **kwargs: Any) -> str:
        _formatted(sys._getframe(1))
        return wrapped(*args, **kwargs)

    traceback.format_exc = format_exc


@hook("logs.printed")
def _printed(caller: FrameType, args: tuple[Any, ...]) -> None:
    """A traceback that logging formats belongs to a record, whose level counts."""
    if current_job() is None or caller.f_code.co_filename == logging.__file__:
        return
    values = [value for value in args[:2] if isinstance(value, BaseException)]
    _observe(values[0] if values else None)


@hook("logs.formatted")
def _formatted(caller: FrameType) -> None:
    if current_job() is not None and is_own(caller.f_code):
        _observe(sys.exc_info()[1])


# -- loguru ------------------------------------------------------------------------------------------------------------


def patch_loguru(module: ModuleType) -> None:
    """Wraps what hands a record to one sink: a sink of ours would be gone with the program's `logger.remove()`."""
    handler = module._handler.Handler
    wrapped = handler.emit

    @functools.wraps(wrapped)
    def emit(self: Any, record: Any, *args: Any, **kwargs: Any) -> Any:
        _logged_by_loguru(self, record)
        _local.loguru += 1
        try:
            return wrapped(self, record, *args, **kwargs)
        finally:
            _local.loguru -= 1

    handler.emit = emit


@hook("logs.loguru")
def _logged_by_loguru(handler: Any, record: dict[str, Any]) -> None:
    level = record["level"].no
    if _local.busy or record is _local.last or level < handler.levelno:
        return
    _local.last = record
    _local.busy = True
    try:
        if level >= logging.ERROR and current_job() is not None:
            _observe(_error_of_loguru(record))
        # A record that came from the standard library, or goes there, is sent on its way through it.
        if not _local.stdlib and not _Bridge.loguru_feeds_stdlib and _has_provider() and is_instrumentation_enabled():
            _send(str(record["name"]), _of_loguru(record))
        _ask_rules(lambda: str(record["message"]))
    finally:
        _local.busy = False


def _error_of_loguru(record: dict[str, Any]) -> BaseException | None:
    exception = record["exception"]
    if exception is not None and exception.value is not None:
        value: BaseException = exception.value
        return value
    handled = sys.exc_info()[1]
    return handled if handled is not None and is_own_file(record["file"].path) else None


def _of_loguru(record: dict[str, Any]) -> LogRecord:
    exception = record["exception"]
    return LogRecord(
        timestamp=int(record["time"].timestamp() * 1e9),
        context=context.get_current(),
        severity_number=severity(record["level"].no),
        severity_text={"WARNING": "WARN", "CRITICAL": "FATAL"}.get(record["level"].name, record["level"].name),
        body=record["message"],
        attributes={**_scalars(record["extra"]), **(_exception(*exception) if exception else {})},
    )
