"""The body of POST /prompt: the workflow in it, and the trace context that goes with it. Pure.

The context goes into `extra_data`, which ComfyUI hands untouched to its executor, and nowhere else: not among the
nodes, not in `extra_pnginfo`, which ends up in every saved image. The text of the body stays as it is but for that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

BODY_BYTES_MAX: Final = 8 * 1024 * 1024
"""Larger bodies carry images; to parse them would delay the job."""
NODES_MAX: Final = 10_000
"""Nodes of one workflow that are read."""
FIELD: Final = "extra_data"
CARRIED: Final = "traceparent"

_FIELD_START: Final = re.compile(r'"extra_data"\s*:\s*\{\s*(\})?')


@dataclass(frozen=True, slots=True)
class Graph:
    """A workflow as it is posted."""

    nodes: Mapping[str, Any]
    """The host's own object or ours: only read, and not kept longer than the POST."""
    classes: Mapping[str, str]
    """class_type by node id."""
    wish: int
    """Equal for prompts that ask for the same thing, whatever their numbers (seed, size, steps) and models: a retry."""
    kind: int
    """Equal for prompts of the same node classes: items of one series."""
    prompt_id: str | None
    """Chosen by the client; newer servers take it over."""


def document_of(body: object) -> dict[str, Any] | None:
    """The JSON object in a body of bytes or text."""
    if not isinstance(body, bytes | bytearray | str) or not 2 <= len(body) <= BODY_BYTES_MAX:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def graph_of(document: object) -> Graph | None:
    """The workflow in the object; None if it is no prompt for ComfyUI."""
    nodes = document.get("prompt") if isinstance(document, dict) else None
    if not isinstance(nodes, dict) or not isinstance(document, dict):
        return None
    classes = {
        str(key): node["class_type"]
        for key, node in list(nodes.items())[:NODES_MAX]
        if isinstance(node, dict) and isinstance(node.get("class_type"), str)
    }
    if not classes:
        return None
    chosen = document.get("prompt_id")
    kind = hash(tuple(sorted(classes.values())))
    return Graph(nodes, classes, _wish(nodes), kind, chosen if isinstance(chosen, str) and chosen else None)


def with_context(document: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any] | None:
    """A copy of the object that carries the context; None if it carries one already or has no place for it."""
    extra = document.get(FIELD, {})
    if not headers or not isinstance(extra, dict) or CARRIED in extra:
        return None
    return {**document, FIELD: {**headers, **extra}}


def text_with_context(
    body: bytes | bytearray | str, document: Mapping[str, Any], headers: Mapping[str, str]
) -> bytes | str | None:
    """The body, of the same type, with the context put into its text; None to leave it alone."""
    if with_context(document, headers) is None:
        return None
    text = body if isinstance(body, str) else bytes(body).decode()
    start = text.find("{")
    if start < 0 or text[:start].strip():
        return None
    fields = json.dumps(dict(headers))[1:-1]
    if FIELD not in document:
        changed = f'{text[: start + 1]}"{FIELD}": {{{fields}}}, {text[start + 1 :]}'
    else:
        changed = _into_field(text, fields) or json.dumps(with_context(document, headers))
    return changed if isinstance(body, str) else changed.encode()


def _into_field(text: str, fields: str) -> str | None:
    """The text with the fields at the start of its `extra_data`, if that is found beyond doubt."""
    found = list(_FIELD_START.finditer(text))
    if len(found) != 1:
        return None
    place = text.index("{", found[0].start()) + 1
    return f"{text[:place]}{fields}{'' if found[0].group(1) else ', '}{text[place:]}"


def _wish(nodes: Mapping[str, Any]) -> int:
    """Classes and texts. Names of models may change with a retry (a smaller one), so may names of files to write."""
    parts: list[str] = []
    for node in list(nodes.values())[:NODES_MAX]:
        if isinstance(node, dict):
            parts.append(str(node.get("class_type")))
            inputs = node.get("inputs")
            if isinstance(inputs, dict):
                parts.extend(
                    f"{name}={value}"
                    for name, value in inputs.items()
                    if isinstance(value, str) and not name.endswith(("_name", "prefix", "device", "dtype"))
                )
    return hash(tuple(sorted(parts)))
