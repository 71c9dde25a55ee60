"""What a document says of the job that it is about: a returned value, a status in Redis, the body of a callback.

Strict on purpose: only what states an outcome counts. `{"error": null}`, `{"errors": []}`, `{"status": "processing"}`,
`{"status": 200}` and `{"error_rate": 0.1}` say nothing of a failure. Within one document a word for cancelled, skipped
or partial decides first, then an error, a flag, a state, counts of what succeeded and what failed, a status code. An
error beside a success, or beside results, is a partial success.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from otel_pipeline.worker.evidence import Outcome
from otel_pipeline.worker.outcomes.states import (
    Finding,
    exception_in,
    is_under_way,
    report,
    state,
    text_of,
    word_of,
    words,
)
from otel_pipeline.worker.reading.payload import Payload, is_structure, item, member, present, scalar
from otel_pipeline.worker.redaction import scrub

ITEMS_MAX: Final = 200
"""Results of one job that are judged one by one."""

_TYPE: Final = re.compile(r"[A-Za-z_][\w.:/-]{0,79}")
_NO_ERROR: Final = words("none null nil no false 0 ok n/a na - -- success undefined [] {} no_error noerror nan")

_STATES: Final = ("status", "state", "job_status", "jobStatus", "task_status", "taskStatus", "result_status", "outcome")
_ERRORS: Final = (
    *("error", "errors", "error_message", "errorMessage", "error_msg", "err", "exception", "failure_reason"),
    *("fail_reason", "failed_reason", "failedReason", "failureReason", "last_error"),
)
_FLAGS: Final = ("success", "ok", "succeeded", "successful", "is_success", "isSuccess")
_COUNTED: Final = frozenset({"succeeded", "successful"})
"""Flags that are counts where they are numbers."""
_NEGATIVE: Final = ("failed", "is_failed", "has_error", "is_error", "isError")
_FLAGGED: Final = (
    (Outcome.CANCELLED, ("cancelled", "canceled", "aborted")),
    (Outcome.SKIPPED, ("skipped",)),
    (Outcome.COMPLETED, ("completed", "done", "finished")),
)
_GOOD: Final = (
    *("succeeded", "success", "successful", "success_count", "succeeded_count", "completed", "ok", "successes"),
)
_BAD: Final = (
    *("failed", "failures", "failed_count", "failure_count", "error_count", "errors_count", "failure", "errors"),
)
_OUTPUTS: Final = (
    *("images", "videos", "image", "video", "audio", "outputs", "output", "results", "files", "urls", "artifacts"),
)
_CODES: Final = ("statusCode", "status_code", "http_status", "httpStatus", "status")
_MESSAGES: Final = (
    *("message", "msg", "reason", "detail", "details", "error_message", "errorMessage", "error_msg", "description"),
)
_TYPES: Final = ("error_type", "errorType", "error_code", "errorCode", "exception_type", "exc_type", "code")
_INNER: Final = ("output", "result", "data", "body", "response", "job")
_LISTS: Final = ("results", "outputs", "items", "output", "result", "data")
_KNOWN: Final = frozenset(
    {*_STATES, *_ERRORS, *_FLAGS, *_NEGATIVE, *_GOOD, *_BAD, *_CODES, "code"}
    | {key for _, keys in _FLAGGED for key in keys}
)


def document(payload: Payload, value: object, *, over: bool = True) -> Finding | None:
    """What a structure says of its job: itself, then what is under its `output`, `result`, `data` ...

    With `over` the job is over, so that an error counts whatever state is beside it.
    """
    if not over and is_under_way(_state(payload, value)):
        return None
    found = _level(payload, value)
    if found is not None and found.outcome is not Outcome.COMPLETED:
        return found
    for key in _INNER:
        inner = payload.look(value, key)
        if isinstance(inner, dict) or (is_structure(inner) and not isinstance(inner, (list, tuple))):
            deeper = _level(payload, inner)
            if deeper is not None and deeper.outcome is not Outcome.COMPLETED:
                return deeper
            found = found or deeper
    for key in _LISTS:
        inner = payload.look(value, key)
        listed = several(payload, inner) if isinstance(inner, list) else None
        if listed is not None and listed.outcome is not Outcome.COMPLETED:
            return listed
    return found


def several(payload: Payload, values: Sequence[object]) -> Finding | None:
    """What a list of results says, if each of them says something; exceptions in it count in any case."""
    if not 0 < len(values) <= ITEMS_MAX:
        return None
    given = list(values)
    found = [_result(payload, each) for each in given]
    bad = [each for each in found if each is not None and each.outcome is Outcome.FAILED]
    raised = any(isinstance(each, BaseException) for each in given)
    if not bad or (None in found and not raised):
        return None
    outcome = Outcome.FAILED if len(bad) == len(given) else Outcome.PARTIAL
    return Finding(outcome, bad[0].error_type, bad[0].message)


def is_error(value: object) -> bool:
    """Whether what stands for an error is one, rather than a word for none."""
    return _truthy(value)


def raised(error: BaseException) -> Finding:
    """An exception that was returned. Its text is read only where it is plain."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    first = error.args[0] if error.args else None
    return Finding(Outcome.FAILED, name, scrub(first) if isinstance(first, str) else None)


