"""How a job came out, told from what the program does: what it returns, writes to Redis, pushes to a queue, posts.

Most workers swallow their exceptions, so this is where a failure shows. Each function gives one piece of evidence or
None; what ranks before what is told in evidence.py. Rules of the operator (rules.py) go before the built-in ones.
Values are only looked at: no property, `__str__` or iterator of the program is run, nothing beyond a bound is read.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, unquote

from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.identity.job_fields import JOB_ID_KEYS
from otel_pipeline.worker.jobs import Job, current_job
from otel_pipeline.worker.outcomes import judgement, rules
from otel_pipeline.worker.outcomes.judgement import is_error
from otel_pipeline.worker.outcomes.states import (
    Finding,
    exception_in,
    is_under_way,
    report,
    sentence,
    state,
    text_of,
    words,
)
from otel_pipeline.worker.reading.payload import Payload, is_structure, member, present, scalar

VALUE_MAX: Final = 256 * 1024
"""Characters of a value that is read for a status: statuses are small, results may not be."""
FORM_MAX: Final = 16 * 1024
"""Characters of a body that may be a form."""
ELEMENT_MAX: Final = 256
"""A popped element up to this length may be an id that keys and messages repeat."""
BATCH_MAX: Final = 100
"""Documents in one message that are searched for the job's."""

_IDS: Final = frozenset(JOB_ID_KEYS)
_WORD: Final = re.compile(r"[A-Za-z]+")
_DEAD: Final = words(
    "dead deadletter dlq failed failure failures fail error errors poison poisoned rejected undeliverable"
)
_AGAIN: Final = words("retry retries retrying")
_PARTS: Final = words("stage stages step steps node nodes scene scenes segment chunk part clip substep subtask")
_ERROR_KEYS: Final = words("error errors err failure failed exception")
_DONE_KEYS: Final = words("done completed complete finished")
_PROGRESS_KEYS: Final = words("progress percent percentage status state")
_PLAIN_KEYS: Final = _DONE_KEYS | words(
    "status state job jobs task tasks result outcome queue worker video image audio tts render"
)
"""Words of keys beside the job's id that leave a state the whole job's."""
_SENDS: Final = frozenset({"POST", "PUT", "PATCH"})


def returned(value: object, job: Job | None = None) -> Evidence | None:
    """What a job function's return value says. None says nothing, and neither does True.

    False alone is the usual sign of a swallowed failure, but also of "do not call me again"; it counts unless the job
    (by default the current one) was reported as completed by a status that it wrote or sent.
    """
    return None if value is None else _returned(value, job)


def status_write(job: Job | None, key: str, value: object) -> Evidence | None:
    """What a value says that was written to a Redis key: a text, JSON, or a mapping of a hash's fields.

    It counts if the key, a field or an id in the value names the job, and if the state that it tells is final.
    """
    return _status_write(job, key, value) if job is not None else None


def pushed(job: Job | None, queue: str, value: object) -> Evidence | None:
    """What a push says: the job to a dead-letter or retry queue, or a message with the job's id and a final state."""
    return _pushed(job, queue, value) if job is not None else None


def http_message(job: Job | None, method: str, url: str, body: object) -> Evidence | None:
    """What a request says that the program sends: its URL or its body names the job, its body tells a final state."""
    return _http_message(job, method, url, body) if job is not None else None


def logged(job: Job | None, text: str) -> Evidence | None:
    """What a log line says by the operator's rules."""
    return _logged(job, text) if job is not None else None


@hook("outcomes.returned")
def _returned(value: object, job: Job | None) -> Evidence | None:
    payload = Payload(value, VALUE_MAX)
    ruled = rules.decide("return", payload, job_id=job.id if job else "")
    if ruled is not None:
        return ruled.evidence
    if value is False:
        return (
            None
            if _told_completed(job or current_job())
            else Finding(Outcome.FAILED, "returned_false").evidence(Source.RETURN)
        )
    found = _judged(payload, payload.root)
    return found.evidence(Source.RETURN) if found is not None else None


def _told_completed(job: Job | None) -> bool:
    told = {Source.API, Source.RULE, Source.STATUS, Source.MESSAGE}
    return job is not None and any(each.outcome is Outcome.COMPLETED and each.source in told for each in job.evidence)


def _judged(payload: Payload, value: object) -> Finding | None:
    if isinstance(value, BaseException):
        return judgement.raised(value)
    if isinstance(value, str):
        return sentence(value)
    if isinstance(value, tuple) and not hasattr(type(value), "_fields"):
        return _tuple(payload, value)
    if isinstance(value, list):
        return judgement.several(payload, value)
    return judgement.document(payload, value) if is_structure(value) else None


