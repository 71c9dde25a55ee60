"""Replaces references in a configuration: ${env:NAME}, ${env:NAME:-default}, ${NAME}, ${file:PATH}, ${yaml:TEXT}.

As in the Collector: $$ is a $; the inner of two nested references comes first; what comes in is expanded again; a value
that is one reference and nothing else takes the type that YAML gives its text; inside of a longer value it is text.
Where a setting wants text, such a typed value is read as written: `${env:KEY}` with 0123 is the key 0123, not 83.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otel_pipeline.config import yaml_text
from otel_pipeline.config.sources import SCHEMES, read_file, split_uri
from otel_pipeline.errors import ConfigError
from otel_pipeline.limits import NESTING_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline.config.sources import Tree

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list indexes from the top of the configuration."""

EXPANSIONS_MAX: Final = 10_000
"""References in one configuration: a variable that refers to itself would never end."""

_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@dataclass(frozen=True, slots=True)
class Expansion:
    """A configuration without references, and what is worth knowing of those it had."""

    tree: Tree
    texts: dict[Path, str]
    """For each value that was one reference and is not text: the text."""
    written: dict[Path, str]
    """For each value with a reference how it was written. Messages show that: a value may be a secret."""
    warnings: list[str]


def expand(tree: Tree, environ: Mapping[str, str]) -> Expansion:
    """Raises ConfigError with every reference that cannot be followed. A variable that is not set gives a warning."""
    expander = _Expander(environ)
    expanded = {key: expander.value(value, (key,)) for key, value in tree.items()}
    if expander.mistakes:
        raise ConfigError(expander.mistakes)
    return Expansion(expanded, expander.texts, expander.written, expander.warnings)


def as_text(path: Path) -> str:
    """As in messages: exporters.otlp/jaeger.headers[0].name."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


@dataclass(slots=True)
class _Expander:
    environ: Mapping[str, str]
    texts: dict[Path, str] = field(default_factory=dict)
    written: dict[Path, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    count: int = 0

    def value(self, node: object, path: Path) -> Any:
        if len(path) > NESTING_MAX:
            raise ConfigError([f"{as_text(path[:3])} ...: is nested too deep; allowed: {NESTING_MAX} levels"])
        if isinstance(node, dict):
            return {key: self.value(below, (*path, key)) for key, below in node.items()}
        if isinstance(node, list):
            return [self.value(below, (*path, index)) for index, below in enumerate(node)]
        if not isinstance(node, str):
            return node
        try:
            return self.string(node, path)
        except _UnusableError as error:
            self.mistakes.append(f"{as_text(path)}: {error}")
            return None

    def string(self, text: str, path: Path) -> Any:
        while (span := _innermost(text)) is not None:
            self.count += 1
            if self.count > EXPANSIONS_MAX:
                raise ConfigError(
                    [f"{as_text(path)}: too many references, perhaps to themselves; allowed: {EXPANSIONS_MAX}"]
                )
            self.written.setdefault(path, text)
            start, end = span
            found = self.follow(text[start + 2 : end - 1], path)
            if (start, end) != (0, len(text)):
                text = text[:start] + found + text[end:]
                continue
            typed = yaml_text.scalar(found)
            if not isinstance(typed, str):
                self.texts[path] = str(self.string(found, path)) if isinstance(typed, dict | list) else found
                return self.value(typed, path)
            text = found
        return text.replace("$$", "$")

    def follow(self, reference: str, path: Path) -> str:
        scheme, rest = split_uri(reference)
        if rest.startswith("-"):
            scheme, rest = "", reference  # ${NAME:-default}
        if scheme == "yaml":
            return rest
        if scheme == "file":
            try:
                return read_file(rest).removesuffix("\n")
            except ConfigError as error:
                raise _UnusableError(f"${{file:...}} cannot be followed: {error}") from error
        if scheme not in {"", "env"}:
            raise _UnusableError(f"${{{scheme}:...}} has an unknown scheme; allowed: {', '.join(SCHEMES)}")
        name, has_default, default = rest.partition(":-")
        if not _NAME.fullmatch(name):
            allowed = "letters, digits and _, not a digit first"
            raise _UnusableError(f"{name!r} is no name of an environment variable; allowed: {allowed}")
        if name not in self.environ and not has_default:
            self.warnings.append(f"{as_text(path)}: the environment variable {name} is not set, the value is empty")
        return self.environ.get(name, default)


class _UnusableError(Exception):
    """A reference that cannot be followed."""


def _innermost(text: str) -> tuple[int, int] | None:
    """Start and end of the first reference that has none inside and whose $ is not escaped."""
    from_here = 0
    while (close := text.find("}", from_here)) >= 0:
        start = text.rfind("${", from_here, close)
        dollars = start
        while dollars > 0 and text[dollars - 1] == "$":
            dollars -= 1
        if start >= 0 and (start - dollars) % 2 == 0:
            return start, close + 1
        from_here = close + 1
    return None
