"""What ComfyUI says about a prompt: in the answer to the POST, in its history, its jobs, its WebSocket messages. Pure.

Never kept from them: `current_inputs` and `current_outputs`, which hold prompt texts and whole tensors. Texts are cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

MESSAGE_MAX: Final = 256
"""Characters of an error message that are kept: ComfyUI adds a page of tips when memory runs out."""
STACK_MAX: Final = 4096
"""Characters of a stack trace that are kept: file names, functions and lines of code, no values."""
BODY_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of a history that is read; the newest entries come last."""
FILES_MAX: Final = 1000
"""Files of one prompt that are remembered."""

SUCCESS: Final = "success"
FAILED: Final = "failed"
INTERRUPTED: Final = "interrupted"
REFUSED: Final = "refused"
PARTIAL: Final = "partial"
UNKNOWN: Final = "unknown"

_ERROR_TYPE: Final = re.compile(rb'"error"\s*:\s*\{\s*"type"\s*:\s*"([\w.-]{1,80})"')
_ENDS: Final = {
    "execution_success": SUCCESS,
    "execution_error": FAILED,
    "execution_interrupted": INTERRUPTED,
}
_STATES: Final = {"completed": SUCCESS, "failed": FAILED, "cancelled": INTERRUPTED}
BLOCKED: Final = "ExecutionBlocked"
"""An `execution_error` of this type does not end the prompt: it ends with `execution_success`."""

File = tuple[str, str]
"""Name and subfolder of an output."""


@dataclass(frozen=True, slots=True)
class Accepted:
    prompt_id: str
    number: float | None
    rejected: str | None = None
    """Type of the first error of a node that was dropped, if the workflow was accepted only in part."""
    message: str | None = None


@dataclass(frozen=True, slots=True)
class End:
    """How a prompt ended. Times are the server's, in Unix milliseconds."""

    outcome: str
    error_type: str | None = None
    message: str | None = None
    detail: str | None = None
    """For refused prompts: the first node's error."""
    stack: str | None = None
    node: str | None = None
    node_type: str | None = None
    create_ms: float | None = None
    start_ms: float | None = None
    end_ms: float | None = None
    cached: tuple[str, ...] | None = None
    files: tuple[File, ...] = ()


def short(text: object, limit: int = MESSAGE_MAX) -> str | None:
    return text.strip()[:limit] if isinstance(text, str) and text.strip() else None


def answer(status: int, body: bytes | None) -> Accepted | End | None:
    """The meaning of the answer to POST /prompt; None if it is a success that names no prompt."""
    document = _object(body)
    if status >= 400:
        return _refusal(status, document, body or b"")
    prompt_id = document.get("prompt_id")
    if not isinstance(prompt_id, str | int) or isinstance(prompt_id, bool):
        return None
    number = document.get("number")
    kind, message = _node_error(document.get("node_errors"))
    return Accepted(str(prompt_id), number if isinstance(number, int | float) else None, kind, message)


