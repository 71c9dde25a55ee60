"""YAML for price files: every scalar stays the text that stands in the file, and every value knows its line.

So 0.10 stays 0.10 and is never a binary float, a date stays a date's text, and a mistake can be told with its line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from otel_pipeline.errors import ConfigError
from otel_pipeline.limits import PRICE_FILE_BYTES_MAX

Place = tuple[str | int, ...]
_DEPTH_MAX: Final = 8
"""A price file is a list of rows with a map or two in them."""


@dataclass(slots=True)
class Document:
    """What a file says: `tree` of dicts, lists and texts (None for an empty value), and the line of each place."""

    tree: Any
    lines: dict[Place, int] = field(default_factory=dict)

    def line(self, place: Place) -> int:
        """The line of the place, or of the closest one around it that is known."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def parse(text: str, origin: str) -> Document:
    """The document of the text; ConfigError with every mistake."""
    if len(text) > PRICE_FILE_BYTES_MAX:
        raise ConfigError([f"{origin}: longer than {PRICE_FILE_BYTES_MAX} bytes"])
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError([f"{origin}{where}: no YAML: {reason}"]) from error
    except RecursionError as error:
        raise ConfigError([f"{origin}: no YAML: nested too deep"]) from error
    document = Document(None)
    mistakes: list[str] = []
    if node is not None:
        document.tree = _built(node, (), document, set(), mistakes)
    if mistakes:
        raise ConfigError([f"{origin}, {mistake}" for mistake in mistakes])
    return document


def _built(node: yaml.Node, place: Place, document: Document, seen: set[int], mistakes: list[str]) -> Any:
    line = node.start_mark.line + 1
    document.lines[place] = line
    if isinstance(node, yaml.ScalarNode):
        return None if node.style is None and node.value in {"", "~", "null"} else node.value
    if id(node) in seen or len(place) > _DEPTH_MAX:
        mistakes.append(f"line {line}: {'nested too deep' if id(node) not in seen else 'no references: write it out'}")
        return None
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        return [_built(one, (*place, index), document, seen, mistakes) for index, one in enumerate(node.value)]
    found: dict[str, Any] = {}
    for key, value in node.value:
        at = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            mistakes.append(f"line {at}: a key must be a text")
        elif key.value in found:
            mistakes.append(f"line {at}: the key {key.value!r} stands twice")
        else:
            found[key.value] = _built(value, (*place, key.value), document, seen, mistakes)
            document.lines[*place, key.value] = at
    return found