def _result(payload: Payload, value: object) -> Finding | None:
    if isinstance(value, BaseException):
        return raised(value)
    return _level(payload, value) if isinstance(value, dict) else None


def _level(payload: Payload, value: object) -> Finding | None:
    """What one structure says, without what is under its keys."""
    if not present(value, _KNOWN):
        return None
    word = _state(payload, value)
    said = state(word) or _flagged(value)
    if said in {Outcome.CANCELLED, Outcome.SKIPPED, Outcome.PARTIAL}:
        return Finding(said, None, _message(payload, value))
    good, bad = _count(value, _GOOD), _count(value, _BAD)
    flag = _flag(value, counted=bad is not None)
    succeeded = said is Outcome.COMPLETED or flag is True
    found = _trouble(payload, value, some=succeeded or bool(good), bad=bool(bad))
    if found is not None and found.outcome is Outcome.PARTIAL:
        return found
    if flag is False or said is Outcome.FAILED or found is not None:
        timeout = "timeout" if "time" in word_of(word) else None
        found = found or Finding(Outcome.FAILED, _type(payload, value) or timeout, _message(payload, value))
        return Finding(Outcome.FAILED, found.error_type, found.message)
    return Finding(Outcome.COMPLETED) if succeeded or (good and bad == 0) else None


def _trouble(payload: Payload, value: object, *, some: bool, bad: bool) -> Finding | None:
    """Errors, counts of failures and codes; `some` of it succeeded as far as the rest tells."""
    error = _error(payload, value)
    if error is not None:
        some = some or (error[0] == "errors" and _has_outputs(payload, value))
        return Finding(Outcome.PARTIAL if some else Outcome.FAILED, error[1], error[2] or _message(payload, value))
    if any(_truth(member(value, key)) is True for key in _NEGATIVE):
        return Finding(Outcome.FAILED, _type(payload, value), _message(payload, value))
    if bad:
        some = some or _has_outputs(payload, value)
        return Finding(Outcome.PARTIAL if some else Outcome.FAILED, None, _message(payload, value))
    code = _code(value)
    return Finding(Outcome.FAILED, str(code), _message(payload, value)) if code is not None else None


def _state(payload: Payload, value: object) -> object:
    """The state that the structure has, rather a bad one; ComfyUI and others put it one level deeper."""
    seen: list[object] = []
    for key in _STATES:
        found = payload.look(value, key)
        if isinstance(found, dict):
            found = next(
                (word for deep in ("status_str", "state", "name", "value") if (word := member(found, deep))), None
            )
        if state(found) not in {None, Outcome.COMPLETED}:
            return found
        if word_of(found):
            seen.append(found)
    return next((word for word in seen if state(word) is not None), seen[0] if seen else None)


def _flagged(value: object) -> Outcome | None:
    for outcome, keys in _FLAGGED:
        if any(_truth(member(value, key)) is True for key in keys):
            return outcome
    return None