def _tuple(payload: Payload, value: tuple[object, ...]) -> Finding | None:
    """`(False, message)`, `(None, error)`, `("failed", ...)`, `(body, 500)`."""
    if not 1 < len(value) <= 4:
        return judgement.several(payload, value)
    first, second = value[0], value[1]
    error = next((each for each in value if isinstance(each, BaseException)), None)
    if error is not None and (first is False or first is None or first is error):
        return judgement.raised(error)
    if first is False and isinstance(second, str | dict):
        said = _judged(payload, second)
        return said if said is not None and said.outcome is not Outcome.COMPLETED else _failed(second)
    if type(second) is int and 400 <= second <= 599 and isinstance(first, str | dict):
        said = _judged(payload, first)
        return said if said is not None and said.outcome is Outcome.FAILED else Finding(Outcome.FAILED, str(second))
    if isinstance(first, dict):
        return judgement.document(payload, first) if second is None or type(second) is int else None
    known = state(first) if isinstance(first, str) else None
    return _failed(second, known) if known not in {None, Outcome.COMPLETED} else None


def _failed(message: object, outcome: Outcome | None = Outcome.FAILED) -> Finding:
    text = text_of(message)
    return Finding(outcome or Outcome.FAILED, exception_in(text) if text else None, report(text) if text else None)


# -- status writes -----------------------------------------------------------------------------------------------------


@hook("outcomes.status_write")
def _status_write(job: Job, key: str, value: object) -> Evidence | None:
    payload = Payload(value, VALUE_MAX)
    ruled = rules.decide("status", payload, place=key, job_id=job.id)
    if ruled is not None:
        return ruled.evidence
    by_key = names_job(job, key)
    root = payload.root
    found: Finding | None
    if is_structure(root):
        document = root if by_key else _about(job, payload)
        found = _final(payload, document) if document is not None else _of_field(job, root)
    else:
        found = _plain(job, key, scalar(root)) if by_key else None
    return found.evidence(Source.STATUS) if found is not None else None


def _of_field(job: Job, root: object) -> Finding | None:
    """A hash of all jobs' states, with a field for each."""
    for word in _own_words(job):
        if present(root, frozenset({word})):
            inner = Payload(member(root, word), VALUE_MAX)
            if is_structure(inner.root):
                return _final(inner, inner.root)
            return sentence(inner.root)
    return None


def _final(payload: Payload, document: object) -> Finding | None:
    """What a status says if it is the job's last and not that of one of its parts."""
    found = judgement.document(payload, document, over=False)
    if found is None:
        minus = any(_is_minus_one(scalar(member(document, key))) for key in ("progress", "state", "status"))
        return Finding(Outcome.FAILED) if minus and not _under_way(document) else None
    if found.outcome is Outcome.COMPLETED:
        parts = [scalar(member(document, key)) for key in ("stage", "step", "node", "scene")]
        if any(part and state(part) is not Outcome.COMPLETED for part in parts):
            return None
        progress = scalar(member(document, "progress"))
        if isinstance(progress, int | float) and not isinstance(progress, bool) and 0 <= progress < 1:
            return None
    return found


def _under_way(document: object) -> bool:
    states = [member(document, key) for key in ("status", "state")]
    return any(is_under_way(each) and not _is_minus_one(scalar(each)) for each in states)


def _plain(job: Job, key: str, plain: str | float | None) -> Finding | None:
    """A value that is a text or a number, in a key that names the job."""
    if plain is None or isinstance(plain, bool):
        return None
    beside = _words_beside(job, key)
    if _is_minus_one(plain):
        return Finding(Outcome.FAILED) if beside & _PROGRESS_KEYS else None
    text = str(plain)
    if beside & _ERROR_KEYS and is_error(text):
        return Finding(Outcome.FAILED, exception_in(text), None if text.isdecimal() else report(text))
    found = sentence(text)
    if found is None and beside & _DONE_KEYS and text.lower() in {"1", "true", "yes"}:
        found = Finding(Outcome.COMPLETED)
    if found is not None and found.outcome is Outcome.COMPLETED and (beside & _PARTS or not beside <= _PLAIN_KEYS):
        return None
    return found


def _is_minus_one(plain: str | float | None) -> bool:
    return plain == "-1" or (isinstance(plain, int | float) and not isinstance(plain, bool) and plain == -1)


