"""What an operator configures as a document: YAML or JSON in an environment variable, or the path of such a file.

YAML needs PyYAML in the host's environment; JSON does not, nor does the short form `name=path|path; name=path`.
A document that cannot be read counts as empty, and the log says why: configuration must not stop a worker.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

DOCUMENT_MAX: Final = 256 * 1024
"""Characters of a document: thousands of fields."""
_SUFFIXES: Final = (".yaml", ".yml", ".json")

_log = logging.getLogger("otel_pipeline.worker")


def fault(variable: str, where: str, problem: object) -> None:
    """Tells the operator of a mistake in what a variable holds; what else it holds stays in force."""
    _log.warning("%s: %s: %s", variable, where, problem)


def read(text: str, variable: str) -> Any:
    """The document's value; None if there is none or it cannot be read."""
    text = text.strip()
    if not text:
        return None
    where = "the value"
    if _is_path(text):
        where = text
        try:
            text = _file(Path(text).expanduser())
        except (OSError, ValueError) as error:
            fault(variable, where, f"the file cannot be read: {error}")
            return None
    if len(text) > DOCUMENT_MAX:
        fault(variable, where, f"it is longer than {DOCUMENT_MAX} characters")
        return None
    try:
        return _parse(text)
    except (ValueError, RecursionError) as error:
        fault(variable, where, f"it is neither YAML nor JSON nor of the form name=path; name=path: {error}")
        return None


def _is_path(text: str) -> bool:
    return "\n" not in text and text.lower().endswith(_SUFFIXES) and not text.startswith(("{", "[")) and "=" not in text


def _file(path: Path) -> str:
    if path.stat().st_size > DOCUMENT_MAX:
        raise ValueError(f"it is larger than {DOCUMENT_MAX} bytes")
    return path.read_text("utf-8")


def _parse(text: str) -> Any:
    if text[0] in "{[":
        with suppress(ValueError):  # it may be YAML in flow style
            return json.loads(text)
    short = _short_form(text)
    if short is not None:
        return short
    try:
        import yaml  # noqa: PLC0415  only where it is needed, and only if it is there
    except ImportError:
        raise ValueError("YAML needs the package PyYAML, JSON does not") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _short_form(text: str) -> dict[str, str] | None:
    """`name=path; name=path`, or None if the text is of another form."""
    found: dict[str, str] = {}
    for each in _split(text.replace("\n", ";")):
        if not each.strip():
            continue
        name, equals, path = each.partition("=")
        if not equals or not path.strip() or not name.strip() or any(c in name.strip() for c in " :{[\"'#"):
            return None
        found[name.strip()] = path.strip()
    return found or None


def _split(text: str) -> list[str]:
    """At each `;` that is not within a `~regex~`."""
    pieces, piece, inside = [], "", False
    for index, mark in enumerate(text):
        if mark == "~" and (index == 0 or text[index - 1] != "\\"):
            inside = not inside
        if mark == ";" and not inside:
            pieces.append(piece)
            piece = ""
        else:
            piece += mark
    return [*pieces, piece]