def _flag(value: object, *, counted: bool) -> bool | None:
    """Whether it succeeded, if a flag tells; 0 and 1 are flags unless failures are counted beside them."""
    for key in _FLAGS:
        found = member(value, key)
        truth = _truth(found)
        if truth is None and not counted and type(found) is int and found in {0, 1} and key not in _COUNTED:
            truth = bool(found)
        if truth is not None:
            return truth
    return None


def _truth(value: object) -> bool | None:
    plain = scalar(value)
    if isinstance(plain, str):
        return {"true": True, "false": False}.get(plain.lower())
    return plain if isinstance(plain, bool) else None


def _count(value: object, keys: Iterable[str]) -> int | None:
    """How many, if a number or a list tells; a flag does not count."""
    for key in keys:
        found = member(value, key)
        if isinstance(found, (list, tuple)):
            return sum(1 for each in found[:ITEMS_MAX] if is_structure(each) or _truthy(each))
        plain = scalar(found)
        if isinstance(plain, str) and plain.isdecimal() and len(plain) < 8:
            plain = int(plain)
        if isinstance(plain, int) and not isinstance(plain, bool) and plain >= 0:
            return plain
    return None


def _has_outputs(payload: Payload, value: object) -> bool:
    return any(_truthy(payload.look(value, key)) for key in _OUTPUTS)


def _error(payload: Payload, value: object) -> tuple[str, str | None, str | None] | None:
    """The first error that is one: its key, type and message."""
    for key in _ERRORS:
        found = payload.look(value, key)
        if found is None or not _truthy(found):
            continue
        if isinstance(found, BaseException):
            said = raised(found)
            return key, said.error_type, said.message
        if isinstance(found, list) and found and is_structure(found[0]):
            found = payload.open(found[0])
        if isinstance(found, dict):
            return key, _type(payload, found, own=True) or _type(payload, value), _message(payload, found)
        text = text_of(item(found, 0) if isinstance(found, list) else found)
        return key, _type(payload, value) or (exception_in(text) if text else None), report(text) if text else None
    return None


def _truthy(value: object) -> bool:
    """Whether something that stands for an error, or for an output, is one."""
    if isinstance(value, dict):
        told = [found for key in ("message", "code", "type", "error") if (found := member(value, key)) is not None]
        return any(map(_truthy, told)) if told else bool(value)
    if isinstance(value, (list, tuple)):
        return any(is_structure(each) or _truthy(each) for each in value[:ITEMS_MAX] if not isinstance(each, list))
    if isinstance(value, (int, float)):
        # A number with a fraction is a measure of an error, not an error.
        return not isinstance(value, float) and value not in {0, 200}
    if isinstance(value, (str, bytes)):
        text = text_of(value)
        return text is not None and text.lower() not in _NO_ERROR
    return isinstance(value, BaseException) or is_structure(value)


def _type(payload: Payload, value: object, *, own: bool = False) -> str | None:
    """For `error.type`: what has the look of a name or a code. `own`: the structure is an error, not a job with one."""
    for key in (*_TYPES, "type", "name") if own else _TYPES:
        plain = scalar(payload.look(value, key))
        if isinstance(plain, int) and not isinstance(plain, bool) and plain not in {0, 200}:
            return str(plain)
        if isinstance(plain, str) and _TYPE.fullmatch(plain) and plain.lower() not in _NO_ERROR:
            return plain
    text = _message(payload, value)
    return exception_in(text) if text else None


def _message(payload: Payload, value: object) -> str | None:
    for key in _MESSAGES:
        text = text_of(payload.look(value, key))
        if text:
            return report(text)
    return None


def _code(value: object) -> int | None:
    """A status code of HTTP that says no."""
    for key in (*_CODES, "code") if member(value, "message") or member(value, "msg") else _CODES:
        plain = scalar(member(value, key))
        if isinstance(plain, str) and len(plain) == 3 and plain.isdecimal():
            plain = int(plain)
        if isinstance(plain, int) and not isinstance(plain, bool) and 400 <= plain <= 599:
            return plain
    return None