# -- messages ----------------------------------------------------------------------------------------------------------


@hook("outcomes.pushed")
def _pushed(job: Job, queue: str, value: object) -> Evidence | None:
    payload = Payload(value, VALUE_MAX)
    ruled = rules.decide("message", payload, place=queue, job_id=job.id)
    if ruled is not None:
        return ruled.evidence
    about = _about(job, payload)
    element = _raw(value)
    if about is None and not (element is not None and (element == job.element or names_job(job, _start_of(element)))):
        return None
    found = _final(payload, about) if about is not None else None
    named = set(_WORD.findall(queue.lower()))
    if found is None or found.outcome is Outcome.COMPLETED:
        if queue != job.origin.destination and named & _DEAD:
            found = Finding(Outcome.FAILED, "dead_letter")
        elif queue != job.origin.destination and named & _AGAIN:
            found = Finding(Outcome.FAILED, "retry")
    elif named & _DEAD and found.error_type is None:
        found = Finding(found.outcome, "dead_letter", found.message)
    return found.evidence(Source.MESSAGE) if found is not None else None


@hook("outcomes.http_message")
def _http_message(job: Job, method: str, url: str, body: object) -> Evidence | None:
    if method.upper() not in _SENDS:
        return None
    payload = Payload(_form(body), VALUE_MAX)
    ruled = rules.decide("http", payload, place=url, job_id=job.id)
    if ruled is not None:
        return ruled.evidence
    root = payload.root
    if not is_structure(root):
        return None
    about = root if isinstance(root, dict) and names_job(job, unquote(url[: ELEMENT_MAX * 8])) else _about(job, payload)
    found = _final(payload, about) if about is not None else None
    return found.evidence(Source.MESSAGE) if found is not None else None


@hook("outcomes.logged")
def _logged(job: Job, text: str) -> Evidence | None:
    ruled = rules.decide("log", Payload(text, 0), job_id=job.id)
    return ruled.evidence if ruled is not None else None


def _form(body: object) -> object:
    """The fields of a form; anything else as it is."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) and len(body) <= FORM_MAX else body
    if not isinstance(text, str) or len(text) > FORM_MAX or text[:1] in {"{", "[", "<", '"'} or "=" not in text:
        return body
    return dict(parse_qsl(text, max_num_fields=64)) if " " not in text else body


# -- whose it is -------------------------------------------------------------------------------------------------------


def _own_words(job: Job) -> list[str]:
    """What names the job: its id, the message's id, the element that was popped if that is an id."""
    known = [job.id, job.origin.message_id or ""]
    element = job.element
    if element is not None and len(element) <= ELEMENT_MAX and element[:1] not in {b"{", b"["}:
        known.append(element.decode("utf-8", "replace"))
    return [word for word in dict.fromkeys(known) if word]


def names_job(job: Job, text: str) -> bool:
    """Whether a key, URL or text holds the job's id as a word of its own."""
    return any(_position(text, word) >= 0 for word in _own_words(job))


def _position(text: str, word: str) -> int:
    begin = text.find(word)
    while begin >= 0:
        end = begin + len(word)
        if not (text[begin - 1 : begin].isalnum() or text[end : end + 1].isalnum()):
            return begin
        begin = text.find(word, begin + 1)
    return -1


def _words_beside(job: Job, key: str) -> set[str]:
    """The words of a key without the job's id."""
    for word in _own_words(job):
        at = _position(key, word)
        if at >= 0:
            key = f"{key[:at]} {key[at + len(word) :]}"
    return set(_WORD.findall(key.lower()))


def _about(job: Job, payload: Payload) -> object:
    """The document in a message that carries the job's id; None if there is none."""
    own = frozenset(_own_words(job))
    root = payload.root
    listed = root[:BATCH_MAX] if isinstance(root, list) else [root]
    for each in listed:
        document = payload.open(each)
        for place in (
            document,
            payload.look(document, "job"),
            payload.look(document, "data"),
            payload.look(document, "metadata"),
        ):
            if is_structure(place) and _carries(place, own):
                return document
    return None


def _carries(document: object, own: frozenset[str]) -> bool:
    for key in present(document, _IDS):
        plain = scalar(member(document, key))
        if plain is not None and not isinstance(plain, bool) and str(plain) in own:
            return True
    return False


def _raw(value: object) -> bytes | None:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return value if isinstance(value, bytes) else None


def _start_of(element: bytes) -> str:
    return element[:ELEMENT_MAX].decode("utf-8", "replace") if element[:1] not in {b"{", b"["} else ""
