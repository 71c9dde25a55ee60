"""The words that programs have for how a job came out, and the sentences in which they report errors."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.reading.payload import scalar
from otel_pipeline.worker.redaction import SCANNED_MAX, scrub

STATE_MAX: Final = 64
"""Characters of a state: longer texts are messages."""

WORDS_MAX: Final = 1024
"""States that are remembered with what they mean; programs have some dozens, and ask for each a dozen times."""


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OUTCOMES: Final[dict[str, Outcome]] = {
    word: outcome
    for outcome, text in (
        (
            Outcome.FAILED,
            "failed failure fail error errored dead timeout timed_out exception crashed killed rejected fatal "
            "unsuccessful oom expired failed_permanently",
        ),
        (Outcome.CANCELLED, "cancelled canceled aborted revoked interrupted cancel abort stopped"),
        (
            Outcome.COMPLETED,
            "completed complete done success succeeded successful finished finish ok ready delivered published",
        ),
        (
            Outcome.PARTIAL,
            "partial partially_completed partially_complete partially_succeeded partial_success partial_failure "
            "partially_failed completed_with_errors done_with_errors finished_with_errors",
        ),
        (Outcome.SKIPPED, "skipped skip ignored ignore duplicate noop no_op"),
    )
    for word in words(text)
}
_LAST: Final = re.compile(r"(?:^|_)(failed|failure|error|timeout|timed_out|exception|cancelled|canceled|aborted)$")
_UNDER_WAY: Final = re.compile(
    r"^(?:not|no|none|never|without|on|if|zero|\d+|retry\w*|re_?queued?|waiting|wait|will|pending|queued|processing|running|"
    r"in_progress|in_queue|started|starting|active|progress|uploading|generating|rendering|downloading|accepted|created|"
    r"submitted|scheduled|assigned|dispatched|claimed|initiali[sz]ing|loading|paused|working|busy)(?:_|$)"
)
_PREFIXED: Final = re.compile(
    r"^\W{0,3}(?:(?:error|failed|failure|fatal|exception|traceback \(most recent call last\))\s*(?::|!|-\s)|"
    r"(?:failed|unable|error)\s(?:to|while|during|when|in|generating|processing)\b)",
    re.IGNORECASE,
)
_ENUM: Final = re.compile(r"^[A-Za-z_]\w*\.(?=[A-Za-z_]+$)")
_EXCEPTION: Final = re.compile(
    r"^(?:[A-Za-z_]\w{0,63}\.){0,6}_?[A-Z]\w{0,63}(?:Error|Exception|Timeout|Interrupt|Exit|Failure|Exceeded|Refused|"
    r"Expired|NotFound|Denied|Blocked|Failed|Group)(?=\s*[:(\n]|$)"
)
_QUALIFIED: Final = re.compile(r"^(?:[A-Za-z_]\w{0,63}\.){1,6}_?(?:[A-Z]\w{0,63}|error)(?=:\s|$)")
"""Classes of exceptions with names of any kind: only where an error is known to be told."""
_INTRODUCED: Final = re.compile(r"^\W{0,3}(?:error|failed|failure|fatal|exception)\s*[:!-]\s*", re.IGNORECASE)
_TRACEBACK: Final = "traceback (most recent call last)"
LINES_MAX: Final = 40
"""Last lines of a traceback that are searched for the exception's."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a document says."""

    outcome: Outcome
    error_type: str | None = None
    message: str | None = None

    def evidence(self, source: Source) -> Evidence:
        failed = self.outcome in {Outcome.FAILED, Outcome.PARTIAL, Outcome.CANCELLED}
        return Evidence(source, self.outcome, self.error_type if failed else None, self.message if failed else None)


def state(value: object) -> Outcome | None:
    """The outcome that a word for a state stands for; None if it is under way or means something else."""
    return _outcome(word_of(value))


@functools.lru_cache(maxsize=WORDS_MAX)
def _outcome(word: str) -> Outcome | None:
    if not word:
        return None
    known = _OUTCOMES.get(word)
    if known is not None or _UNDER_WAY.match(word):
        return known
    last = _LAST.search(word)
    return _OUTCOMES[last[1]] if last else None


def is_under_way(value: object) -> bool:
    """Whether it is the state of a job that is not over."""
    word = word_of(value)
    return bool(word) and word not in _OUTCOMES and _UNDER_WAY.match(word) is not None


def sentence(value: object) -> Finding | None:
    """What a text says that is one word for a state, or begins like a report of an error."""
    text = text_of(value)
    if text is None:
        return None
    if _EXCEPTION.match(text) or _EXCEPTION.match(_INTRODUCED.sub("", text, count=1)):
        return Finding(Outcome.FAILED, exception_in(text), report(text))
    known = state(text)
    if known is not None:
        return Finding(known, "timeout" if "time" in text.lower() and known is Outcome.FAILED else None)
    return Finding(Outcome.FAILED, exception_in(text), report(text)) if _PREFIXED.match(text) else None


def exception_in(text: str) -> str | None:
    """The class of the exception that a text reports, for `error.type`."""
    line = _line(text)
    for each in (line, _INTRODUCED.sub("", line, count=1)):
        match = _EXCEPTION.match(each) or _QUALIFIED.match(each)
        if match:
            return match[0]
    return None


def report(text: str) -> str:
    """What an error says, for a span's status: short, without secrets, without the frames of a traceback."""
    return scrub(_line(text))


def _line(text: str) -> str:
    """Of a traceback the line with the exception, else the text."""
    if not text.lower().startswith(_TRACEBACK):
        return text
    lines = text.rstrip().splitlines()[-LINES_MAX:]
    told = (line for line in reversed(lines) if _EXCEPTION.match(line) or _QUALIFIED.match(line))
    return next(told, lines[-1])


def word_of(value: object) -> str:
    """A state in its plainest form: `JobStatus.TIMED_OUT` and `Timed out` are `timed_out`."""
    plain = scalar(value)
    return _word(plain) if isinstance(plain, str) and len(plain) <= STATE_MAX else ""


@functools.lru_cache(maxsize=WORDS_MAX)
def _word(plain: str) -> str:
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", plain) if not plain.isupper() else plain
    word = re.sub(r"[^a-z0-9]+", "_", _ENUM.sub("", name.strip(" .!")).lower()).strip("_")
    return re.sub(r"^(?:job|task|status|state|render|generation|is)_(?=.)", "", word)


def text_of(value: object) -> str | None:
    """A text's beginning, of a traceback its end too; None for other values and for blank ones."""
    if isinstance(value, bytes) and len(value) <= SCANNED_MAX * 64:
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    text = str.__str__(value)
    head = text[:SCANNED_MAX].strip()
    if len(text) > SCANNED_MAX and head.lower().startswith(_TRACEBACK):
        return f"{head[: len(_TRACEBACK)]}\n{text[-SCANNED_MAX:].strip()}"
    return head or None