def entry_in(body: bytes, prompt_id: str) -> dict[str, Any] | None:
    """The prompt's entry in a history, found without parsing the others."""
    found = re.search(b'"%b"\\s*:\\s*(?=\\{)' % re.escape(prompt_id.encode()), body)
    if found is None:
        return None
    try:
        entry, _ = json.JSONDecoder().raw_decode(body[found.end() :].decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def history_end(entry: Mapping[str, Any]) -> End | None:
    """The end that a history entry tells of. Failed and interrupted differ in the last message only."""
    status = _mapping(entry.get("status"))
    if not status and "outputs" not in entry:
        return None
    end = _by_messages(status.get("messages"))
    if end is None:
        completed = status.get("completed", True) and status.get("status_str", SUCCESS) == SUCCESS
        end = End(SUCCESS if completed else FAILED, None if completed else "_OTHER")
    prompt = entry.get("prompt")
    extra = _mapping(prompt[3]) if isinstance(prompt, list) and len(prompt) > 3 else {}
    return replace(end, create_ms=_number(extra.get("create_time")), files=files_of(entry.get("outputs")))


def job_end(job: Mapping[str, Any]) -> End | None:
    """The end that an entry of /api/jobs tells of."""
    outcome = _STATES.get(str(job.get("status")))
    if outcome is None:
        return None
    error = _mapping(job.get("execution_error"))
    end = _by_messages(_mapping(job.get("execution_status")).get("messages")) or _told("", error)
    return replace(
        end,
        outcome=outcome,
        error_type=end.error_type if outcome == FAILED else INTERRUPTED if outcome == INTERRUPTED else None,
        create_ms=_number(job.get("create_time")),
        start_ms=_number(job.get("execution_start_time")) or end.start_ms,
        end_ms=_number(job.get("execution_end_time")) or end.end_ms,
        files=files_of(job.get("outputs")),
    )


def message_end(kind: str, data: Mapping[str, Any]) -> End | None:
    """The end that a WebSocket message tells of."""
    if kind == "executing":
        return End(SUCCESS) if "node" in data and data["node"] is None else None
    if kind not in _ENDS or data.get("exception_type") == BLOCKED:
        return None
    return _told(kind, data)


def files_of(outputs: object) -> tuple[File, ...]:
    """Files in the outputs of nodes, by node id."""
    return tuple(file for _, file in zip(range(FILES_MAX), _files(outputs), strict=False))


def _files(outputs: object) -> Iterator[File]:
    for node in _mapping(outputs).values():
        for each in _mapping(node).values():
            for item in each if isinstance(each, list) else ():
                name = item.get("filename") if isinstance(item, dict) else None
                if isinstance(name, str) and name:
                    yield name, str(item.get("subfolder") or "")


def _by_messages(messages: object) -> End | None:
    """The end in the messages of a status; its last message decides."""
    if not isinstance(messages, list):
        return None
    known = {each[0]: _mapping(each[1]) for each in messages if isinstance(each, list) and len(each) == 2}
    last = next((kind for kind in reversed(known) if kind in _ENDS), None)
    if last is None:
        return None
    cached = _mapping(known.get("execution_cached")).get("nodes")
    return replace(
        _told(last, known[last]),
        start_ms=_number(_mapping(known.get("execution_start")).get("timestamp")),
        cached=tuple(map(str, cached)) if isinstance(cached, list) else None,
    )


def _told(kind: str, data: Mapping[str, Any]) -> End:
    outcome = _ENDS.get(kind, FAILED)
    stack = data.get("traceback")
    lines = "".join(each for each in stack if isinstance(each, str)) if isinstance(stack, list) else stack
    error = {FAILED: short(data.get("exception_type"), 128) or "_OTHER", INTERRUPTED: INTERRUPTED}.get(outcome)
    return End(
        outcome,
        error,
        short(data.get("exception_message")) if outcome == FAILED else None,
        stack=short(lines, STACK_MAX) if outcome == FAILED else None,
        node=str(data["node_id"]) if data.get("node_id") is not None else None,
        node_type=short(data.get("node_type"), 128),
        end_ms=_number(data.get("timestamp")),
    )


def _refusal(status: int, document: Mapping[str, Any], body: bytes) -> End:
    """A refused prompt. A body that was cut still tells the type."""
    error = document.get("error")
    kind, message = (error.get("type"), error.get("message")) if isinstance(error, dict) else (None, error)
    if kind is None and not document:
        found = _ERROR_TYPE.search(body)
        kind = found.group(1).decode() if found else None
    node_kind, node_message = _node_error(document.get("node_errors"))
    told = ": ".join(each for each in (short(message), node_message) if each)
    return End(REFUSED, short(kind, 128) or str(status), short(told), node_kind)


def _node_error(errors: object) -> tuple[str | None, str | None]:
    """Type and message of the first error of the first node. Its `details` may quote inputs, so they are left out."""
    for node in _mapping(errors).values():
        found = _mapping(node).get("errors")
        for error in found if isinstance(found, list) else ():
            kind, message = short(_mapping(error).get("type"), 128), short(_mapping(error).get("message"))
            if kind:
                return kind, ": ".join(each for each in (short(_mapping(node).get("class_type")), message) if each)
    return None, None


def _object(body: bytes | None) -> Mapping[str, Any]:
    if not body or len(body) > BODY_BYTES_MAX:
        return {}
    try:
        return _mapping(json.loads(body))
    except (ValueError, RecursionError):
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None
