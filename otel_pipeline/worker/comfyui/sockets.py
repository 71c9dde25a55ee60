"""Messages of ComfyUI's WebSocket, for every client library. Most frames in a process may be of other servers, so a
frame is looked at closely only if its first characters look like ComfyUI's.
"""

from __future__ import annotations

import json
import re
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from otel_pipeline.worker.comfyui.prompts import Prompt, prompts
from otel_pipeline.worker.flow import touch
from otel_pipeline.worker.guard import hook

TEXT_MAX: Final = 1024 * 1024
"""Longer texts are not parsed: only errors can be so long, by the values they quote."""
HEAD: Final = 160
"""Characters in which the type must stand."""
LONG_HEAD: Final = 64 * 1024
"""Of a long error message: what is needed stands before the values that it quotes."""
KINDS: Final = frozenset(
    {
        "execution_start",
        "execution_cached",
        "executing",
        "executed",
        "progress",
        "progress_state",
        "execution_success",
        "execution_error",
        "execution_interrupted",
    }
)
IMAGE_EVENTS: Final = (b"\x00\x00\x00\x01\x00\x00\x00\x02", b"\x00\x00\x00\x01\x00\x00\x00\x01")
"""Event and format of a binary frame with an image: PNG, JPEG. Previews are mostly JPEG, outputs PNG."""
BY_SOCKET: Final = "SaveImageWebsocket"
"""A node class (or the start of its name) whose output is sent as a frame."""

_TYPE: Final = re.compile(r'"type"\s*:\s*"(\w{1,40})"')
_TEXT: Final = r'"{}"\s*:\s*("(?:[^"\\]|\\.)*")'
_TOLD: Final = {
    name: re.compile(_TEXT.format(name))
    for name in ("prompt_id", "node_id", "node_type", "exception_message", "exception_type")
}


@dataclass(slots=True)
class _At:
    """Where a socket is: what it last told that began to execute."""

    prompt: Prompt
    node: str | None = None


_at: Final[weakref.WeakKeyDictionary[Any, _At]] = weakref.WeakKeyDictionary()


@hook("comfyui.frame")
def frame(socket: object, data: object, text: bool | None = None) -> None:  # noqa: FBT001  None: by the type of the data
    """One whole message that the host received."""
    if text is False or (text is None and not isinstance(data, str)):
        if isinstance(data, bytes) and data[:8] in IMAGE_EVENTS and socket in _at:
            _image(_at[socket])
        return
    if not isinstance(data, bytes | bytearray | str):
        return
    head = data[:HEAD] if isinstance(data, str) else bytes(data[:HEAD]).decode("latin-1")
    if not head.lstrip().startswith("{"):
        return
    kind = _TYPE.search(head)
    if kind is not None:
        if kind.group(1) in KINDS:
            _take(socket, kind.group(1), _data(kind.group(1), data))
    elif len(data) <= TEXT_MAX and ('"prompt_id"' in data if isinstance(data, str) else b'"prompt_id"' in data):
        message = _parsed(data)
        if message.get("type") in KINDS:
            _take(socket, message["type"], message.get("data"))


def _take(socket: object, kind: str, data: object) -> None:
    if not isinstance(data, dict) or not isinstance(data.get("prompt_id"), str):
        return  # after a reconnection the first message names a node, but no prompt
    prompt = prompts.message(data["prompt_id"], kind, _reduced(kind, data), time.time_ns())
    if prompt is None:
        return
    touch()
    if kind == "executing":
        _at[socket] = _At(prompt, str(data.get("node")))


def _data(kind: str, text: bytes | bytearray | str) -> object:
    if len(text) <= TEXT_MAX:
        return _parsed(text).get("data")
    if kind != "execution_error":
        return None
    start = text[:LONG_HEAD] if isinstance(text, str) else bytes(text[:LONG_HEAD]).decode("utf-8", "replace")
    found = {name: pattern.search(start) for name, pattern in _TOLD.items()}
    return {name: json.loads(match.group(1)) for name, match in found.items() if match is not None}


def _parsed(text: bytes | bytearray | str) -> Mapping[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _reduced(kind: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the values of inputs and outputs: messages may be kept for a while."""
    if kind != "execution_error":
        return data
    return {name: value for name, value in data.items() if name not in {"current_inputs", "current_outputs"}}


def _image(at: _At) -> None:
    """An image: an output, if the node at work sends its images that way."""
    if at.node is not None and at.prompt.classes.get(at.node, "").startswith(BY_SOCKET):
        at.prompt.frames += 1
