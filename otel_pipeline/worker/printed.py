"""Workers that tell their failures to the console alone: `except Exception as e: print(f"job failed: {e}")`.

A `print` has no level, and programs print exceptions that they recover from. So it is evidence only if the text carries
the exception that is being handled, does not speak of another try, and if the job did nothing more after it that shows.
"""

from __future__ import annotations

import builtins
import functools
import re
import sys
import time
from typing import Any, Final

from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.flow import error_name
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import current_job
from otel_pipeline.worker.redaction import error_text
from otel_pipeline.worker.tasks import is_own_file

TEXT_MAX: Final = 4096
"""Characters of what is printed that are searched for the exception's text."""
_AGAIN: Final = re.compile(
    r"\b(?:retry\w*|retries|try(?:ing)? again|attempt\w*|warn\w*|fall\w* ?back|skip\w*|ignor\w*|wait\w*|reconnect\w*|"
    r"debug)\b",
    re.IGNORECASE,
)


def patch() -> None:
    """Wraps the built-in."""
    wrapped = builtins.print

    @functools.wraps(wrapped)
    def print(*args: Any, **kwargs: Any) -> None:  # noqa: A001  it takes its place
        handled = sys.exc_info()[1]
        if handled is not None:
            _printed(handled, args, sys._getframe(1).f_code.co_filename)
        wrapped(*args, **kwargs)

    builtins.print = print


@hook("printed.print")
def _printed(error: BaseException, args: tuple[Any, ...], file: str) -> None:
    job = current_job()
    if job is None or not isinstance(error, Exception) or not is_own_file(file) or not _tells(error, args):
        return
    job.printed = Evidence(Source.LOG, Outcome.FAILED, error_name(error), error_text(error))
    job.printed_ns = time.time_ns()


def _tells(error: Exception, args: tuple[Any, ...]) -> bool:
    texts = [each[:TEXT_MAX] for each in args if isinstance(each, str)]
    if any(_AGAIN.search(text) for text in texts):
        return False
    if any(each is error for each in args):
        return True
    said = str(error)[: TEXT_MAX // 4].strip() or type(error).__name__
    return any(said in text for text in texts)
